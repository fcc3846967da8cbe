package e2e_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

// functionCodes are what callers may see while a function is gone: UNAVAILABLE when it did not come back in time, UNKNOWN
// where it died over their command, as Cloudstate has it. Either way nothing was stored.
var functionCodes = []codes.Code{codes.Unavailable, codes.Unknown}

// TestCrashOfAFunctionIsWaitedFor kills a remote function under load and starts it again.
func TestCrashOfAFunctionIsWaitedFor(t *testing.T) {
	for _, tc := range []struct {
		program string
		load    loadOptions
	}{
		{harness.ShoppingCart, loadOptions{carts: true}},
		{harness.Counter, loadOptions{counters: true}},
	} {
		t.Run(tc.program, func(t *testing.T) {
			f := harness.StartRemote(t, tc.program)
			p := harness.Start(t, harness.Options{Command: "run", Args: []string{"--function", f.Address()}})
			crashFunction(t, p, tc.load, func() {
				f.Kill(t)
				f.Restart(t)
			})
		})
	}
}

// TestCrashOfASupervisedFunctionIsMended kills a function that `dev` has started: `dev` starts it again.
func TestCrashOfASupervisedFunctionIsMended(t *testing.T) {
	address, pidFile := kit.FreeAddress(t), filepath.Join(t.TempDir(), "pid")
	p := harness.Start(t, harness.Options{
		Args:     []string{"--function", address},
		Function: []string{"sh", "-c", `echo $$ > "$0"; exec "$@"`, pidFile, harness.Build(t, harness.ShoppingCart, ""), "-remote", address},
	})
	t.Cleanup(func() { // in order: a function outlives a `dev` that was killed
		if code := p.Stop(t); code != 0 {
			t.Errorf("stopped in order, the exit code is %d", code)
		}
	})
	crashFunction(t, p, loadOptions{carts: true}, func() { killByFile(t, pidFile) })
}

// crashFunction kills the function of p under load. Nothing happens to the log, so no outcome may be unknown.
func crashFunction(t *testing.T, p *harness.Process, o loadOptions, kill func()) {
	t.Helper()
	o.conn, o.mayFail = p.Dial(t), functionCodes
	l := newLoad(t, o)
	l.start()
	n := kit.CrashRounds.NumberOr(t, defaultRounds)
	for range n {
		l.awaitAnswers()
		l.expectTrouble()
		kill()
	}
	l.awaitAnswers()
	l.stop()
	l.check()
	if lost := l.lost.Load(); lost != 0 {
		t.Errorf("%d commands have an unknown outcome, and the log was never in doubt", lost)
	}
	if code := p.Stop(t); code != 0 {
		t.Errorf("stopped in order, the exit code is %d", code)
	}
	p.Restart(t)
	l.check()
	l.report(n)
}

// killByFile kills the process that has written its number into a file.
func killByFile(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill function %d: %v", pid, err)
	}
}
