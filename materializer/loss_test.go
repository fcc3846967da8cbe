package materializer_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
)

// verdict is the result of one way to fold a log: the first loss, or the rows.
type verdict struct {
	way  string
	loss *materializer.LostError
	rows []string
}

func (v verdict) String() string {
	if v.loss != nil {
		return fmt.Sprintf("%s: offset %d, %s", v.way, v.loss.Offset, v.loss.What)
	}
	return fmt.Sprintf("%s: whole, %d rows", v.way, len(v.rows))
}

// ways are all that fold a log: an owner's records one by one, a standby that follows, an ordinary
// catch-up, a bulk rebuild.
var ways = map[string]func(context.Context, *materializer.Follower, int64) error{
	"catch-up": batched,
	"bulk":     func(ctx context.Context, f *materializer.Follower, end int64) error { return f.Bulk(ctx, end, 4096) },
	"standby": func(ctx context.Context, f *materializer.Follower, end int64) error {
		for f.Position() < end {
			if _, err := f.Follow(ctx); err != nil {
				return err
			}
		}
		return nil
	},
}

// verdicts folds the log in every way. What is lost before accepted is passed over.
func (w *writer) verdicts(accepted int64) (all []verdict) {
	w.t.Helper()
	judge := func(way string, store materializer.Store, err error) {
		v := verdict{way: way}
		if loss, ok := errors.AsType[*materializer.LostError](err); ok {
			v.loss = loss
		} else if err != nil {
			w.t.Fatalf("%s: %v", way, err)
		} else {
			v.rows = dump(w.t, store)
		}
		all = append(all, v)
	}
	for way, fold := range ways {
		store := memstore.New()
		f := materializer.NewFold(address, "topic", materializer.Meta{})
		f.Accept(accepted)
		judge(way, store, fold(w.t.Context(), materializer.NewFollower(w.read(), store, f), w.end()))
	}
	store := memstore.New()
	batch := store.NewBatch()
	f := materializer.NewFold(address, "topic", materializer.Meta{})
	f.Accept(accepted)
	var err error
	for _, r := range w.world.Records(journal) {
		if _, err = f.Record(batch, &r); err != nil {
			break
		}
	}
	judge("one by one", store, errors.Join(err, f.WriteMeta(batch), batch.Commit()))
	return all
}

func (w *writer) read() broker.Reader {
	w.t.Helper()
	reader, err := w.log.Read(journal, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = reader.Close() })
	return reader
}

