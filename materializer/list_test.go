package materializer_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/materializer/pebblestore"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// lister folds records into a store, as an owner does.
type lister struct {
	t     testing.TB
	fold  *materializer.Fold
	batch materializer.Batch
	next  int64
}

func newLister(t testing.TB, store materializer.Store) *lister {
	t.Helper()
	w := &lister{t: t, fold: materializer.NewFold(address, "topic", materializer.Meta{}), batch: store.NewBatch()}
	w.put("", record.Envelope{Kind: record.Claim, Claim: &record.ClaimInfo{Worker: "w"}})
	return w
}

// put folds one record.
func (w *lister) put(key string, env record.Envelope) {
	w.t.Helper()
	env.Epoch, env.Nonce = 1, 1
	if env.Kind != record.Claim {
		env.Ordinal = uint64(w.next)
	}
	env.LogTime = w.next + 1
	if _, err := w.fold.Step(w.batch, &materializer.Entry{Offset: w.next, Key: []byte(key), Envelope: env}); err != nil {
		w.t.Fatal(err)
	}
	w.next++
}

func (w *lister) commit() {
	w.t.Helper()
	if err := w.batch.Commit(); err != nil {
		w.t.Fatal(err)
	}
}

// Entities are listed in the order of their keys, by prefix and from any one on, however many rows
// each has, and without those whose value was deleted.
func TestEntities(t *testing.T) {
	store := memstore.New()
	w := newLister(t, store)
	ids := []string{"1", "2", "10", "11", "2a", "100", "abc", "abd", "ab\xff", strings.Repeat("x", 130), strings.Repeat("x", 300)}
	for _, id := range ids {
		sequence := uint64(0)
		for i := range 40 { // index rows and events behind the head, answers before it
			sequence++
			w.put("cart/"+id, record.Envelope{
				Kind: record.Event, Sequence: sequence, TypeURL: "x/e", CommandID: fmt.Sprint("c", i),
			})
		}
		w.put("count/"+id, record.Envelope{Kind: record.State, TypeURL: "x/s"})
	}
	w.put("count/10", record.Envelope{Kind: record.Delete})
	w.put("car/t", record.Envelope{Kind: record.State, TypeURL: "x/s"})
	w.commit()
	view := materializer.Partition{Rows: store, Address: address}
	list := func(typ, prefix, after string) (found []string) {
		t.Helper()
		if err := view.Entities(typ, prefix, after, func(e materializer.Listed) bool {
			if e.Key.Type != typ || (e.Value != nil) != (typ != "cart") || typ == "cart" && e.Head.Sequence != 40 {
				t.Errorf("listed %+v", e)
			}
			found = append(found, e.Key.ID)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		return found
	}
	ordered := slices.Clone(ids)
	slices.SortStableFunc(ordered, func(a, b string) int { return len(a) - len(b) })
	for _, prefix := range []string{"", "1", "10", "100", "2", "ab", "abd", "b", "ab\xff", "x", "\xff"} {
		want := slices.DeleteFunc(slices.Clone(ordered), func(id string) bool { return !strings.HasPrefix(id, prefix) })
		got := list("cart", prefix, "")
		slices.SortStableFunc(got, func(a, b string) int { return len(a) - len(b) }) // a varint does not sort by value
		if !slices.Equal(got, want) {
			t.Errorf("prefix %q: %q, want %q", prefix, got, want)
		}
		for i, after := range got {
			if rest := list("cart", prefix, after); !slices.Equal(rest, got[i+1:]) {
				t.Errorf("prefix %q after %q: %q, want %q", prefix, after, rest, got[i+1:])
			}
		}
	}
	if got := list("count", "1", ""); !slices.Equal(got, []string{"1", "11", "100"}) {
		t.Errorf("values: %q", got)
	}
	if got := list("none", "", ""); got != nil {
		t.Errorf("of no type: %q", got)
	}
	types, err := view.Types(0, func() bool { return true })
	want := []materializer.TypeCount{
		{Type: "car", Kind: entities.Value, Count: 1},
		{Type: "cart", Kind: entities.EventSourced, Count: int64(len(ids))},
		{Type: "count", Kind: entities.Value, Count: int64(len(ids)) - 1},
	}
	if err != nil || !slices.Equal(types, want) {
		t.Errorf("types %+v (%v), want %+v", types, err, want)
	}
	for i := range want {
		want[i].Count, want[i].More = min(want[i].Count, 2), want[i].Count > 2
	}
	if types, err = view.Types(2, func() bool { return true }); err != nil || !slices.Equal(types, want) {
		t.Errorf("at most 2 of each: types %+v (%v), want %+v", types, err, want)
	}
}

func TestTimersOf(t *testing.T) {
	store := memstore.New()
	w := newLister(t, store)
	set := func(id, name string, due int64) {
		timer := record.EncodeTimer(&recordv1.Timer{Name: name, Due: due, Schedule: "@daily"})
		w.put("cart/"+id, record.Envelope{Kind: record.TimerSet, Timer: timer})
	}
	set("1", "b", 7)
	set("1", "a", 8)
	set("1", "a", 9)
	set("10", "c", 1)
	w.commit()
	var found []string
	view := materializer.Partition{Rows: store, Address: address}
	if err := view.TimersOf(entities.Key{Type: "cart", ID: "1"}, func(name string, t materializer.Timer) bool {
		found = append(found, fmt.Sprint(name, t.Due, t.Schedule))
		return true
	}); err != nil || !slices.Equal(found, []string{"a9@daily", "b7@daily"}) {
		t.Errorf("%q, %v", found, err)
	}
}

// BenchmarkList is the time to the first page of a list, and to the count of all, of a store on
// disk with a million entities.
func BenchmarkList(b *testing.B) {
	const count = 1_000_000
	store, err := pebblestore.Open(pebblestore.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	w := newLister(b, store)
	for i := range count {
		w.put(fmt.Sprint("cart/", i), record.Envelope{Kind: record.Event, Sequence: 1, TypeURL: "x/e", CommandID: "c"})
		if i%1000 == 999 {
			w.commit()
		}
	}
	if err := store.Flush(); err != nil {
		b.Fatal(err)
	}
	view := materializer.Partition{Rows: store, Address: address}
	for name, prefix := range map[string]string{"all": "", "prefix": "99999", "none": "x"} {
		b.Run("first page, "+name, func(b *testing.B) {
			for b.Loop() {
				rows := 0
				if err := view.Entities("cart", prefix, "", func(materializer.Listed) bool {
					rows++
					return rows < 50
				}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("count", func(b *testing.B) {
		for b.Loop() {
			start := time.Now()
			types, err := view.Types(0, func() bool { return true })
			if err != nil || len(types) != 1 || types[0].Count != count {
				b.Fatalf("%+v, %v", types, err)
			}
			b.ReportMetric(time.Since(start).Seconds(), "s/count")
		}
	})
}
