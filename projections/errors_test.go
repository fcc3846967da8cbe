package projections_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/projections"
)

// bubble runs a test of a fixture in a bubble.
func bubble(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	if _, err := schema(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1, 1<<20)
		defer f.stop()
		test(t, f)
	})
}

// settle waits until everything that the log has is folded, or will not be.
func (f *fixture) settle() {
	f.t.Helper()
	f.catchUp()
	synctest.Wait()
}

// same fails unless the rows are those of a recomputation.
func (f *fixture) same(views ...*projections.View) {
	f.t.Helper()
	for _, v := range views {
		if err := f.compare(f.views, v); err != nil {
			f.t.Fatal(err)
		}
	}
}

// open opens a dataset without a wait.
func (f *fixture) open(ask projections.Ask) (*projections.Snapshot, error) {
	over, cancel := context.WithCancel(f.t.Context())
	cancel()
	return f.engine.Open(over, ask)
}

// TestRecordsThatCannotBeFolded: what the definition says happens, in this dataset only.
func TestRecordsThatCannotBeFolded(t *testing.T) {
	for _, onError := range []string{"park-key", "skip", "stop"} {
		t.Run(onError, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				orders, lines := f.ordersView(onError, 1, 3), f.linesView()
				f.start(orders, lines)
				f.event("order/1", "OrderPlaced", placed("a", 5, line{"x", 1}))
				f.event("order/2", "OrderPlaced", placed("a", 5, line{"x", 1}))
				f.settle()
				bad := f.event("order/1", "OrderPlaced", placed("a", 0, line{"x", 2}))
				f.event("order/1", "OrderShipped", nil)
				f.event("order/2", "OrderShipped", nil)
				f.settle()
				f.same(lines)
				if s := f.statusOf(linesDataset); s.State != projections.Live || s.Position != f.end() || s.Rows != 2 {
					t.Errorf("the other dataset: %+v", s)
				}
				s := f.statusOf(ordersDataset)
				want := fmt.Sprintf("offset %d, order/1: order shop.v1.OrderPlaced: field total_cents: ", bad)
				if !strings.HasPrefix(s.LastError, want) {
					t.Errorf("the last error is %q, want %q", s.LastError, want)
				}
				check := func() {
					t.Helper()
					s := f.statusOf(ordersDataset)
					snapshot, err := f.open(projections.Ask{Dataset: ordersDataset})
					if onError == "stop" {
						gone, is := errors.AsType[*projections.NotHereError](err)
						if s.State != projections.Stopped || s.Position > bad || !is || gone.State != projections.Stopped ||
							!strings.Contains(gone.Progress, "order/1") {
							t.Fatalf("it does not stop: %+v, %v", s, err)
						}
						if ready, why := f.engine.Ready(ordersDataset); ready || !strings.Contains(why, "STOPPED: offset") {
							t.Errorf("ready %t, %s", ready, why)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					defer snapshot.Close()
					f.same(orders)
					_, stale, err := snapshot.Get([]byte(text("1")))
					_, other, err2 := snapshot.Get([]byte(text("2")))
					parks := onError == "park-key"
					if err := errors.Join(err, err2); err != nil || stale != parks || other {
						t.Errorf("stale: %t and %t, %v", stale, other, err)
					}
					list, err := f.engine.Parked(ordersDataset, 0, "", 10)
					if err != nil || len(list) == 1 != parks || parks && (list[0].Offset != bad || list[0].Behind != 1) {
						t.Errorf("parked are %+v, %v", list, err)
					}
					if list, err = f.engine.Parked(ordersDataset, 0, "1", 10); len(list) > 0 || err != nil {
						t.Errorf("behind the last one: %+v, %v", list, err)
					}
					if s.State != projections.Live || (s.Parked == 1) != parks || (s.Skipped == 1) == parks {
						t.Errorf("%+v", s)
					}
				}
				check()
				f.stop()
				f.start(orders, lines)
				f.settle()
				check()
			})
		})
	}
}

