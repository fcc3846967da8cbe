# millrace: `make` prints the targets. All of them run on a laptop without containers; most need only Go.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Tools are pinned in tools/go.mod, a separate module. The go command builds each once and caches it.
TOOL := go tool -modfile=tools/go.mod

# Parameters of some targets: make stress PKG=./partitions RUN=TestContiguity
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
# Packages whose tests start several processes or brokers and measure what those do within seconds:
# one at a time, or they wait for each other's processors.
ALONE := /broker-adapter/kafka$$|/internal/app/node$$|/tests/(browser|connect|scale|kafkaserver)$$|/tests/(conformance|e2e)(/|$$)

# Time limit for the tests of a package; then its goroutines are printed and it fails.
TIMEOUT ?= 10m

.PHONY: help
help: ## print this
	@awk 'BEGIN {FS = ":.*## "} /^## / {n++; head[n] = substr($$0, 4)} \
		/^[a-z-]+:.*## / {n++; name[n] = $$1; text[n] = $$2; if (length($$1) > width) width = length($$1)} \
		END {for (i = 1; i <= n; i++) if (i in head) printf "\n%s\n", head[i]; else printf "  make %-*s  %s\n", width, name[i], text[i]}' \
		$(MAKEFILE_LIST)

## Everyday

.PHONY: all build run test test-short lint fmt clean
all: build test lint ## build, test, lint

build: ## build bin/millrace
	go build -o bin/millrace ./cmd/millrace

run: ## one process with embedded log, worker, gateway and the examples, on local ports
	go run ./cmd/millrace dev

test: ## all tests with the race detector; with Java 17 also on a real Apache Kafka
	@failed=0; all=$$(go list ./...); \
	go test -race -timeout $(TIMEOUT) $$(grep -vE '$(ALONE)' <<<"$$all") || failed=1; \
	go test -race -timeout $(TIMEOUT) -p 1 $$(grep -E '$(ALONE)' <<<"$$all") || failed=1; \
	exit $$failed

test-short: ## fast tests: under a minute, no Kafka, no processes
	go test -short -timeout 2m $$(go list ./... | grep -v -e /tests/ -e /broker-adapter/kafka)

lint: ## all linters of .golangci.yml
	$(TOOL) golangci-lint run ./...

fmt: ## format everything
	$(TOOL) golangci-lint fmt ./...
	$(TOOL) buf format -w

clean: ## remove build results, test caches and the data in .millrace
	rm -rf bin .millrace
	go clean -testcache

## Deeper tests

.PHONY: cross
cross: ## build for Windows, and vet for macOS what has files of its own there
	GOOS=windows go build ./cmd/... ./examples/... ./sdk/...
	GOOS=darwin go vet ./internal/app/node ./internal/app/cli ./tests/kit

.PHONY: test-checked prove soak teeth stress conformance fuzz golden bench bench-compare scale
test-checked: ## all tests with the assertions of internal/invariant
	go test -tags checked -timeout $(TIMEOUT) ./...

prove: ## test the guarantees of docs/reliability.md: PART=model|sim|processes|cluster|effects|timers|read-side|teeth, SIZE=ci|full
	@.ci/prove $(PART)

soak: ## for DURATION=8h, with progress every ten seconds: the simulation, seed after seed, or PART=cluster|processes with fault injection
	@MILLRACE_SIM_DURATION=$(DURATION) MILLRACE_FIRE_DURATION=$(DURATION) go test -count 1 -timeout 0 -v $(or $(SOAK_$(PART)),$(error make soak: PART is $(PART); give sim, cluster or processes))

teeth: ## mutation tests: remove each safety line; its test must fail 50 of 50 times
	@.ci/teeth

stress: ## one test many times: PKG=./partitions RUN=TestContiguity COUNT=100
	go test -race -timeout 0 -failfast -count $(COUNT) -run '$(RUN)' $(PKG)

conformance: ## the acceptance tests of the Cloudstate protocol
	go test -count 1 -v -timeout $(TIMEOUT) ./tests/conformance/...

fuzz: ## run every fuzz target for FUZZTIME=30s
	@grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | while IFS=: read -r file func; do \
		echo "$$(dirname "$$file") $${func#func }"; \
		go test -run '^$$' -fuzz "^$${func#func }$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")"; \
	done

golden: ## rewrite the transcripts under testdata/; read the diff before you commit it
	go test $$(go list -f '{{.ImportPath}} {{.TestImports}} {{.XTestImports}}' ./... | awk '/datadriven/ {print $$1}') -rewrite

bench: ## benchmarks against a bare gRPC echo; forwarded commands, and three workers against one on Kafka
	go run ./tests/bench

scale: ## simulate groups of 10, 100 and 1,000 workers; about two minutes
	go run ./tests/scale

bench-compare: ## compare the Go benchmarks of PKG=./materializer with those at BASE=main
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

kafka-cluster: ## start three brokers at 127.0.0.1:9092, 9094 and 9096, with replication 3 and min.insync 2
	@go run ./tests/kafkaserver/cmd -brokers 3 start

kafka-cluster-stop: ## stop them
	@go run ./tests/kafkaserver/cmd -brokers 3 stop

## Generated files and consistency checks

.PHONY: generate check-generated proto-check cli-reference fmt-check tidy-check vuln
generate: ## generate Go code from proto files
	$(TOOL) buf generate

check-generated: ## check that generated code and docs/cli.md are up to date
	@sums() { find . -name '*.pb.go' -o -path ./docs/cli.md | sort | xargs sha256sum; }; \
	before=$$(sums); $(MAKE) generate cli-reference; \
	diff <(echo "$$before") <(sums) || { echo "these files were out of date and have been updated: commit them" >&2; exit 1; }

proto-check: ## lint proto files and check for breaking changes against main
	$(TOOL) buf lint
	@if git rev-parse --quiet --verify main^{commit} >/dev/null; then \
		$(TOOL) buf breaking --against '.git#branch=main'; \
	else echo "no branch main: breaking changes were not checked"; fi

cli-reference: ## generate docs/cli.md from the help texts
	@go build -o bin/millrace ./cmd/millrace
	@.ci/cli-reference bin/millrace > docs/cli.md

fmt-check: ## check the formatting
	$(TOOL) golangci-lint fmt --diff ./...
	$(TOOL) buf format --diff --exit-code

tidy-check: ## check that go.mod and go.sum are tidy
	go mod tidy -diff
	cd tools && go mod tidy -diff
	cd tests/connect/runner && go mod tidy -diff

vuln: ## look for known vulnerabilities
	$(TOOL) govulncheck ./...
