package harness

import (
	"testing"

	"github.com/millrace-io/millrace/tests/kit"
)

// Remote is a user function in a process of its own, beside the worker.
type Remote struct {
	child
	address string
}

// StartRemote starts one of the programs as a remote user function at a free address, and waits
// until it listens. It ends with the test.
func StartRemote(t testing.TB, program string) *Remote {
	t.Helper()
	r := &Remote{child: newChild(t, Build(t, program, ""), t.TempDir()), address: kit.FreeAddress(t)}
	r.process.Args = []string{"-remote", r.address}
	r.spawn(t)
	r.endWithTest(t)
	r.await(t, "listening", kit.Listens(r.address))
	return r
}

// Address is where the function serves, host and port.
func (r *Remote) Address() string { return r.address }

// Restart starts a function that has ended again, at its address, and waits until it listens.
func (r *Remote) Restart(t testing.TB) {
	t.Helper()
	r.spawn(t)
	r.await(t, "listening", kit.Listens(r.address))
}
