package fire

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

// fewKinds is by what a world with few kinds of faults has less of them than a run must have.
const fewKinds = 20

// share ends a world with few kinds of faults when it has had its share, and each kind once.
func (r *run) share() (enough func() bool) {
	before := r.countFaults()
	return func() bool { return r.countFaults()-before >= r.faults/fewKinds }
}

// function is a worker on the embedded log with its function in a process of its own.
func (r *run) function(t *testing.T, w *world) {
	t.Helper()
	w.function = harness.StartRemote(t, program)
	w.launch(harness.Options{Tags: w.tags, Command: "run", Env: w.env, Args: []string{
		"--partitions", fmt.Sprint(partitions), "--function", w.function.Address(),
	}})
	w.start(r.clients, 2*r.clients)
	w.inject([]fault{
		{"function killed", (*world).killFunction},
		{"function paused", (*world).pauseFunction},
		{"kill", (*world).kill},
		{"stop in order", (*world).stopInOrder},
		{"function and worker killed", (*world).killBoth},
		{"store rebuilt", (*world).rebuildStore},
	}, r.share())
	w.end()
	w.readEmbedded(filepath.Join(w.workers[0].Data(), "log"))
}

// supervisedFunction is a worker that has started its function itself, and starts it again.
func (r *run) supervisedFunction(t *testing.T, w *world) {
	t.Helper()
	address := kit.FreeAddress(t)
	w.supervised = filepath.Join(t.TempDir(), "pid")
	w.launch(harness.Options{
		Tags: w.tags, Env: w.env, Args: []string{"--partitions", fmt.Sprint(partitions), "--function", address},
		Function: []string{
			"sh", "-c", `echo $$ > "$0"; exec "$@"`, w.supervised, harness.Build(t, program, ""),
			"-remote", address,
		},
	})
	t.Cleanup(func() { w.workers[0].Stop(t) }) // in order: a function outlives a worker that is killed
	w.start(r.clients, 2*r.clients)
	w.inject([]fault{
		{"supervised function killed", (*world).killSupervised},
		{"stop in order", (*world).stopInOrder},
	}, r.share())
	w.end()
	w.readEmbedded(filepath.Join(w.workers[0].Data(), "log"))
}

// functionOnKafka is a worker on Kafka with its function in a process of its own.
func (r *run) functionOnKafka(t *testing.T, w *world) {
	t.Helper()
	w.kafka = startKafka(t)
	w.function = harness.StartRemote(t, program)
	w.launch(harness.Options{
		Tags: w.tags, Command: "run", Env: w.env,
		Args: w.kafka.flags("--function", w.function.Address()),
	})
	w.kafka.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: fromStart()})
	w.start(r.clients, 2*r.clients)
	w.inject([]fault{
		{"broker killed", (*world).killBroker},
		{"broker and worker killed", (*world).killBrokerAndWorker},
		{"function killed", (*world).killFunction},
		{"kill", (*world).kill},
	}, r.share())
	w.end()
	w.readLog()
}

// killFunction is kill -9 of the function, which is down for a moment.
func (w *world) killFunction() bool {
	w.onlyFunction(func() {
		w.function.Kill(w.t)
		w.wait(time.Duration(w.rng.IntN(500)) * time.Millisecond)
		w.function.Restart(w.t)
	})
	return true
}

// killSupervised is kill -9 of a function that the worker starts again.
func (w *world) killSupervised() bool {
	w.onlyFunction(func() {
		killed := w.supervisedPID()
		if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
			w.t.Fatalf("kill function %d: %v", killed, err)
		}
		kit.AwaitWithin(w.t, healing, "the worker to start its function again", func() bool {
			pid := w.supervisedPID()
			return pid > 0 && pid != killed
		})
	})
	return true
}

// supervisedPID is the process id that the supervised function has written, 0 while it writes it.
func (w *world) supervisedPID() int {
	w.t.Helper()
	text, err := os.ReadFile(w.supervised)
	if err != nil {
		w.t.Fatal(err)
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

func (w *world) pauseFunction() bool {
	w.function.Pause(w.t)
	answers := w.answers.Load()
	w.wait(pauseFor)
	stood := w.answers.Load()-answers < 100*int64(w.callers) // reads of what is in memory need it as well
	w.function.Resume(w.t)
	return stood
}

// killBoth is kill -9 of the worker and its function.
func (w *world) killBoth() bool {
	p := w.worker()
	w.function.Kill(w.t)
	p.Kill(w.t)
	w.function.Restart(w.t)
	w.restart(p)
	return true
}
