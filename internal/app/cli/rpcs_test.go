package cli

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// withoutCommand are the methods of the admin service that no command calls, each with the reason.
// There is none now.
var withoutCommand = map[string]string{}

// TestEveryMethodHasACommand looks for a call of each method of the admin service in the source of
// the commands. That each has a handler the compiler checks: admin.Service embeds nothing that
// answers for a method.
func TestEveryMethodHasACommand(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	called := map[string]bool{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(file.Imports,
			func(i *ast.ImportSpec) bool { return strings.Contains(i.Path.Value, "/admin/v1") }) {
			continue
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if method, ok := call.Fun.(*ast.SelectorExpr); ok {
					called[method.Sel.Name] = true
				}
			}
			return true
		})
	}
	methods := adminv1.File_millrace_admin_v1_admin_proto.Services().ByName("AdminService").Methods()
	for i := range methods.Len() {
		name := string(methods.Get(i).Name())
		reason, listed := withoutCommand[name]
		switch {
		case !called[name] && reason == "":
			t.Errorf("no command calls %s: write one in a file of this package, or say in withoutCommand why there is none",
				name)
		case called[name] && listed:
			t.Errorf("%s is in withoutCommand, and a command calls it", name)
		}
	}
}
