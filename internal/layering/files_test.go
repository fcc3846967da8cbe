package layering

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxFileBytes is the largest size of a file in the repository.
const maxFileBytes = 512 << 10

// executableMarks are how programs begin: ELF, PE, and Mach-O for one machine and for several.
var executableMarks = [][]byte{
	[]byte("\x7fELF"), []byte("MZ"), []byte("\xfe\xed\xfa\xce"), []byte("\xfe\xed\xfa\xcf"), []byte("\xce\xfa\xed\xfe"),
	[]byte("\xcf\xfa\xed\xfe"), []byte("\xca\xfe\xba\xbe"),
}

// plainName is the name of a file that was meant to be there.
var plainName = regexp.MustCompile(`^[A-Za-z0-9._/-]+$`)

// TestNoBinaries refuses large files, programs and odd names among the files that git knows.
func TestNoBinaries(t *testing.T) {
	for _, fault := range checkFiles(t, filepath.Join("..", "..")) {
		t.Error(fault)
	}
}

func checkFiles(t *testing.T, repository string) []string {
	t.Helper()
	names := strings.FieldsFunc(git(t, repository, "ls-files", "-z"), func(r rune) bool { return r == 0 })
	if len(names) == 0 {
		t.Fatal("found no files")
	}
	var faults []string
	for _, name := range names {
		if !plainName.MatchString(name) {
			faults = append(faults, name+" has a name that a command made by mistake: remove it")
		}
		if fault := checkContent(t, filepath.Join(repository, name)); fault != "" {
			faults = append(faults, name+" "+fault)
		}
	}
	return faults
}

// git runs a git command in a repository, even if the environment names another one, as in a hook.
func git(t *testing.T, repository string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", repository}, args...)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GIT_") })
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, &stderr)
	}
	return string(out)
}

func checkContent(t *testing.T, path string) (fault string) {
	t.Helper()
	info, err := os.Lstat(path)
	if os.IsNotExist(err) || err == nil && !info.Mode().IsRegular() {
		return "" // removed here and not yet in the index, or a link
	}
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > maxFileBytes {
		return fmt.Sprintf("has %d bytes, and %d are allowed: keep it elsewhere", info.Size(), maxFileBytes)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(executableMarks, func(mark []byte) bool { return bytes.HasPrefix(content, mark) }) {
		return "is a compiled program: build it where it is needed"
	}
	if info.Mode()&0o111 != 0 && !bytes.HasPrefix(content, []byte("#!")) {
		return "is executable but not a script: remove the permission (chmod a-x)"
	}
	return ""
}

// TestNoBinariesShow adds forbidden files to a repository.
func TestNoBinariesShow(t *testing.T) {
	for name, test := range map[string]struct {
		content string
		mode    os.FileMode
		want    string
	}{
		"text":           {"package x\n", 0o644, ""},
		"empty":          {"", 0o644, ""},
		"script":         {"#!/bin/sh\n", 0o755, ""},
		"largest":        {strings.Repeat("x", maxFileBytes), 0o644, ""},
		"too large":      {strings.Repeat("x", maxFileBytes+1), 0o644, "has 524289 bytes"},
		"ELF":            {"\x7fELF\x02", 0o644, "is a compiled program"},
		"Mach-O":         {"\xcf\xfa\xed\xfe", 0o644, "is a compiled program"},
		"PE":             {"MZ\x90", 0o644, "is a compiled program"},
		"executable Go":  {"package x\n", 0o755, "is executable but not a script"},
		"empty, mode +x": {"", 0o744, "is executable but not a script"},
	} {
		t.Run(name, func(t *testing.T) {
			repository := t.TempDir()
			git(t, repository, "init", "-q")
			if err := os.WriteFile(filepath.Join(repository, "file"), []byte(test.content), test.mode); err != nil {
				t.Fatal(err)
			}
			git(t, repository, "add", "file")
			faults := checkFiles(t, repository)
			if test.want == "" && len(faults) > 0 || test.want != "" &&
				(len(faults) != 1 || !strings.HasPrefix(faults[0], "file "+test.want)) {
				t.Errorf("faults %q, want %q", faults, test.want)
			}
		})
	}
}

// TestOddNamesShow adds a file with a name that no one gives.
func TestOddNamesShow(t *testing.T) {
	repository := t.TempDir()
	git(t, repository, "init", "-q")
	if err := os.WriteFile(filepath.Join(repository, `.wrong("x", y)p`), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	git(t, repository, "add", ".")
	if faults := checkFiles(t, repository); len(faults) != 1 || !strings.Contains(faults[0], "by mistake") {
		t.Errorf("faults %q, want the odd name", faults)
	}
}
