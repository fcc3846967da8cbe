package mutation_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/internal/mutation"
)

const root = "../.."

var mutationLine = regexp.MustCompile(`(?m)^bite (\w+) (\S+) (\w+) ".+"$`)

// TestEachLineIsTested: every safety line must have a mutation test in .ci/teeth.
func TestEachLineIsTested(t *testing.T) {
	script, err := os.ReadFile(filepath.Join(root, ".ci/teeth"))
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems(string(script), mutation.Lines(), exists) {
		t.Error(problem)
	}
}

// problems returns what does not match between the script and the lines.
func problems(script string, lines []string, exists func(test, dir string) bool) []string {
	var found []string
	tested := map[string]bool{}
	for _, m := range mutationLine.FindAllStringSubmatch(script, -1) {
		test, dir, line := m[1], m[2], m[3]
		tested[line] = true
		if !slices.Contains(lines, line) {
			found = append(found, fmt.Sprintf(".ci/teeth: %s is for %q, which is not a line of internal/mutation", test, line))
		}
		if !exists(test, dir) {
			found = append(found, fmt.Sprintf(".ci/teeth: there is no %s in %s", test, dir))
		}
	}
	if n := strings.Count(script, "\nbite "); n != len(mutationLine.FindAllString(script, -1)) {
		found = append(found, `.ci/teeth: a line is not of the form: bite TEST PACKAGE LINE "WHAT"`)
	}
	for _, line := range lines {
		if line == mutation.GapScan || line == mutation.StrictClaim { // not safety lines
			continue
		}
		if !tested[line] {
			found = append(found, fmt.Sprintf("internal/mutation: no test for %q: add a line to .ci/teeth", line))
		}
	}
	return found
}

// exists reports whether a directory has a test of this name.
func exists(test, dir string) bool {
	files, _ := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
	return slices.ContainsFunc(files, func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(text), "\nfunc "+test+"(")
	})
}

// TestEachLineIsTestedShow: each problem is found.
func TestEachLineIsTestedShow(t *testing.T) {
	const script = "x\nbite TestA ./a one \"what\"\nbite TestGone ./a two \"what\"\n"
	here := func(test, _ string) bool { return test != "TestGone" }
	for name, test := range map[string]struct {
		script string
		lines  []string
		want   string
	}{
		"a line without a test":        {script, []string{"one", "two", "three"}, `no test for "three"`},
		"a test without a line":        {script, []string{"one"}, `"two", which is not a line`},
		"a test that is gone":          {script, []string{"one", "two"}, "there is no TestGone in ./a"},
		"a line that cannot be read":   {script + "bite TestB ./b\n", []string{"one", "two"}, "not of the form"},
		"no line at all in the script": {"", []string{"one"}, `no test for "one"`},
		"not a safety line":            {script, []string{"one", "two", mutation.GapScan}, ""},
	} {
		found := strings.Join(problems(test.script, test.lines, here), "\n")
		if !strings.Contains(found, test.want) || strings.Contains(found, mutation.GapScan) {
			t.Errorf("%s: found %q, want %q", name, found, test.want)
		}
	}
}
