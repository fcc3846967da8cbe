package materializer

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestKeySpaceDocument compares the tables of docs/keyspace.md with the constants of keyspace.go: every byte must stand there
// under its name, and nothing else may.
func TestKeySpaceDocument(t *testing.T) {
	content, err := os.ReadFile(filepath.Join("..", "docs", "keyspace.md"))
	if err != nil {
		t.Fatal(err)
	}
	document := string(content)
	constants := keyBytes(t)
	for name, value := range constants {
		if w := fmt.Sprintf("| `%s` | %s |", value, name); !strings.Contains(document, "\n"+w) {
			t.Errorf("docs/keyspace.md has no line that begins %q", w)
		}
	}
	if got := len(regexp.MustCompile("(?m)^\\| `.` \\|").FindAllString(document, -1)); got != len(constants) {
		t.Errorf("docs/keyspace.md has %d lines with a byte, keyspace.go %d", got, len(constants))
	}
	for _, w := range []string{
		fmt.Sprintf("# The key space of the store, version %d\n", FoldVersion), fmt.Sprintf("`FoldVersion`, today **%d**", FoldVersion),
	} {
		if !strings.Contains(document, w) {
			t.Errorf("docs/keyspace.md does not say %q", w)
		}
	}
}

// TestKeyBytesDiffer holds the kinds of rows apart, those that are reserved for later included.
func TestKeyBytesDiffer(t *testing.T) {
	for _, bytes := range [][]byte{
		{rowMeta, rowEntity, rowExpiry, rowRouted, rowOutbox, rowParked, rowRefused, rowDelivered, rowTimer, rowHalted, rowSuspected, rowSaga, rowProjection, rowCell},
		{entityHead, entityState, entityTail, entityIndex, entityDedup, entityTimer},
	} {
		seen := map[byte]bool{}
		for _, b := range bytes {
			if seen[b] {
				t.Errorf("two kinds of rows have the byte %q", b)
			}
			seen[b] = true
		}
	}
}

// keyBytes reads the constants row… and entity… and their bytes from the source, so that none can be left out here.
func keyBytes(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "keyspace.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	constants := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		value, ok := spec.Values[0].(*ast.BasicLit)
		if ok && value.Kind == token.CHAR {
			constants[spec.Names[0].Name] = strings.Trim(value.Value, "'")
		}
		return true
	})
	if len(constants) == 0 {
		t.Fatal("keyspace.go has no constants that are bytes")
	}
	return constants
}
