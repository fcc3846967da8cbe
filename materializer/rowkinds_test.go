package materializer

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/internal/invariant"
)

// TestKeySpaceDocument compares the tables of docs/keyspace.md with rowKinds: every kind must have
// its line there, in the table where it belongs, and there must be no other.
func TestKeySpaceDocument(t *testing.T) {
	content, err := os.ReadFile(filepath.Join("..", "docs", "keyspace.md"))
	if err != nil {
		t.Fatal(err)
	}
	document := string(content)
	ofPartition, ofEntity, found := strings.Cut(document, "\nThe rows of one entity lie together:\n")
	if !found {
		t.Fatal("docs/keyspace.md has no table of the rows of one entity")
	}
	lines := regexp.MustCompile("(?m)^\\| `.` \\| \\w+ \\| \\w+ \\|")
	for table, entity := range map[string]bool{ofPartition: false, ofEntity: true} {
		var want []string
		for i := range rowKinds {
			if k := &rowKinds[i]; k.entity == entity {
				since := "later"
				if k.since > 0 {
					since = fmt.Sprint(k.since)
				}
				want = append(want, fmt.Sprintf("| `%c` | %s | %s |", k.kind, k.name, since))
			}
		}
		got := lines.FindAllString(table, -1)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("docs/keyspace.md has\n%s\nand rowKinds\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	for _, w := range []string{
		fmt.Sprintf("# The key space of the store, version %d\n", FoldVersion),
		fmt.Sprintf("`FoldVersion`, today **%d**", FoldVersion),
	} {
		if !strings.Contains(document, w) {
			t.Errorf("docs/keyspace.md does not say %q", w)
		}
	}
}

// TestRowKindsAreWhole: what one column of the table says goes together with the others.
func TestRowKindsAreWhole(t *testing.T) {
	bytes, slots := map[string]bool{}, map[int]bool{}
	for i := range rowKinds {
		k := &rowKinds[i]
		if at := fmt.Sprint(k.entity, k.kind); bytes[at] {
			t.Errorf("%s: another kind has the byte %q", k.name, k.kind)
		} else {
			bytes[at] = true
		}
		if k.since == 0 {
			if k.key.valid != nil || k.beyond != nil || k.base != nil || k.image != nil {
				t.Errorf("%s is reserved, and there is more", k.name)
			}
			continue
		}
		switch {
		case k.since > FoldVersion:
			t.Errorf("%s is since fold version %d, which is %d", k.name, k.since, FoldVersion)
		case k.what == "" || k.key.valid == nil || k.key.text == nil:
			t.Errorf("%s: the table does not say how to show such a row", k.name)
		case k.embeds > 0 && (k.base != nil || k.image != nil):
			t.Errorf("%s embeds an address: a restoration would look for it under a wrong key", k.name)
		case k.local && (k.swept || k.relocated || k.base != nil || k.image != nil):
			t.Errorf("%s is written by no fold: there is nothing to compare or to restore", k.name)
		case k.slot > 0 && (!k.entity || k.slot > overlaySlots || slots[k.slot] || !k.key.valid(nil)):
			t.Errorf("%s: slot %d is taken, or not for such a row", k.name, k.slot)
		}
		slots[k.slot] = true
	}
}

// TestEachConstantIsInTheTable: a kind of rows that the table does not have could be written and
// would be unknown to everything else. It also holds switches over kinds out of all other files.
func TestEachConstantIsInTheTable(t *testing.T) {
	constant := regexp.MustCompile(`^(row|entity)[A-Z]\w*$`)
	type place struct {
		name   string
		kind   string
		entity bool
	}
	var declared, listed []place
	for i := range rowKinds {
		listed = append(listed, place{rowKinds[i].name, fmt.Sprintf("%q", rowKinds[i].kind), rowKinds[i].entity})
	}
	for name, file := range sources(t) {
		known := func(e ast.Expr) {
			ident, ok := e.(*ast.Ident)
			if ok && constant.MatchString(ident.Name) && slices.ContainsFunc(listed, func(p place) bool {
				return p.name == ident.Name
			}) &&
				name != "rowkinds.go" && ident.Name != "rowEntity" { // which says where the kind of a row of an entity stands
				t.Errorf("%s branches on %s: make it a column of rowKinds", name, ident.Name)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				if len(n.Values) != 1 {
					return true
				}
				if value, ok := n.Values[0].(*ast.BasicLit); ok && value.Kind == token.CHAR &&
					constant.MatchString(n.Names[0].Name) {
					declared = append(declared, place{n.Names[0].Name, value.Value, strings.HasPrefix(n.Names[0].Name, "entity")})
				}
			case *ast.CaseClause:
				for _, e := range n.List {
					known(e)
				}
			case *ast.BinaryExpr:
				if n.Op == token.EQL || n.Op == token.NEQ {
					known(n.X)
					known(n.Y)
				}
			}
			return true
		})
	}
	for _, p := range declared {
		if !slices.Contains(listed, p) {
			t.Errorf("rowKinds has no %s with byte %s", p.name, p.kind)
		}
	}
	for _, p := range listed {
		if !slices.Contains(declared, p) {
			t.Errorf("there is no constant %s with byte %s", p.name, p.kind)
		}
	}
}

