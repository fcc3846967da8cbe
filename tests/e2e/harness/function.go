package harness

import (
	"path/filepath"
	"testing"
)

// Function is a user function in a process of its own, beside the worker.
type Function struct {
	child
	address string
}

// StartFunction starts one of the programs as a remote user function at a free address, and waits until it listens. It ends
// with the test.
func StartFunction(t testing.TB, program string) *Function {
	t.Helper()
	f := &Function{
		child:   child{binary: Build(t, program), dir: t.TempDir(), log: filepath.Join(t.TempDir(), "output")},
		address: FreeAddress(t),
	}
	f.args = []string{"-remote", f.address}
	f.spawn(t)
	f.endWithTest(t)
	f.await(t, "listening", listens(f.address))
	return f
}

// Address is where the function serves, host and port.
func (f *Function) Address() string { return f.address }

// Restart starts a function that has ended again, at its address, and waits until it listens.
func (f *Function) Restart(t testing.TB) {
	t.Helper()
	f.respawn(t)
	f.await(t, "listening", listens(f.address))
}
