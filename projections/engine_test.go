package projections_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/projections"
)

// fixture is an engine over a world, in a bubble of package synctest: settled means that all
// goroutines wait.
type fixture struct {
	*world

	views    materializer.Store
	engine   *projections.Engine
	cancel   context.CancelFunc
	done     chan error
	sequence map[string]uint64
}

func newFixture(t testing.TB, seed uint64, feedBytes int) *fixture {
	return &fixture{world: newWorld(t, seed, feedBytes), views: memstore.New(), sequence: map[string]uint64{}}
}

// start starts an engine with views.
func (f *fixture) start(views ...*projections.View) {
	f.engine = projections.New(projections.Options{Store: func() (materializer.Store, error) { return f.views, nil }})
	f.engine.Define(views)
	f.run()
}

// run runs the engine with the partition.
func (f *fixture) run() {
	f.engine.Attach(f)
	ctx, cancel := context.WithCancel(f.t.Context())
	f.cancel, f.done = cancel, make(chan error, 1)
	go func() { f.done <- f.engine.Run(ctx) }() // stop waits for it
}

// stop ends the engine.
func (f *fixture) stop() {
	f.t.Helper()
	if f.cancel == nil {
		return
	}
	f.cancel()
	if err := <-f.done; err != nil {
		f.t.Fatal(err)
	}
	f.cancel = nil
}

// statusOf returns the status of a dataset.
func (f *fixture) statusOf(dataset uint32) projections.Status {
	f.t.Helper()
	for _, s := range f.engine.Status() {
		if s.Dataset == dataset {
			return s
		}
	}
	f.t.Fatalf("dataset %d has no status", dataset)
	panic("unreachable")
}

// command writes a random command.
func (f *fixture) command() {
	id := fmt.Sprint(f.rnd.IntN(12))
	event := func(name string) record.Envelope {
		f.sequence[id]++
		return record.Envelope{Kind: record.Event, Sequence: f.sequence[id], TypeURL: typePrefix + name}
	}
	type part struct {
		key   string
		value []byte
		env   record.Envelope
	}
	var parts []part
	for range 1 + f.rnd.IntN(3) {
		switch n := f.rnd.IntN(20); {
		case n < 7:
			var lines []line
			for range f.rnd.IntN(3) {
				lines = append(lines, line{fmt.Sprint("sku", f.rnd.IntN(4)), int32(f.rnd.IntN(5))})
			}
			total := int64(1 + f.rnd.IntN(50))
			if f.rnd.IntN(12) == 0 {
				total = 0
			}
			value := placed(fmt.Sprint("c", f.rnd.IntN(4)), total, lines...)
			parts = append(parts, part{"order/" + id, value, event("OrderPlaced")})
		case n < 10:
			parts = append(parts, part{"order/" + id, nil, event("OrderShipped")})
		case n < 12:
			parts = append(parts, part{"order/" + id, nil, event("OrderDeleted")})
		case n == 12:
			parts = append(parts, part{"order/" + id, nil, event([]string{"OrderViewed", "OrderReviewed"}[f.rnd.IntN(2)])})
		case n < 17:
			value := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(f.rnd.IntN(99)))
			parts = append(parts, part{"payment/" + id, value, record.Envelope{Kind: record.State, TypeURL: typePrefix + "Payment"}})
		case n == 17:
			parts = append(parts, part{"payment/" + id, nil, record.Envelope{Kind: record.Delete}})
		case n == 18:
			parts = append(parts, part{"counter/" + id, []byte("x"), record.Envelope{Kind: record.State, TypeURL: "t/v"}})
		default:
			parts = append(parts, part{"order/" + id, []byte("do"), record.Envelope{Kind: record.Effect, TypeURL: "t/c", Target: []byte{0x0a, 1, 'S'}}})
		}
	}
	if typ, _, _ := strings.Cut(parts[0].key, "/"); typ != "" { // a command is about one entity
		parts = slices.DeleteFunc(parts, func(p part) bool { return p.key != parts[0].key })
	}
	f.now += f.rnd.Int64N(1e9)
	for i := range parts {
		env := parts[i].env
		env.LogTime = f.now
		if len(parts) > 1 {
			env.Index, env.Count = uint32(i), uint32(len(parts))
		}
		f.put(parts[i].key, parts[i].value, env)
	}
}

// event writes an event.
func (f *fixture) event(key, name string, value []byte) int64 {
	_, id, _ := strings.Cut(key, "/")
	f.sequence[id]++
	return f.put(key, value, record.Envelope{Kind: record.Event, Sequence: f.sequence[id], TypeURL: typePrefix + name})
}

// noise writes a record that does not count, or another claim.
func (f *fixture) noise() {
	if f.rnd.IntN(3) == 0 {
		f.claim(nil)
		return
	}
	f.put("order/1", placed("void", 1), record.Envelope{
		Kind: record.Event, Epoch: f.epoch + 5, Nonce: 99, Ordinal: 1, Sequence: 1, TypeURL: typePrefix + "OrderPlaced",
	})
}

// someParts are random parts of orders.
func someParts(rnd *rand.Rand) (parts []uint16) {
	for number := uint16(1); number <= 4; number++ {
		if rnd.IntN(2) == 0 {
			parts = append(parts, number)
		}
	}
	return parts
}

