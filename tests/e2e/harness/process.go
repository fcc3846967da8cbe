package harness

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/grpc"

	"github.com/millrace-io/millrace/tests/freeport"
)

// Options say what is started. The zero value is `millrace dev` with a data directory of its own.
type Options struct {
	// Program is one of the constants above, or another main package below the module; empty: Millrace.
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
	// Env are further environment variables, NAME=value. Those of the tests that configure millrace are not passed on.
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
	// given are the environment variables of the options, and flags all that it was first started with.
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
		child: child{binary: Build(t, o.Program, o.Tags), dir: o.Dir, env: o.Env, log: filepath.Join(t.TempDir(), "output")},
		data:  o.Data, given: o.Env, public: o.freeAddress(t), admin: o.freeAddress(t),
	}
	p.args = []string{o.Command, "--listen", p.public, "--admin", p.admin}
	switch {
	case o.Command == "gateway": // it has no data, and no port for workers
	case o.Ephemeral:
		p.args = append(p.args, "--peer", o.freeAddress(t), "--ephemeral")
	default:
		p.args = append(p.args, "--peer", o.freeAddress(t), "--data", o.Data)
	}
	p.args = append(p.args, o.Args...)
	if len(o.Function) > 0 {
		p.args = append(append(p.args, "--"), o.Function...)
	}
	if len(o.Wrapper) > 0 {
		p.args = append(append(slices.Clone(o.Wrapper[1:]), p.binary), p.args...)
		p.binary = o.Wrapper[0]
	}
	p.flags = p.args
	p.spawn(t)
	p.endWithTest(t)
	return p
}

// freeAddress is one that is free on this machine, which is good enough for another one.
func (o Options) freeAddress(t testing.TB) string {
	t.Helper()
	address := FreeAddress(t)
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

// PID is the id of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Public is the address of the public port, host and port.
func (p *Process) Public() string { return p.public }

// Admin is the address of the admin port.
func (p *Process) Admin() string { return p.admin }

// Data is the data directory, empty for an ephemeral process.
func (p *Process) Data() string { return p.data }

// Dial returns a connection to the public port, DialAdmin one to the admin port. They end with the test, and outlive the
// process: calls that wait for a connection go through when it is back.
func (p *Process) Dial(t testing.TB) *grpc.ClientConn {
	t.Helper()
	return dial(t, p.public)
}

// DialAdmin is explained at Dial.
func (p *Process) DialAdmin(t testing.TB) *grpc.ClientConn {
	t.Helper()
	return dial(t, p.admin)
}

// AwaitReady waits until the process says that it is ready.
func (p *Process) AwaitReady(t testing.TB) {
	t.Helper()
	p.await(t, "ready", p.askReady)
}

// Ready asks the process once whether it is ready.
func (p *Process) Ready(t testing.TB) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), askTimeout)
	defer cancel()
	return p.askReady(ctx) == nil
}

func (p *Process) askReady(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.admin+"/readyz", nil)
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
		return fmt.Errorf("/readyz answers %s", res.Status)
	}
	return nil
}

// Arm replaces the further environment variables from the next start on.
func (p *Process) Arm(env ...string) { p.env = append(slices.Clone(p.given), env...) }

// Adjust adds flags to those that the process was first started with, from the next start on. Without any, it is as it was.
func (p *Process) Adjust(flags ...string) { p.args = append(slices.Clone(p.flags), flags...) }

// Restart starts a process that has ended again, on its ports and its data, and waits until it is ready.
func (p *Process) Restart(t testing.TB) {
	t.Helper()
	p.respawn(t)
	p.AwaitReady(t)
}

// Respawn starts a process that has ended again and does not wait for it.
func (p *Process) Respawn(t testing.TB) {
	t.Helper()
	p.respawn(t)
}

// KillInStart starts a process that has ended again and kills it while it opens its data.
func (p *Process) KillInStart(t testing.TB) {
	t.Helper()
	p.respawn(t)
	p.await(t, "starting", listens(p.admin)) // it opens its ports first
	p.Kill(t)
}

// listens asks whether somebody listens at an address.
func listens(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// FreeAddress returns an address on the loopback interface on which nobody listens.
func FreeAddress(t testing.TB) string {
	t.Helper()
	return FreeAddressOn(t, "127.0.0.1")
}

// FreeAddressOn returns one of another host of this machine.
func FreeAddressOn(t testing.TB, host string) string {
	t.Helper()
	address, err := freeport.On(host)
	if err != nil {
		t.Fatal(err)
	}
	return address
}
