package harness

import (
	"path/filepath"
	"testing"
)

// Remote is a user function in a process of its own, beside the worker.
type Remote struct {
	child
	address string
}

// StartRemote starts one of the programs as a remote user function at a free address, and waits until it listens. It ends
// with the test.
func StartRemote(t testing.TB, program string) *Remote {
	t.Helper()
	r := &Remote{
		child:   child{binary: Build(t, program, ""), dir: t.TempDir(), log: filepath.Join(t.TempDir(), "output")},
		address: FreeAddress(t),
	}
	r.args = []string{"-remote", r.address}
	r.spawn(t)
	r.endWithTest(t)
	r.await(t, "listening", listens(r.address))
	return r
}

// Address is where the function serves, host and port.
func (r *Remote) Address() string { return r.address }

// PID is the id of the process.
func (r *Remote) PID() int { return r.cmd.Process.Pid }

// Restart starts a function that has ended again, at its address, and waits until it listens.
func (r *Remote) Restart(t testing.TB) {
	t.Helper()
	r.respawn(t)
	r.await(t, "listening", listens(r.address))
}
