package layering

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// library is a third-party module: what it is for, and which of our packages may import it. /...
// matches everything below a name, and the name itself.
type library struct {
	is string
	in []string
	// tests are packages, or patterns, whose tests may know it too.
	tests []string
}

const everywhere = "..."

// libraries says for every third-party module where it may be imported. A new one needs a row here
// and a line in an ADR that says what it replaces. The longest name that fits an import counts.
var libraries = map[string]library{
	"github.com/twmb/franz-go": {
		is: "the Kafka client", in: []string{"broker-adapter/kafka/...", "tests/..."},
	},
	"github.com/cockroachdb/pebble/v2": {
		is: "the storage engine", in: []string{"broker-adapter/embedded", "materializer/pebblestore"},
		tests: []string{"projections"},
	},
	"github.com/cockroachdb/errors/oserror": {is: "how Pebble's file system says that a file is missing", in: []string{"broker-adapter/embedded"}},
	"github.com/prometheus/client_golang":   {is: "metrics", in: []string{"internal/observe", "internal/app/admin"}},
	"go.opentelemetry.io/otel":              {is: "spans, and their export", in: []string{"internal/tracing"}},
	"go.opentelemetry.io/proto/otlp":        {is: "an endpoint for spans, to look at them", tests: []string{"internal/tracing", "internal/app/node"}},
	"github.com/goccy/go-yaml":              {is: "YAML with line numbers", in: []string{"internal/app/node"}},
	"cel.dev/cel-go":                        {is: "expressions of definitions: ADR 36", in: []string{"projections", "projections/definition", "projections/mapping"}},
	"go.yaml.in/yaml/v3":                    {is: "YAML as a tree with positions: ADR 36", in: []string{"projections/definition"}},
	"github.com/spf13/cobra":                {is: "the command tree", in: []string{"internal/app/cli"}},
	"github.com/spf13/pflag":                {is: "cobra's flags", in: []string{"internal/app/cli"}},
	"github.com/schollz/progressbar/v3":     {is: "the progress bar of a rebuild", in: []string{"internal/app/cli"}},
	"golang.org/x/term":                     {is: "whether the output is a terminal", in: []string{"internal/app/cli"}},
	"github.com/robfig/cron/v3":             {is: "schedules of recurring timers", in: []string{"internal/schedule"}},
	"github.com/cespare/xxhash/v2":          {is: "the hash of a command, by which a reused id is detected", in: []string{"partitions/core"}},
	"google.golang.org/grpc": {
		is: "gRPC",
		in: []string{
			"proto/gen/...", "gateway", "entities/discovery", "entities/host", "partitions/peer", "internal/multiplex",
			"internal/app/admin", "internal/app/node", "internal/app/cli", "internal/definitions", "projections/query/remote",
			"sdk/...", "examples/...", "tests/...",
		},
		tests: []string{everywhere},
	},
	"google.golang.org/grpc/codes": {
		is: "the codes that a refusal can have: they are part of what a user writes", in: []string{everywhere},
	},
	"connectrpc.com/connect":     {is: "a client of Connect and gRPC-Web", tests: []string{"gateway", "tests/..."}},
	"golang.org/x/sys":           {is: "CPU time and disk traffic of a process, for the benchmarks", in: []string{"tests/..."}},
	"golang.org/x/net":           {is: "HTTP/2 frames: the gateway sniffs connections", in: []string{"gateway", "tests/..."}},
	"google.golang.org/genproto": {is: "Google's annotations and error details", in: []string{"gateway/...", "entities/discovery", "internal/app/node", "projections/definition", "examples/...", "tests/..."}},
	"google.golang.org/protobuf": {is: "protobuf", in: []string{"proto/gen/...", "crdt/wire", "entities/discovery", "entities/host", "entities/record", "partitions", "partitions/core", "partitions/peer", "internal/fields", "internal/multiplex", "gateway/...", "internal/app/admin", "internal/app/node", "internal/app/cli", "internal/app/scaffold", "internal/definitions", "projections", "projections/definition", "projections/mapping", "projections/query", "projections/query/remote", "sdk/...", "examples/...", "tests/..."}, tests: []string{everywhere}},
	"github.com/bufbuild/protocompile": {
		is: "proto files at run time", in: []string{"tests/..."},
		tests: []string{"entities/...", "gateway/...", "internal/layering", "projections/..."},
	},

	// Test libraries. No product code imports one.
	"go.uber.org/goleak":                {is: "goroutines leaked by a test", in: []string{"internal/leaktest", "tests/..."}, tests: []string{everywhere}},
	"github.com/cockroachdb/datadriven": {is: "transcript tests", tests: []string{everywhere}},
	"github.com/rogpeppe/go-internal":   {is: "command line tests as scripts", tests: []string{"internal/app/cli", "tests/..."}},
	"pgregory.net/rapid":                {is: "property tests", tests: []string{everywhere}},
	"github.com/anishathalye/porcupine": {is: "linearizability of a history", tests: []string{"tests/..."}},
}

