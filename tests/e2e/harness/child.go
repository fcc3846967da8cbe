package harness

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// readyTimeout is what a start may take on a busy machine with the race detector, a rebuild of the store included.
	readyTimeout = 60 * time.Second
	// stopTimeout is what a stop in order may take before the process is killed and the test fails.
	stopTimeout = 30 * time.Second
	// pollPause lies between two questions whether a process is there, askTimeout bounds each.
	pollPause  = 20 * time.Millisecond
	askTimeout = 5 * time.Second
	// raceReport is what the race detector says; a child that is killed cannot say it by its exit code.
	raceReport = "WARNING: DATA RACE"
	// lastWords is how much of a process's output is shown when something went wrong.
	lastWords = 8 << 10
)

// child is a program that can be killed and started again.
type child struct {
	binary string
	args   []string
	dir    string
	env    []string
	// log is the file with everything that it says.
	log string

	cmd *exec.Cmd
	// exited is closed when the process has ended.
	exited chan struct{}
}

// endWithTest lets the child end with the test, which fails if it had a race, and shows its last words if the test failed.
func (c *child) endWithTest(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		c.Kill(t)
		if strings.Contains(c.Output(t), raceReport) {
			t.Errorf("%s has a data race:\n%s", c, c.Output(t))
		}
		if t.Failed() {
			t.Logf("%s said last:\n%s", c, c.tail())
		}
	})
}

// spawn starts the program; its output is added to what earlier ones said.
func (c *child) spawn(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatalf("start %s: %v", c, err)
	}
	defer log.Close()                         //nolint:errcheck // the child has a copy
	c.cmd = exec.Command(c.binary, c.args...) //nolint:noctx // our own program; it outlives the contexts of tests and ends with Kill
	c.cmd.Dir, c.cmd.Env = c.dir, environment(c.env)
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = attributes()
	if err := c.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", c, err)
	}
	cmd, exited := c.cmd, make(chan struct{})
	c.exited = exited
	go func() { // ends with the process; Kill and Stop wait for it
		defer close(exited)
		_ = cmd.Wait() // the state has the exit code
	}()
}

// environment is that of the tests without what configures millrace, and with more.
func environment(more []string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return strings.HasPrefix(name, "MILLRACE_") || slices.Contains([]string{"HTTP_PORT", "USER_FUNCTION_HOST", "USER_FUNCTION_PORT"}, name)
	})
	return append(env, more...)
}

// respawn starts a child that has ended again.
func (c *child) respawn(t testing.TB) {
	t.Helper()
	select {
	case <-c.exited:
	default:
		t.Fatalf("restart %s: it still runs", c)
	}
	c.spawn(t)
}

// await asks until ask has no error any more. The test ends when the child does first, or when it takes too long.
func (c *child) await(t testing.TB, what string, ask func(context.Context) error) {
	t.Helper()
	deadline := time.NewTimer(readyTimeout)
	defer deadline.Stop()
	again := time.NewTicker(pollPause)
	defer again.Stop()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), askTimeout)
		err := ask(ctx)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-c.exited:
			t.Fatalf("%s ended (%s) before it was %s:\n%s", c, c.cmd.ProcessState, what, c.tail())
		case <-deadline.C:
			t.Fatalf("%s is not %s after %v: %v\n%s", c, what, readyTimeout, err, c.tail())
		case <-t.Context().Done():
			t.Fatalf("the test ended before %s was %s: %v", c, what, err)
		}
	}
}

// Exited is closed when the process has ended.
func (c *child) Exited() <-chan struct{} { return c.exited }

// String is the command line.
func (c *child) String() string { return filepath.Base(c.binary) + " " + strings.Join(c.args, " ") }

// Kill ends the process as kill -9 does and waits until it is gone.
func (c *child) Kill(t testing.TB) {
	t.Helper()
	c.signal(t, syscall.SIGKILL)
	<-c.exited
}

// Stop asks the process to end in order, waits until it is gone, and returns its exit code.
func (c *child) Stop(t testing.TB) int {
	t.Helper()
	c.signal(t, syscall.SIGTERM)
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
	patience := time.NewTimer(within)
	defer patience.Stop()
	select {
	case <-c.exited:
	case <-patience.C:
		c.Kill(t)
		t.Fatalf("%s did not end within %v:\n%s", c, within, c.tail())
	}
	return c.cmd.ProcessState.ExitCode()
}

// Freeze stops the process with SIGSTOP: its sockets live on, and nothing moves. Thaw lets it go on.
func (c *child) Freeze(t testing.TB) { c.signal(t, syscall.SIGSTOP) }

// Thaw is explained at Freeze.
func (c *child) Thaw(t testing.TB) { c.signal(t, syscall.SIGCONT) }

func (c *child) signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("send %s to %s: %v", s, c, err)
	}
}

// Output is everything that the process has said, over all its starts.
func (c *child) Output(t testing.TB) string {
	t.Helper()
	said, err := os.ReadFile(c.log)
	if err != nil {
		t.Fatalf("read what %s said: %v", c, err)
	}
	return string(said)
}

func (c *child) tail() string {
	said, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	return string(said[max(0, len(said)-lastWords):])
}
