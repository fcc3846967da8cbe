package materializer_test

import (
	"fmt"
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

// follow claims the log as an owner does who has read all of it.
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

// TestVerification: each thing that must not be in a journal is found, at its place, and what may be there is not.
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
			w.put("", "", record.Envelope{Kind: record.Claim, Epoch: 2, Nonce: 7, Claim: &record.ClaimInfo{PreviousEpoch: 1, PreviousNonce: 7, ReadTo: 50}})
		}, []string{"1 the claim at offset 1 says that the log was read up to offset 50"}},
		"a group that its owner left": {func(w *writer) {
			event(w, 1, record.Envelope{Epoch: 1, Nonce: 7, Ordinal: 1, Count: 2})
			event(w, 1, record.Envelope{Epoch: 1, Nonce: 7, Ordinal: 2})
		}, []string{"2 the group before this record is incomplete"}},
		"unfoldable": {func(w *writer) { w.put("cart/1", "x", record.Envelope{Kind: 99}) }, []string{"1 record cannot be folded"}},
		"restored": {func(w *writer) {
			w.put("", "", record.Envelope{Kind: record.Claim, Epoch: 2, Nonce: 7, Claim: &record.ClaimInfo{PreviousEpoch: 1, PreviousNonce: 7, Floor: 90}})
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
			if name == "in order" && (result.Void != 1 || result.Foreign != 1 || result.Cut != 1 || result.Events != 3 || result.Entities != 1) {
				t.Errorf("%+v", result)
			}
			if name == "restored" && (result.Repairs != 1 || result.Jumps != 1) {
				t.Errorf("%+v", result)
			}
		})
	}
}

// TestVerificationOfAStore: rows that differ, that are missing, and that nobody knows are found; a store that is behind is compared
// where it stands.
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
	for key, value := range rows {
		if strings.ContainsRune("xytq", rune(key[4])) || len(value) == 0 {
			continue // of those, some may be gone
		}
		batch := store.NewBatch()
		changed := append([]byte{}, value...)
		changed[len(changed)/2] ^= 1
		if err := batch.Put([]byte(key), changed); err != nil {
			t.Fatal(err)
		}
		if err := batch.Commit(); err != nil {
			t.Fatal(err)
		}
		if result, _ := s.verify(store); result.Findings == 0 && key[4] != 'm' {
			t.Errorf("row %q was changed, and nothing is found", key)
		}
		if err := batch.Put([]byte(key), value); err != nil {
			t.Fatal(err)
		}
		if err := batch.Commit(); err != nil {
			t.Fatal(err)
		}
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
