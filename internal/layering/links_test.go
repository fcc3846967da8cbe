package layering

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// documents are the pages for people; decisions in docs/adr speak of their own time and are left alone.
var documents = []string{"*.md", "docs/*.md", "*/README.md"}

var (
	// link is a target of a Markdown link that lies in this repository.
	link = regexp.MustCompile(`\]\(([^)#:]+)\)`)
	// namedFile is the name of a file below a folder, as pages mention them.
	namedFile = regexp.MustCompile(`[a-z][\w-]*(?:/[\w.-]+)+\.(?:go|proto|md|yml)\b`)
)

// TestDocumentsNameFilesThatExist follows every link of the pages for people, and looks for every file that they name.
func TestDocumentsNameFilesThatExist(t *testing.T) {
	repository := filepath.Join("..", "..")
	exists := func(file string) bool {
		_, err := os.Stat(filepath.FromSlash(file))
		return err == nil
	}
	pages := 0
	for _, pattern := range documents {
		matches, err := filepath.Glob(filepath.Join(repository, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range matches {
			pages++
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			for _, found := range link.FindAllSubmatch(text, -1) {
				if !exists(filepath.Join(filepath.Dir(page), string(found[1]))) {
					t.Errorf("%s links to %s, which does not exist", page, found[1])
				}
			}
			for _, found := range namedFile.FindAllString(string(text), -1) {
				if !exists(filepath.Join(repository, found)) && !exists(filepath.Join(filepath.Dir(page), found)) && !writtenByReader[found] {
					t.Errorf("%s names %s, which does not exist", page, found)
				}
			}
		}
	}
	if pages == 0 {
		t.Fatal("found no pages")
	}
}

// writtenByReader are the files that the README asks its reader to write.
var writtenByReader = map[string]bool{
	"examples/likes/likes/v1/likes.proto": true, "examples/likes/main.go": true, "cloudstate/entity_key.proto": true,
}
