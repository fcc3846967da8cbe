package readside

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/embedded"
	"github.com/millrace-io/millrace/broker-adapter/kafka"
	"github.com/millrace-io/millrace/entities"
	ordersv1 "github.com/millrace-io/millrace/examples/orders/orders/v1"
	"github.com/millrace-io/millrace/materializer/pebblestore"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kafkaserver"
	"github.com/millrace-io/millrace/tests/kit"
	"github.com/millrace-io/millrace/tests/readside"
)

// writers is how many callers there are.
const writers = 8

// TestReadSide writes, reads each write back, and kills workers meanwhile. In the end the views
// must be what the log says: all lists, page by page, all counts, and what is stored.
func TestReadSide(t *testing.T) {
	seed := kit.ReadSideSeed.Seed(t)
	commands, kills := kit.ReadSideCommands.Number(t), kit.ReadSideKills.Number(t)
	t.Run("embedded", func(t *testing.T) { onEmbedded(t, seed, commands, kills) })
	t.Run("kafka", func(t *testing.T) { onKafka(t, seed, commands, kills) })
}

// onEmbedded has one worker.
func onEmbedded(t *testing.T, seed uint64, commands, kills int) {
	t.Helper()
	w := newWorld(t)
	w.start("dev")
	r := w.run(seed, commands, kills, w.kill)
	w.workers[0].Stop(t)
	log, err := embedded.Open(embedded.Options{Dir: filepath.Join(w.workers[0].Data(), "log")})
	w.must(err)
	partitions := w.read(log)
	w.must(log.Close())
	w.compare(r, partitions)
	t.Logf("readside: embedded: %s; %s", w.figures(r), w.compareStores(partitions))
}

// onKafka has three workers, which are killed or stopped for longer than their sessions, and a
// gateway.
func onKafka(t *testing.T, seed uint64, commands, kills int) {
	t.Helper()
	brokers := kafkaserver.Start(t, kafkaserver.Options{}).Addr()
	flags := []string{"--app", app, "--brokers", brokers}
	w := newWorld(t)
	for i := range 3 {
		w.start("run", append(flags, "--worker", fmt.Sprintf("w%d", i), "--session-timeout", session.String())...)
	}
	w.start("gateway", flags...)
	faults := 0
	r := w.run(seed, commands, kills, func(p *harness.Process) {
		if faults++; faults%2 == 0 {
			w.freeze(p)
		} else {
			w.kill(p)
		}
	})
	for _, p := range w.workers {
		p.Stop(t)
	}
	log, err := kafka.Open(kafka.Options{Brokers: []string{brokers}})
	w.must(err)
	partitions := w.read(log)
	w.must(log.Close())
	w.compare(r, partitions)
	t.Logf("readside: kafka: %s; %s", w.figures(r), w.compareStores(partitions))
}

// result is what a run has returned.
type result struct {
	took  time.Duration
	kills int
	// rows by customer, the open ones, and the counts.
	byCustomer map[string][]*ordersv1.OrderRow
	open       []*ordersv1.OrderRow
	counts     map[ordersv1.Status]readside.Group
}

// figures are those of a run, for people.
func (w *world) figures(r *result) string {
	return fmt.Sprintf("%d commands by %d writers in %.1fs with %d faults, %d reads of own writes with %d misses "+
		"(%d asked again), %d of %d without a token too early, %d before a worker knew its definitions",
		w.acknowledged.Load(), writers, r.took.Seconds(), r.kills, w.pairs.Load(), w.misses.Load(), w.late.Load(),
		w.behind.Load(), w.unmarked.Load(), w.unserved.Load())
}

// run lets the writers write, has faults in between, and asks for everything in the end.
func (w *world) run(seed uint64, commands, kills int, fault func(*harness.Process)) *result {
	w.t.Helper()
	w.awaitViews()
	r := &result{kills: kills, byCustomer: map[string][]*ordersv1.OrderRow{}}
	begin := time.Now()
	seen := w.write(seed, commands, kills, fault)
	r.took = time.Since(begin)
	rng, token := newRandom(seed, 1<<32), seen.Encode()
	var err error
	for number := range writers {
		for i := range customersOfWriter {
			id := (&writer{number: number}).customer(i)
			r.byCustomer[id], err = w.all(rng, token, "/v1/orders:listByCustomer", "customer_id", id)
			w.must(err)
		}
	}
	r.open, err = w.all(rng, token, "/v1/orders:listOpen")
	w.must(err)
	r.counts, err = w.countByStatus(rng, token)
	w.must(err)
	if n := w.unserved.Load(); n > 0 {
		w.t.Errorf("%d answers said that there is no such query", n)
	}
	return r
}

