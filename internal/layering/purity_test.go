package layering

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/token"
	"go/types"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// pure lists the code that may depend on nothing but its arguments: whole packages, or single files
// of one. It is what replay, standbys and rebuilds rely on, and what lets a test explore it without
// a clock.
var pure = map[string][]string{
	"broker-adapter":  {"plan.go", "standbys.go", "ranking.go"},
	"entities":        nil,
	"entities/record": nil,
	"partitions/core": nil,

	"internal/definitions":   {"entity.go", "state.go"},
	"crdt":                   nil,
	"crdt/wire":              nil,
	"projections/definition": nil,
	"projections/mapping":    nil,
	"projections/query":      {"filter.go", "predicate.go", "operand.go", "ranges.go", "page.go", "merge.go"},
}

// impureImports cannot be used without reaching outside.
var impureImports = map[string]string{
	"crypto/rand": "a random source", "math/rand": "a random source", "math/rand/v2": "a random source",
	"log": "a logger", "log/slog": "a logger", "os": "the outside world", "net": "the outside world", "sync": "shared state", "sync/atomic": "shared state",
}

// impureCalls reach outside through packages that are fine otherwise, or hand out a map's order.
var impureCalls = map[string]string{
	"time.Now": "the wall clock", "time.Since": "the wall clock", "time.Until": "the wall clock", "time.Sleep": "sleep",
	"time.After": "a timer", "time.AfterFunc": "a timer", "time.Tick": "a timer", "time.NewTimer": "a timer", "time.NewTicker": "a timer",
	"maps.All": "a map's order", "maps.Keys": "a map's order", "maps.Values": "a map's order",
}

// TestPurity looks for clock, timers, random sources, goroutines, loggers and the order of maps in
// code that must be pure.
func TestPurity(t *testing.T) {
	for _, fault := range checkPurity(readTree(t), pure, newStandard()) {
		t.Error(fault)
	}
}

// newStandard finds the types of the standard library, from its source.
func newStandard() types.Importer { return importer.ForCompiler(token.NewFileSet(), "source", nil) }

func checkPurity(tr *tree, rule map[string][]string, standard types.Importer) []string {
	var faults []string
	check := &typeCheck{tree: tr, standard: standard, done: map[string]*types.Package{}}
	for _, folder := range slices.Sorted(maps.Keys(rule)) {
		types := check.of(folder)
		files := rule[folder]
		for _, file := range tr.packages[folder] {
			if !file.test && (files == nil || slices.Contains(files, path.Base(file.name))) {
				faults = append(faults, checkFile(tr.files, file, types)...)
			}
		}
		for _, name := range files {
			if !slices.ContainsFunc(tr.packages[folder], func(s *source) bool { return path.Base(s.name) == name }) {
				faults = append(faults,
					fmt.Sprintf("%s/%s is named in internal/layering/purity_test.go and does not exist: name the file that took its place", folder, name))
			}
		}
	}
	return faults
}

// checkFile returns what is impure in one file, in the order of its lines.
func checkFile(files *token.FileSet, file *source, info *types.Info) []string {
	var faults []string
	found := func(at token.Pos, what string) {
		faults = append(faults, fmt.Sprintf("%s must be pure, and here is %s", files.Position(at), what))
	}
	for _, spec := range file.syntax.Imports {
		if name, _ := strconv.Unquote(spec.Path.Value); impureImports[name] != "" {
			found(spec.Pos(), impureImports[name]+" ("+name+")")
		}
	}
	sorted := map[ast.Node]bool{}
	ast.Inspect(file.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found(n.Pos(), "a goroutine")
		case *ast.RangeStmt:
			if operand := info.TypeOf(n.X); operand != nil && isMap(operand) {
				found(n.Pos(), "a map's order (range over "+types.ExprString(n.X)+"): sort its keys first")
			}
		case *ast.CallExpr:
			if name := selected(info, n.Fun); name == "slices.Sorted" || name == "slices.SortedFunc" {
				sorted[ast.Unparen(n.Args[0])] = true // of a map's keys: no order is left
			}
		case *ast.SelectorExpr:
			if name := selected(info, n); impureCalls[name] != "" {
				found(n.Pos(), impureCalls[name]+" ("+name+")")
			}
		}
		if call, ok := n.(*ast.CallExpr); ok && sorted[call] {
			return false
		}
		return true
	})
	return faults
}

