package layering

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// plainFolders are the folders and files whose Go files and Markdown pages are held to the rules of
// this file.
var plainFolders = []string{"."}

// goneWords are words that the project does not use: see the end of docs/glossary.md.
var goneWords = regexp.MustCompile(`(?i)\b(` + strings.Join([]string{
	"nobody", "somebody", "anybody", "everybody", "whoever", "mend", "mends", "mended", "mending", "sound", "sounds",
	"sounded", "sounding", "mourn", "mourns", "bury", "buries", "buried", "dull", "dullness", "heed", "heeds",
	"heeded", "hurry", "hurries", "hurried", "stranger", "strangers", "meet", "meets", "met", "good-bye", "goodbye",
	"mind", "minds", "house", "hall", "cellar", "attic", "heir", "heirs", "astray", "nowhere", "honest",
	"on the move", "changing hands", "word of",
}, "|") + `)\b`)

// allowedWords are the words that a file uses in another sense, or lists.
var allowedWords = map[string][]string{
	"internal/layering/words_test.go":    {"all of them"},
	"internal/layering/texts_test.go":    {"all of them"},
	"internal/layering/glossary_test.go": {"all of them"},
	"docs/glossary.md":                   {"all of them"},
}

const (
	maxCode    = 120 // columns of a line of code, a tab counting as one
	maxComment = 100 // columns of a line of prose in a comment
)

// TestPlainWords looks for goneWords in the Go files and pages of plainFolders.
func TestPlainWords(t *testing.T) {
	for name, text := range plainFiles(t) {
		for _, fault := range checkWords(name, text) {
			t.Error(fault)
		}
	}
}

func checkWords(name, text string) []string {
	allowed := allowedWords[name]
	if slices.Contains(allowed, "all of them") {
		return nil
	}
	var faults []string
	for i, line := range strings.Split(text, "\n") {
		for _, word := range goneWords.FindAllString(line, -1) {
			if word != "NoBody" && !slices.Contains(allowed, strings.ToLower(word)) { // http.NoBody
				faults = append(faults, fmt.Sprintf("%s:%d: %q: docs/glossary.md does not use this word", name, i+1, word))
			}
		}
	}
	return faults
}

// TestLineLengths refuses long lines in the Go files of plainFolders.
func TestLineLengths(t *testing.T) {
	for name, text := range plainFiles(t) {
		if path.Ext(name) == ".go" {
			for _, fault := range checkLines(t, name, text) {
				t.Error(fault)
			}
		}
	}
}

// checkLines returns the lines of a Go file that are too long. Exempt are rows of tables, lines
// whose end is a text that would have to be cut, linter directives, indented text in comments, and
// the expected output of examples.
func checkLines(t *testing.T, name, text string) []string {
	t.Helper()
	files := token.NewFileSet()
	syntax, err := parser.ParseFile(files, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if ast.IsGenerated(syntax) {
		return nil
	}
	exempt := exemptLines(files, syntax)
	var faults []string
	isOutput := false
	for i, line := range strings.Split(text, "\n") {
		width, limit := utf8.RuneCountInString(line), maxCode
		comment, isComment := strings.CutPrefix(strings.TrimLeft(line, "\t"), "//")
		isOutput = isComment && (isOutput || comment == " Output:")
		if isOutput {
			continue
		}
		if isComment {
			limit = maxComment
			if strings.HasPrefix(comment, "\t") || strings.HasPrefix(comment, "  ") || !strings.HasPrefix(comment, " ") {
				limit = maxCode
			}
		}
		if code, _, directive := strings.Cut(line, " //nolint:"); directive {
			width = utf8.RuneCountInString(strings.TrimRight(code, " "))
		}
		if width > limit && !exempt[i+1] {
			faults = append(faults, fmt.Sprintf("%s:%d has %d columns, and %d are allowed", name, i+1, width, limit))
		}
	}
	return faults
}

// exemptLines are those with a row of a table, or with a text that crosses maxCode.
func exemptLines(files *token.FileSet, syntax *ast.File) map[int]bool {
	exempt := map[int]bool{}
	ast.Inspect(syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BasicLit:
			begin, end := files.Position(n.Pos()), files.Position(n.End())
			if n.Kind == token.STRING && (end.Line > begin.Line || begin.Column <= maxCode && end.Column > maxCode) {
				for line := begin.Line; line <= end.Line; line++ {
					exempt[line] = true
				}
			}
		case *ast.CompositeLit:
			for _, element := range n.Elts {
				pair, isPair := element.(*ast.KeyValueExpr)
				if isPair {
					_, isPair = pair.Key.(*ast.BasicLit)
				}
				if _, isRow := element.(*ast.CompositeLit); isRow || isPair {
					exempt[files.Position(element.Pos()).Line] = true
				}
			}
		}
		return true
	})
	return exempt
}

// plainFiles returns the texts of the Go files and Markdown pages of plainFolders.
func plainFiles(t *testing.T) map[string]string {
	t.Helper()
	repository := os.DirFS(filepath.Join("..", ".."))
	texts := map[string]string{}
	for _, folder := range plainFolders {
		err := fs.WalkDir(repository, folder, func(name string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir() && notOurs(repository, name):
				return fs.SkipDir
			case entry.IsDir() || path.Ext(name) != ".go" && path.Ext(name) != ".md":
				return nil
			}
			text, err := fs.ReadFile(repository, name)
			texts[name] = string(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return texts
}

// TestPlainWordsShow breaks the rules for words.
func TestPlainWordsShow(t *testing.T) {
	for text, want := range map[string]int{
		"package x\n\n// Nobody mends it.\n": 2, "# It is on the move\n": 1, "amendment, soundness, metadata, Housekeeping": 0,
	} {
		if faults := checkWords("x/x.go", text); len(faults) != want {
			t.Errorf("%q: faults %q, want %d", text, faults, want)
		}
	}
}

// TestLineLengthsShow breaks the rules for lines.
func TestLineLengthsShow(t *testing.T) {
	long := strings.Repeat("x", 100)
	for name, test := range map[string]struct {
		text string
		want int
	}{
		"code":         {"var " + long + " = 1111111111111111111", 1},
		"comment":      {"// x " + long, 1},
		"indented":     {"//\tx " + long, 0},
		"text":         {"var y = f(\"" + long + long + "\")", 0},
		"before text":  {"var " + long + long + " = \"text\"", 1},
		"table":        {"var y = []T{\n\t{" + long + ", " + long + "},\n}", 0},
		"call in one":  {"var y = f(" + long + ", " + long + ")", 1},
		"directive":    {"var y = " + long + " //nolint:gosec // a reason that is long", 0},
		"raw text":     {"const y = `\n" + long + long + "\n`", 0},
		"output":       {"// Output:\n// x " + long, 0},
		"after output": {"// Output:\n// x\n\n// x " + long, 1},
		"generated":    {"// Code generated by x. DO NOT EDIT.\n\nvar " + long + long + " = 1", 0},
		"of that many": {"// " + strings.Repeat("é", 97), 0},
	} {
		text := "package x\n\n" + test.text + "\n"
		if name == "generated" {
			text = strings.Replace(test.text, "\n\n", "\n\npackage x\n\n", 1) + "\n"
		}
		if faults := checkLines(t, "x/x.go", text); len(faults) != test.want {
			t.Errorf("%s: faults %q, want %d", name, faults, test.want)
		}
	}
}
