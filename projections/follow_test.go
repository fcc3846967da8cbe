package projections_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"testing/synctest"

	"github.com/millrace-io/millrace/projections"
	"github.com/millrace-io/millrace/projections/mapping"
)

// ofCustomer is the range of a customer's orders in the first index of orders.
func ofCustomer(customer string) projections.Range {
	lower := []byte(text(customer))
	return projections.Range{ByIndex: true, Index: 1, Lower: lower, Upper: mapping.Successor(lower)}
}

// following is a follower, and from where it goes on.
type following struct {
	*projections.Follower

	of   projections.Range
	from int64
}

// await asks a follower without a wait.
func (f *fixture) await(n *following) (next int64, found bool) {
	f.t.Helper()
	over, cancel := context.WithCancel(f.t.Context())
	cancel()
	next, err := n.Await(over, n.from)
	if err != nil && !errors.Is(err, context.Canceled) {
		f.t.Fatal(err)
	}
	return next, err == nil
}

// changesOf are the keys of the rows of a range that have changed from an offset on.
func (f *fixture) changesOf(of projections.Range, from int64) (keys map[string]bool, through int64) {
	f.t.Helper()
	s, err := f.engine.Open(f.t.Context(), projections.Ask{Dataset: ordersDataset})
	if err != nil {
		f.t.Fatal(err)
	}
	changes, through, err := s.Changes(from, of, 1<<30)
	if err = errors.Join(err, s.Close()); err != nil {
		f.t.Fatal(err)
	}
	keys = map[string]bool{}
	for _, c := range changes {
		keys[string(c.Key)] = true
	}
	return keys, through
}

// TestFollowers: a follower is woken if its range has a change, whether that came before it began
// or after, and passes over none; and one of other rows is not woken.
func TestFollowers(t *testing.T) {
	if _, err := schema(); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testFollowers(t, newFixture(t, seed, 1<<20)) })
		})
	}
}

func testFollowers(t *testing.T, f *fixture) {
	defer f.stop()
	view := f.watchedOrders("24h")
	f.command()
	f.start(view)
	f.catchUp()
	synctest.Wait()
	var all []*following
	for _, of := range []projections.Range{
		ofCustomer("c0"),
		ofCustomer("c0"),
		ofCustomer("c1"),
		ofCustomer("none"),
		{ByIndex: true, Index: 1, Lower: []byte(text("c1")), Upper: []byte(text("c3"))},
		{ByIndex: true, Index: 1, Lower: []byte(text("c2"))},
		{ByIndex: true, Index: 2},
		{},
		{Lower: []byte(text("3")), Upper: []byte(text("6"))},
	} {
		n := &following{of: of, from: f.end()}
		f.follow(n)
		defer func() { n.Close() }()
		all = append(all, n)
	}
	woken, needless := 0, 0
	for range 300 {
		for range f.rnd.IntN(3) {
			f.command()
		}
		if f.rnd.IntN(20) == 0 {
			f.engine.Define([]*projections.View{view, f.linesView()}[:1+f.rnd.IntN(2)])
		}
		f.turn(1 + f.rnd.IntN(20))
		synctest.Wait()
		n := all[f.rnd.IntN(len(all))]
		if f.rnd.IntN(3) == 0 { // it was answered, and asks again
			n.Close()
			f.follow(n)
		}
		next, found := f.await(n)
		want, through := f.changesOf(n.of, n.from)
		switch got, _ := f.changesOf(n.of, next); {
		case !found && len(want) > 0:
			t.Fatalf("a follower of %+v from %d on is told of nothing, and %d rows have changed", n.of, n.from, len(want))
		case !found && next != through:
			t.Fatalf("a follower of %+v is at %d, the rows are at %d", n.of, next, through)
		case !maps.Equal(got, want):
			t.Fatalf("a follower of %+v from %d on is sent to %d, and passes over changes: %d of %d are left",
				n.of, n.from, next, len(got), len(want))
		case found:
			woken++
			if len(want) == 0 {
				needless++
			}
		}
		n.from = through
		if !found {
			n.from = next
		}
	}
	if woken < 20 || needless > woken/2 {
		t.Errorf("followers were woken %d times, and %d times for nothing", woken, needless)
	}
}

func (f *fixture) follow(n *following) {
	f.t.Helper()
	var err error
	if n.Follower, err = f.engine.Follow(projections.Ask{Dataset: ordersDataset}, n.of); err != nil {
		f.t.Fatal(err)
	}
}

// TestFollowersOfOtherRowsSleep: a change wakes those who follow the row as it was or as it is, and
// no others; the end of the partition wakes all.
func TestFollowersOfOtherRowsSleep(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		view := f.watchedOrders("24h")
		f.event("order/1", "OrderPlaced", placed("a", 5))
		f.start(view)
		f.settle()
		all := map[string]*following{}
		for _, customer := range []string{"a", "b", "c"} {
			n := &following{of: ofCustomer(customer), from: f.end()}
			f.follow(n)
			defer n.Close()
			all[customer] = n
			if _, found := f.await(n); found {
				t.Fatalf("customer %s has changes before there are any", customer)
			}
		}
		f.event("order/1", "OrderPlaced", placed("b", 5))
		f.settle()
		for customer, want := range map[string]bool{"a": true, "b": true, "c": false} {
			if next, found := f.await(all[customer]); found != want || found && next != f.end()-1 || !found && next != f.end() {
				t.Errorf("customer %s: found %t at %d, want %t", customer, found, next, want)
			}
		}
		ended := make(chan error, 1)
		go func() { // received below
			_, err := all["c"].Await(t.Context(), f.end())
			ended <- err
		}()
		synctest.Wait()
		f.engine.Detach(f.Address())
		if _, is := errors.AsType[*projections.NotHereError](<-ended); !is {
			t.Error("a follower of a partition that is gone waits on")
		}
		if _, err := f.engine.Follow(projections.Ask{Dataset: ordersDataset}, ofCustomer("a")); err == nil {
			t.Error("a partition that is not here is followed")
		}
	})
}

// BenchmarkFollowers is what a change costs that one follower is woken for, with others of the same
// range and of other ones.
func BenchmarkFollowers(b *testing.B) {
	for _, n := range []int{1, 1_000, 10_000} {
		b.Run(fmt.Sprint(n, " of other customers"), func(b *testing.B) {
			var all []projections.Range
			for i := range n {
				all = append(all, ofCustomer(fmt.Sprint("c", i)))
			}
			tell := projections.Tell(all, 1, []byte(text("c0")), []byte(text("1")))
			for b.Loop() {
				tell()
			}
		})
	}
}
