package cli

import (
	"bytes"
	"context"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/examples/counter/counter"
	"github.com/millrace-io/millrace/examples/pricing/pricing"
	"github.com/millrace-io/millrace/examples/shoppingcart/cart"
	"github.com/millrace-io/millrace/internal/app/inprocess"
	"github.com/millrace-io/millrace/internal/app/node"
	"github.com/millrace-io/millrace/internal/leaktest"
	"github.com/millrace-io/millrace/sdk"
	"github.com/millrace-io/millrace/tests/kit"
)

func TestMain(m *testing.M) {
	for _, v := range os.Environ() { // what configures millrace is for each test to say
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "MILLRACE_") || strings.HasPrefix(name, "USER_FUNCTION_") || name == "HTTP_PORT" {
			_ = os.Unsetenv(name)
		}
	}
	if os.Getenv("CLI_TEST_PROGRAM") != "" {
		f, err := inprocess.New(counter.Service)
		if err != nil {
			panic(err)
		}
		Main(Program{Name: "millrace", Examples: f})
	}
	kit.HearHangUps()
	leaktest.Main(m)
}

// patience is how long a test waits, on a busy machine.
const patience = 30 * time.Second

// screen is an output that a test can read while it is written, and that may pretend to be a
// terminal.
type screen struct {
	terminal bool

	mu      sync.Mutex
	content bytes.Buffer
	changed chan struct{}
}

func newScreen(terminal bool) *screen {
	return &screen{terminal: terminal, changed: make(chan struct{})}
}

// IsTerminal returns what the test has set.
func (s *screen) IsTerminal() bool { return s.terminal }

// Write keeps what is written.
func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
	return s.content.Write(b)
}

func (s *screen) read() (content string, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.content.String(), s.changed
}

// String returns what was written so far.
func (s *screen) String() string {
	content, _ := s.read()
	return content
}

// await waits until a pattern was written, and returns its groups.
func (s *screen) await(t *testing.T, pattern string) []string {
	t.Helper()
	wanted := regexp.MustCompile(pattern)
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		content, changed := s.read()
		if found := wanted.FindStringSubmatch(content); found != nil {
			return found
		}
		select {
		case <-changed:
		case <-deadline.C:
			t.Fatalf("waited %v for %q in:\n%s", patience, pattern, content)
		}
	}
}

// result is how a command line ended.
type result struct {
	code           int
	stdout, stderr string
}

// runIn runs a command line to its end.
func (p Program) runIn(t *testing.T, terminal bool, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stdout, stderr := newScreen(terminal), newScreen(terminal)
	code := p.Run(ctx, args, strings.NewReader(stdin), stdout, stderr)
	return result{code, stdout.String(), stderr.String()}
}

// function hosts services in this process.
func function(t *testing.T, services ...*sdk.Service) node.Local {
	t.Helper()
	f, err := inprocess.New(services...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// tool is the program millrace, with the examples.
func tool(t *testing.T) Program {
	t.Helper()
	return Program{Name: "millrace", Examples: function(t, cart.Service, counter.Service, pricing.Service)}
}

// serving is a command line that serves until it is stopped.
type serving struct {
	stdout, stderr *screen
	interrupt      context.CancelFunc
	code           chan int
}

// serve starts a command line on free ports, with its data in a directory of the test.
func (p Program) serveIn(t *testing.T, args ...string) *serving {
	t.Helper()
	if p.Name == "" {
		p.Name = "millrace"
	}
	ctx, interrupt := context.WithCancel(context.WithoutCancel(t.Context()))
	s := &serving{stdout: newScreen(true), stderr: newScreen(true), interrupt: interrupt, code: make(chan int, 1)}
	at := min(1, len(args)) // after the command, so that flags of the test take precedence
	if at > 0 && strings.HasPrefix(args[0], "-") {
		at = 0
	}
	args = slices.Insert(slices.Clone(args), at, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--peer",
		"127.0.0.1:0")
	go func() { s.code <- p.Run(ctx, args, strings.NewReader(""), s.stdout, s.stderr) }() // ends with ctx; stop receives
	t.Cleanup(func() { interrupt() })
	return s
}

// stop interrupts the command line once and returns its exit code.
func (s *serving) stop(t *testing.T) int {
	t.Helper()
	s.interrupt()
	return s.wait(t)
}

func (s *serving) wait(t *testing.T) int {
	t.Helper()
	select {
	case code := <-s.code:
		return code
	case <-time.After(patience):
		t.Fatalf("still running after %v:\n%s%s", patience, s.stdout, s.stderr)
		return -1
	}
}

// connect makes the commands of this test find the process, when it is ready.
func (s *serving) connect(t *testing.T) {
	t.Helper()
	s.stdout.await(t, "(?m)^try:\n")
	t.Setenv("MILLRACE_LISTEN", s.stdout.await(t, `public +http://(\S+)`)[1])
	t.Setenv("MILLRACE_ADMIN", s.stdout.await(t, `admin +http://(\S+)`)[1])
}
