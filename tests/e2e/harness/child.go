package harness

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/tests/kit"
)

const (
	// readyTimeout is what a start may take on a busy machine with the race detector, a rebuild of
	// the store included.
	readyTimeout = 60 * time.Second
	// stopTimeout is what a stop in order may take before the process is killed and the test fails.
	stopTimeout = 30 * time.Second
	// askTimeout bounds the question whether a process is ready.
	askTimeout = 5 * time.Second
	// raceReport is what the race detector prints; a child that is killed has no exit code for it.
	raceReport = "WARNING: DATA RACE"
)

// child is a process of a test. What cannot be done ends the test.
type child struct{ process kit.Process }

// newChild is a process that does not run yet, in a folder, with what is added to the environment
// of the tests.
func newChild(t testing.TB, program, dir string, env ...string) child {
	t.Helper()
	return child{kit.Process{Command: kit.Command{
		Program: program, Dir: dir, Env: kit.Environment(env...), Log: filepath.Join(t.TempDir(), "output"),
	}}}
}

// endWithTest lets the child end with the test, which fails if it had a race, and shows its last
// output if the test failed.
func (c *child) endWithTest(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		c.Kill(t)
		if strings.Contains(c.Output(t), raceReport) {
			t.Errorf("%s has a data race:\n%s", c, c.Output(t))
		}
		if t.Failed() {
			t.Logf("%s said last:\n%s", c, c.process.Tail())
		}
	})
}

// spawn starts the program; its output is added to that of earlier starts.
func (c *child) spawn(t testing.TB) {
	t.Helper()
	fatal(t, c.process.Start())
}

// await asks until ask has no error any more. The test ends when the child does first, or when it
// takes too long.
func (c *child) await(t testing.TB, what string, ask func(context.Context) error) {
	t.Helper()
	fatal(t, c.process.Await(t.Context(), readyTimeout, what, ask))
}

// PID is the id of the process.
func (c *child) PID() int { return c.process.PID() }

// Exited is closed when the process has ended.
func (c *child) Exited() <-chan struct{} { return c.process.Exited() }

// Ended reports whether the process has ended.
func (c *child) Ended() bool { return c.process.Ended() }

// ExitCode is how the process has ended, -1 for a signal.
func (c *child) ExitCode() int { return c.process.ExitCode() }

// String is the command line.
func (c *child) String() string { return c.process.String() }

// Kill ends the process as kill -9 does and waits until it is gone.
func (c *child) Kill(t testing.TB) {
	t.Helper()
	fatal(t, c.process.Kill())
}

// Stop asks the process to end in order, waits until it is gone, and returns its exit code.
func (c *child) Stop(t testing.TB) int {
	t.Helper()
	c.Signal(t, syscall.SIGTERM)
	return c.AwaitExit(t)
}

// AwaitExit waits until the process has ended by itself, and returns its exit code.
func (c *child) AwaitExit(t testing.TB) int {
	t.Helper()
	return c.AwaitExitWithin(t, stopTimeout)
}

// AwaitExitWithin is AwaitExit for a process that takes longer.
func (c *child) AwaitExitWithin(t testing.TB, within time.Duration) int {
	t.Helper()
	fatal(t, c.process.Wait(within))
	return c.process.ExitCode()
}

// Pause stops the process with SIGSTOP: its sockets stay open, and nothing moves. Resume lets it go
// on.
func (c *child) Pause(t testing.TB) {
	t.Helper()
	fatal(t, c.process.Pause())
	kit.Await(t, "the process to stop", c.process.IsPaused)
}

// Resume is explained at Pause.
func (c *child) Resume(t testing.TB) {
	t.Helper()
	fatal(t, c.process.Resume())
}

// Signal sends the process a signal.
func (c *child) Signal(t testing.TB, s os.Signal) {
	t.Helper()
	fatal(t, c.process.Signal(s))
}

// Output is everything that the process has written, over all its starts.
func (c *child) Output(t testing.TB) string {
	t.Helper()
	text, err := c.process.Output()
	fatal(t, err)
	return text
}

func fatal(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