// TestRowsAreRecomputed: whatever the lag, the memory, the roles, the definitions, the stops and
// the crashes: rows, indexes, aggregates and parked entities are those of a recomputation.
func TestRowsAreRecomputed(t *testing.T) {
	if _, err := schema(); err != nil {
		t.Fatal(err)
	}
	seeds := uint64(60)
	if testing.Short() {
		seeds = 12
	}
	var compared, crashes, builds, skipped int
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 11))
			f := newFixture(t, seed, 1<<(8+rnd.IntN(14)))
			defer f.stop()
			onError := []string{"park-key", "skip"}[rnd.IntN(2)]
			views := []*projections.View{f.ordersView(onError, someParts(rnd)...)}
			var skips []projections.Skip
			f.start(views...)
			check := func() {
				t.Helper()
				synctest.Wait()
				for _, v := range views {
					if err := f.compare(f.views, v); err != nil {
						t.Fatalf("seed %d: %v", seed, err)
					}
					compared++
				}
			}
			for range 200 {
				switch n := rnd.IntN(40); {
				case n < 10:
					for range rnd.IntN(12) {
						f.command()
					}
				case n == 10:
					f.noise()
				case n < 22:
					f.turn(1 + rnd.IntN(20))
				case n < 24:
					f.leave(materializer.FeedReason(rnd.IntN(3)))
				case n < 28:
					f.begin(materializer.Following)
				case n < 30: // other indexes and aggregates
					builds++
					views[0] = f.ordersView(onError, someParts(rnd)...)
					views[0].Skips = skips
					f.engine.Define(views)
				case n == 30: // another dataset comes, or goes
					if views = views[:1]; rnd.IntN(2) == 0 {
						views = append(views, f.linesView())
					}
					f.engine.Define(views)
				case n == 31: // a stop
					f.stop()
					f.start(views...)
				case n == 32: // a crash, which may lose the last batches
					f.stop()
					crashes++
					f.views = f.views.(*memstore.Store).Crash()
					f.start(views...)
				case n == 33:
					f.engine.Detach(address)
					f.engine.Attach(f)
				case n == 34:
					if err := f.views.Flush(); err != nil {
						t.Fatal(err)
					}
				case n == 35:
					check()
				case n == 36: // records that could not be folded are left out
					left := f.parkedOffsets()
					skipped += len(left)
					skips = append(slices.Clone(skips), left...)
					next := *views[0]
					next.Skips, views[0] = skips, &next
					f.engine.Define(views)
				case n == 37: // a pause, or its end
					next := *views[0]
					next.Paused, views[0] = !next.Paused, &next
					f.engine.Define(views)
				default:
					synctest.Wait()
				}
			}
			views[0].Paused = false // f.engine has other plans made of it
			f.engine.Define(views)
			f.catchUp()
			check()
			if left := f.parkedOffsets(); slices.ContainsFunc(left, func(s projections.Skip) bool {
				return slices.Contains(skips, s)
			}) {
				t.Fatalf("seed %d: %v are left out and parked still", seed, left)
			}
			for _, v := range views {
				if s := f.statusOf(v.Dataset); s.State != projections.Live || s.Position != f.end() || s.Incomplete != 0 {
					t.Fatalf("seed %d: the status is %+v, the log ends at %d", seed, s, f.end())
				}
			}
			if n := f.engine.Fronts(0); n != 1 {
				t.Fatalf("seed %d: %d consumers at the end", seed, n)
			}
		})
	}
	t.Logf("%d comparisons, %d crashes, %d changes of indexes, %d records left out", compared, crashes, builds, skipped)
	if skipped == 0 {
		t.Error("no record was left out: the test shows nothing about that")
	}
}

// parkedOffsets are the records that have parked entities of orders, some of them.
func (f *fixture) parkedOffsets() (some []projections.Skip) {
	list, err := f.engine.Parked(ordersDataset, 0, "", 100)
	if err != nil {
		return nil // it is not attached, or has not begun
	}
	for _, p := range list {
		if f.rnd.IntN(2) == 0 {
			some = append(some, projections.Skip{Offset: p.Offset})
		}
	}
	return some
}

// TestDefinitionsComeWhileTheImageIsAway: other definitions take nothing away from callers, also
// while the image cannot be compared with the rows.
func TestDefinitionsComeWhileTheImageIsAway(t *testing.T) {
	if _, err := schema(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1, 1<<20)
		defer f.stop()
		f.event("order/1", "OrderPlaced", placed("c", 5))
		f.catchUp()
		orders := f.ordersView("park-key", 1)
		f.start(orders)
		synctest.Wait()
		f.leave(materializer.FeedMoved)
		f.engine.Define([]*projections.View{orders, f.linesView()})
		synctest.Wait()
		s, err := f.engine.Open(t.Context(), projections.Ask{Dataset: ordersDataset, Indexes: []uint16{1}})
		if err != nil {
			t.Fatal(err)
		}
		row, _, err := s.Get([]byte(text("1")))
		if err := errors.Join(err, s.Close()); err != nil || row == nil {
			t.Errorf("the row is %q, %v", row, err)
		}
	})
}
