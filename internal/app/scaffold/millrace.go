package scaffold

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
)

// ModulePath is the module path of millrace.
const ModulePath = "github.com/millrace-io/millrace"

// Millrace is the millrace that a new module needs: a published version, or a folder with its
// source.
type Millrace struct {
	version, sum string
	// source has go.mod and go.sum; folder is where it is, and empty for a published version.
	source fs.FS
	folder string
}

// ErrNotPublished: the program was built from source, so that its version cannot be required.
var ErrNotPublished = errors.New("this millrace was built from source, and its version is not published")

// Published returns the version that the running program was installed at; source has the go.mod
// and go.sum that it was built with. Its error is ErrNotPublished.
func Published(info *debug.BuildInfo, source fs.FS) (Millrace, error) {
	if info == nil || info.Main.Path != ModulePath || info.Main.Sum == "" { // only a module that was fetched has a sum
		return Millrace{}, ErrNotPublished
	}
	return Millrace{version: info.Main.Version, sum: info.Main.Sum, source: source}, nil
}

// FromSource returns the millrace in a folder.
func FromSource(folder string) (Millrace, error) {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return Millrace{}, err
	}
	mod, err := os.ReadFile(filepath.Join(folder, "go.mod")) //nolint:gosec // the user names it
	if err != nil || !bytes.Contains(mod, []byte("module "+ModulePath+"\n")) {
		return Millrace{}, fmt.Errorf("%s has no source of millrace (a go.mod with module %s)", folder, ModulePath)
	}
	return Millrace{version: "v0.0.0", source: os.DirFS(folder), folder: folder}, nil
}

// requirements returns go.mod and go.sum of a module that uses millrace and some of the modules
// that millrace uses. The versions are those that millrace is built and tested with.
func (m *Millrace) requirements(path string, uses []string) (mod, sum string, err error) {
	content, err := fs.ReadFile(m.source, "go.mod")
	if err != nil {
		return "", "", err
	}
	sums, err := fs.ReadFile(m.source, "go.sum")
	if err != nil {
		return "", "", err
	}
	var version string
	direct, indirect := []string{ModulePath + " " + m.version}, []string(nil)
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		required := strings.TrimSuffix(line, " // indirect")
		name, _, _ := strings.Cut(required, " ")
		switch {
		case name == "go":
			version = line
		case name == "replace" || name == "exclude":
			return "", "", fmt.Errorf("go.mod of millrace has a line that is not known here: %s", line)
		case !strings.Contains(required, " v") || name == "require": // module, parentheses
		case slices.Contains(uses, name):
			direct = append(direct, required)
		default:
			indirect = append(indirect, required+" // indirect")
		}
	}
	if len(direct) != len(uses)+1 || version == "" {
		return "", "", fmt.Errorf("go.mod of millrace does not require all of %s", strings.Join(uses, ", "))
	}
	slices.Sort(direct)
	slices.Sort(indirect)
	mod = fmt.Sprintf("module %s\n\n%s\n\nrequire (\n\t%s\n)\n\nrequire (\n\t%s\n)\n", path, version,
		strings.Join(direct, "\n\t"), strings.Join(indirect, "\n\t"))
	if m.folder != "" {
		return mod + m.replacement(), string(sums), nil
	}
	lines := slices.Collect(strings.Lines(string(sums)))
	lines = append(lines, fmt.Sprintf("%s %s %s\n", ModulePath, m.version, m.sum),
		fmt.Sprintf("%s %s/go.mod %s\n", ModulePath, m.version, hashOfGoMod(content)))
	slices.SortFunc(lines, cmp.Compare[string])
	return mod, strings.Join(lines, ""), nil
}

// replacement is the end of a go.mod that uses the source in a folder.
func (m *Millrace) replacement() string {
	folder := m.folder
	if strings.ContainsAny(folder, " \t\"'`()[]{},") {
		folder = fmt.Sprintf("%q", folder)
	}
	return fmt.Sprintf(`
// millrace is not published yet: this is its source on this machine. When a version is published, remove
// the line and run: go get %s@latest
replace %s => %s
`, ModulePath, ModulePath, folder)
}

// hashOfGoMod is what go.sum says of a go.mod: the hash h1 of a list of files, here of one.
func hashOfGoMod(content []byte) string {
	list := sha256.Sum256(fmt.Appendf(nil, "%x  go.mod\n", sha256.Sum256(content)))
	return "h1:" + base64.StdEncoding.EncodeToString(list[:])
}
