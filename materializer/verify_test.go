package materializer_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

// verify verifies the writer's log, and returns what was found.
func (w *writer) verify(store materializer.Store) (materializer.Verified, []string) {
	w.t.Helper()
	var found []string
	v := materializer.Verification{
		Log: w.log, Partition: journal, Address: address, TopicID: "topic", Store: store,
		Found: func(f materializer.Finding) error {
			found = append(found, fmt.Sprintf("%d %s", f.Offset, f.What))
			return nil
		},
	}
	result, err := v.Run(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return result, found
}

// follow claims the log as an owner does that has read all of it.
func (w *writer) follow() {
	read, previous := uint64(w.end()), w.epoch
	w.epoch++
	w.ordinal = 0
	c := &record.ClaimInfo{ReadTo: read, PreviousEpoch: previous}
	if previous > 0 {
		c.PreviousNonce = 7
	}
	w.put("", "", record.Envelope{Kind: record.Claim, Epoch: w.epoch, Nonce: 7, Claim: c})
}

// TestVerification: each thing that must not be in a journal is found, at its place, and what may
// be there is not.
func TestVerification(t *testing.T) {
	event := func(w *writer, seq uint64, env record.Envelope) {
		env.Kind, env.Sequence, env.TypeURL = record.Event, seq, "t/e"
		w.put("cart/1", "e", env)
	}
	for name, test := range map[string]struct {
		write func(w *writer)
		want  []string
	}{
		"in order": {func(w *writer) {
			event(w, 1, record.Envelope{LogTime: 1})
			event(w, 2, record.Envelope{LogTime: 1})
			w.put("cart/1", "s", record.Envelope{Kind: record.Snapshot, Sequence: 2, TypeURL: "t/s", LogTime: 2})
			w.put("x", "foreign", record.Envelope{})
			event(w, 9, record.Envelope{Epoch: 1, Nonce: 3, Ordinal: 4, LogTime: 1})                     // void
			event(w, 3, record.Envelope{Epoch: 1, Nonce: 7, Ordinal: 4, Index: 0, Count: 2, LogTime: 2}) // cut off by the claim
			w.follow()
			event(w, 3, record.Envelope{LogTime: 1}) // each ownership has its own times
		}, nil},
		"an event is missing": {func(w *writer) { event(w, 1, record.Envelope{}); event(w, 3, record.Envelope{}) }, []string{"2 cart/1: event 3 follows event 1"}},
		"an event twice":      {func(w *writer) { event(w, 1, record.Envelope{}); event(w, 1, record.Envelope{}) }, []string{"2 cart/1: event 1 follows event 1"}},
		"a snapshot of the future": {func(w *writer) {
			w.put("cart/1", "s", record.Envelope{Kind: record.Snapshot, Sequence: 4, TypeURL: "t/s"})
		}, []string{"1 cart/1: a snapshot of event 4 follows event 0"}},
		"log time goes back": {func(w *writer) { event(w, 1, record.Envelope{LogTime: 9}); event(w, 2, record.Envelope{LogTime: 7}) }, []string{"2 log time goes back by 2 ns"}},
		"a lost ownership": {func(w *writer) {
			w.epoch++ // its claim is not in the log
			w.follow()
		}, []string{"1 the claim at offset 1 follows owner 2"}},
		"a claim of the future": {func(w *writer) {
			w.put("", "", record.Envelope{
				Kind: record.Claim, Epoch: 2, Nonce: 7,
				Claim: &record.ClaimInfo{PreviousEpoch: 1, PreviousNonce: 7, ReadTo: 50},
			})
		}, []string{"1 the claim at offset 1 says that the log was read up to offset 50"}},
		"a group that its owner left": {func(w *writer) {
			event(w, 1, record.Envelope{Epoch: 1, Nonce: 7, Ordinal: 1, Count: 2})
			event(w, 1, record.Envelope{Epoch: 1, Nonce: 7, Ordinal: 2})
		}, []string{"2 the group before this record is incomplete"}},
		"unfoldable": {func(w *writer) { w.put("cart/1", "x", record.Envelope{Kind: 99}) }, []string{"1 record cannot be folded"}},
		"restored": {func(w *writer) {
			w.put("", "", record.Envelope{
				Kind: record.Claim, Epoch: 2, Nonce: 7,
				Claim: &record.ClaimInfo{PreviousEpoch: 1, PreviousNonce: 7, Floor: 90},
			})
			w.epoch, w.ordinal = 2, 0
			w.put("cart/1", "s", record.Envelope{Kind: record.Snapshot, Sequence: 4, TypeURL: "t/s", Restores: 80, LogTime: 9})
			event(w, 5, record.Envelope{Restores: 80, LogTime: 3})
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWriter(t)
			w.follow()
			test.write(w)
			result, found := w.verify(nil)
			if result.Findings != uint64(len(found)) || !slices.EqualFunc(found, test.want, strings.HasPrefix) {
				t.Errorf("found %q; want %q (%+v)", found, test.want, result)
			}
			if name == "in order" &&
				(result.Void != 1 || result.Foreign != 1 || result.Cut != 1 || result.Events != 3 || result.Entities != 1) {
				t.Errorf("%+v", result)
			}
			if name == "restored" && (result.Repairs != 1 || result.Jumps != 1) {
				t.Errorf("%+v", result)
			}
		})
	}
}

// TestVerificationOfAStore: rows that differ are found, and missing ones that a worker does not
// remove; a store that is behind is compared at its own position.
func TestVerificationOfAStore(t *testing.T) {
	s := newStory(t, 5)
	s.follow()
	for range 60 {
		s.command()
	}
	store, _ := s.fold(batched)
	for range 20 {
		s.command()
	}
	result, found := s.verify(store)
	if len(found) > 0 || result.Compared != position(t, store) || result.Next != s.end() {
		t.Fatalf("%+v, found %q; want nothing", result, found)
	}
	rows := map[string][]byte{}
	lower, upper := address.Range()
	if err := store.Scan(lower, upper, func(k, v []byte) bool {
		rows[string(k)] = append([]byte{}, v...)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	apply := func(change func(materializer.Batch) error) {
		t.Helper()
		batch := store.NewBatch()
		if err := errors.Join(change(batch), batch.Commit()); err != nil {
			t.Fatal(err)
		}
	}
	for key, value := range rows {
		kind, swept := materializer.KindOf([]byte(key))
		if len(value) > 0 {
			changed := append([]byte{}, value...)
			changed[len(changed)/2] ^= 1
			apply(func(b materializer.Batch) error { return b.Put([]byte(key), changed) })
			if result, _ := s.verify(store); result.Findings == 0 && kind != "rowMeta" {
				t.Errorf("%s %q was changed, and nothing is found", kind, key)
			}
		}
		apply(func(b materializer.Batch) error { return b.Delete([]byte(key)) })
		if result, _ := s.verify(store); (result.Findings == 0) != swept {
			t.Errorf("%s %q was removed, and there are %d findings", kind, key, result.Findings)
		}
		apply(func(b materializer.Batch) error { return b.Put([]byte(key), value) })
	}
	if left := dumpBeside(t, store); left > 0 {
		t.Errorf("%d rows are left of what was folded beside the store", left)
	}
}

func position(t *testing.T, s materializer.Store) int64 {
	t.Helper()
	meta, _, err := materializer.Partition{Rows: s, Address: address}.Meta()
	if err != nil {
		t.Fatal(err)
	}
	return meta.Next
}

func dumpBeside(t *testing.T, s materializer.Store) (rows int) {
	t.Helper()
	lower, upper := address.ForVerify().Range()
	if err := s.Scan(lower, upper, func(_, _ []byte) bool { rows++; return true }); err != nil {
		t.Fatal(err)
	}
	return rows
}

// TestAFoldWritesKindsOfTheTable: a log of every kind of record makes rows of every kind that the
// table says a fold writes, and no others. So a kind without its fold, or its line, fails here; the
// other tests of this file then see its rows.
func TestAFoldWritesKindsOfTheTable(t *testing.T) {
	s := newStory(t, 3)
	s.follow()
	for range 400 {
		s.command()
	}
	written := kindsOfRows{}
	fold := materializer.NewFold(address, "topic", materializer.Meta{})
	for _, r := range s.world.Records(journal) {
		if _, err := fold.Record(written, &r); err != nil {
			t.Fatal(err)
		}
	}
	if err := fold.WriteMeta(written); err != nil {
		t.Fatal(err)
	}
	got, want := slices.Sorted(maps.Keys(written)), slices.Sorted(slices.Values(materializer.FoldedKinds()))
	if !slices.Equal(got, want) {
		t.Errorf("rows of kinds %q, want %q", got, want)
	}
}

// kindsOfRows takes rows and keeps their kinds.
type kindsOfRows map[string]bool

func (k kindsOfRows) Put(key, _ []byte) error { return k.Delete(key) }

func (k kindsOfRows) Delete(key []byte) error {
	name, _ := materializer.KindOf(key)
	if name == "" {
		return fmt.Errorf("the table has no kind for the row %q", key)
	}
	k[name] = true
	return nil
}

// TestSweptRowsNeedNotBeThere: a worker that has removed all rows that do not count any more, those
// of forwarded commands without an id among them, has a store in which nothing is found; and the
// table has exactly these kinds as swept.
func TestSweptRowsNeedNotBeThere(t *testing.T) {
	s := newStory(t, 8)
	s.follow()
	for range 400 {
		s.command()
	}
	s.put("counter/1", "v", record.Envelope{
		Kind: record.State, TypeURL: "t/v", LogTime: s.now,
		Cause: &record.Cause{Generation: 1, Partition: 3, Offset: 90_000, Settled: 80_000},
	})
	store, _ := s.fold(batched)
	before := countKinds(t, store)
	sweep(t, store, s.now+1)
	if _, found := s.verify(store); len(found) > 0 {
		t.Errorf("after the sweep: %q", found)
	}
	after := countKinds(t, store)
	for kind, n := range before {
		if left := after[kind]; kind.swept != (left < n) {
			t.Errorf("%s: swept is %v in the table, and of %d rows %d are left", kind.name, kind.swept, n, left)
		}
	}
}

// sweep removes what a worker may remove.
func sweep(t *testing.T, store materializer.Store, before int64) {
	t.Helper()
	view := materializer.Partition{Rows: store, Address: address}
	_, err := materializer.Expire(store, address, before, before, 10_000)
	_, _, failed := materializer.Forget(store, address, nil, 10_000)
	if err = errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	var moot []materializer.Due
	if err := view.Due(0, 0, func(d materializer.Due) bool {
		if now, _, err := view.Timer(d.Key, d.Name); err != nil || now.Offset != d.Offset {
			moot = append(moot, d)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for _, d := range moot {
		if err := materializer.Sweep(store, address, d); err != nil {
			t.Fatal(err)
		}
	}
}

type sweptKind struct {
	name  string
	swept bool
}

func countKinds(t *testing.T, store materializer.Store) map[sweptKind]int {
	t.Helper()
	counts := map[sweptKind]int{}
	lower, upper := address.Range()
	if err := store.Scan(lower, upper, func(key, _ []byte) bool {
		name, swept := materializer.KindOf(key)
		counts[sweptKind{name, swept}]++
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return counts
}