// TestLibraries compares every import of a third-party package with the table.
func TestLibraries(t *testing.T) {
	for _, fault := range checkLibraries(readTree(t), libraries) {
		t.Error(fault)
	}
}

func checkLibraries(tr *tree, table map[string]library) []string {
	var faults []string
	for _, folder := range slices.Sorted(maps.Keys(tr.packages)) {
		for _, file := range tr.packages[folder] {
			for _, name := range file.imports() {
				if fault := checkLibrary(table, folder, name, file.test); fault != "" {
					faults = append(faults, file.name+" imports "+name+": "+fault)
				}
			}
		}
	}
	return faults
}

func checkLibrary(table map[string]library, folder, name string, test bool) string {
	if _, ours := own(name); ours || isStandard(name) {
		return ""
	}
	longest := ""
	for module := range table {
		if within(name, module+"/...") && len(module) > len(longest) {
			longest = module
		}
	}
	lib, known := table[longest]
	fits := func(pattern string) bool { return within(folder, pattern) }
	switch {
	case !known:
		return "it has no row in internal/layering/libraries_test.go: add one with what it is for and which packages may import it"
	case slices.ContainsFunc(lib.in, fits), test && slices.ContainsFunc(lib.tests, fits):
		return ""
	}
	return fmt.Sprintf("%s (%s) is for %s only; its tests: %s", longest, lib.is, list(lib.in), list(lib.tests))
}

// isStandard says whether an import path is the standard library's: those have no dot in their
// first name.
func isStandard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// within reports whether a pattern matches a name.
func within(name, pattern string) bool {
	above, tree := strings.CutSuffix(pattern, "...")
	if !tree {
		return name == pattern
	}
	return strings.HasPrefix(name+"/", above)
}

// TestLibrariesShow confines a library and imports it elsewhere.
func TestLibrariesShow(t *testing.T) {
	table := map[string]library{
		"example.org/db":       {is: "a database", in: []string{"store"}, tests: []string{"suite/..."}},
		"example.org/db/codes": {is: "its codes", in: []string{everywhere}},
	}
	const db, codes, other, std = `"example.org/db/v2"`, `"example.org/db/codes"`, `"example.org/dbx"`, `"net/http"`
	for name, test := range map[string]struct {
		file, imports string
		want          string // how the fault begins, after the import; "" for none
	}{
		"at home":               {"store/store.go", db, ""},
		"standard library":      {"port/port.go", std, ""},
		"part with its own row": {"port/port.go", codes, ""},
		"elsewhere":             {"port/port.go", db, "example.org/db (a database) is for store only"},
		"below is not at home":  {"store/below/x.go", db, "example.org/db (a database) is for store only"},
		"suite's test":          {"suite/x/x_test.go", db, ""},
		"suite's product":       {"suite/x/x.go", db, "example.org/db (a database) is for store only"},
		"not known":             {"store/store.go", other, "it has no row in internal/layering/libraries_test.go"},
	} {
		t.Run(name, func(t *testing.T) {
			faults := checkLibraries(treeOf(t, map[string]string{test.file: "package x\nimport _ " + test.imports}), table)
			got := strings.Join(faults, "\n")
			want := fmt.Sprintf("%s imports %s: %s", test.file, strings.Trim(test.imports, `"`), test.want)
			if (test.want == "") != (got == "") || !strings.HasPrefix(got, want) && got != "" {
				t.Errorf("faults %q, want one that begins %q", got, want)
			}
		})
	}
}
