package fire

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kafkaserver"
	"github.com/millrace-io/millrace/tests/kit"
)

// program is what workers run.
const program = "tests/e2e/fire/worker"

// TestFire runs clients while faults are injected, on both engines.
func TestFire(t *testing.T) {
	seed := kit.FireSeed.Seed(t)
	var all []*totals
	on := func(engine string, worlds func(*testing.T, *run, uint64)) {
		t.Run(engine, func(t *testing.T) {
			if engine != "embedded" {
				kafkaserver.Require(t)
			}
			figures := newTotals(engine)
			all = append(all, figures)
			defer func() { t.Log(figures.line()) }()
			for r := newRun(t, figures); !t.Failed() && r.next(); {
				worlds(t, r, seed+uint64(r.worlds))
			}
		})
	}
	on("embedded", func(t *testing.T, r *run, seed uint64) {
		t.Helper()
		r.embedded(t, newWorld(t, r, "e", seed))
		r.disk(t, newWorld(t, r, "d", seed))
		r.function(t, newWorld(t, r, "f", seed))
		r.supervisedFunction(t, newWorld(t, r, "s", seed))
	})
	on("kafka", func(t *testing.T, r *run, seed uint64) {
		t.Helper()
		r.kafka(t, newWorld(t, r, "k", seed))
		r.functionOnKafka(t, newWorld(t, r, "g", seed))
	})
	on("cluster", func(t *testing.T, r *run, seed uint64) {
		t.Helper()
		r.cluster(t, newWorld(t, r, "c", seed))
	})
	t.Log(sum(all))
}

// run is the worlds of one engine, one after the other.
type run struct {
	*totals
	clients, faults, operations int
	// lasts is how long clients work at least, worked how long they have.
	lasts, worked time.Duration
	worlds        int
}

func newRun(t *testing.T, all *totals) *run {
	t.Helper()
	return &run{
		totals: all, clients: kit.FireClients.Number(t), faults: kit.FireFaults.Number(t),
		operations: kit.FireOperations.Number(t), lasts: kit.FireDuration.Duration(t),
	}
}

// next reports whether another world is needed.
func (r *run) next() bool {
	r.worlds++
	return r.worlds == 1 || !r.done()
}

func (r *run) done() bool {
	return r.countFaults() >= r.faults && int(r.checked.Load()) >= r.operations && r.worked >= r.lasts
}

// worldOperations bounds one world, so that its log can be read and copied in seconds.
const worldOperations = 100_000

// enough reports whether a world that begins now has had its share, of most operations if no fewer
// are asked for.
func (r *run) enough(most int64) func() bool {
	before, worked, began := r.checked.Load(), r.worked, time.Now()
	return func() bool {
		r.worked = worked + time.Since(began)
		return r.checked.Load()-before >= most || r.done()
	}
}

// embedded is a worker with its function in it, on the embedded log.
func (r *run) embedded(t *testing.T, w *world) {
	t.Helper()
	w.launch(harness.Options{
		Program: program, Tags: w.tags, Args: []string{"--partitions", fmt.Sprint(partitions)},
		Env: w.env,
	})
	w.start(r.clients, 2*r.clients)
	w.inject(slices.Concat(processFaults(), storeFaults(), logFaults(), callerFaults(), settingsFaults()),
		r.enough(worldOperations))
	w.end()
	w.readEmbedded(filepath.Join(w.workers[0].Data(), "log"))
}

// waiting are kinds of faults and habits that find what is not fixed yet, and what each waits for:
// they happen only where MILLRACE_FIRE_KINDS is set and names them.
var waiting = map[string]string{}

// chosen reports whether a kind of fault is to happen, or a habit to be had.
func (w *world) chosen(name string) bool {
	return w.only.MatchString(name) && (waiting[name] == "" || w.only.String() != "")
}

func newWorld(t *testing.T, r *run, kind string, seed uint64) *world {
	t.Helper()
	w := &world{
		t: t, ctx: t.Context(), totals: r.totals, name: fmt.Sprintf("%s%d", kind, r.worlds), seed: seed,
		rng:  rand.New(rand.NewPCG(seed, 0)),
		tags: "failpoints", most: max(most, 2*r.operations/r.faults), only: regexp.MustCompile(kit.FireKinds.Text()),
	}
	if lines := os.Getenv(mutation.Variable); lines != "" {
		w.tags += ",mutation"
		w.env = []string{mutation.Variable + "=" + lines}
	}
	return w
}

// launch starts a worker of the world.
func (w *world) launch(o harness.Options) {
	w.t.Helper()
	p := harness.Start(w.t, o)
	w.workers = append(w.workers, p)
	w.doors = append(w.doors, door{conn: p.Dial(w.t)})
	w.admins = append(w.admins, p.DialAdmin(w.t))
}
