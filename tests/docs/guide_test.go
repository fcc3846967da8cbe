package docs

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

func TestMain(m *testing.M) { harness.Main(m) }

// block is a block of code of a page.
type block struct {
	language, text string
	line           int
}

// fence is the beginning or the end of a block.
var fence = regexp.MustCompile("^```([a-z]*)$")

// blocks returns the blocks of a page.
func blocks(t *testing.T, page string) []block {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var all []block
	isOpen := false
	for i, line := range strings.Split(string(text), "\n") {
		switch found := fence.FindStringSubmatch(line); {
		case found != nil && !isOpen:
			all = append(all, block{language: found[1], line: i + 1})
			isOpen = true
		case found != nil:
			isOpen = false
		case isOpen:
			all[len(all)-1].text += line + "\n"
		}
	}
	return all
}

// reader does what a page says, at the root of the repository, with the worker on ports of its own.
type reader struct {
	t       *testing.T
	page    string
	root    string
	worker  *harness.Process
	printed string
	// again runs the last command once more; nil if it changes something.
	again func() string
}

// startProgram is a command that does not end: a worker, in its own terminal.
var startProgram = regexp.MustCompile(`^go run \./(examples/\w+) dev(?: (.*))?$`)

// runProgram is one that ends, or looks at the worker.
var runProgram = regexp.MustCompile(`go run \./((?:examples|cmd)/\w+)`)

func (r *reader) run(b block) {
	r.t.Helper()
	for line := range strings.SplitSeq(strings.ReplaceAll(b.text, "\\\n", ""), "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if found := startProgram.FindStringSubmatch(line); found != nil {
			args := strings.Fields(found[2])
			r.worker = harness.Start(r.t, harness.Options{Program: found[1], Dir: r.root, Args: args, Ephemeral: true})
			r.awaitViews()
			continue
		}
		r.again = nil
		if !changes.MatchString(line) {
			r.again = func() string { return r.shell(b, line) }
		}
		r.printed = r.shell(b, line)
	}
}

// changes matches a command that sends something to be stored.
var changes = regexp.MustCompile(`content-type`)

// awaitViews waits until the views answer, as the reader does.
func (r *reader) awaitViews() {
	r.t.Helper()
	for _, name := range []string{"orders:listOpen", "customers:listByCity"} {
		answers := kit.Answers("http://" + r.worker.Public() + "/v1/" + name)
		kit.Await(r.t, name+" to answer", func() bool { return answers(r.t.Context()) == nil })
	}
}

// shell runs a command, which must succeed, and returns what it printed.
func (r *reader) shell(b block, line string) string {
	r.t.Helper()
	line = runProgram.ReplaceAllStringFunc(line, func(found string) string {
		return harness.Build(r.t, runProgram.FindStringSubmatch(found)[1], "")
	})
	line = strings.ReplaceAll(line, "127.0.0.1:9000", r.worker.Public())
	ctx, cancel := context.WithTimeout(r.t.Context(), kit.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", "set -e; "+line)
	cmd.Dir, cmd.Env = r.root, kit.Environment("MILLRACE_ADMIN="+r.worker.Admin())
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("%s:%d: %s: %v\n%s%s", r.page, b.line, line, err, out, &said)
	}
	return string(out)
}

// compare compares a block with what the last command printed. White space does not count, and …
// stands for anything within a text. A view may be behind the command before it, so a question is
// asked again until it has the answer of the page.
func (r *reader) compare(b block) {
	r.t.Helper()
	var want strings.Builder
	for i, part := range strings.Split(squeeze(b.text), "…") {
		if i > 0 {
			want.WriteString(`[^"]*`)
		}
		want.WriteString(regexp.QuoteMeta(part))
	}
	isWanted := regexp.MustCompile("^" + want.String() + "$").MatchString
	if isWanted(squeeze(r.printed)) {
		return
	}
	r.t.Logf("%s:%d: printed\n%s\nthe page says\n%s", r.page, b.line, r.printed, b.text)
	if r.again == nil {
		r.t.Fatal("the command changes something, so it is not run again")
	}
	kit.Await(r.t, "the answer of the page", func() bool { return isWanted(squeeze(r.again())) })
}

func squeeze(text string) string { return strings.Join(strings.Fields(text), "") }

// TestViews runs docs/guides/views.md.
func TestViews(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{t: t, page: "docs/guides/views.md", root: root}
	for _, b := range blocks(t, filepath.Join(root, filepath.FromSlash(r.page))) {
		switch b.language {
		case "sh":
			r.run(b)
		case "json", "text":
			r.compare(b)
		default: // an excerpt of a file
		}
	}
}
