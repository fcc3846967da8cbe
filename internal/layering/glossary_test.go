package layering

import (
	"go/ast"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// wordOf finds the words of a name: HandOver is Hand, Over.
var wordOf = regexp.MustCompile(`[A-Z]+[a-z0-9]*|[a-z0-9]+`)

// TestNamesKeepToTheGlossary looks for words in declared names, exported or not, in tests too, that
// docs/glossary.md says are not used, or that goneWords has.
func TestNamesKeepToTheGlossary(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "glossary.md"))
	if err != nil {
		t.Fatal(err)
	}
	banned := bannedWords(string(page))
	if len(banned) < 5 {
		t.Fatalf("found %d words in docs/glossary.md that are not used: has its last section another form?", len(banned))
	}
	for _, fault := range checkNames(readTree(t), banned) {
		t.Error(fault)
	}
}

// bannedWords returns the single words of the list in the glossary's last section.
func bannedWords(page string) map[string]bool {
	_, section, _ := strings.Cut(page, "## Words that are not used")
	_, list, _ := strings.Cut(section, ":")
	list, _, _ = strings.Cut(list, "\n\n") // behind it stands what to write instead
	banned := map[string]bool{}
	for word := range strings.SplitSeq(regexp.MustCompile(`\([^)]*\)|"[^"]*"`).ReplaceAllString(list, ""), ",") {
		if word = strings.Trim(word, " .\n"); word != "" && !strings.ContainsAny(word, " \n") {
			banned[strings.ToLower(word)] = true
		}
	}
	return banned
}

func checkNames(tr *tree, banned map[string]bool) []string {
	var faults []string
	for _, folder := range slices.Sorted(maps.Keys(tr.packages)) {
		for _, file := range tr.packages[folder] {
			if file.generated {
				continue
			}
			ast.Inspect(file.syntax, func(n ast.Node) bool {
				for _, name := range declaredBy(n) {
					for _, word := range wordOf.FindAllString(name.Name, -1) {
						if banned[strings.ToLower(word)] || goneWords.MatchString(word) {
							faults = append(faults,
								file.name+" has the name "+name.Name+": docs/glossary.md does not use "+strings.ToLower(word))
						}
					}
				}
				return true
			})
		}
	}
	return faults
}

// declaredBy returns the names that a node declares.
func declaredBy(n ast.Node) []*ast.Ident {
	switch n := n.(type) {
	case *ast.FuncDecl:
		return []*ast.Ident{n.Name}
	case *ast.TypeSpec:
		return []*ast.Ident{n.Name}
	case *ast.ValueSpec:
		return n.Names
	case *ast.Field:
		return n.Names
	default:
		return nil
	}
}

// TestNamesShow declares names with banned words.
func TestNamesShow(t *testing.T) {
	banned := bannedWords(
		"## Words that are not used\n\nIn names: nobody, mend, sound\n(for the log's end), \"on the move\".\n")
	if !banned["nobody"] || !banned["mend"] || len(banned) != 3 {
		t.Fatalf("read %v", banned)
	}
	for name, text := range map[string]string{
		"a type": "type MendAll struct{}", "a function": "func Nobody() {}", "a field": "type T struct{ Nobody int }",
		"a method": "type T struct{}\nfunc (T) MendIt() {}", "an unexported one": "func mendAll() {}",
	} {
		if faults := checkNames(treeOf(t, map[string]string{"port/port.go": "package port\n" + text}),
			banned); len(faults) != 1 {
			t.Errorf("%s: %q", name, faults)
		}
	}
	if faults := checkNames(treeOf(t,
		map[string]string{"port/port.go": "package port\nfunc Amendment() {}\nfunc soundness() {}"}), banned); len(faults) != 0 {
		t.Errorf("right names: %q", faults)
	}
}
