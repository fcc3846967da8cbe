package harness

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
	"testing"
	"time"
)

const (
	// readyTimeout is what a start may take on a busy machine with the race detector, a rebuild of the store included.
	readyTimeout = 60 * time.Second
	// stopTimeout is what a stop in order may take before the process is killed and the test fails.
	stopTimeout = 30 * time.Second
	// pollPause lies between two questions whether the process is ready, askTimeout bounds each.
	pollPause  = 20 * time.Millisecond
	askTimeout = 5 * time.Second
	// lastWords is how much of a process's output is shown when something went wrong.
	lastWords = 8 << 10
)

// Options say what is started. The zero value is `millrace dev` with a data directory of its own.
type Options struct {
	// Program is one of the constants above, or another main package below the module; empty: Millrace.
	Program string
	// Command is the command of the program; empty: dev.
	Command string
	// Data is the data directory; empty: a new one that ends with the test. Ephemeral has none.
	Data      string
	Ephemeral bool
	// Args are further flags. They win over what the other fields say.
	Args []string
	// Function is the command that `dev` supervises, with its arguments.
	Function []string
	// Env are further environment variables, NAME=value. Those of the tests that configure millrace are not passed on.
	Env []string
	// Dir is the working directory; empty: a new, empty one.
	Dir string
}

// Process is one millrace that can be killed and started again.
type Process struct {
	options       Options
	binary        string
	args          []string
	public, admin string
	log           string

	cmd *exec.Cmd
	// exited is closed when the process has ended.
	exited chan struct{}
}

// Start starts a process and waits until it is ready. It ends with the test.
func Start(t testing.TB, o Options) *Process {
	t.Helper()
	p := Launch(t, o)
	p.AwaitReady(t)
	return p
}

// Launch starts a process without waiting. It ends with the test.
func Launch(t testing.TB, o Options) *Process {
	t.Helper()
	o = o.withDefaults(t)
	p := &Process{
		options: o, binary: Build(t, o.Program), public: FreeAddress(t), admin: FreeAddress(t),
		log: filepath.Join(t.TempDir(), "output"),
	}
	p.args = []string{o.Command, "--listen", p.public, "--admin", p.admin}
	if o.Ephemeral {
		p.args = append(p.args, "--ephemeral")
	} else {
		p.args = append(p.args, "--data", o.Data)
	}
	p.args = append(p.args, o.Args...)
	if len(o.Function) > 0 {
		p.args = append(append(p.args, "--"), o.Function...)
	}
	p.spawn(t)
	t.Cleanup(func() {
		p.Kill(t)
		if t.Failed() {
			t.Logf("%s said last:\n%s", p, p.tail())
		}
	})
	return p
}

func (o Options) withDefaults(t testing.TB) Options {
	t.Helper()
	if o.Program == "" {
		o.Program = Millrace
	}
	if o.Command == "" {
		o.Command = "dev"
	}
	if o.Data == "" && !o.Ephemeral {
		o.Data = filepath.Join(t.TempDir(), "data")
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	return o
}

// spawn starts the program; its output is added to what earlier ones said.
func (p *Process) spawn(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatalf("start %s: %v", p, err)
	}
	defer log.Close()                         //nolint:errcheck // the child has a copy
	p.cmd = exec.Command(p.binary, p.args...) //nolint:gosec,noctx // our own program; it outlives the contexts of tests and ends with Kill
	p.cmd.Dir, p.cmd.Env = p.options.Dir, environment(p.options.Env)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = attributes()
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", p, err)
	}
	cmd, exited := p.cmd, make(chan struct{})
	p.exited = exited
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

// Public is the address of the public port, host and port.
func (p *Process) Public() string { return p.public }

// Admin is the address of the admin port.
func (p *Process) Admin() string { return p.admin }

// Data is the data directory, empty for an ephemeral process.
func (p *Process) Data() string { return p.options.Data }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// String is the command line.
func (p *Process) String() string {
	return filepath.Base(p.binary) + " " + strings.Join(p.args, " ")
}

// AwaitReady waits until the process says that it is ready.
func (p *Process) AwaitReady(t testing.TB) {
	t.Helper()
	client := &http.Client{Timeout: askTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	deadline := time.NewTimer(readyTimeout)
	defer deadline.Stop()
	again := time.NewTicker(pollPause)
	defer again.Stop()
	answer := "no answer"
	for {
		ready, said := p.ready(t.Context(), client)
		if ready {
			return
		}
		answer = said
		select {
		case <-again.C:
		case <-p.exited:
			t.Fatalf("%s ended (%s) before it was ready:\n%s", p, p.cmd.ProcessState, p.tail())
		case <-deadline.C:
			t.Fatalf("%s is not ready after %v: %s\n%s", p, readyTimeout, answer, p.tail())
		case <-t.Context().Done():
			t.Fatalf("the test ended before %s was ready: %s", p, answer)
		}
	}
}

func (p *Process) ready(ctx context.Context, client *http.Client) (ready bool, said string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.admin+"/readyz", nil)
	if err != nil {
		return false, err.Error()
	}
	res, err := client.Do(req)
	if err != nil {
		return false, err.Error()
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK, res.Status
}

// Kill ends the process as kill -9 does and waits until it is gone.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGKILL)
	<-p.exited
}

// Stop asks the process to end in order, waits until it is gone, and returns its exit code.
func (p *Process) Stop(t testing.TB) int {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	return p.AwaitExit(t)
}

// AwaitExit waits until the process has ended by itself, and returns its exit code.
func (p *Process) AwaitExit(t testing.TB) int {
	t.Helper()
	patience := time.NewTimer(stopTimeout)
	defer patience.Stop()
	select {
	case <-p.exited:
	case <-patience.C:
		p.Kill(t)
		t.Fatalf("%s did not end within %v:\n%s", p, stopTimeout, p.tail())
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *Process) signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("send %s to %s: %v", s, p, err)
	}
}

// Restart starts a process that has ended again, on its ports and its data, and waits until it is ready.
func (p *Process) Restart(t testing.TB) {
	t.Helper()
	select {
	case <-p.exited:
	default:
		t.Fatalf("restart %s: it still runs", p)
	}
	p.spawn(t)
	p.AwaitReady(t)
}

// Output is everything that the process has said, over all its starts.
func (p *Process) Output(t testing.TB) string {
	t.Helper()
	said, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatalf("read what %s said: %v", p, err)
	}
	return string(said)
}

func (p *Process) tail() string {
	said, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(said[max(0, len(said)-lastWords):])
}

// FreeAddress returns an address on the loopback interface on which nobody listens.
func FreeAddress(t testing.TB) string {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("find a free port: %v", err)
	}
	defer l.Close() //nolint:errcheck // only asked for its number
	return l.Addr().String()
}

// Result is how a command ended.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// Run runs a command of millrace that ends by itself, in an empty directory, and returns how it ended.
func Run(t testing.TB, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, Build(t, Millrace), args...) //nolint:gosec // our own program
	var stdout, stderr strings.Builder
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = t.TempDir(), environment(nil), &stdout, &stderr
	cmd.SysProcAttr = attributes()
	err := cmd.Run()
	result := Result{Code: cmd.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && (!exited || ctx.Err() != nil) {
		t.Fatal(fmt.Errorf("run %v: %w\n%s%s", args, errors.Join(err, ctx.Err()), result.Stdout, result.Stderr))
	}
	return result
}
