package e2e_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

// exitError is the exit code of a process that could not do its work.
const exitError = 1

// TestSecondProcessOnADataDirectoryIsTurnedAway starts two; the first goes on as if nothing had
// happened.
func TestSecondProcessOnADataDirectoryIsTurnedAway(t *testing.T) {
	first := harness.Start(t, harness.Options{})
	account := newAccount(first.Dial(t))
	account.add(t)
	second := harness.Launch(t, harness.Options{Data: first.Data()})
	if code := second.AwaitExit(t); code != exitError {
		t.Errorf("the second process ended with %d, want %d", code, exitError)
	}
	contains(t, second.Output(t), first.Data(), "another process", "choose another directory")
	account.add(t)
	first.Kill(t)
	first.Restart(t)
	account.add(t)
}

// TestUnusableDataDirectoryIsNamed starts on directories that cannot be used. What is in them is
// left alone.
func TestUnusableDataDirectoryIsNamed(t *testing.T) {
	for _, tc := range []struct {
		name string
		// spoil makes the directory at a path what it should not be.
		spoil func(t *testing.T, dir string)
		words []string
	}{
		{"a file is in its place", func(t *testing.T, dir string) { write(t, dir, "mine") }, []string{"data directory", "--data"}},
		{"a file is in the log's place", func(t *testing.T, dir string) {
			makeDir(t, dir)
			write(t, filepath.Join(dir, "log"), "mine")
		}, []string{"log", "a file is in the way"}},
		{"the log's place holds other things", func(t *testing.T, dir string) {
			makeDir(t, filepath.Join(dir, "log"))
			write(t, filepath.Join(dir, "log", "notes.txt"), "mine")
		}, []string{"log", "notes.txt", "choose an empty directory"}},
		{"it is of a newer version", func(t *testing.T, dir string) {
			makeDir(t, dir)
			write(t, filepath.Join(dir, "identity.json"), `{"version":99,"app":"millrace","worker":"w"}`)
		}, []string{dirWord, "version 99", "newer"}},
		{"its identity is damaged", func(t *testing.T, dir string) {
			makeDir(t, dir)
			write(t, filepath.Join(dir, "identity.json"), `{"version"`)
		}, []string{"identity.json", "damaged", "--data"}},
		{"it belongs to another app", func(t *testing.T, dir string) {
			makeDir(t, dir)
			write(t, filepath.Join(dir, "identity.json"), `{"version":1,"app":"shop","worker":"w"}`)
		}, []string{dirWord, `"shop"`, "--app shop"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			tc.spoil(t, dir)
			before := tree(t, dir)
			p := harness.Launch(t, harness.Options{Data: dir})
			if code := p.AwaitExit(t); code != exitError {
				t.Errorf("the process ended with %d, want %d", code, exitError)
			}
			for _, word := range tc.words {
				if word == dirWord {
					word = dir
				}
				contains(t, p.Output(t), word)
			}
			for path, content := range before {
				if after := tree(t, dir)[path]; after != content {
					t.Errorf("%s held %q before and holds %q now", path, content, after)
				}
			}
		})
	}
}

// dirWord is replaced by the path of the directory.
const dirWord = "(the directory)"

// TestDataOfANewerVersionIsUntouched raises the version of data that this program wrote, is turned
// away, and finds everything when the version is what it was.
func TestDataOfANewerVersionIsUntouched(t *testing.T) {
	p := harness.Start(t, harness.Options{})
	account := newAccount(p.Dial(t))
	account.add(t)
	p.Stop(t)
	for _, file := range []string{"identity.json", filepath.Join("log", "FORMAT")} {
		path := filepath.Join(p.Data(), file)
		written := read(t, path)
		write(t, path, newer(t, file, written))
		next := harness.Launch(t, harness.Options{Data: p.Data()})
		if code := next.AwaitExit(t); code != exitError {
			t.Errorf("%s of a newer version: the process ended with %d, want %d", file, code, exitError)
		}
		contains(t, next.Output(t), p.Data(), "99", "newer")
		write(t, path, written)
	}
	p.Restart(t)
	account.add(t)
}

// newer returns the content of a file with the version 99.
func newer(t *testing.T, file, written string) string {
	t.Helper()
	if filepath.Base(file) == "FORMAT" {
		return "millrace log format 99\n"
	}
	identity := map[string]any{}
	if err := json.Unmarshal([]byte(written), &identity); err != nil {
		t.Fatal(err)
	}
	identity["version"] = 99
	content, err := json.Marshal(identity)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestBrokerThatCannotBeReachedIsNamed starts a worker whose log is not there.
func TestBrokerThatCannotBeReachedIsNamed(t *testing.T) {
	unused := kit.FreeAddress(t)
	p := harness.Launch(t, harness.Options{Command: "run", Args: []string{"--app", "shop", "--brokers", unused}})
	if code := p.AwaitExit(t); code != exitError {
		t.Errorf("the process ended with %d, want %d", code, exitError)
	}
	contains(t, p.Output(t), "no Kafka broker answered", unused, "check that")
}

func makeDir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o750); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// tree is every file below a path, or the file at it, with its content.
func tree(t *testing.T, path string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(path, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files[path] = read(t, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
