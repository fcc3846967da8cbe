# millrace: `make` alone explains itself. Every target runs on a laptop without containers; Go is all that most of them need.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Tools are pinned in tools/go.mod, a module of its own. The go command builds each once and keeps it.
TOOL := go tool -modfile=tools/go.mod

# What a few targets take: make stress PKG=./partitions RUN=TestContiguity
PKG ?= ./...
RUN ?= .
COUNT ?= 100
FUZZTIME ?= 30s
PART ?= all
DURATION ?= 1h
SOAK_sim := -run TestSimulation ./tests/sim
SOAK_all := $(SOAK_sim)
SOAK_cluster := -run TestFire/cluster ./tests/e2e/fire
SOAK_processes := -run 'TestFire/(embedded|kafka)' ./tests/e2e/fire
BASE ?= main

# A package gets this long before its goroutines are printed and it fails.
TIMEOUT ?= 10m

.PHONY: help
help: ## print this
	@awk 'BEGIN {FS = ":.*## "} /^## / {printf "\n%s\n", substr($$0, 4)} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## Everyday

.PHONY: all build run test test-short lint fmt clean
all: build test lint ## build, test, lint

build: ## build bin/millrace
	go build -o bin/millrace ./cmd/millrace

run: ## one process on a local port: embedded log, worker, gateway, the examples
	go run ./cmd/millrace dev

test: ## everything, race detector on; with Java 17 on a real Apache Kafka too
	go test -race -timeout $(TIMEOUT) ./...

test-short: ## fast tests: under a minute, no Kafka, no processes
	go test -short -timeout 2m $$(go list ./... | grep -v -e /tests/ -e /broker-adapter/kafka)

lint: ## all linters, each named with its reason in .golangci.yml
	$(TOOL) golangci-lint run ./...

fmt: ## format everything
	$(TOOL) golangci-lint fmt ./...
	$(TOOL) buf format -w

clean: ## remove what building and running leave behind; data in .millrace too
	rm -rf bin .millrace
	go clean -testcache

## Deeper tests

.PHONY: test-checked prove soak teeth stress conformance fuzz golden bench bench-compare scale
test-checked: ## everything with the assertions of internal/invariant switched on
	go test -tags checked -timeout $(TIMEOUT) ./...

prove: ## what docs/reliability.md promises, shown: PART=model|sim|processes|cluster|effects|timers|teeth, SIZE=ci|full
	@.ci/prove $(PART)

soak: ## for DURATION=8h, with a line of progress every ten seconds: the simulation, seed after seed, or PART=cluster|processes under fire, fault after fault
	@MILLRACE_SIM_DURATION=$(DURATION) MILLRACE_FIRE_DURATION=$(DURATION) go test -count 1 -timeout 0 -v $(or $(SOAK_$(PART)),$(error make soak: PART is $(PART); give sim, cluster or processes))

teeth: ## mutation tests: take the safety lines out one by one; the test of each must fail 50 of 50 times
	@.ci/teeth

stress: ## one test many times: PKG=./partitions RUN=TestContiguity COUNT=100
	go test -race -timeout 0 -failfast -count $(COUNT) -run '$(RUN)' $(PKG)

conformance: ## what Cloudstate asks of a proxy, case by case
	go test -count 1 -v -timeout $(TIMEOUT) ./tests/conformance/...

fuzz: ## every fuzz target for FUZZTIME=30s
	@grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | while IFS=: read -r file func; do \
		echo "$$(dirname "$$file") $${func#func }"; \
		go test -run '^$$' -fuzz "^$${func#func }$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")"; \
	done

golden: ## rewrite the transcripts under testdata/; read the diff before you commit it
	go test $$(go list -f '{{.ImportPath}} {{.TestImports}} {{.XTestImports}}' ./... | awk '/datadriven/ {print $$1}') -rewrite

bench: ## measure against a bare gRPC echo in the same run; forwarded commands and three workers against one on Kafka
	go run ./tests/bench

scale: ## simulate groups of 10, 100 and 1,000 workers: what breaks first? About two minutes
	go run ./tests/scale

bench-compare: ## Go benchmarks of PKG=./materializer here and at BASE=main, compared
	@base=$$(mktemp -d); trap 'git worktree remove --force "$$base/tree"; rm -rf "$$base"' EXIT; \
	git worktree add --quiet --detach "$$base/tree" $(BASE); \
	(cd "$$base/tree" && go test -run '^$$' -bench '$(RUN)' -count 6 $(PKG)) > "$$base/old.txt"; \
	go test -run '^$$' -bench '$(RUN)' -count 6 $(PKG) > "$$base/new.txt"; \
	$(TOOL) benchstat "$$base/old.txt" "$$base/new.txt"

## Kafka

.PHONY: kafka kafka-stop kafka-cluster kafka-cluster-stop
kafka: ## start a real Apache Kafka at 127.0.0.1:9092 (Java 17, and Maven the first time)
	@go run ./tests/kafkaserver/cmd start

kafka-stop: ## stop it
	@go run ./tests/kafkaserver/cmd stop

kafka-cluster: ## start three brokers at 127.0.0.1:9092, 9094 and 9096: replication 3, two must have a record
	@go run ./tests/kafkaserver/cmd -brokers 3 start

kafka-cluster-stop: ## stop them
	@go run ./tests/kafkaserver/cmd -brokers 3 stop

## Generated files and consistency checks

.PHONY: generate check-generated proto-check cli-reference fmt-check tidy-check vuln
generate: ## generated Go from proto files
	$(TOOL) buf generate

check-generated: ## check that generated code and docs/cli.md are up to date
	@sums() { find . -name '*.pb.go' -o -path ./docs/cli.md | sort | xargs sha256sum; }; \
	before=$$(sums); $(MAKE) generate cli-reference; \
	diff <(echo "$$before") <(sums) || { echo "these files were behind their sources; they are current now: commit them" >&2; exit 1; }

proto-check: ## lint proto files; no change on main's wire or JSON form
	$(TOOL) buf lint
	@if git rev-parse --quiet --verify main^{commit} >/dev/null; then \
		$(TOOL) buf breaking --against '.git#branch=main'; \
	else echo "no branch main to compare with: breaking changes were not looked for"; fi

cli-reference: ## docs/cli.md from the program's own help
	@go build -o bin/millrace ./cmd/millrace
	@.ci/cli-reference bin/millrace > docs/cli.md

fmt-check: ## is everything formatted?
	$(TOOL) golangci-lint fmt --diff ./...
	$(TOOL) buf format --diff --exit-code

tidy-check: ## do go.mod and go.sum list what is imported, and no more?
	go mod tidy -diff
	cd tools && go mod tidy -diff

vuln: ## known vulnerabilities in what we call
	$(TOOL) govulncheck ./...
