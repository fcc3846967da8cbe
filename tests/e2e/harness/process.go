package harness

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/grpc"

	"github.com/millrace-io/millrace/tests/kit"
)

// Options say what is started. The zero value is `millrace dev` with a data directory of its own.
type Options struct {
	// Program is one of the constants above, or another main package below the module; empty:
	// Millrace.
	Program string
	// Tags are build tags, as in failpoints.
	Tags string
	// Command is the command of the program; empty: dev.
	Command string
	// Data is the data directory; empty: a new one that ends with the test. Ephemeral has none.
	Data      string
	Ephemeral bool
	// Args are further flags. They win over what the other fields say.
	Args []string
	// Function is the command that `dev` supervises, with its arguments.
	Function []string
	// Env are further environment variables, NAME=value. Those of the tests that configure millrace
	// are not passed on.
	Env []string
	// Dir is the working directory; empty: a new, empty one.
	Dir string
	// Host is the address of the machine that the wrapper puts it on; empty: 127.0.0.1.
	Host string
	// Wrapper is a command that the process is started by, as in unshare; it must end in an exec.
	Wrapper []string
}

// Process is one millrace that can be killed and started again.
type Process struct {
	child
	data          string
	public, admin string
	// given are the environment variables of the options, and flags all that it was first started
	// with.
	given, flags []string
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
		child: newChild(t, Build(t, o.Program, o.Tags), o.Dir, o.Env...),
		data:  o.Data, given: o.Env, public: o.freeAddress(t), admin: o.freeAddress(t),
	}
	args := []string{o.Command, "--listen", p.public, "--admin", p.admin}
	switch {
	case o.Command == "gateway": // it has no data, and no port for workers
	case o.Ephemeral:
		args = append(args, "--peer", o.freeAddress(t), "--ephemeral")
	default:
		args = append(args, "--peer", o.freeAddress(t), "--data", o.Data)
	}
	args = append(args, o.Args...)
	if len(o.Function) > 0 {
		args = append(append(args, "--"), o.Function...)
	}
	if len(o.Wrapper) > 0 {
		args = append(append(slices.Clone(o.Wrapper[1:]), p.process.Program), args...)
		p.process.Program = o.Wrapper[0]
	}
	p.process.Args, p.flags = args, args
	p.spawn(t)
	p.endWithTest(t)
	return p
}

// freeAddress is one that is free on this machine, which is good enough for another one.
func (o Options) freeAddress(t testing.TB) string {
	t.Helper()
	address := kit.FreeAddress(t)
	if o.Host == "" {
		return address
	}
	_, port, _ := net.SplitHostPort(address)
	return net.JoinHostPort(o.Host, port)
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

// Public is the address of the public port, host and port.
func (p *Process) Public() string { return p.public }

// Admin is the address of the admin port.
func (p *Process) Admin() string { return p.admin }

// Data is the data directory, empty for an ephemeral process.
func (p *Process) Data() string { return p.data }

// DeleteStore deletes the store of a process that has ended, and reports whether there was one.
func (p *Process) DeleteStore(t testing.TB) bool {
	t.Helper()
	store := filepath.Join(p.data, "store")
	_, err := os.Stat(store)
	fatal(t, os.RemoveAll(store))
	return err == nil
}

// Dial returns a connection to the public port, DialAdmin one to the admin port. They end with the
// test, and outlive the process: calls that wait for a connection go through when it is back.
func (p *Process) Dial(t testing.TB) *grpc.ClientConn {
	t.Helper()
	return kit.Dial(t, p.public)
}

// DialAdmin is explained at Dial.
func (p *Process) DialAdmin(t testing.TB) *grpc.ClientConn {
	t.Helper()
	return kit.Dial(t, p.admin)
}

// AwaitReady waits until the process says that it is ready.
func (p *Process) AwaitReady(t testing.TB) {
	t.Helper()
	p.await(t, "ready", p.askReady())
}

// Ready asks the process once whether it is ready.
func (p *Process) Ready(t testing.TB) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), askTimeout)
	defer cancel()
	return p.askReady()(ctx) == nil
}

func (p *Process) askReady() func(context.Context) error {
	return kit.Answers("http://" + p.admin + "/readyz")
}

// Arm replaces the further environment variables from the next start on.
func (p *Process) Arm(env ...string) {
	p.process.Env = kit.Environment(append(slices.Clone(p.given), env...)...)
}

// Adjust adds flags to those that the process was first started with, from the next start on.
// Without any, it is started as at first.
func (p *Process) Adjust(flags ...string) { p.process.Args = append(slices.Clone(p.flags), flags...) }

// Restart starts a process that has ended again, on its ports and its data, and waits until it is
// ready.
func (p *Process) Restart(t testing.TB) {
	t.Helper()
	p.spawn(t)
	p.AwaitReady(t)
}

// Respawn starts a process that has ended again and does not wait for it.
func (p *Process) Respawn(t testing.TB) {
	t.Helper()
	p.spawn(t)
}

// KillInStart starts a process that has ended again and kills it while it opens its data.
func (p *Process) KillInStart(t testing.TB) {
	t.Helper()
	p.spawn(t)
	p.await(t, "starting", kit.Listens(p.admin)) // it opens its ports first
	p.Kill(t)
}
