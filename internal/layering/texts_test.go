package layering

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// This file is about the texts that a user reads: errors, log lines, help, settings, metrics,
// statuses. In the code each is a string literal, or the tag of a field.

// goneTexts are words and idioms that no text of the program has: the private idiom that these
// texts once had, and what docs/glossary.md does not use.
var goneTexts = regexp.MustCompile(`(?i)\b(` + strings.Join([]string{
	"nobody", "somebody", "anybody", "everybody", "whoever", "mend(s|ed|ing)?", "mourn(s|ed)?", "bury", "buried",
	"dullness", "heed(s|ed)?", "hurry", "heirs?", "astray", "nowhere", "good-?bye", "stranger", "honest",
	"on the move", "changing hands", "on paper", "one behind the other", "word of", "at the moment of which",
	"under way", "broke", "anew", "took it away", "took away", "cut off", "typing mistake", "looked? through",
	"left alone", "brought to life", "end at once", "ended at once", "for ever", "the engine does not know",
	"data is of", "going by", "says no", "said no", "see (who|that)",
}, "|") + `)\b`)

// goneForms are forms of a text that are not used, each with what to write.
var goneForms = []struct {
	form  *regexp.Regexp
	write string
}{
	{regexp.MustCompile(`(?i)\bin order(?:[.,;:)"]|$)`), "gracefully, or in the order of something"},
	{regexp.MustCompile(`(?i)(?:^|[^e]) (?:is|are) no (?:[a-km-z]|l[^o])`), "is not a ..."},
	{regexp.MustCompile(`(?i)[;:,] say \w`), "use ..., set ..., name ..."},
	{regexp.MustCompile(`(?i)\bis none (?:of|that)\b`), "use one of ..."},
}

// counted is a number with a noun in the plural, behind another word.
var counted = regexp.MustCompile(`(?:(\S+) )?%d ([a-z]+s)\b`)

// textTree returns the packages whose texts reach a user: no tests, nor suites and tools of tests.
func textTree(t *testing.T) *tree {
	t.Helper()
	tr := readTree(t)
	for folder := range tr.packages {
		for _, prefix := range []string{
			"tests", "tools", "broker-adapter/brokertest", "broker-adapter/simlog", "materializer/storetest",
			"internal/leaktest", "internal/mutation", "internal/layering", "internal/invariant", "internal/failpoint",
		} {
			if folder == prefix || strings.HasPrefix(folder, prefix+"/") {
				delete(tr.packages, folder)
			}
		}
	}
	return tr
}

// TestTextsKeepToTheGlossary looks for goneTexts and goneForms in all texts.
func TestTextsKeepToTheGlossary(t *testing.T) {
	for _, fault := range checkTexts(textTree(t), checkText) {
		t.Error(fault)
	}
}

// TestTextsCountRightly: a number that may be 1 comes with its noun from package plural.
func TestTextsCountRightly(t *testing.T) {
	for _, fault := range checkTexts(textTree(t), checkCount) {
		t.Error(fault)
	}
}

// checkTexts returns what check finds in the string literals of a tree.
func checkTexts(tr *tree, check func(text string) string) []string {
	var faults []string
	for _, folder := range slices.Sorted(maps.Keys(tr.packages)) {
		for _, file := range tr.packages[folder] {
			if file.test || file.generated {
				continue
			}
			ast.Inspect(file.syntax, func(n ast.Node) bool {
				if _, isImport := n.(*ast.ImportSpec); isImport {
					return false
				}
				literal, ok := n.(*ast.BasicLit)
				if !ok || literal.Kind != token.STRING {
					return true
				}
				text, err := strconv.Unquote(literal.Value)
				if err != nil {
					panic(err) // the parser takes no such file
				}
				if fault := check(text); fault != "" {
					faults = append(faults, fmt.Sprintf("%s:%d: %s", file.name, tr.files.Position(literal.Pos()).Line, fault))
				}
				return true
			})
		}
	}
	return faults
}

// quoted matches what a text quotes: `commands`.
var quoted = regexp.MustCompile("`[^`]*`")

