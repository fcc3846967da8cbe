package materializer_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// story writes random commands of one owner, as the engine would: events with snapshots, values,
// effects and what became of them, timers, ids, effects of other partitions.
type story struct {
	*writer
	random *rand.Rand
	now    int64
	ids    int
	// sequence and snapshot are by entity, open the effects that are not settled.
	sequence, snapshot map[string]uint64
	open               []uint64
	// refused are the offsets of refusals that are kept.
	refused []uint64
	timers  map[string]map[string]timerOf
	settled uint64
}

type timerOf struct{ due, offset int64 }

func newStory(t testing.TB, seed uint64) *story {
	t.Helper()
	return &story{
		writer: newWriter(t), random: rand.New(rand.NewPCG(seed, 1)), now: 1_700_000_000_000_000_000,
		sequence: map[string]uint64{}, snapshot: map[string]uint64{}, timers: map[string]map[string]timerOf{},
	}
}

// part is one record of a group.
type part struct {
	value string
	env   record.Envelope
}

func (s *story) command() {
	s.now += int64(s.random.IntN(1000))
	if len(s.open) > 0 && s.random.IntN(4) == 0 {
		s.settle()
		return
	}
	key := fmt.Sprintf("cart/%d", s.random.IntN(6))
	if s.random.IntN(3) == 0 {
		key = fmt.Sprintf("counter/%d", s.random.IntN(4))
	}
	var parts []part
	add := func(value string, env record.Envelope) { parts = append(parts, part{value, env}) }
	if key[1] == 'a' { // a cart
		for range 1 + s.random.IntN(3) {
			s.sequence[key]++
			add(fmt.Sprint("event ", s.sequence[key]), record.Envelope{Kind: record.Event, Sequence: s.sequence[key], TypeURL: "t/e"})
		}
		if s.random.IntN(4) == 0 {
			add(fmt.Sprint("after ", s.sequence[key]), record.Envelope{
				Kind: record.Snapshot, Sequence: s.sequence[key],
				PreviousSnapshot: s.snapshot[key], TypeURL: "t/s",
			})
			s.snapshot[key] = s.sequence[key]
		}
	} else if s.random.IntN(5) == 0 {
		add("", record.Envelope{Kind: record.Delete})
	} else {
		add(fmt.Sprint("value ", s.random.IntN(1000)), record.Envelope{Kind: record.State, TypeURL: "t/v"})
	}
	first := s.end()
	if s.random.IntN(3) == 0 {
		s.timer(key, first, &parts)
	}
	for range s.random.IntN(3) {
		s.open = append(s.open, uint64(first)+uint64(len(parts)))
		add("do it", record.Envelope{Kind: record.Effect, TypeURL: "t/c", Target: []byte{0x0a, 1, 'S'}})
	}
	last := &parts[len(parts)-1].env
	switch s.random.IntN(3) {
	case 0:
		s.ids++
		id := fmt.Sprint("id-", s.ids%20)
		if s.ids%3 == 0 {
			id = entities.RoutedPrefix + id // as a router gives them
		}
		last.CommandID, last.Principal, last.PayloadHash, last.Answer = id, "alice", s.random.Uint64(), fmt.Append(nil, "answer ", s.ids)
	case 1:
		s.ids++
		s.settled = max(s.settled, uint64(s.random.IntN(s.ids)))
		last.Cause = &record.Cause{
			Generation: 1, Partition: 3, Offset: uint64(1000 + s.ids),
			Index: uint32(s.random.IntN(2)), Settled: s.settled,
		}
		last.Answer = fmt.Append(nil, "effect ", s.ids)
	}
	for i := range parts {
		env := parts[i].env
		env.LogTime = s.now
		if len(parts) > 1 {
			env.Index, env.Count = uint32(i), uint32(len(parts))
		}
		s.put(key, parts[i].value, env)
	}
}

