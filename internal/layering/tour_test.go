package layering

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// tourStep is a line of the tour's table: number, file, the functions there, what happens.
	tourStep = regexp.MustCompile(`(?m)^ ?\d+  (\S+\.go)\s+(.+?)   *\S`)
	// declaredThere is "`name` in `file`" in the text of a page.
	declaredThere = regexp.MustCompile("`(\\w+)` in\\s+`([\\w/.-]+\\.go)`")
)

// TestTourNamesWhatExists looks for every function that docs/tour.md names in the file that it
// names.
func TestTourNamesWhatExists(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "tour.md"))
	if err != nil {
		t.Fatal(err)
	}
	declared := declaredNames(readTree(t))
	check := func(file, name string) {
		if !declared[file+" "+name] {
			t.Errorf("docs/tour.md: %s does not declare %s", file, name)
		}
	}
	steps := tourStep.FindAllStringSubmatch(string(page), -1)
	if len(steps) < 10 {
		t.Fatalf("found %d steps in docs/tour.md: has its table another form?", len(steps))
	}
	for _, step := range steps {
		for name := range strings.SplitSeq(step[2], ", ") {
			check(step[1], name)
		}
	}
	for _, found := range declaredThere.FindAllStringSubmatch(string(page), -1) {
		check(found[2], found[1])
	}
}

// declaredNames lists "file name" for each function, method and type of a tree, and for the methods
// of interfaces.
func declaredNames(tr *tree) map[string]bool {
	names := map[string]bool{}
	for _, files := range tr.packages {
		for _, file := range files {
			ast.Inspect(file.syntax, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncDecl:
					names[file.name+" "+n.Name.Name] = true
				case *ast.TypeSpec:
					names[file.name+" "+n.Name.Name] = true
					if methods, ok := n.Type.(*ast.InterfaceType); ok {
						for _, m := range methods.Methods.List {
							for _, name := range m.Names {
								names[file.name+" "+name.Name] = true
							}
						}
					}
				}
				return true
			})
		}
	}
	return names
}
