package fire

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/tests/e2e/harness"
)

// function is a worker with its function in a process of its own.
func (r *run) function(t *testing.T, w *world) {
	t.Helper()
	w.function = harness.StartRemote(t, program)
	w.launch(harness.Options{Tags: w.tags, Command: "run", Args: []string{"--partitions", fmt.Sprint(partitions), "--function", w.function.Address()}, Env: w.env})
	w.start(r.clients, 2*r.clients)
	w.burn([]fault{
		{"function killed", (*world).killFunction},
		{"function paused", (*world).pauseFunction},
		{"kill", (*world).kill},
		{"function and worker killed", (*world).killBoth},
	}, func() bool { return true })
	w.end()
	w.readEmbedded(filepath.Join(w.workers[0].Data(), "log"))
}

func (w *world) killFunction() bool {
	w.function.Kill(w.t)
	w.wait(time.Duration(w.rng.IntN(500)) * time.Millisecond)
	w.function.Restart(w.t)
	return true
}

func (w *world) pauseFunction() bool {
	if err := syscall.Kill(w.function.PID(), syscall.SIGSTOP); err != nil {
		w.t.Fatal(err)
	}
	answers := w.answers.Load()
	w.wait(pauseFor)
	stood := w.answers.Load()-answers < 100*int64(w.callers) // reads of what is in memory need it as well
	if err := syscall.Kill(w.function.PID(), syscall.SIGCONT); err != nil {
		w.t.Fatal(err)
	}
	return stood
}

func (w *world) killBoth() bool {
	p := w.worker()
	w.function.Kill(w.t)
	p.Kill(w.t)
	w.function.Restart(w.t)
	w.restart(p)
	return true
}
