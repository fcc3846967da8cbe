package layering

import (
	"go/ast"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

// kindFiles are the files that name each kind of entities: its row or value in a table, and its
// own. Beside them, a kind with frames or records of its own has them in session.proto and
// record.proto.
var kindFiles = map[string][]string{
	"event sourced": {
		"entities/kind.go", "entities/record/envelope.go",
		"entities/host/kind.go", "entities/host/eventsourced.go",
		"materializer/entitykinds.go", "materializer/eventsourced.go", "projections/record.go",
		"sdk/kind.go", "sdk/eventsourced.go", "sdk/server_eventsourced.go",
	},
	"value": {
		"entities/kind.go", "entities/record/envelope.go",
		"entities/host/kind.go", "entities/host/value.go",
		"materializer/entitykinds.go", "materializer/value.go", "projections/record.go",
		"sdk/kind.go", "sdk/value.go", "sdk/server_value.go",
	},
	"action":     {"entities/kind.go", "entities/host/action.go", "sdk/kind.go", "sdk/action.go", "sdk/server_action.go"},
	"replicated": {"entities/kind.go", "crdt/wire/in.go", "crdt/wire/out.go"},
}

// mostKindFiles is how many files a kind may cost (docs/adr/0021).
const mostKindFiles = 12

// kindOfName are the names that only one kind has: constants, kinds of records, and packages of
// messages.
var kindOfName = map[string]string{
	"entities.EventSourced": "event sourced", "entities.Value": "value", "entities.Action": "action", "entities.Replicated": "replicated",
	"sdk.KindEventSourced": "event sourced", "sdk.KindValue": "value", "sdk.KindAction": "action",
	"record.Event": "event sourced", "record.Snapshot": "event sourced", "record.State": "value", "record.Delete": "value",
	"proto/gen/cloudstate/eventsourced": "event sourced", "proto/gen/cloudstate/valueentity": "value",
	"proto/gen/cloudstate/action": "action", "proto/gen/cloudstate/crdt": "replicated",
}

// TestKindsAreNamedInFewFiles: what is not about one kind does not name one.
func TestKindsAreNamedInFewFiles(t *testing.T) {
	for _, fault := range checkKinds(readTree(t), kindFiles) {
		t.Error(fault)
	}
	for kind, files := range kindFiles {
		if len(files) > mostKindFiles {
			t.Errorf("a kind such as %q costs %d files, and the aim is %d", kind, len(files), mostKindFiles)
		}
	}
}

func checkKinds(tr *tree, table map[string][]string) []string {
	named := map[string]map[string]bool{}
	for _, folder := range slices.Sorted(maps.Keys(tr.packages)) {
		if within(folder, "tests/...") || within(folder, "examples/...") {
			continue
		}
		for _, file := range tr.packages[folder] {
			if file.test || file.generated {
				continue
			}
			for name := range namesIn(file, path.Base(folder)) {
				if kind := kindOfName[name]; kind != "" {
					if named[kind] == nil {
						named[kind] = map[string]bool{}
					}
					named[kind][file.name] = true
				}
			}
		}
	}
	var faults []string
	for _, kind := range slices.Sorted(maps.Keys(table)) {
		for _, file := range slices.Sorted(maps.Keys(named[kind])) {
			if !slices.Contains(table[kind], file) {
				faults = append(faults, file+" names the kind "+kind+": ask entities.KindSpec, or put it into the file of the kind")
			}
		}
		for _, file := range table[kind] {
			if !named[kind][file] {
				faults = append(faults, file+" does not name the kind "+kind+" any more: take it out of the table")
			}
		}
	}
	return faults
}

// namesIn returns what a file names: package.Name of other packages and of its own constants, and
// the packages of ours that it imports.
func namesIn(file *source, pkg string) map[string]bool {
	names := map[string]bool{}
	for _, name := range file.imports() {
		if ours, ok := own(name); ok {
			names[ours] = true
		}
	}
	ast.Inspect(file.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if of, ok := n.X.(*ast.Ident); ok {
				names[of.Name+"."+n.Sel.Name] = true
			}
		case *ast.ValueSpec:
			for _, name := range n.Names {
				names[pkg+"."+name.Name] = true
			}
		case *ast.Ident:
			if strings.HasPrefix(n.Name, "Kind") {
				names[pkg+"."+n.Name] = true
			}
		}
		return true
	})
	return names
}

// TestKindsShow names kinds where they may not be named.
func TestKindsShow(t *testing.T) {
	const imports = "import \"github.com/millrace-io/millrace/entities\"\n"
	table := map[string][]string{"value": {"port/value.go"}}
	for name, test := range map[string]struct {
		files map[string]string
		want  string
	}{
		"in its file": {map[string]string{"port/value.go": imports + "var k = entities.Value"}, ""},
		"in a test":   {map[string]string{"port/value.go": imports + "var k = entities.Value", "port/x_test.go": imports + "var l = entities.Value"}, ""},
		"elsewhere":   {map[string]string{"port/value.go": imports + "var k = entities.Value", "port/x.go": imports + "var l = entities.Value"}, "port/x.go names the kind value"},
		"by messages": {
			map[string]string{
				"port/value.go": imports + "var k = entities.Value",
				"port/x.go":     "import _ \"github.com/millrace-io/millrace/proto/gen/cloudstate/valueentity\"",
			},
			"port/x.go names the kind value",
		},
		"in the sdk":   {map[string]string{"port/value.go": imports + "var k = entities.Value", "sdk/x.go": "var l = KindValue"}, "sdk/x.go names the kind value"},
		"not any more": {map[string]string{"port/value.go": ""}, "port/value.go does not name the kind value"},
	} {
		t.Run(name, func(t *testing.T) {
			for file, text := range test.files {
				test.files[file] = "package " + path.Base(path.Dir(file)) + "\n" + text
			}
			got := strings.Join(checkKinds(treeOf(t, test.files), table), "\n")
			if !strings.HasPrefix(got, test.want) || (test.want == "") != (got == "") {
				t.Errorf("faults %q, want one that begins %q", got, test.want)
			}
		})
	}
}
