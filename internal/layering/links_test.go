package layering

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	// pages are all pages; their links must exist.
	pages = []string{"*.md", "docs/*.md", "docs/adr/*.md", "docs/guides/*.md", "*/README.md", "examples/*/README.md"}
	// diaries are about their own time: they may name files and tests that no longer exist.
	// Decisions in docs/adr may name such files.
	diaries = []string{"docs/*-diary.md"}

	// link is a target of a Markdown link that lies in this repository: a file, an anchor, or both.
	link = regexp.MustCompile(`\]\(([^)#:\s]*)(#[^)\s]+)?\)`)
	// heading is a line that an anchor can name.
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	// namedFile is the name of a file below a folder, as pages mention them.
	namedFile = regexp.MustCompile(`[a-z][\w-]*(?:/[\w.-]+)+\.(?:go|proto|md|yml)\b`)
	// code is a block or a span of code, in which commands stand.
	code = regexp.MustCompile("(?s)```.*?```|`[^`]+`")
	// makeTarget is a target of the Makefile, and commandPath a folder, in a command such as go
	// test ./partitions/...
	makeTarget  = regexp.MustCompile(`\bmake (?:[A-Z]+=\S+ )*([a-z][a-z-]+)`)
	commandPath = regexp.MustCompile("[\\s`](\\./[\\w/-]+)")
)

// TestDocumentsNameFilesThatExist follows every link of the pages, and looks for every file, make
// target and package that they name.
func TestDocumentsNameFilesThatExist(t *testing.T) {
	repository := filepath.Join("..", "..")
	exists := func(file string) bool {
		_, err := os.Stat(filepath.FromSlash(file))
		return err == nil
	}
	makefile := readPage(t, filepath.Join(repository, "Makefile"))
	old := append(glob(t, repository, diaries), glob(t, repository, []string{"docs/adr/*.md"})...)
	for _, page := range glob(t, repository, pages) {
		text, folder := readPage(t, page), filepath.Dir(page)
		for _, found := range link.FindAllStringSubmatch(text, -1) {
			target, anchor := filepath.Join(folder, found[1]), strings.TrimPrefix(found[2], "#")
			if found[1] == "" {
				target = page
			}
			switch {
			case !exists(target):
				t.Errorf("%s links to %s, which does not exist", page, found[1])
			case anchor != "" && !slices.Contains(anchors(readPage(t, target)), anchor):
				t.Errorf("%s links to %s, which has no heading #%s", page, target, anchor)
			}
		}
		if slices.Contains(old, page) {
			continue
		}
		for _, found := range namedFile.FindAllString(text, -1) {
			if !exists(filepath.Join(repository, found)) && !exists(filepath.Join(folder, found)) && !writtenByReader[found] {
				t.Errorf("%s names %s, which does not exist", page, found)
			}
		}
		commands := strings.Join(code.FindAllString(text, -1), "\n")
		for _, found := range makeTarget.FindAllStringSubmatch(commands, -1) {
			if !strings.Contains(makefile, "\n"+found[1]+":") {
				t.Errorf("%s names make %s, which is no target of the Makefile", page, found[1])
			}
		}
		for _, found := range commandPath.FindAllStringSubmatch(commands, -1) {
			if !exists(filepath.Join(repository, found[1])) && !writtenByReader[strings.TrimPrefix(found[1], "./")+"/main.go"] {
				t.Errorf("%s names the package %s, which does not exist", page, found[1])
			}
		}
	}
}

// glob lists the files of the repository that match one of the patterns.
func glob(t *testing.T, repository string, patterns []string) []string {
	t.Helper()
	var files []string
	for _, pattern := range patterns {
		matches, err := filepath.Glob(filepath.Join(repository, pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, matches...)
	}
	if len(files) == 0 {
		t.Fatalf("found no pages %v", patterns)
	}
	return files
}

func readPage(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// anchors lists the anchors of a page, as GitHub makes them of its headings.
func anchors(text string) []string {
	var list []string
	for _, found := range heading.FindAllStringSubmatch(text, -1) {
		kept := strings.Map(func(r rune) rune {
			if strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-_ ", r) {
				return r
			}
			return -1
		}, strings.ToLower(found[1]))
		list = append(list, strings.ReplaceAll(kept, " ", "-"))
	}
	return list
}

// writtenByReader are the files that pages name as a reader has them, not as they lie here.
var writtenByReader = map[string]bool{
	"cloudstate/entity_key.proto": true, "google/api/annotations.proto": true, "shop/v1/cart.proto": true,
}
