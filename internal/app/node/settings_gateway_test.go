package node

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestGatewayHasTheSettingsThatItReads compares process:"worker" with the source: a setting that a
// gateway reads is offered to it, and none else.
func TestGatewayHasTheSettingsThatItReads(t *testing.T) {
	read := map[string]bool{}
	reading := &configReader{functions: map[string]*ast.FuncDecl{}, read: read}
	reading.parse(t, ".")
	for name := range reading.functions {
		if strings.HasPrefix(name, "Gateway.") || strings.HasPrefix(name, "gatewayProcess.") || strings.HasPrefix(name, "process.") {
			reading.follow(name)
		}
	}
	reading = &configReader{functions: map[string]*ast.FuncDecl{}, read: read}
	reading.parse(t, "../cli")
	for _, name := range []string{"startGateway", "Program.serve", "logHandler"} {
		reading.follow(name)
	}
	got := map[string]bool{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		if read[f.Name] && f.Anonymous {
			for _, part := range reflect.VisibleFields(f.Type) {
				got[part.Tag.Get("name")] = true
			}
		} else if read[f.Name] {
			got[f.Tag.Get("name")] = true
		}
	}
	want := map[string]bool{}
	for _, s := range GatewaySettings() {
		want[s.Name] = true
	}
	if !maps.Equal(got, want) {
		t.Errorf("a gateway reads  %q\nand is offered    %q: say process:\"worker\" of those that it does not read, and of no others",
			slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
}

// configReader finds which fields of a Config the functions of a package read. A Config is what is
// called c, config or Config.
type configReader struct {
	functions map[string]*ast.FuncDecl
	read      map[string]bool
}

func (r *configReader) parse(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no source in %s: %v", dir, err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				r.functions[receiver(f)+f.Name.Name] = f
			}
		}
	}
}

// receiver returns "Gateway." of a method of Gateway, and "" of a function.
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	typ := f.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if name, ok := typ.(*ast.Ident); ok {
		return name.Name + "."
	}
	return ""
}

// follow reads a function, the functions of the package that it calls, and the methods of its
// Config.
func (r *configReader) follow(name string) {
	f := r.functions[name]
	if f == nil || f.Body == nil {
		return
	}
	delete(r.functions, name)
	ast.Inspect(f.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if called, ok := n.Fun.(*ast.Ident); ok {
				r.follow(called.Name)
			}
		case *ast.SelectorExpr:
			if isConfig(n.X) {
				r.read[n.Sel.Name] = true
				r.follow("Config." + n.Sel.Name)
			}
		}
		return true
	})
}

func isConfig(e ast.Expr) bool {
	name := ""
	switch e := e.(type) {
	case *ast.Ident:
		name = e.Name
	case *ast.SelectorExpr:
		name = e.Sel.Name
	}
	return name == "c" || name == "config" || name == "Config"
}
