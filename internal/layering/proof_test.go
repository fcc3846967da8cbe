package layering

import (
	"go/ast"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/internal/mutation"
)

var (
	// testName is the name of a test, benchmark or fuzz target in a page.
	testName = regexp.MustCompile(`\b(?:Test|Benchmark|Fuzz)[A-Z]\w+`)
	// mutationRow is a row of the table of mutation tests: the line, what its removal means, the
	// tests that then fail.
	mutationRow = regexp.MustCompile("(?m)^\\| `(\\w+)` \\| [^|]+ \\| ([^|]+) \\|")
	// mutationLine is a line of .ci/teeth: test, package, line.
	mutationLine = regexp.MustCompile(`(?m)^\w+ (Test\w+) (\./\S+) (\w+) "`)
	// mutationNames are the mutations that a page lists: mutations `norecord`, `previous` and
	// `reuse`.
	mutationNames = regexp.MustCompile("[Mm]utations?((?:(?:,| and)?\\s+`\\w+`)+)")
)

// TestPagesNameTestsThatExist looks for every test, benchmark and mutation that a page names.
// Diaries are about their own time.
func TestPagesNameTestsThatExist(t *testing.T) {
	repository := filepath.Join("..", "..")
	declared := declaredTests(readTree(t))
	lines := map[string]bool{}
	for _, line := range mutation.Lines() {
		lines[line] = true
	}
	old := glob(t, repository, diaries)
	for _, page := range glob(t, repository, pages) {
		if slices.Contains(old, page) {
			continue
		}
		text := readPage(t, page)
		for _, name := range testName.FindAllString(text, -1) {
			if !declared[name] {
				t.Errorf("%s names %s, which does not exist", page, name)
			}
		}
		for _, found := range mutationNames.FindAllStringSubmatch(text, -1) {
			for line := range strings.SplitSeq(found[1], "`") {
				if line = strings.TrimSpace(line); line != "" && line != "," && line != "and" && !lines[line] {
					t.Errorf("%s names the mutation %s, which internal/mutation does not have", page, line)
				}
			}
		}
	}
}

// TestMutationsAreInReliability compares the table of mutation tests in docs/reliability.md with
// .ci/teeth: the same lines, the same tests.
func TestMutationsAreInReliability(t *testing.T) {
	repository := filepath.Join("..", "..")
	run := map[string]bool{}
	for _, found := range mutationLine.FindAllStringSubmatch(readPage(t, filepath.Join(repository, ".ci", "teeth")), -1) {
		run[found[3]+" "+found[1]] = true
	}
	if len(run) < 20 {
		t.Fatalf("found %d mutation tests in .ci/teeth: has the form of its lines changed?", len(run))
	}
	listed := map[string]bool{}
	page := readPage(t, filepath.Join(repository, "docs", "reliability.md"))
	for _, found := range mutationRow.FindAllStringSubmatch(page, -1) {
		for name := range strings.SplitSeq(found[2], ", ") {
			pair := found[1] + " " + strings.Trim(name, "` ")
			listed[pair] = true
			if !run[pair] {
				t.Errorf("docs/reliability.md has the mutation test %q, which .ci/teeth does not run", pair)
			}
		}
	}
	for pair := range run {
		if !listed[pair] {
			t.Errorf(".ci/teeth runs the mutation test %q, which the table in docs/reliability.md does not have", pair)
		}
	}
}

// declaredTests lists the functions of test files.
func declaredTests(tr *tree) map[string]bool {
	names := map[string]bool{}
	for _, files := range tr.packages {
		for _, file := range files {
			for _, declaration := range file.syntax.Decls {
				if function, ok := declaration.(*ast.FuncDecl); ok && file.test {
					names[function.Name.Name] = true
				}
			}
		}
	}
	return names
}
