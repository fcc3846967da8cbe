package scaffold

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/millrace-io/millrace/proto"
)

// Template is what a new module can be written from.
type Template struct {
	// Name is the name of the folder below templates.
	Name string
	// Is says what it makes, in one line.
	Is string
	// Uses are the modules that it imports besides millrace.
	Uses []string
}

// Templates is the table.
//
//nolint:gochecknoglobals // a constant
var Templates = []Template{
	{
		Name: "go", Is: "an event-sourced service in Go, with HTTP paths, tests, Makefile and Dockerfile",
		Uses: []string{"google.golang.org/genproto/googleapis/api", "google.golang.org/grpc", "google.golang.org/protobuf"},
	},
}

//go:embed all:templates
var templates embed.FS

// The module path, the name and the file ending of templates.
const (
	templatePath = "example.com/newservice"
	templateName = "newservice"
	suffix       = ".tmpl"
)

// Module is what is written.
type Module struct {
	// Template is the name of a template.
	Template string
	// Name is the name of folder, program and app, Path the module path; empty: example.com/Name.
	Name, Path string
	// Millrace is the millrace that the module needs.
	Millrace Millrace
}

// namePattern is what is a name of a folder, a program, a container image and an app at once.
var namePattern = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// pathPattern is the form of module paths, as far as they are used in practice.
var pathPattern = regexp.MustCompile(`^[a-z0-9]+([.-][a-z0-9]+)*(/[A-Za-z0-9]+([._~-][A-Za-z0-9]+)*)*$`)

const maxName, maxPath = 63, 200

// check says what is wrong with name, path and template.
func (m *Module) check() (*Template, error) {
	if len(m.Name) > maxName || !namePattern.MatchString(m.Name) {
		return nil, fmt.Errorf(
			"%q cannot be the name of a service: use small letters, digits and single dashes between them, a letter first, at most %d",
			m.Name, maxName)
	}
	if len(m.Path) > maxPath || !pathPattern.MatchString(m.Path) {
		return nil, fmt.Errorf("%q cannot be a module path: use one like example.com/%s, at most %d characters",
			m.Path, m.Name, maxPath)
	}
	names := make([]string, 0, len(Templates))
	for i := range Templates {
		if Templates[i].Name == m.Template {
			return &Templates[i], nil
		}
		names = append(names, Templates[i].Name)
	}
	return nil, fmt.Errorf("there is no template %q: the templates are %s", m.Template, strings.Join(names, ", "))
}

// Write writes the module to the folder Name in a folder, and returns its path. It sets Path if it
// is empty. It changes nothing that is there: a folder of this name is an error, and one that
// cannot be written whole is removed.
func (m *Module) Write(in string) (folder string, err error) {
	m.Path = cmp.Or(m.Path, "example.com/"+m.Name)
	template, err := m.check()
	if err != nil {
		return "", err
	}
	folder = filepath.Join(in, m.Name)
	if _, err := os.Lstat(folder); err == nil {
		return "", fmt.Errorf("%s exists: nothing was written; give another name, or remove it", folder)
	}
	partial, err := os.MkdirTemp(in, "."+m.Name+"-")
	if err != nil {
		return "", fmt.Errorf("make a folder for %s: %w", m.Name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(partial))
		}
	}()
	if err := m.fill(partial, template); err != nil {
		return "", fmt.Errorf("write the module %s: %w", m.Path, err)
	}
	if err := os.Chmod(partial, 0o755); err != nil { //nolint:gosec // as mkdir makes folders
		return "", fmt.Errorf("write the module %s: %w", m.Path, err)
	}
	if err := os.Rename(partial, folder); err != nil {
		return "", fmt.Errorf("give the module %s its name: %w", m.Path, err)
	}
	return folder, nil
}

func (m *Module) fill(folder string, template *Template) error {
	files, err := fs.Sub(templates, "templates/"+template.Name)
	if err != nil {
		return err
	}
	rename := strings.NewReplacer(templatePath, m.Path, templateName, m.Name)
	err = copyFiles(folder, files, func(name, text string) (string, string, error) {
		name = strings.TrimSuffix(name, suffix)
		if strings.HasSuffix(name, ".pb.go") {
			if text, err = moveGenerated(text, rename); err != nil {
				return "", "", fmt.Errorf("%s: %w", name, err)
			}
		}
		if text = rename.Replace(text); strings.HasSuffix(name, ".go") {
			formatted, err := format.Source([]byte(text)) // the order of imports depends on the path
			return name, string(formatted), err
		}
		return name, text, nil
	})
	if err != nil {
		return err
	}
	err = copyFiles(filepath.Join(folder, "third_party"), proto.Imports,
		func(name, text string) (string, string, error) { return name, text, nil })
	if err != nil {
		return err
	}
	mod, sum, err := m.Millrace.requirements(m.Path, template.Uses)
	if err != nil {
		return err
	}
	return errors.Join(write(filepath.Join(folder, "go.mod"), mod), write(filepath.Join(folder, "go.sum"), sum))
}

// copyFiles copies files into a folder; change returns a file's new name and text.
func copyFiles(folder string, files fs.FS, change func(name, text string) (string, string, error)) error {
	return fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		name, text, err := change(name, string(content))
		if err != nil {
			return err
		}
		return write(filepath.Join(folder, filepath.FromSlash(name)), text)
	})
}

func write(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // source code, readable for all
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644) //nolint:gosec // source code, readable for all
}