// timer sets, cancels or fires a timer.
func (s *story) timer(key string, first int64, parts *[]part) {
	name := fmt.Sprint("t", s.random.IntN(2))
	set, known := s.timers[key][name]
	if s.timers[key] == nil {
		s.timers[key] = map[string]timerOf{}
	}
	timer := &recordv1.Timer{Name: name}
	env := record.Envelope{Kind: record.TimerSet, TypeURL: "t/c", Target: []byte{0x12, 1, 'M'}}
	switch n := s.random.IntN(3); {
	case known && n == 0:
		env = record.Envelope{Kind: record.TimerCancelled}
		delete(s.timers[key], name)
	case known && n == 1:
		env = record.Envelope{Kind: record.TimerFired}
		timer.Due, timer.SetOffset = set.due, uint64(set.offset)
		delete(s.timers[key], name)
	default:
		timer.Due = s.now + int64(s.random.IntN(1e9))
		s.timers[key][name] = timerOf{timer.GetDue(), first + int64(len(*parts))}
	}
	env.Timer = record.EncodeTimer(timer)
	*parts = append(*parts, part{"ring", env})
}

// settle says what became of an effect.
func (s *story) settle() {
	i := s.random.IntN(len(s.open))
	said := &recordv1.Settled{}
	switch s.random.IntN(6) {
	case 4: // its target refuses it
		s.refused = append(s.refused, uint64(s.end()))
		s.put("counter/1", "do it", record.Envelope{
			Kind: record.Refused, LogTime: s.now, TypeURL: "t/c", Target: []byte{0x0a, 1, 'S'}, Answer: []byte{0x20, 9},
			Refuses: s.open[i],
		})
		s.open = append(s.open[:i], s.open[i+1:]...)
		return
	case 5: // an operator drops a refusal
		if len(s.refused) > 0 {
			said.Refused, s.refused = s.refused[:1], s.refused[1:]
		}
	case 0:
		said.Parked = []*recordv1.Parked{{
			Offset: s.open[i], Error: "no", Attempts: 3,
			Timer: &recordv1.ParkedTimer{Name: "t", Due: 7},
		}}
	case 1:
		said.Replayed = []uint64{s.open[i]}
	default:
		said.Done = []uint64{s.open[i]}
		s.open = append(s.open[:i], s.open[i+1:]...)
	}
	s.put("", string(record.EncodeSettled(said)), record.Envelope{Kind: record.Settled, LogTime: s.now})
}

// foldInto folds the log from nothing under an address of the store.
func (s *story) foldInto(store materializer.Store, a materializer.Address) *materializer.Follower {
	s.t.Helper()
	lower, upper := a.Range()
	if err := store.DropRange(lower, upper); err != nil {
		s.t.Fatal(err)
	}
	reader, err := s.log.Read(journal, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { reader.Close() })
	f := materializer.NewFollower(reader, store, materializer.NewFold(a, "topic", materializer.Meta{}))
	if err := f.CatchUp(s.t.Context(), s.end(), nil); err != nil {
		s.t.Fatal(err)
	}
	return f
}

// repair claims the log and writes pages until there are none, or it is cut off after a few.
func (s *story) repair(store materializer.Store, floor int64, cut int) (counts materializer.Restored, whole bool) {
	s.t.Helper()
	s.epoch++
	s.ordinal = 0
	s.put("", "", record.Envelope{
		Kind: record.Claim, Epoch: s.epoch, Nonce: 7,
		Claim: &record.ClaimInfo{Floor: uint64(floor)},
	})
	beside := s.foldInto(store, address.ForRepair())
	most, bytes := 1+s.random.IntN(20), 200+s.random.IntN(2000)
	pages, err := materializer.NewRestoration(
		materializer.Partition{Rows: store, Address: address},
		materializer.Partition{Rows: store, Address: address.ForRepair()}, most, bytes)
	if err != nil {
		s.t.Fatal(err)
	}
	for ; cut != 0; cut-- {
		page, err := pages.Next()
		if err != nil {
			s.t.Fatal(err)
		}
		if len(page) == 0 {
			return pages.Counts(), true
		}
		size := 0
		for i := range page {
			e := &page[i]
			sent := *e
			sent.Envelope.Epoch, sent.Envelope.Nonce, sent.Envelope.Ordinal = math.MaxUint64, 1, math.MaxUint64
			size += sent.Size()
			s.put(string(e.Key), string(e.Value), e.Envelope)
		}
		if len(page) > most || len(page) > 1 && size > bytes {
			s.t.Fatalf("a page has %d records in %d bytes; want at most %d in %d", len(page), size, most, bytes)
		}
		if err := beside.CatchUp(s.t.Context(), s.end(), nil); err != nil {
			s.t.Fatal(err)
		}
	}
	return pages.Counts(), false
}

