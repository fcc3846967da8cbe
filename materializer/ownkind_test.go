package materializer_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
)

// TestAKindOfItsOwn: what the entities of a kind decide becomes records, rows, what a session
// begins with, and records again after a loss, without a place that knows the kind but its own
// file.
func TestAKindOfItsOwn(t *testing.T) {
	s := newStory(t, 1)
	key := entities.Key{Type: "tally", ID: "1"}
	view := func(store materializer.Store) (*entities.Loaded, materializer.Head) {
		t.Helper()
		p := materializer.Partition{Rows: store, Address: address}
		head, _, err := p.Head(key)
		if err != nil {
			t.Fatal(err)
		}
		loaded, err := p.Load(key)
		if err != nil {
			t.Fatal(err)
		}
		return &loaded, head
	}
	decide := func(store materializer.Store, numbers ...string) {
		t.Helper()
		loaded, _ := view(store)
		out := &entities.Outcome{}
		for _, n := range numbers {
			out.Events = append(out.Events, entities.Payload{TypeURL: "t/n", Value: []byte(n)})
		}
		changes, _ := materializer.AppendChanges(nil, materializer.Tally, materializer.PositionOf(loaded), out)
		if len(changes) != len(numbers) {
			t.Fatalf("%d changes of %d numbers", len(changes), len(numbers))
		}
		for i, c := range changes {
			s.put(key.String(), string(c.Payload.Value), record.Envelope{
				Kind: c.Kind, Sequence: c.Sequence, TypeURL: c.Payload.TypeURL, Index: uint32(i), Count: uint32(len(changes)),
			})
		}
	}
	want := func(store materializer.Store, sum, note string) {
		t.Helper()
		loaded, head := view(store)
		if head.Kind != materializer.Tally || loaded.State == nil || string(loaded.State.Value) != sum {
			t.Errorf("a %s with the state %+v, want %s", head.Kind, loaded.State, sum)
		}
		if got := head.Note(loaded); got != note {
			t.Errorf("note %q, want %q", got, note)
		}
	}
	store := memstore.New()
	s.claim()
	decide(store, "5")
	half := s.end()
	s.foldInto(store, address)
	decide(store, "7", "-2")
	s.foldInto(store, address)
	want(store, "10", "the sum of 3 numbers")

	floor := s.end()
	s.world.Truncate(journal, half)
	if counts, whole := s.repair(store, floor, -1); !whole || counts.Records != 2 || counts.Entities != 1 {
		t.Errorf("restored %+v", counts)
	}
	again := memstore.New()
	s.foldInto(again, address)
	want(again, "10", "the sum of 3 numbers")
	err := materializer.Compare(materializer.Partition{Rows: store, Address: address},
		materializer.Partition{Rows: again, Address: address}, true,
		func(d materializer.Difference) error { return errors.New(d.String()) })
	if err != nil {
		t.Error(err)
	}
	decide(again, "1")
	s.foldInto(again, address)
	want(again, "11", "the sum of 4 numbers")

	s.put(key.String(), "9", record.Envelope{Kind: materializer.Added, Sequence: 9})
	var found []string
	v := materializer.Verification{
		Log: s.log, Partition: journal, Address: address, TopicID: "topic",
		Found: func(f materializer.Finding) error {
			found = append(found, f.What)
			return nil
		},
	}
	_, err = v.Run(t.Context())
	if err != nil || !slices.Contains(found, "tally/1: event 9 follows event 4") {
		t.Errorf("a gap in the numbers: found %q, error %v", found, err)
	}
}
