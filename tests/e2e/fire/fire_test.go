package fire

import (
	"math/rand/v2"
	"testing"

	"google.golang.org/grpc"

	"github.com/millrace-io/millrace/tests/e2e/harness"
)

// What the environment says; see doc.go.
const (
	seedVariable       = "MILLRACE_FIRE_SEED"
	faultsVariable     = "MILLRACE_FIRE_FAULTS"
	operationsVariable = "MILLRACE_FIRE_OPERATIONS"
	clientsVariable    = "MILLRACE_FIRE_CLIENTS"

	defaultClients = 16
	program        = "tests/e2e/fire/worker"
)

// TestFire lets clients work while everything fails, on both engines.
func TestFire(t *testing.T) {
	seed := harness.Number(t, seedVariable, rand.Uint64()>>1|1)
	t.Logf("%s=%d repeats the decisions of this run", seedVariable, seed)
	t.Run("embedded", func(t *testing.T) {
		all := newTotals("embedded")
		defer func() { t.Log(all.line()) }()
		w := newWorld(t, all, "e1", seed)
		w.launch(harness.Options{Program: program, Tags: "failpoints", Args: []string{"--partitions", "4"}})
		w.start(harness.Number(t, clientsVariable, defaultClients), 24)
		for range 3 {
			w.awaitAnswers(500)
			w.workers[0].Kill(t)
			w.happened("kill at random")
			w.workers[0].Restart(t)
		}
		w.awaitAnswers(500)
		w.end()
	})
}

func newWorld(t *testing.T, all *totals, name string, seed uint64) *world {
	t.Helper()
	return &world{t: t, ctx: t.Context(), totals: all, name: name, seed: seed, rng: rand.New(rand.NewPCG(seed, 0))}
}

// launch starts a worker of the world.
func (w *world) launch(o harness.Options) {
	w.t.Helper()
	p := harness.Start(w.t, o)
	w.workers = append(w.workers, p)
	w.conns = append(w.conns, p.Dial(w.t))
}

var _ grpc.ClientConnInterface = (*grpc.ClientConn)(nil)