// TestRestoration: the image writes again whatever a log loses from its end, so that a fold from
// nothing is the image: also when that is cut off and taken up again, and when the log loses its
// end once more.
func TestRestoration(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 15
	}
	for seed := range seeds {
		s := newStory(t, seed)
		store := memstore.New()
		for loss := range 3 {
			s.claim()
			for range 20 + s.random.IntN(150) {
				s.command()
			}
			s.foldInto(store, address)
			floor := s.end()
			s.world.Truncate(journal, 1+s.random.Int64N(floor))
			var counts materializer.Restored
			for whole := false; !whole; {
				cut := -1
				if s.random.IntN(2) == 0 {
					cut = s.random.IntN(4)
				}
				counts, whole = s.repair(store, floor, cut)
			}
			for s.end() < floor {
				s.put("", "", record.Envelope{Kind: record.Barrier})
			}
			again := memstore.New()
			s.foldInto(again, address)
			err := materializer.Compare(materializer.Partition{Rows: store, Address: address},
				materializer.Partition{Rows: again, Address: address}, true,
				func(d materializer.Difference) error { return errors.New(d.String()) })
			if err != nil {
				t.Fatalf("seed %d, loss %d: %v (written again in the last run: %+v)", seed, loss, err, counts)
			}
			store = again
			s.reload(store)
		}
	}
}

// reload continues the story from what is stored: timers have kept their addresses, groups that
// were cut are dropped.
func (s *story) reload(store materializer.Store) {
	s.t.Helper()
	view := materializer.Partition{Rows: store, Address: address}
	s.open, s.refused = nil, nil
	if err := view.RefusalOffsets(func(offset int64) { s.refused = append(s.refused, uint64(offset)) }); err != nil {
		s.t.Fatal(err)
	}
	if err := view.Outbox(0, func(e materializer.Effect) bool {
		s.open = append(s.open, uint64(e.Offset))
		return true
	}); err != nil {
		s.t.Fatal(err)
	}
}

// TestRestorationRefuses: a log that is not the beginning of what the image was folded from is left
// alone.
func TestRestorationRefuses(t *testing.T) {
	event := func(w *writer, key string, seq uint64, text string) {
		w.put(key, text, record.Envelope{Kind: record.Event, Sequence: seq, TypeURL: "t/e"})
	}
	for name, other := range map[string]func(w *writer){
		"an entity that the store does not know": func(w *writer) { event(w, "cart/2", 1, "x") },
		"more events than the store has":         func(w *writer) { event(w, "cart/1", 1, "a"); event(w, "cart/1", 2, "b"); event(w, "cart/1", 3, "c") },
		"another event":                          func(w *writer) { event(w, "cart/1", 1, "other") },
		"another place":                          func(w *writer) { w.put("", "", record.Envelope{Kind: record.Barrier}); event(w, "cart/1", 1, "a") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWriter(t)
			w.claim()
			event(w, "cart/1", 1, "a")
			w.put("cart/9", "v", record.Envelope{Kind: record.State, TypeURL: "t/v"})
			event(w, "cart/1", 2, "b")
			store, _ := w.fold(batched)
			w.world.Truncate(journal, 0)
			w.claim()
			other(w)
			base, _ := w.fold(batched)
			pages, err := materializer.NewRestoration(materializer.Partition{Rows: store, Address: address},
				materializer.Partition{Rows: base, Address: address}, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			if page, err := pages.Next(); !errors.Is(err, materializer.ErrNotAhead) {
				t.Errorf("%d records, %v; want ErrNotAhead", len(page), err)
			}
		})
	}
}