func checkText(text string) string {
	text = quoted.ReplaceAllString(text, "")
	if word := goneTexts.FindString(text); word != "" {
		return fmt.Sprintf("%q in %q: use the words of docs/glossary.md", word, text)
	}
	for _, f := range goneForms {
		if form := f.form.FindString(text); form != "" {
			return fmt.Sprintf("%q in %q: write %s", form, text, f.write)
		}
	}
	return ""
}

// notCounted are words after a number that are no nouns.
var notCounted = []string{
	"has", "is", "was", "does", "says", "differs", "ends", "holds", "lies", "takes", "goes", "belongs", "follows",
	"waits", "as", "begins",
}

// units are nouns of which there are never few.
var units = []string{"bytes", "bits", "digits", "ns", "characters", "slots", "replicas"}

func checkCount(text string) string {
	for _, at := range counted.FindAllStringSubmatchIndex(text, -1) {
		before, noun := "", text[at[4]:at[5]]
		if at[2] >= 0 {
			before = text[at[2]:at[3]]
		}
		switch {
		case strings.HasPrefix(text[at[5]:], " %"): // the name of what comes next
		case slices.Contains(notCounted, noun), slices.Contains(units, noun):
		case slices.Contains([]string{"than", "most", "of", "to"}, before): // a limit, or a part
		case strings.Contains(text, "instead of one"):
		default:
			return fmt.Sprintf("%q: use plural.Of for %q, which may be 1", text, noun)
		}
	}
	return ""
}

// TestTextsShow breaks the rules for texts.
func TestTextsShow(t *testing.T) {
	for text, want := range map[string]int{
		"nobody owns it": 1, "it broke": 1, "is 7: say strong or local": 1, "released in order": 1, "in order of offsets": 0,
		"a is no port": 1, "there is no port": 0, "is no longer needed": 0, "see `millrace mend`": 0, "broken": 0,
		"%q is none of a and b": 1,
	} {
		literal := strconv.Quote(text)
		for _, code := range []string{"var x = f(" + literal + ")", "type x struct {\n\ty int `help:" + literal + "`\n}"} {
			if strings.Contains(text, "`") && strings.HasPrefix(code, "type") {
				continue
			}
			tr := treeOf(t, map[string]string{"port/port.go": "package port\n\n" + code + "\n"})
			if faults := checkTexts(tr, checkText); len(faults) != want {
				t.Errorf("%s: faults %q, want %d", code, faults, want)
			}
		}
	}
	for text, want := range map[string]int{
		"%d workers": 1, "has %d workers": 1, "at most %d workers": 0, "%d has it": 0, "%d of %d workers": 0,
		"%d bytes": 0,
	} {
		tr := treeOf(t, map[string]string{"port/port.go": "package port\n\nvar x = f(" + strconv.Quote(text) + ")\n"})
		if faults := checkTexts(tr, checkCount); len(faults) != want {
			t.Errorf("%s: faults %q, want %d", text, faults, want)
		}
	}
}

// shownFiles are texts for users that are not Go.
var shownFiles = []string{
	"Makefile", "README.md", "crdt/README.md", "projections/README.md", "sagas/README.md", "deploy/README.md",
	"docs/cluster.md", "docs/admin.md", "docs/cli.md", "docs/guides/*.md", "internal/app/scaffold/templates/*/*",
}

// TestShownFilesKeepToTheGlossary looks for goneTexts in shownFiles.
func TestShownFilesKeepToTheGlossary(t *testing.T) {
	for _, pattern := range shownFiles {
		names, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(pattern)))
		if err != nil || len(names) == 0 {
			t.Errorf("%s matches no file (%v)", pattern, err)
		}
		for _, name := range names {
			if info, err := os.Stat(name); err != nil || info.IsDir() {
				continue
			}
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for i, line := range strings.Split(string(text), "\n") {
				if word := goneTexts.FindString(quoted.ReplaceAllString(line, "")); word != "" {
					t.Errorf("%s:%d: %q: use the words of docs/glossary.md", name, i+1, word)
				}
			}
		}
	}
}