// sources are the files of this package that are no tests.
func sources(t *testing.T) map[string]*ast.File {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]*ast.File{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		if files[name], err = parser.ParseFile(token.NewFileSet(), name, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// TestUnlistedKindsHaveNoKeys: in a checked build no key can be made for a kind that is not in the
// table, or reserved.
func TestUnlistedKindsHaveNoKeys(t *testing.T) {
	panics := func(key func()) (is bool) {
		defer func() { is = recover() != nil }()
		key()
		return false
	}
	for b := range 256 {
		kind := byte(b)
		if got, want := panics(func() {
			Address{}.row(nil, kind)
		}), invariant.Enabled && partitionRows[kind] == nil; got != want {
			t.Errorf("a key of a row of kind %q: panic %v, want %v", kind, got, want)
		}
		if got, want := panics(func() { entityRow(nil, kind) }), invariant.Enabled && entityRows[kind] == nil; got != want {
			t.Errorf("a key of a row of an entity, kind %q: panic %v, want %v", kind, got, want)
		}
	}
}

// TestRowNames: a row is shown by its kind and its key, one that is damaged by its bytes.
func TestRowNames(t *testing.T) {
	a := Address{Generation: 1, Partition: 2}
	entity := func(kind byte, rest string) []byte {
		return append(entityRow(appendEntity(nil, a, "cart", "1"), kind), rest...)
	}
	dedup := appendDedup(appendEntity(nil, a, "cart", "1"), "alice", "id")
	for want, key := range map[string][]byte{
		"position":                         a.metaKey(),
		"cart/1: head":                     entity(entityHead, ""),
		"cart/1: event 3":                  appendTail(entity(entityTail, "")[:len(entity(entityTail, ""))-1], 3),
		`cart/1: timer "t"`:                entity(entityTimer, "t"),
		"cart/1: stored answer":            dedup,
		"expiry 7":                         appendExpiry(nil, a, rowExpiry, 7, dedup),
		"effect of offset 9":               appendOffset(a, rowOutbox, 9),
		"effect of partition 5":            appendSource(nil, a, 1, 5),
		"timer due at 8, set at offset 9":  dueKey(a, 8, 9),
		"row 00010002":                     a.append(nil),
		"row 000100026f":                   a.row(nil, rowOutbox),
		"row 0001000273":                   append(a.append(nil), rowSaga),
		"row 0001000265046361727401317400": entity(entityTail, "\x00"),
		"row " + fmt.Sprintf("%x",
			append(appendEntity(nil, a, "cart", "1"), 0x3f)): append(appendEntity(nil, a, "cart", "1"), 0x3f),
		"row " + fmt.Sprintf("%x", a.append(nil)) + "65": a.row(nil, rowEntity),
	} {
		if got := rowName(key); got != want {
			t.Errorf("row %x is called %q, want %q", key, got, want)
		}
	}
}