// write lets the writers run, and has faults in between. It returns a token that covers all
// answers.
func (w *world) write(seed uint64, commands, kills int, fault func(*harness.Process)) entities.Token {
	w.t.Helper()
	var running sync.WaitGroup
	list := make([]*writer, writers)
	for i := range list {
		list[i] = newWriter(w, seed, i)
		running.Go(func() { list[i].run(commands / writers) }) // ends by itself, or with the first failure
	}
	ended := make(chan struct{})
	go func() { running.Wait(); close(ended) }()
	rng := newRandom(seed, 1<<33)
	for kill := range kills {
		// Each kill is somewhere in its share of the commands.
		share := int64(max(1, commands/kills))
		after := int64(kill)*share + rng.Int64N(share)
		kit.AwaitWithin(w.t, patience, "the writers", func() bool {
			select {
			case <-ended:
				return true
			default:
				return w.acknowledged.Load() >= after
			}
		})
		fault(w.workers[rng.IntN(len(w.workers))])
	}
	<-ended
	if w.t.Failed() {
		w.t.FailNow()
	}
	seen := entities.Token{App: app, Generation: entities.Generation}
	for _, one := range list {
		seen.Merge(&one.seen)
	}
	return seen
}

// read reads the whole journal.
func (w *world) read(log broker.Log) []readside.Partition {
	w.t.Helper()
	partitions, err := readside.Read(w.t.Context(), log, app+".journal")
	w.must(err)
	return partitions
}

// compare compares what queries returned with what plain code makes of the log.
func (w *world) compare(got *result, partitions []readside.Partition) {
	w.t.Helper()
	want, err := readside.FoldAll(partitions)
	w.must(err)
	for _, id := range want.CustomersOfOrders() {
		w.compareList("orders of "+id, got.byCustomer[id], want.ListByCustomer(id))
		delete(got.byCustomer, id)
	}
	for id, list := range got.byCustomer {
		w.compareList("orders of "+id, list, nil)
	}
	w.compareList("open orders", got.open, want.ListOpen())
	if counts := want.CountByStatus(); !maps.Equal(got.counts, counts) {
		w.t.Errorf("counts by status are %v, want %v", got.counts, counts)
	}
}

func (w *world) compareList(what string, got, want []*ordersv1.OrderRow) {
	w.t.Helper()
	if len(got) != len(want) {
		w.t.Errorf("%d %s, want %d", len(got), what, len(want))
	}
	for i := range min(len(got), len(want)) {
		if !proto.Equal(got[i], want[i]) {
			w.t.Errorf("%s: row %d is %v, want %v", what, i, got[i], want[i])
			return
		}
	}
}

// compareStores compares the stores of the views with what plain code makes of the log. Each
// partition must be complete and right in one of them; a worker that does not have it, or is behind
// when it ends, is not wrong. It returns what is equal, for people.
func (w *world) compareStores(partitions []readside.Partition) string {
	w.t.Helper()
	all, replicas := &readside.Compared{}, 0
	found := make([]*readside.Compared, len(partitions))
	for _, p := range w.workers {
		store, err := pebblestore.Open(pebblestore.Options{Dir: filepath.Join(p.Data(), "views")})
		w.must(err)
		compared, err := readside.ComparePartitions(store, partitions)
		w.must(errors.Join(err, store.Close()))
		for i, c := range compared {
			if len(c.Different) == 0 {
				replicas++
			}
			if found[i] == nil || len(c.Different) == 0 {
				found[i] = c
			}
		}
	}
	for _, c := range found {
		all.Add(c)
	}
	for _, difference := range all.Different {
		w.t.Error(difference)
	}
	return fmt.Sprintf("%d stored rows, %d index entries and %d groups are those of the log, in %d replicas of %d partitions",
		all.Rows, all.Entries, all.Groups, replicas, len(partitions))
}