// TestASkippedRecord: an entity whose record is left out goes on with the later ones, with the rows
// that a build has which leaves the record out from the beginning. A dataset that has stopped at it
// is built again.
func TestASkippedRecord(t *testing.T) {
	for _, onError := range []string{"park-key", "stop"} {
		t.Run(onError, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				orders := f.ordersView(onError, 1, 3)
				f.start(orders)
				f.event("order/1", "OrderPlaced", placed("a", 5))
				bad := f.event("order/1", "OrderPlaced", placed("b", 0))
				f.event("order/1", "OrderShipped", nil)
				f.event("order/2", "OrderPlaced", placed("a", 5))
				f.settle()
				skipping := *orders
				skipping.Skips = []projections.Skip{{Offset: bad}, {Partition: 3, Offset: bad + 1}}
				check := func() {
					t.Helper()
					f.settle()
					s := f.statusOf(ordersDataset)
					if s.State != projections.Live || s.Position != f.end() || s.Parked != 0 || s.Skipped != 1 || s.Rows != 2 {
						t.Errorf("%+v, the log ends at %d", s, f.end())
					}
					f.same(&skipping)
				}
				f.engine.Define([]*projections.View{&skipping})
				check()
				f.event("order/1", "OrderDeleted", nil)
				f.event("order/1", "OrderPlaced", placed("c", 10))
				check()
				f.stop()
				f.views = memstore.New()
				f.start(&skipping)
				check()
			})
		})
	}
}

// TestAPausedDataset: nothing is folded into it, it says so, its rows are returned as they are, and
// it goes on where it was.
func TestAPausedDataset(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		orders := f.ordersView("park-key", 1)
		f.start(orders)
		f.event("order/1", "OrderPlaced", placed("a", 5))
		f.settle()
		at := f.end()
		paused := *orders
		paused.Paused = true
		f.engine.Define([]*projections.View{&paused})
		f.event("order/2", "OrderPlaced", placed("a", 5))
		f.settle()
		s := f.statusOf(ordersDataset)
		if s.State != projections.Paused || s.Position != at || s.Lag() != 1 || !strings.Contains(s.LastError, "resume") {
			t.Errorf("%+v", s)
		}
		snapshot, err := f.open(projections.Ask{Dataset: ordersDataset})
		if err != nil {
			t.Fatal(err)
		}
		row, _, err := snapshot.Get([]byte(text("1")))
		if err := errors.Join(err, snapshot.Close()); err != nil || row == nil {
			t.Errorf("the row is %q, %v", row, err)
		}
		f.same(&paused)
		f.engine.Define([]*projections.View{orders})
		f.settle()
		if s := f.statusOf(ordersDataset); s.State != projections.Live || s.Rows != 2 {
			t.Errorf("%+v", s)
		}
		f.same(orders)
	})
}

// TestARestoredSnapshot: where a repair has kept the snapshot of events that the log has lost, the
// entity is parked unless the definition has a clause for it.
func TestARestoredSnapshot(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.start(f.ordersView("park-key", 1))
		snapshot := record.Envelope{Kind: record.Snapshot, Sequence: 3, TypeURL: typePrefix + "OrderState"}
		f.put("order/1", nil, snapshot)
		snapshot.Restores = 9
		f.put("order/2", nil, snapshot)
		f.settle()
		s := f.statusOf(ordersDataset)
		if s.Parked != 1 || !strings.Contains(s.LastError, "order/2: the log has lost events") {
			t.Errorf("%+v", s)
		}
	})
}

// failing is a store whose commits fail while failure is set.
type failing struct {
	*memstore.Store

	failure failure
}

// failure is an error that a test sets while others look.
type failure struct{ atomic.Pointer[error] }

func (f *failure) set(err error) { f.Store(&err) }

func (f *failure) err() error {
	if err := f.Load(); err != nil {
		return *err
	}
	return nil
}

// source opens stores.
type source struct {
	failure failure
	store   atomic.Pointer[materializer.Store]
	opened  atomic.Int32
}

func (s *source) open() (materializer.Store, error) {
	s.opened.Add(1)
	return *s.store.Load(), s.failure.err()
}

func (s *failing) NewBatch() materializer.Batch { return &failingBatch{s.Store.NewBatch(), s} }

type failingBatch struct {
	materializer.Batch

	store *failing
}

func (b *failingBatch) Commit() error {
	if err := b.store.failure.err(); err != nil {
		return err
	}
	return b.Batch.Commit()
}

