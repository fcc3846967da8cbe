package projections_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/projections"
)

// recorder keeps what a crash after each batch would leave.
type recorder struct {
	*memstore.Store

	left []*memstore.Store
}

func (r *recorder) NewBatch() materializer.Batch { return &recorded{r.Store.NewBatch(), r} }

type recorded struct {
	materializer.Batch

	recorder *recorder
}

func (b *recorded) Commit() error {
	err := b.Batch.Commit()
	b.recorder.left = append(b.recorder.left, b.recorder.Clone())
	return err
}

func (r *recorder) DropRange(lower, upper []byte) error {
	err := r.Store.DropRange(lower, upper)
	r.left = append(r.left, r.Clone())
	return err
}

// TestRowsAndPositionAreOne: whichever batch is the last before a crash, an engine that goes on
// from there comes to the rows of a recomputation; so it does in the middle of making indexes and
// aggregates.
func TestRowsAndPositionAreOne(t *testing.T) {
	if _, err := schema(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 3, 1<<20)
		defer f.stop()
		store := &recorder{Store: memstore.New()}
		f.views = store
		views := []*projections.View{f.ordersView("park-key", 1, 3)}
		f.start(views...)
		for round := range 40 {
			for range 5 {
				f.command()
			}
			switch round {
			case 15:
				views[0] = f.ordersView("park-key", 1, 2, 3, 4)
			case 25:
				views = append(views, f.linesView())
			case 35:
				views[0] = f.ordersView("park-key", 2, 4)
			}
			f.engine.Define(views)
			f.catchUp()
			synctest.Wait()
		}
		f.stop()
		if n := len(store.left); n < 40 {
			t.Fatalf("%d batches", n)
		}
		for i, left := range store.left {
			f.views = left
			f.start(views...)
			synctest.Wait()
			for _, v := range views {
				if err := f.compare(f.views, v); err != nil {
					t.Fatalf("a crash after batch %d: %v", i, err)
				}
				if s := f.statusOf(v.Dataset); s.State != projections.Live || s.Position != f.end() || s.Incomplete != 0 {
					t.Fatalf("a crash after batch %d: %+v", i, s)
				}
			}
			f.stop()
		}
	})
}

// TestRowsAreCountedOnce: records that come while an aggregate is made from the rows change the
// groups of those rows that are counted already, and not of the others.
func TestRowsAreCountedOnce(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		store := &recorder{Store: memstore.New()}
		f.views = store
		f.start(f.ordersView("park-key", 1))
		const rows = 2*projections.WalkRows + 10
		for i := range rows {
			f.event(fmt.Sprint("order/", i), "OrderPlaced", placed(fmt.Sprint("c", i%7), int64(1+i%9)))
		}
		f.settle()
		store.left = nil
		orders := f.ordersView("park-key", 1, 2, 3)
		f.engine.Define([]*projections.View{orders})
		f.settle()
		f.stop()
		for i := range 40 {
			f.event(fmt.Sprint("order/", i*25), "OrderShipped", nil)
			f.event(fmt.Sprint("order/", i*25+1), "OrderDeleted", nil)
			f.event(fmt.Sprint("order/", rows+i), "OrderPlaced", placed("c", 9))
		}
		f.catchUp()
		walks := 0
		for i, left := range store.left {
			_, position, err := stored(left, ordersDataset)
			if err != nil {
				t.Fatal(err)
			}
			if at, err := projections.StoredOf(position); err != nil || at.Pending == 0 {
				continue
			}
			walks++
			f.views = left
			f.start(orders)
			synctest.Wait()
			if err := f.compare(f.views, orders); err != nil {
				t.Errorf("from batch %d on: %v", i, err)
			}
			f.stop()
		}
		if walks != 3 { // none of the pieces is made, the first one is, the second one is
			t.Errorf("%d batches with indexes that are not complete, want 3", walks)
		}
	})
}

// TestAWaitIsForThePosition: it is over when the consumer has reached it, although the last records
// are none of the dataset; and not before.
func TestAWaitIsForThePosition(t *testing.T) {
	if _, err := schema(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1, 1<<20)
		defer f.stop()
		f.event("order/1", "OrderPlaced", placed("c", 5))
		f.catchUp()
		f.start(f.ordersView("park-key", 1))
		synctest.Wait()
		for range 3 {
			f.put("counter/1", []byte("x"), record.Envelope{Kind: record.State, TypeURL: "t/v"})
		}
		f.put("", nil, record.Envelope{Kind: record.Barrier})
		f.catchUp()
		synctest.Wait()
		over, cancel := context.WithCancel(t.Context())
		cancel()
		ask := projections.Ask{Dataset: ordersDataset, Indexes: []uint16{1}, Reach: f.end()}
		s, err := f.engine.Open(over, ask)
		if err != nil {
			t.Fatal(err)
		}
		if at := s.Position(); at.Next != f.end() || at.Owner.Epoch != f.epoch || at.LogTime != f.now {
			t.Errorf("the position is %+v, the log ends at %d", at, f.end())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		ask.Reach++
		_, err = f.engine.Open(over, ask)
		if behind, is := errors.AsType[*projections.BehindError](err); !is || behind.Wanted != f.end()+1 ||
			behind.Applied != f.end() || !errors.Is(err, context.Canceled) {
			t.Errorf("beyond the log: %v", err)
		}
		opened := make(chan error, 1)
		go func() { // received below
			s, err := f.engine.Open(t.Context(), ask)
			if err == nil {
				err = s.Close()
			}
			opened <- err
		}()
		synctest.Wait()
		if len(opened) > 0 {
			t.Fatalf("the wait is over before the position: %v", <-opened)
		}
		f.put("", nil, record.Envelope{Kind: record.Barrier})
		f.catchUp()
		if err := <-opened; err != nil {
			t.Error(err)
		}
	})
}