func isMap(t types.Type) bool {
	_, ok := t.Underlying().(*types.Map)
	return ok
}

// selected names what a selector takes out of a package, as in time.Now, whatever name the import
// was given.
func selected(info *types.Info, e ast.Expr) string {
	selector, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	x, ok := selector.X.(*ast.Ident)
	if !ok {
		return ""
	}
	if name, ok := info.Uses[x].(*types.PkgName); ok {
		return name.Imported().Path() + "." + selector.Sel.Name
	}
	return ""
}

// typeCheck finds the types of our own packages from their source. Libraries stay unknown: none of
// them hands out maps to code that must be pure, and their types are no concern of it.
type typeCheck struct {
	tree     *tree
	standard types.Importer
	done     map[string]*types.Package
}

// of returns what is known about the expressions of one package.
func (c *typeCheck) of(folder string) *types.Info {
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	var files []*ast.File
	for _, file := range c.tree.packages[folder] {
		if !file.test {
			files = append(files, file.syntax)
		}
	}
	config := &types.Config{Importer: c, Error: func(error) {}} // libraries are missing; the compiler checks the rest
	c.done[folder], _ = config.Check(folder, c.tree.files, files, info)
	return info
}

// Import returns a package for the type checker.
func (c *typeCheck) Import(importPath string) (*types.Package, error) {
	folder, ours := own(importPath)
	switch {
	case isStandard(importPath):
		return c.standard.Import(importPath)
	case !ours:
		return nil, fmt.Errorf("%s: libraries stay unknown", importPath)
	}
	if _, known := c.done[folder]; !known {
		c.of(folder)
	}
	return c.done[folder], nil
}

// TestPurityShow puts everything into a package that must not be there.
func TestPurityShow(t *testing.T) {
	standard := newStandard()
	for name, test := range map[string]struct{ text, want string }{
		"wall clock":     {"import \"time\"\nvar F = time.Now", "the wall clock (time.Now)"},
		"renamed import": {"import when \"time\"\nfunc f() { when.Sleep(1) }", "sleep (time.Sleep)"},
		"random":         {"import \"math/rand/v2\"\nvar X = rand.Int()", "a random source (math/rand/v2)"},
		"logger":         {"import \"log/slog\"\nfunc f() { slog.Info(\"\") }", "a logger (log/slog)"},
		"goroutine":      {"func f() { go f() }", "a goroutine"},
		"map":            {"func f(m map[int]int) { for range m {} }", "a map's order (range over m): sort its keys first"},
		"named map":      {"type M map[int]int\ntype s struct{ m M }\nfunc f(x *s) { for range x.m {} }", "a map's order (range over x.m): sort its keys first"},
		"map of another": {"import \"" + module + "/words\"\nfunc f() { for range words.All() {} }", "a map's order (range over words.All()): sort its keys first"},
		"keys":           {"import \"maps\"\nfunc f(m map[int]int) { for range maps.Keys(m) {} }", "a map's order (maps.Keys)"},
		"sorted keys":    {"import (\"maps\"; \"slices\")\nfunc f(m map[int]int) { for range slices.Sorted(maps.Keys(m)) {} }", ""},
		"ordered keys":   {"import (\"cmp\"; \"maps\"; \"slices\")\nfunc f(m map[int]int) { for range slices.SortedFunc(maps.Keys(m), cmp.Compare) {} }", ""},
		"slice":          {"import \"time\"\nfunc f(s []time.Duration) { for range s {} }", ""},
	} {
		t.Run(name, func(t *testing.T) {
			tr := treeOf(t, map[string]string{
				"core/core.go": "package core\n" + test.text, "core/loop.go": "package core\nfunc g() { go g() }",
				"words/words.go": "package words\nfunc All() map[string]int { return nil }",
			})
			faults := checkPurity(tr, map[string][]string{"core": {"core.go"}}, standard)
			switch {
			case test.want == "" && len(faults) > 0:
				t.Errorf("faults %q, want none", faults)
			case test.want != "" &&
				!slices.ContainsFunc(faults,
					func(f string) bool { return strings.HasSuffix(f, "must be pure, and here is "+test.want) }):
				t.Errorf("faults %q, want %q", faults, test.want)
			}
		})
	}
	if faults := checkPurity(treeOf(t, nil), map[string][]string{"core": {"gone.go"}}, standard); len(faults) != 1 {
		t.Errorf("a file that is named and not there: faults %q", faults)
	}
}
