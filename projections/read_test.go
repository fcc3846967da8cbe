package projections_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/projections"
)

// keysOf reads the keys of rows, or of groups, in order.
func keysOf(t *testing.T, r *projections.Rows) (keys []string) {
	t.Helper()
	for r.Next() {
		keys = append(keys, strings.Replace(string(r.Key()), "\x00\x01", "", 1))
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	return keys
}

// TestSnapshot reads rows, indexes and groups of one moment, in both directions and within bounds.
func TestSnapshot(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.start(f.ordersView("park-key", 1, 2, 3))
		for id := range 6 {
			f.event(fmt.Sprint("order/", id), "OrderPlaced", placed(fmt.Sprint("c", id%2), 10))
		}
		f.event("order/1", "OrderShipped", nil)
		f.put("payment/hidden", []byte{8, 1}, stateOf("Payment"))
		f.settle()
		s, err := f.open(projections.Ask{
			Dataset: ordersDataset, Indexes: []uint16{1, 2}, Aggregates: []uint16{3}, Reach: f.end(),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		f.event("order/9", "OrderPlaced", placed("c1", 10))
		f.event("order/0", "OrderDeleted", nil)
		f.settle() // the snapshot does not see it
		c1 := []byte(text("c1"))
		for name, test := range map[string]struct {
			rows *projections.Rows
			want []string
		}{
			"rows":             {s.Rows(nil, nil, false), []string{"0", "1", "2", "3", "4", "5"}},
			"rows, reverse":    {s.Rows(nil, nil, true), []string{"5", "4", "3", "2", "1", "0"}},
			"rows within":      {s.Rows([]byte(text("2")), []byte(text("4")), false), []string{"2", "3"}},
			"index":            {s.Index(1, nil, nil, false), []string{"4", "2", "0", "5", "3", "1"}},
			"index of c1":      {s.Index(1, c1, append(slices.Clone(c1), 0xff), false), []string{"5", "3", "1"}},
			"index, reverse":   {s.Index(1, nil, c1, true), []string{"0", "2", "4"}},
			"index with where": {s.Index(2, nil, nil, false), []string{"0", "2", "3", "4", "5"}},
			"groups":           {s.Groups(3, nil, nil, false), []string{"\x80\x00", number32(2)}},
		} {
			if got := keysOf(t, test.rows); !slices.Equal(got, test.want) {
				t.Errorf("%s: %q, want %q", name, got, test.want)
			}
		}
		want, stale, err := s.Get([]byte(text("5")))
		if err != nil || stale || len(want) == 0 {
			t.Fatalf("row %x, %t, %v", want, stale, err)
		}
		for _, index := range []uint16{1, 2} { // with the rows, and without
			r := s.Index(index, nil, nil, true)
			for r.Next() && string(r.Key()) != text("5") {
			}
			row, stale, err := r.Row()
			if err != nil || stale || string(row) != string(want) || string(r.Tuple()) != string(r.Order())+text("5") {
				t.Errorf("index %d: row %x, %t, %v", index, row, stale, err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		r := s.Groups(3, nil, nil, false)
		for _, want := range []int64{5, 1} {
			r.Next()
			count, sums := r.Group()
			if sum, fits := sums[0].Int64(); count != want || sum != want*100 || !fits {
				t.Errorf("group of %d with %v, want %d", count, sums, want)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		for _, key := range []string{"hidden", "none", "9"} {
			if row, _, err := s.Get([]byte(text(key))); row != nil || err != nil {
				t.Errorf("row %q: %x, %v", key, row, err)
			}
		}
		if r := s.Index(9, nil, nil, false); r.Next() || r.Close() == nil {
			t.Error("an index that is not there has no error")
		}
	})
}

// TestWhatIsNotHere: the error says what is missing, at once.
func TestWhatIsNotHere(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		missing := func(ask projections.Ask, state projections.State, text string) {
			t.Helper()
			_, err := f.open(ask)
			gone, is := errors.AsType[*projections.NotHereError](err)
			if !is || gone.State != state || !strings.Contains(err.Error(), text) {
				t.Errorf("%+v: %v, want %v: %s", ask, err, state, text)
			}
		}
		f.start(f.ordersView("park-key", 1))
		f.event("order/1", "OrderPlaced", placed("a", 5))
		ask := projections.Ask{Dataset: ordersDataset, Indexes: []uint16{1}}
		synctest.Wait() // the worker has no role yet
		missing(ask, projections.Building, "it has reached offset 0")
		if ready, why := f.engine.Ready(ordersDataset); ready || why != "partition 0: BUILDING, offset 0 of 0" {
			t.Errorf("ready: %t, %s", ready, why)
		}
		f.settle()
		if ready, why := f.engine.Ready(ordersDataset); !ready || why != "" {
			t.Errorf("ready: %t, %s", ready, why)
		}
		missing(projections.Ask{Dataset: 99}, projections.Absent, "it is not defined")
		missing(projections.Ask{Dataset: ordersDataset, Partition: 1}, projections.Absent, "no image of the partition")
		missing(projections.Ask{Dataset: ordersDataset, Partition: -1}, projections.Absent, "no image of the partition")
		missing(projections.Ask{Dataset: ordersDataset, Indexes: []uint16{2}}, projections.Building, "index 2 is made from the rows")
		missing(projections.Ask{Dataset: ordersDataset, Aggregates: []uint16{3}}, projections.Building, "aggregate 3")
		if ready, why := f.engine.Ready(99); ready || !strings.Contains(why, "not defined") {
			t.Errorf("ready: %t, %s", ready, why)
		}
		f.leave(materializer.FeedMoved)
		synctest.Wait()
		s, err := f.open(ask) // its rows are as they were
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
		if ready, why := f.engine.Ready(ordersDataset); ready || !strings.Contains(why, "PAUSED") {
			t.Errorf("ready: %t, %s", ready, why)
		}
		f.begin(materializer.Following)
		opened := make(chan error, 1)
		go func() { // received below
			_, err := f.engine.Open(t.Context(), projections.Ask{Dataset: ordersDataset, Reach: 100})
			opened <- err
		}()
		synctest.Wait()
		f.engine.Detach(address)
		if _, is := errors.AsType[*projections.NotHereError](<-opened); !is {
			t.Error("a wait goes on although the partition is gone")
		}
		missing(ask, projections.Absent, "no image")
		f.engine.Attach(f)
		f.settle()
		bad := f.ordersView("park-key", 1)
		bad.Indexes = nil
		f.engine.Define([]*projections.View{bad})
		synctest.Wait()
		missing(ask, projections.Unsupported, "not every index and aggregate has a number")
		other := f.linesView()
		other.Dataset = ordersDataset
		f.engine.Define([]*projections.View{f.ordersView("park-key", 1), other})
		synctest.Wait()
		missing(ask, projections.Unsupported, "its fold has the hash")
	})
}

// TestDroppedDatasets leave nothing, neither at once nor after a start with other definitions.
func TestDroppedDatasets(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		orders, lines := f.ordersView("park-key", 1, 3), f.linesView()
		left := func(dataset uint32) int {
			rows, _, err := stored(f.views, dataset)
			if err != nil {
				t.Fatal(err)
			}
			return len(rows)
		}
		f.start(orders, lines)
		for range 30 {
			f.command()
		}
		f.settle()
		f.stop()
		f.engine = projections.New(projections.Options{Store: func() (materializer.Store, error) { return f.views, nil }})
		f.run() // before anything is defined
		f.settle()
		if left(ordersDataset) == 0 || left(linesDataset) == 0 {
			t.Error("rows are dropped before the definitions are known")
		}
		f.engine.Define([]*projections.View{lines})
		f.settle()
		if n := left(ordersDataset); n > 0 || left(linesDataset) == 0 {
			t.Errorf("%d rows are left of a dataset that was dropped while the engine did not run", n)
		}
		f.engine.Define([]*projections.View{orders})
		f.settle()
		if n := left(linesDataset); n > 0 {
			t.Errorf("%d rows are left", n)
		}
		f.same(orders)
		f.engine.Define(nil)
		f.settle()
		if n := left(ordersDataset); n > 0 || len(f.engine.Status()) > 0 {
			t.Errorf("%d rows are left, status %+v", n, f.engine.Status())
		}
	})
}

// TestBackfill: indexes and aggregates of many rows are made piece by piece, while records go on.
func TestBackfill(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		orders := f.ordersView("park-key", 1)
		f.start(orders)
		const rows = 3*projections.WalkRows + 7
		for i := range rows {
			f.event(fmt.Sprint("order/", i), "OrderPlaced", placed(fmt.Sprint("c", i%7), int64(1+i%9)))
		}
		f.settle()
		orders = f.ordersView("park-key", 1, 2, 3, 4)
		f.engine.Define([]*projections.View{orders})
		seen := 0
		for i := range 40 { // the goroutine is somewhere in between
			f.event(fmt.Sprint("order/", i*37%rows), "OrderShipped", nil)
			f.put(fmt.Sprint("payment/", i*91%rows), []byte{8, byte(1 + i)}, stateOf("Payment"))
			f.event(fmt.Sprint("order/", i*13%rows), "OrderDeleted", nil)
			f.turn(2)
			if s := f.statusOf(ordersDataset); s.Incomplete > 0 {
				seen++
			}
		}
		f.settle()
		t.Logf("%d of 40 looks saw incomplete parts", seen)
		f.same(orders)
		if s := f.statusOf(ordersDataset); s.Incomplete != 0 || s.State != projections.Live {
			t.Errorf("%+v", s)
		}
		if ready, why := f.engine.Ready(ordersDataset); !ready {
			t.Error(why)
		}
	})
}

// TestABuildJoins: a dataset that comes later becomes one with the others, also while records come.
func TestABuildJoins(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		orders, lines := f.ordersView("park-key", 1, 3), f.linesView()
		f.start(orders)
		for range 3000 {
			f.command()
		}
		f.settle()
		f.engine.Define([]*projections.View{orders, lines})
		for range 50 {
			f.command()
			f.turn(3)
		}
		f.settle()
		f.same(orders, lines)
		if n := f.engine.Fronts(0); n != 1 {
			t.Errorf("%d consumers", n)
		}
	})
}
