package layering

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// module is the import path of this repository; its own packages are named in the tables without
// it.
const module = "github.com/millrace-io/millrace"

// root is the name of the package at the root of the repository.
const root = "."

// source is one Go file.
type source struct {
	name      string // slashed, below the repository
	test      bool
	generated bool
	syntax    *ast.File
}

// imports lists the import paths; those of our own packages as the tables name them.
func (s *source) imports() []string {
	list := make([]string, 0, len(s.syntax.Imports))
	for _, spec := range s.syntax.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			panic(err) // the parser takes no such file
		}
		list = append(list, name)
	}
	return list
}

// own returns the name in the tables of one of our own packages, and whether it is one.
func own(importPath string) (string, bool) {
	if importPath == module {
		return root, true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// tree is the source of the repository: its packages by folder, the root being ".".
type tree struct {
	files    *token.FileSet
	packages map[string][]*source
}

// readTree parses every Go file of the main module. Build tags do not count: an import is an
// import.
func readTree(t *testing.T) *tree {
	t.Helper()
	repository := os.DirFS(filepath.Join("..", ".."))
	got := &tree{files: token.NewFileSet(), packages: map[string][]*source{}}
	err := fs.WalkDir(repository, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && notOurs(repository, name):
			return fs.SkipDir
		case entry.IsDir() || path.Ext(name) != ".go":
			return nil
		}
		text, err := fs.ReadFile(repository, name)
		if err != nil {
			return err
		}
		return got.add(name, text)
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// notOurs says whether the go command, too, would leave the folder out.
func notOurs(repository fs.FS, folder string) bool {
	if folder == "." {
		return false
	}
	base := path.Base(folder)
	if base == "testdata" || base == "vendor" || base[0] == '.' || base[0] == '_' {
		return true
	}
	_, err := fs.Stat(repository, path.Join(folder, "go.mod"))
	return err == nil // a module of its own
}

func (t *tree) add(name string, text []byte) error {
	syntax, err := parser.ParseFile(t.files, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	folder := path.Dir(name)
	t.packages[folder] = append(t.packages[folder], &source{
		name: name, test: strings.HasSuffix(name, "_test.go"), generated: ast.IsGenerated(syntax), syntax: syntax,
	})
	return nil
}

// treeOf is a repository that exists only in a test: file names and texts.
func treeOf(t *testing.T, files map[string]string) *tree {
	t.Helper()
	got := &tree{files: token.NewFileSet(), packages: map[string][]*source{}}
	for name, text := range files {
		if err := got.add(name, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return got
}