// TestAStoreThatFails: the datasets stop with the cause, are tried again, and go on with the store
// that they get then: the same one, or one that lost everything. The image goes on.
func TestAStoreThatFails(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("lost %t", lost), func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				store := &failing{Store: memstore.New()}
				f.views = store
				orders := f.ordersView("park-key", 1, 2, 3, 4)
				views := &source{}
				first := f.views
				views.store.Store(&first)
				f.engine = projections.New(projections.Options{Store: views.open})
				f.run()
				synctest.Wait()
				if views.opened.Load() != 0 {
					t.Error("the store was opened without views")
				}
				f.engine.Define([]*projections.View{orders})
				for range 20 {
					f.command()
				}
				f.settle()
				f.same(orders)
				store.failure.set(errors.New("no space left on device"))
				f.command()
				f.settle()
				s := f.statusOf(ordersDataset)
				if s.State != projections.Stopped || s.LastError != "no space left on device" || s.Position >= s.End {
					t.Errorf("%+v", s)
				}
				if _, err := f.open(projections.Ask{Dataset: ordersDataset}); err == nil || !strings.Contains(err.Error(), "no space") {
					t.Errorf("it is opened: %v", err)
				}
				if next, ok := f.feed.Position(); !ok || next != f.end() {
					t.Errorf("the image is at %d of %d", next, f.end())
				}
				views.failure.set(errors.New("it cannot be opened"))
				<-time.After(projections.RetryMax) // of the bubble
				synctest.Wait()
				if s := f.statusOf(ordersDataset); s.State != projections.Stopped || s.LastError != "it cannot be opened" {
					t.Errorf("%+v", s)
				}
				var now materializer.Store = store
				if lost {
					_ = store.Close()
					now = memstore.New()
				}
				views.store.Store(&now)
				store.failure.set(nil)
				views.failure.set(nil)
				<-time.After(projections.RetryMax)
				synctest.Wait()
				f.views = now
				f.same(orders)
				if s := f.statusOf(ordersDataset); s.State != projections.Live || s.Position != f.end() {
					t.Errorf("%+v", s)
				}
				if lost {
					return
				}
				var clone materializer.Store = store.Clone()
				views.store.Store(&clone)
				_ = store.Close() // as another partition's retry does
				f.views = clone
				f.command()
				f.settle()
				s = f.statusOf(ordersDataset)
				if s.State != projections.Stopped || !strings.Contains(s.LastError, fs.ErrClosed.Error()) {
					t.Errorf("%+v", s)
				}
				<-time.After(projections.RetryMax)
				f.settle()
				f.same(orders)
			})
		})
	}
}

// TestABuildThatCannotReadTheLog says why, is tried again, and does not hold up the other datasets.
func TestABuildThatCannotReadTheLog(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		orders, lines := f.ordersView("park-key", 1, 3), f.linesView()
		f.start(orders)
		for i := range 5 {
			f.event(fmt.Sprint("order/", i), "OrderPlaced", placed("a", 5, line{"x", 1}))
		}
		f.settle()
		f.world.world.Remove(journal, 2, 3)
		f.engine.Define([]*projections.View{orders, lines})
		f.settle()
		for range 3 {
			f.event("order/1", "OrderShipped", nil)
			f.settle()
			if s := f.statusOf(ordersDataset); s.State != projections.Live || s.Position != f.end() || s.LastError != "" {
				t.Errorf("the dataset that is current: %+v", s)
			}
			<-time.After(projections.RetryMax)
		}
		s := f.statusOf(linesDataset)
		if s.State != projections.Building || s.Position > 2 || !strings.Contains(s.LastError, "offset 2") {
			t.Errorf("the build: %+v", s)
		}
		if ready, why := f.engine.Ready(linesDataset); ready || !strings.Contains(why, "last error: ") {
			t.Errorf("ready: %t, %s", ready, why)
		}
		_, err := f.open(projections.Ask{Dataset: linesDataset})
		if err == nil || !strings.Contains(err.Error(), "offset 2") {
			t.Errorf("it is opened: %v", err)
		}
	})
}

// TestAPanic of a fold stops the datasets of its partition, and not the process.
func TestAPanic(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		options := projections.Options{Store: func() (materializer.Store, error) { return f.views, nil }}
		options.PanicAt("3")
		f.engine = projections.New(options)
		f.engine.Define([]*projections.View{f.ordersView("park-key", 1)})
		f.run()
		for i := range 5 {
			f.event(fmt.Sprint("order/", i), "OrderPlaced", placed("a", 5))
			f.settle()
		}
		for range 2 {
			if s := f.statusOf(ordersDataset); s.State != projections.Stopped || s.LastError != "panic: of the test" {
				t.Errorf("%+v", s)
			}
			<-time.After(projections.RetryMax)
			synctest.Wait()
		}
	})
}

