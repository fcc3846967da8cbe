package scaffold

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"testing/fstest"
)

// repository is this repository, whose go.mod and go.sum are real ones.
var repository = filepath.Join("..", "..", "..")

func fromSource(t *testing.T) Millrace {
	t.Helper()
	m, err := FromSource(repository)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestNames: what is refused is refused before anything is written.
func TestNames(t *testing.T) {
	for _, tc := range []struct{ name, path, want string }{
		{"shop", "", ""},
		{"my-shop2", "", ""},
		{"a", "github.com/Acme/my.shop/v2", ""},
		{strings.Repeat("a", 63), "", ""},
		{"", "", "name"},
		{"Shop", "", "name"},
		{"2shop", "", "name"},
		{"shop-", "", "name"},
		{"a--b", "", "name"},
		{"../shop", "", "name"},
		{"a/b", "", "name"},
		{".", "", "name"},
		{"a b", "", "name"},
		{"größe", "", "name"},
		{"a\n", "", "name"},
		{strings.Repeat("a", 64), "", "name"},
		{"a_b", "", "name"},
		{"shop", "example.com/", "module path"},
		{"shop", "/shop", "module path"},
		{"shop", "a/../b", "module path"},
		{"shop", "Example.com/a", "module path"},
		{"shop", "a b", "module path"},
		{"shop", "a\"\nreplace x => y", "module path"},
	} {
		dir := t.TempDir()
		_, err := (&Module{Template: "go", Name: tc.name, Path: tc.path, Millrace: fromSource(t)}).Write(dir)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("name %q, module %q: %v, want an error with %q", tc.name, tc.path, err, tc.want)
		}
		if found, _ := os.ReadDir(dir); tc.want != "" && len(found) > 0 {
			t.Errorf("name %q, module %q: wrote %v", tc.name, tc.path, found)
		}
	}
	_, err := (&Module{Template: "cobol", Name: "shop", Millrace: fromSource(t)}).Write(t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "the templates are go") {
		t.Errorf("an unknown template: %v", err)
	}
}

// TestNothingIsOverwritten: what has the name of the module stays, be it empty, a file, or a link
// to nothing; and what cannot be written whole leaves nothing behind.
func TestNothingIsOverwritten(t *testing.T) {
	for what, occupy := range map[string]func(path string) error{
		"an empty folder":   func(path string) error { return os.Mkdir(path, 0o700) },
		"a file":            func(path string) error { return os.WriteFile(path, []byte("mine"), 0o600) },
		"a link to nothing": func(path string) error { return os.Symlink("nothing", path) },
	} {
		dir := t.TempDir()
		if err := occupy(filepath.Join(dir, "shop")); err != nil {
			t.Fatal(err)
		}
		_, err := (&Module{Template: "go", Name: "shop", Millrace: fromSource(t)}).Write(dir)
		if err == nil || !strings.Contains(err.Error(), "exists: nothing was written") {
			t.Errorf("%s: %v", what, err)
		}
		if found, _ := os.ReadDir(dir); len(found) != 1 {
			t.Errorf("%s: there is %v now", what, found)
		}
	}
	dir := t.TempDir()
	damaged := Millrace{version: "v0.0.0", source: fstest.MapFS{"go.mod": {Data: []byte("module " + ModulePath + "\n")}}}
	if _, err := (&Module{Template: "go", Name: "shop", Millrace: damaged}).Write(dir); err == nil {
		t.Error("a millrace without go.sum gave a module")
	}
	if found, _ := os.ReadDir(dir); len(found) != 0 {
		t.Errorf("a failure left %v", found)
	}
}

// TestNoPlaceholderIsLeft: no file has the template's name, or its path, in its text or its name.
func TestNoPlaceholderIsLeft(t *testing.T) {
	module := &Module{Template: "go", Name: "shop", Path: "zeta.org/x/shop", Millrace: fromSource(t)}
	folder, err := module.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	err = fs.WalkDir(os.DirFS(folder), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files++
		content, err := os.ReadFile(filepath.Join(folder, name))
		for _, placeholder := range []string{templateName, "example.com", suffix} {
			if strings.Contains(name+string(content), placeholder) {
				t.Errorf("%s has the placeholder %s", name, placeholder)
			}
		}
		return err
	})
	if err != nil || files < 15 {
		t.Errorf("%d files, %v", files, err)
	}
}

// TestRequirements: a published version is required by its number, with the sums that the go
// command checks; source is required by a replace line.
func TestRequirements(t *testing.T) {
	info := &debug.BuildInfo{Main: debug.Module{Path: ModulePath, Version: "v0.9.1", Sum: "h1:zip="}}
	m, err := Published(info, os.DirFS(repository))
	if err != nil {
		t.Fatal(err)
	}
	uses := Templates[0].Uses
	mod, sum, err := m.requirements("example.com/shop", uses)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range append([]string{ModulePath + " v0.9.1"}, uses...) {
		if !strings.Contains(mod, "\n\t"+want) {
			t.Errorf("go.mod does not require %s", want)
		}
	}
	if strings.Contains(mod, "replace") {
		t.Error("go.mod of a published version has a replace line")
	}
	if !strings.Contains(sum, "\n"+ModulePath+" v0.9.1 h1:zip=\n"+ModulePath+" v0.9.1/go.mod h1:") {
		t.Error("go.sum has no sums of the published version")
	}
	source := fromSource(t)
	if mod, _, err = source.requirements("example.com/shop", uses); err != nil ||
		!strings.Contains(mod, "\nreplace "+ModulePath+" => "+source.folder+"\n") {
		t.Errorf("go.mod has no replace line: %v\n%s", err, mod)
	}
	for what, info := range map[string]*debug.BuildInfo{
		"no build information": nil,
		"built in a checkout":  {Main: debug.Module{Path: ModulePath, Version: "v0.0.0-20261130131121-2dbb9f1d1c1c+dirty"}},
		"another program":      {Main: debug.Module{Path: "example.com/x", Version: "v1.0.0", Sum: "h1:x="}},
	} {
		if _, err := Published(info, nil); !errors.Is(err, ErrNotPublished) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := FromSource(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no source of millrace") {
		t.Errorf("an empty folder: %v", err)
	}
}

// TestHashOfGoMod compares with a line of a go.sum, which the go command has written.
func TestHashOfGoMod(t *testing.T) {
	const gopkgCheck = "module gopkg.in/check.v1\n"
	if got, want := hashOfGoMod([]byte(gopkgCheck)), "h1:Co6ibVJAznAaIkqp8huTwlJQCZ016jof/cbN4VW5Yz0="; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestMoveGenerated: a descriptor that is not as expected is an error, never wrong code.
func TestMoveGenerated(t *testing.T) {
	rename := strings.NewReplacer("a", "b")
	if got, err := moveGenerated("package x\n", rename); err != nil || got != "package x\n" {
		t.Errorf("code without a descriptor: %q, %v", got, err)
	}
	for _, code := range []string{
		"const x_rawDesc = \"\" + \"y\"\n", "const x_rawDesc = \"\" +\n\t\"\\xff\\xff\"\n", "const x_rawDesc = \"\" +\n\t\"\\q\"\n",
	} {
		if got, err := moveGenerated(code, rename); !errors.Is(err, errDescriptor) {
			t.Errorf("%q became %q, %v", code, got, err)
		}
	}
}