func (w *writer) inspect() materializer.Inspected {
	w.t.Helper()
	found, err := materializer.NewJournal(w.read(), address, "topic", materializer.Meta{}).Inspect(w.t.Context(),
		w.end(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

// agree checks that all ways to read the log have the same result, verification and inspection too,
// and returns the loss.
func (w *writer) agree() *materializer.LostError {
	w.t.Helper()
	all := w.verdicts(0)
	first := all[0]
	for _, v := range all[1:] {
		if (v.loss == nil) != (first.loss == nil) || (v.loss != nil && *v.loss != *first.loss) ||
			!slices.Equal(v.rows, first.rows) {
			w.t.Fatalf("%s\n%s", first, v)
		}
	}
	inspected := w.inspect()
	_, findings := w.verify(nil)
	losses := slices.DeleteFunc(findings, func(f string) bool {
		return !strings.Contains(f, "no record") && !strings.Contains(f, "is lost") && !strings.Contains(f, "was read up to")
	})
	switch {
	case first.loss == nil && (inspected.Loss != nil || len(losses) > 0):
		w.t.Fatalf("%s\ninspection: %v, verification: %q", first, inspected.Loss, losses)
	case first.loss != nil && (inspected.Loss == nil || *inspected.Loss != *first.loss ||
		losses[0] != fmt.Sprintf("%d %s", first.loss.Offset, first.loss.What)):
		w.t.Fatalf("%s\ninspection: %v, verification: %q", first, inspected.Loss, losses)
	}
	return first.loss
}

// TestLosses: what proves that a log has lost records, and what does not, in every way to read it.
func TestLosses(t *testing.T) {
	event := func(w *writer, seq uint64) {
		w.put("cart/1", "e", record.Envelope{Kind: record.Event, Sequence: seq, TypeURL: "t/e"})
	}
	claims := func(epoch, previous, readTo uint64) record.Envelope {
		c := &record.ClaimInfo{PreviousEpoch: previous, ReadTo: readTo}
		if previous > 0 {
			c.PreviousNonce = 7
		}
		return record.Envelope{Kind: record.Claim, Epoch: epoch, Nonce: 7, Claim: c}
	}
	for name, test := range map[string]struct {
		// write adds to a log of two ownerships with two events each, at offsets 0 to 5.
		write func(w *writer)
		at    int64
		says  string
	}{
		"nothing":                              {func(*writer) {}, 0, ""},
		"an offset is missing":                 {func(w *writer) { w.world.Remove(journal, 1, 2) }, 2, "it has no record at offset 1"},
		"many are missing":                     {func(w *writer) { w.world.Remove(journal, 1, 4) }, 4, "it has no records at offsets 1 to 3"},
		"the first is missing":                 {func(w *writer) { w.world.Remove(journal, 0, 1) }, 1, "it has no record at offset 0"},
		"a record cannot be read":              {func(w *writer) { w.world.Change(journal, 4, func(r *broker.Record) { r.Headers = nil }) }, 0, ""}, // as if it had never been written
		"a claim cannot be read":               {func(w *writer) { w.world.Change(journal, 0, func(r *broker.Record) { r.Headers = nil }) }, 3, "the claim at offset 3 follows owner 1"},
		"a claim on an owner that is gone":     {func(w *writer) { w.put("", "", claims(9, 8, 6)) }, 6, "the claim at offset 6 follows owner 8"},
		"a claim on the owner's epoch":         {func(w *writer) { e := claims(3, 2, 6); e.Claim.PreviousNonce = 8; w.put("", "", e) }, 6, "the claim at offset 6 follows owner 2 (0000000000000008)"},
		"a claim that has read more":           {func(w *writer) { w.put("", "", claims(3, 2, 7)) }, 6, "the log was read up to offset 7"},
		"a claim that has read no number":      {func(w *writer) { w.put("", "", claims(3, 2, 1<<63)) }, 6, "the log was read up to offset"},
		"a claim that was overtaken":           {func(w *writer) { w.put("", "", claims(9, 1, 3)) }, 0, ""}, // a repair's: its epoch is above all that was lost
		"a claim that says nothing":            {func(w *writer) { w.put("", "", record.Envelope{Kind: record.Claim, Epoch: 3, Nonce: 7}) }, 0, ""},
		"a void claim on an owner that is not": {func(w *writer) { w.put("", "", claims(1, 8, 100)) }, 0, ""},
		"a claim with an absurd epoch":         {func(w *writer) { w.put("", "", claims(3+record.EpochStep, 8, 100)) }, 0, ""},
		"an ordinal jumps":                     {func(w *writer) { w.ordinal += 5; event(w, 9) }, 0, ""}, // ADR 8: an append that the log never took
		"a record of another one":              {func(w *writer) { w.put("x", "foreign", record.Envelope{}); w.follow() }, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWriter(t)
			for seq := uint64(1); seq < 5; seq += 2 {
				w.follow()
				event(w, seq)
				event(w, seq+1)
			}
			test.write(w)
			switch loss := w.agree(); {
			case test.at == 0 && loss != nil:
				t.Errorf("a loss is found: %v", loss)
			case test.at > 0 && (loss == nil || loss.Offset != test.at || !strings.Contains(loss.What, test.says) ||
				!errors.Is(loss, materializer.ErrLost)):
				t.Errorf("found %v; want %q at offset %d", loss, test.says, test.at)
			}
		})
	}
}

// TestEveryFoldSeesTheSame: a random log, damaged at random, is the same to an owner, a standby, a
// catch-up, a bulk rebuild, an inspection and a verification. When a repair has accepted what is
// lost, it is the same again, with nothing lost.
func TestEveryFoldSeesTheSame(t *testing.T) {
	seeds := uint64(400)
	if testing.Short() {
		seeds = 60
	}
	lost := 0
	for seed := range seeds {
		s := newStory(t, seed)
		for range 1 + s.random.IntN(4) {
			s.follow()
			for range s.random.IntN(12) {
				s.command()
			}
		}
		for range s.random.IntN(4) {
			s.damage(s.random)
		}
		if s.agree() == nil {
			continue
		}
		lost++
		probe := materializer.NewFold(address, "topic", materializer.Meta{})
		probe.PassOver(nil)
		for _, r := range s.world.Records(journal) {
			if _, err := probe.Record(memstore.New().NewBatch(), &r); err != nil {
				t.Fatal(err)
			}
		}
		owner := probe.Owner()
		s.put("", "", record.Envelope{Kind: record.Claim, Epoch: owner.Epoch + 1, Nonce: 9, Claim: &record.ClaimInfo{
			ReadTo: uint64(s.end()), PreviousEpoch: owner.Epoch, PreviousNonce: owner.Nonce, Floor: uint64(s.end()),
			Lost: probe.Lost(),
		}})
		found := s.inspect()
		if found.Loss != nil || found.Accepted != s.end() {
			t.Fatalf("seed %d: after a repair: %+v", seed, found)
		}
		all := s.verdicts(found.Accepted)
		for _, v := range all {
			if v.loss != nil || !slices.Equal(v.rows, all[0].rows) {
				t.Fatalf("seed %d: after a repair: %s\n%s", seed, all[0], v)
			}
		}
		if result, findings := s.verify(nil); result.Accepted == 0 || slices.ContainsFunc(findings, func(f string) bool {
			return strings.Contains(f, "no record")
		}) {
			t.Fatalf("seed %d: after a repair: %+v, %q", seed, result, findings)
		}
		if end := s.end(); end > 3 {
			s.world.Remove(journal, end-2, end-1)
			if found := s.inspect(); found.Loss == nil {
				t.Fatalf("seed %d: one more record is lost, and nothing is found", seed)
			}
		}
	}
	if lost < int(seeds)/8 {
		t.Errorf("of %d logs %d had lost something: the test does not damage them", seeds, lost)
	}
}

// damage changes a log in one way, which is a loss or is none.
func (s *story) damage(random *rand.Rand) {
	end := s.end()
	at := random.Int64N(end)
	switch random.IntN(6) {
	case 0:
		if at < end-1 {
			s.world.Remove(journal, at, min(at+1+random.Int64N(3), end-1))
		}
	case 1:
		s.world.Change(journal, at, func(r *broker.Record) { r.Headers = nil })
	case 2:
		s.world.Change(journal, at, func(r *broker.Record) {
			if h := r.Headers; len(h) > 0 && len(h[0].Value) > 0 {
				h[0].Value[0] = 9 // an unknown version
			}
		})
	case 3:
		s.put("x", "foreign", record.Envelope{})
	case 4: // a claim of another worker, which cuts a group, or comes too late
		s.put("", "", record.Envelope{
			Kind: record.Claim, Epoch: random.Uint64N(6), Nonce: 11,
			Claim: &record.ClaimInfo{Worker: "x", PreviousEpoch: random.Uint64N(6), PreviousNonce: 7},
		})
	case 5:
		s.put("cart/1", "late", record.Envelope{
			Kind: record.Event, Epoch: random.Uint64N(4), Nonce: 7,
			Ordinal: random.Uint64N(20), Count: 2, Index: uint32(random.IntN(2)), Sequence: 1, TypeURL: "t/e",
		})
	}
}
