package cli

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cockroachdb/datadriven"
	"github.com/spf13/cobra"
)

// TestHelp compares the help of every command with testdata/help; -rewrite writes it anew.
func TestHelp(t *testing.T) {
	p := tool(t)
	datadriven.RunTest(t, "testdata/help", func(t *testing.T, d *datadriven.TestData) string {
		var args []string
		for _, arg := range d.CmdArgs {
			args = append(args, arg.Key)
		}
		r := p.runIn(t, false, "", append(args, "--help")...)
		if r.code != exitOK || r.stderr != "" {
			t.Errorf("%s: exit code %d: %s", d.Pos, r.code, r.stderr)
		}
		return r.stdout
	})
}

// Every command has its place in testdata/help.
func TestHelpIsComplete(t *testing.T) {
	p := tool(t)
	seen := map[string]bool{}
	datadriven.Walk(t, "testdata/help", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(_ *testing.T, d *datadriven.TestData) string {
			var name []string
			for _, arg := range d.CmdArgs {
				name = append(name, arg.Key)
			}
			seen[strings.Join(name, " ")] = true
			return d.Expected
		})
	})
	for _, cmd := range p.root().Commands() {
		names := []string{cmd.Name()}
		for _, below := range cmd.Commands() {
			names = append(names, cmd.Name()+" "+below.Name())
		}
		for _, name := range names {
			if !seen[name] {
				t.Errorf("testdata/help has nothing about %q", name)
			}
		}
	}
}

// TestHelpIsWrapped: the texts of a help fit a terminal of 120 columns, and end without a newline.
func TestHelpIsWrapped(t *testing.T) {
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		for line := range strings.SplitSeq(cmd.Long, "\n") {
			if n := utf8.RuneCountInString(line); n > 120 {
				t.Errorf("%s: a line of %d columns: %s", cmd.CommandPath(), n, line)
			}
		}
		if strings.HasSuffix(cmd.Long, "\n") {
			t.Errorf("%s: its help ends with a newline", cmd.CommandPath())
		}
		for _, below := range cmd.Commands() {
			check(below)
		}
	}
	check(tool(t).root())
}

// TestTranscript runs command lines against a process, on a terminal and in a pipe, and compares
// output and exit codes with testdata/transcript; -rewrite writes it anew. What differs from run to
// run is replaced.
func TestTranscript(t *testing.T) {
	t.Chdir(t.TempDir())
	p := tool(t)
	s := p.serveIn(t, "dev", "--ephemeral", "--partitions", "2", "--worker", "w-1")
	s.connect(t)
	defer func() {
		if code := s.stop(t); code != exitOK {
			t.Errorf("dev ended with %d: %s", code, s.stderr)
		}
	}()
	datadriven.RunTest(t, testdata(t, "transcript"), func(t *testing.T, d *datadriven.TestData) string {
		line, stdin, _ := strings.Cut(d.Input, "\n")
		r := p.runIn(t, d.Cmd == "terminal", stdin, split(t, line)...)
		return scrub(r)
	})
}

// split takes a command line apart: at blanks that are not between single quotes.
func split(t *testing.T, line string) []string {
	t.Helper()
	var args []string
	for _, part := range regexp.MustCompile(`(?:[^\s']|'[^']*')+`).FindAllString(line, -1) {
		args = append(args, strings.ReplaceAll(part, "'", ""))
	}
	if len(args) == 0 {
		t.Fatalf("no command line: %q", line)
	}
	return args
}

// scrub shows a result without what differs from run to run.
func scrub(r result) string {
	var b strings.Builder
	b.WriteString(r.stdout)
	if r.stderr != "" {
		b.WriteString("stderr: " + r.stderr)
	}
	if r.code != exitOK {
		fmt.Fprintf(&b, "exit code %d\n", r.code)
	}
	text := b.String()
	for _, pattern := range []struct{ old, new string }{
		{`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}`, "YYYY-MM-DD HH:MM:SS.SSS"},
		{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`, "YYYY-MM-DDTHH:MM:SSZ"},
		{`127\.0\.0\.1:\d{2,5}`, "127.0.0.1:PORT"},
		{`"nonce":"[0-9a-f]{16}"`, `"nonce":"NONCE"`},
		{regexp.QuoteMeta(Version()), "VERSION"},
		{`up \d+s`, "up 1s"},
		{`(w-1 .* ready .*  )\d+s`, "${1}1s"},
		{`(active +1 +\d+ +0 +)\d+`, "${1}N"}, // how many entities are active is looked at now and then
		{`[ \t]+\n`, "\n"},
	} {
		text = regexp.MustCompile(pattern.old).ReplaceAllString(text, pattern.new)
	}
	return text
}