// TestAnotherHistory: rows of a log that was repaired are dropped and built again.
func TestAnotherHistory(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		orders, lines := f.ordersView("park-key", 1, 3), f.linesView()
		f.start(orders, lines)
		f.event("order/1", "OrderPlaced", placed("a", 5, line{"x", 1}))
		f.event("order/2", "OrderPlaced", placed("b", 5, line{"x", 1}))
		f.settle()
		f.leave(materializer.FeedHalted)
		if err := materializer.StartOver(f.image.Store, address, "topic", 0); err != nil {
			t.Fatal(err)
		}
		f.world.world.Truncate(journal, 2)
		f.claim(&record.ClaimInfo{Worker: "w", PreviousEpoch: f.epoch - 1, PreviousNonce: 7, ReadTo: 2, Floor: 3})
		synctest.Wait()
		if s := f.statusOf(ordersDataset); s.State != projections.Building || s.Rows != 2 {
			t.Errorf("%+v", s)
		}
		f.begin(materializer.Following) // the image is behind the rows
		f.event("order/3", "OrderPlaced", placed("c", 5, line{"x", 1}))
		synctest.Wait()
		if _, err := f.open(projections.Ask{Dataset: ordersDataset}); err == nil {
			t.Error("rows of a log that was repaired are returned")
		}
		f.settle() // in one piece, which no consumer can take
		f.same(orders, lines)
		if s := f.statusOf(ordersDataset); s.State != projections.Live || s.Position != f.end() || s.Rows != 2 ||
			!strings.Contains(s.LastError, "the log is another one") {
			t.Errorf("%+v", s)
		}
	})
}

// TestRowsAheadOfTheImage are not returned: their records are not in the image.
func TestRowsAheadOfTheImage(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		orders := f.ordersView("park-key", 1)
		f.start(orders)
		f.event("order/1", "OrderPlaced", placed("a", 5))
		f.event("order/2", "OrderPlaced", placed("a", 5))
		f.settle()
		f.leave(materializer.FeedFailed)
		f.stop()
		f.start(orders)
		f.image.Store = f.image.Store.(*memstore.Store).Crash()
		f.begin(materializer.Following)
		f.turn(1)
		synctest.Wait()
		_, err := f.open(projections.Ask{Dataset: ordersDataset})
		if gone, is := errors.AsType[*projections.NotHereError](err); !is || gone.State != projections.Building ||
			!strings.Contains(gone.Progress, "the rows are at offset 3, and the image is not there yet") {
			t.Errorf("%v", err)
		}
		f.settle()
		s, err := f.open(projections.Ask{Dataset: ordersDataset, Reach: f.end()})
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
		f.same(orders)
	})
}

// TestPositionRowsThatDoNotFit: rows of another fold or version are dropped and built again.
func TestPositionRowsThatDoNotFit(t *testing.T) {
	for _, how := range []string{"version", "hash", "fold version", "damaged", "missing"} {
		t.Run(how, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				orders, lines := f.ordersView("park-key", 1, 3), f.linesView()
				f.start(orders, lines)
				for range 30 {
					f.command()
				}
				f.settle()
				f.stop()
				d := projections.Dataset{Address: address, Number: ordersDataset}
				value, err := f.views.Get(d.PositionKey(nil))
				if err == nil {
					value, err = projections.Spoiled(value, how)
				}
				if err != nil {
					t.Fatal(err)
				}
				b := f.views.NewBatch()
				switch how {
				case "damaged":
					err = b.Put(d.PositionKey(nil), value[:len(value)-3])
				case "missing":
					err = b.Delete(d.PositionKey(nil))
				default:
					err = b.Put(d.PositionKey(nil), value)
				}
				err = errors.Join(err, b.Put(d.RowKey(nil, []byte("foreign")), []byte("x")), b.Commit(), b.Close())
				if err != nil {
					t.Fatal(err)
				}
				f.start(orders, lines)
				f.settle()
				f.same(orders, lines)
			})
		})
	}
}
