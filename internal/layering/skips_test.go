package layering

import (
	"go/ast"
	"go/token"
	"go/types"
	"maps"
	"slices"
	"strings"
	"testing"
)

// skipsWithReason are the files that may leave tests out by another rule than -short. Each must
// fail where CI=true.
var skipsWithReason = map[string]string{
	"tests/kit/settings.go": "CannotRun: Java or Chromium is missing, or the system allows no namespace; fails where CI=true",
}

// TestNoSilentSkips lets a test be left out by -short, and by the files above; never otherwise. So
// a green run with CI=true ran everything.
func TestNoSilentSkips(t *testing.T) {
	for _, fault := range checkSkips(readTree(t), skipsWithReason) {
		t.Error(fault)
	}
}

func checkSkips(tr *tree, reasons map[string]string) []string {
	var faults []string
	for _, folder := range slices.Sorted(maps.Keys(tr.packages)) {
		for _, file := range tr.packages[folder] {
			if reasons[file.name] != "" || !slices.Contains(file.imports(), "testing") {
				continue
			}
			for _, at := range skips(file.syntax) {
				faults = append(faults,
					tr.files.Position(at).String()+" skips a test without asking testing.Short: what cannot run must fail, or be argued in internal/layering/skips_test.go")
			}
		}
	}
	return faults
}

// skips finds calls of Skip and its kin that no condition with testing.Short guards.
func skips(n ast.Node) []token.Pos {
	var found []token.Pos
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.IfStmt:
			if strings.Contains(types.ExprString(n.Cond), "testing.Short()") {
				if n.Else != nil {
					found = append(found, skips(n.Else)...)
				}
				return false
			}
		case *ast.CallExpr:
			if s, ok := n.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, s.Sel.Name) {
				found = append(found, n.Pos())
			}
		}
		return true
	})
	return found
}

// TestNoSilentSkipsShow skips in every way.
func TestNoSilentSkipsShow(t *testing.T) {
	for name, test := range map[string]struct {
		body  string
		fault bool
	}{
		"short":         {"if testing.Short() && x { t.Skip() }", false},
		"never":         {"t.Log()", false},
		"always":        {"t.Skip(1)", true},
		"otherwise":     {"if testing.Short() { return } else { t.SkipNow() }", true},
		"other reasons": {"if x { t.Skipf(``) }", true},
	} {
		t.Run(name, func(t *testing.T) {
			tr := treeOf(t, map[string]string{
				"port/x_test.go": "package port\nimport \"testing\"\nfunc TestX(t *testing.T) {" + test.body + "}",
			})
			if faults := checkSkips(tr, nil); (len(faults) > 0) != test.fault {
				t.Errorf("faults %q, want some: %v", faults, test.fault)
			}
		})
	}
}
