package kit_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/tests/kit"
)

// TestReadmeListsTheSettings compares the table of README.md with the settings.
func TestReadmeListsTheSettings(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, s := range kit.Settings() {
		want = append(want, strings.TrimRight(fmt.Sprintf("| `%s` | %s | %s |", s.Name, s.Default, s.Meaning), "\n"))
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| `") {
			got = append(got, strings.TrimRight(line, "\n"))
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("tests/README.md lists\n%s\nand should list\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestSettingReadsTheEnvironment reads each kind of value, and its default.
func TestSettingReadsTheEnvironment(t *testing.T) {
	s := kit.Setting{Name: "MILLRACE_KIT_TEST", Default: "3"}
	if n := s.Number(t); n != 3 {
		t.Errorf("the default is %d, want 3", n)
	}
	t.Setenv(s.Name, "8")
	if n, other := s.Number(t), s.NumberOr(t, 4); n != 8 || other != 8 {
		t.Errorf("it is %d and %d, want 8", n, other)
	}
	if seed := s.Seed(t); seed != 8 {
		t.Errorf("the seed is %d, want 8", seed)
	}
	t.Setenv(s.Name, "90s")
	if d := s.Duration(t); d.Seconds() != 90 {
		t.Errorf("it is %v, want 90 s", d)
	}
	none := kit.Setting{Name: "MILLRACE_KIT_NONE"}
	if none.Number(t) != 0 || none.Duration(t) != 0 || none.NumberOr(t, 4) != 4 || none.Seed(t) == 0 {
		t.Error("without a value and a default it is 0, but for a seed")
	}
}
