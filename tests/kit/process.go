package kit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// askPause is the pause between two checks of a process, askTimeout bounds each.
	askPause   = 20 * time.Millisecond
	askTimeout = 5 * time.Second
	// tailBytes is how much of a process's output an error shows.
	tailBytes = 8 << 10
)

// Command says what a process runs.
type Command struct {
	// Program is the path of the program, Args its arguments.
	Program string
	Args    []string
	// Dir is the working directory, "" that of this process. Env is the whole environment,
	// NAME=value, nil that of this process.
	Dir string
	Env []string
	// Log is the file to which the output is appended. Required.
	Log string
	// Detached lets the process go on when this one ends. Otherwise it is killed then, where the
	// system can do that.
	Detached bool
}

// Process is a program that can be killed and started again. A change of its Command counts from
// the next start on. Its methods must not overlap, except for Exited and Ended.
type Process struct {
	Command

	cmd *exec.Cmd
	// exited is closed when the process has ended.
	exited chan struct{}
}

// Start starts the program. It is an error if it still runs.
func (p *Process) Start() error {
	if p.cmd != nil && !p.Ended() {
		return fmt.Errorf("start %s: process %d still runs", p, p.PID())
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", p, err)
	}
	defer func() { _ = log.Close() }()        // the process has a copy
	cmd := exec.Command(p.Program, p.Args...) //nolint:noctx // the test's own program; it ends with Kill or Stop
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.Dir, p.Env, log, log
	cmd.SysProcAttr = attributes(p.Detached)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p, err)
	}
	exited := make(chan struct{})
	p.cmd, p.exited = cmd, exited
	go func() { // ends with the process; Kill and Stop wait for it
		defer close(exited)
		_ = cmd.Wait() // the state has the exit code
	}()
	return nil
}

// PID is the id of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// String is the command line.
func (p *Process) String() string { return filepath.Base(p.Program) + " " + strings.Join(p.Args, " ") }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Ended reports whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// ExitCode is how the process has ended, -1 for a signal.
func (p *Process) ExitCode() int { return p.cmd.ProcessState.ExitCode() }

// Signal sends a signal; a process that has ended takes any.
func (p *Process) Signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %s to %s: %w", s, p, err)
	}
	return nil
}

// Pause stops the process with SIGSTOP, until Resume: its sockets stay open.
func (p *Process) Pause() error { return p.Signal(pauseSignal) }

// Resume lets a paused process go on.
func (p *Process) Resume() error { return p.Signal(resumeSignal) }

// Kill ends the process as kill -9 does, and waits until it is gone.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.exited
	return nil
}

// Stop asks the process to end in order and waits until it is gone. One that has not ended in time
// is killed, which is an error.
func (p *Process) Stop(within time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return p.Wait(within)
}

// Wait waits until the process has ended by itself. One that has not ended in time is killed, which
// is an error.
func (p *Process) Wait(within time.Duration) error {
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	select {
	case <-p.exited:
		return nil
	case <-deadline.C:
		return errors.Join(fmt.Errorf("%s did not end within %v:\n%s", p, within, p.Tail()), p.Kill())
	}
}

// Await calls ask again and again, until it returns no error. It is an error if the process ends
// before that, if ctx does, or if it takes too long. what completes "it is not …".
func (p *Process) Await(ctx context.Context, within time.Duration, what string, ask func(context.Context) error) error {
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	again := time.NewTicker(askPause)
	defer again.Stop()
	for {
		asking, cancel := context.WithTimeout(ctx, askTimeout)
		err := ask(asking)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-p.exited:
			return fmt.Errorf("%s ended (%s) before it was %s:\n%s", p, p.cmd.ProcessState, what, p.Tail())
		case <-deadline.C:
			return fmt.Errorf("%s is not %s after %v: %w\n%s", p, what, within, err, p.Tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not %s: %w: %w\n%s", p, what, context.Cause(ctx), err, p.Tail())
		}
	}
}

// Output is everything that the process has written, over all its starts.
func (p *Process) Output() (string, error) {
	text, err := os.ReadFile(p.Log)
	return string(text), err
}

// Tail is the end of what the process has written, for errors.
func (p *Process) Tail() string {
	text, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-tailBytes):])
}

// Listens asks whether there is a listener at an address.
func Listens(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// Answers asks whether a page answers 200, on a connection of its own.
func Answers(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		req.Close = true
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", url, res.Status)
		}
		return nil
	}
}

// Environment is that of this process without what configures millrace, and with more.
func Environment(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return strings.HasPrefix(name, "MILLRACE_") ||
			slices.Contains([]string{"HTTP_PORT", "USER_FUNCTION_HOST", "USER_FUNCTION_PORT"}, name)
	})
	return append(env, more...)
}

// Build compiles a main package of this module, named from its root, into a file. dir is a folder
// of the checkout whose sources count.
func Build(ctx context.Context, dir, out, program string, flags ...string) error {
	args := append(append([]string{"build", "-o", out}, flags...), "github.com/millrace-io/millrace/"+program)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", program, err, said)
	}
	return nil
}
