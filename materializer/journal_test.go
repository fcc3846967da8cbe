package materializer_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

// pieces is a reader that hands out a log in batches of a given size.
type pieces struct {
	records []broker.Record
	size    int
	reads   int
}

var errNoMore = errors.New("the log ends here")

func (p *pieces) Next(context.Context) (broker.Batch, error) {
	if len(p.records) == 0 {
		return broker.Batch{}, errNoMore
	}
	p.reads++
	n := min(p.size, len(p.records))
	b := broker.Batch{
		Records: slices.Clone(p.records[:n]), Next: p.records[n-1].Offset + 1,
		End: p.records[len(p.records)-1].Offset + 1,
	}
	p.records = p.records[n:]
	return b, nil
}

func (p *pieces) Close() error { return nil }

func (w *writer) journal(size int, from int64) (*materializer.Journal, *pieces) {
	records := w.world.Records(journal)
	p := &pieces{records: records[from:], size: size}
	return materializer.NewJournal(p, address, "topic", materializer.MetaFrom("topic", from)), p
}

// TestJournal: each record with what the reader rule says of it, where it was read, and what takes
// effect with it.
func TestJournal(t *testing.T) {
	w := newWriter(t)
	w.claim()
	event := func(seq uint64, env record.Envelope) {
		env.Kind, env.Sequence, env.TypeURL = record.Event, seq, "t/e"
		w.put("cart/1", fmt.Sprint("e", seq), env)
	}
	event(1, record.Envelope{})
	event(2, record.Envelope{Index: 0, Count: 2})
	event(3, record.Envelope{Index: 1, Count: 2})
	w.put("x", "foreign", record.Envelope{})
	event(9, record.Envelope{Epoch: 1, Nonce: 3, Ordinal: 4})
	w.put("", "", record.Envelope{Kind: record.Barrier})
	event(4, record.Envelope{Index: 0, Count: 2})
	w.put("", "", record.Envelope{Kind: record.Claim, Epoch: 1<<40 + 9, Nonce: 7})
	w.claim()
	event(4, record.Envelope{})

	want := []string{
		"0 claimed by 1, next 1",
		"1 complete [1] by 1, next 2",
		"2 pending by 1, next 2",
		"3 complete [2 3] by 1, next 4",
		"4 foreign by 1, next 5",
		"5 void by 1, next 6",
		"6 control by 1, next 7",
		"7 pending by 1, next 7",
		"8 void jumps by 1, next 7",
		"9 claimed dropped by 2, next 10",
		"10 complete [10] by 2, next 11",
	}
	for size := 1; size <= len(want); size++ {
		j, _ := w.journal(size, 0)
		var got []string
		for r, err := range j.Until(t.Context(), w.end()) {
			if err != nil {
				t.Fatal(err)
			}
			if j.Position() != r.Offset+1 || j.End() != w.end() {
				t.Errorf("in pieces of %d: after offset %d the position is %d of %d", size, r.Offset, j.Position(), j.End())
			}
			got = append(got, told(j, r))
		}
		if !slices.Equal(got, want) {
			t.Errorf("in pieces of %d:\n%q, want\n%q", size, got, want)
		}
	}
}

// told is a record of a journal as these tests compare it.
func told(j *materializer.Journal, r *materializer.Read) string {
	text := fmt.Sprint(r.Offset) + map[record.Verdict]string{
		record.Void: " void", record.Foreign: " foreign", record.Claimed: " claimed", record.Control: " control",
		record.Pending:  " pending",
		record.Complete: " complete",
	}[r.Verdict]
	if (r.Foreign != nil) != (r.Verdict == record.Foreign) {
		text += fmt.Sprint(" and ", r.Foreign)
	}
	if r.Jumps() {
		text += " jumps"
	}
	if r.Dropped {
		text += " dropped"
	}
	var effective []int64
	for e := range r.Effective {
		effective = append(effective, e.Offset)
	}
	if len(effective) > 0 {
		text += fmt.Sprint(" ", effective)
	}
	return text + fmt.Sprintf(" by %d, next %d", j.Owner().Epoch, j.Meta().Next)
}

// TestJournalStops: Until reads no further than it must, goes on where it stopped, returns a loss
// that spans the offset, and the error of a log that cannot be read.
func TestJournalStops(t *testing.T) {
	w := newWriter(t)
	w.claim()
	for seq := range uint64(9) {
		w.put("cart/1", "e", record.Envelope{Kind: record.Event, Sequence: seq + 1, TypeURL: "t/e"})
	}
	j, p := w.journal(4, 0)
	until := func(until int64) (last int64, err error) {
		last = -1
		for r, failed := range j.Until(t.Context(), until) {
			if r != nil {
				last = r.Offset
			}
			err = errors.Join(err, failed)
		}
		return last, err
	}
	for _, step := range []struct {
		until, last int64
		reads       int
		buffered    bool
	}{{0, -1, 0, false}, {3, 2, 1, true}, {3, -1, 1, true}, {4, 3, 1, false}, {6, 5, 2, true}, {8, 7, 2, false}} {
		last, err := until(step.until)
		if err != nil || last != step.last || p.reads != step.reads || j.Buffered() != step.buffered {
			t.Errorf("until %d: last %d, %v, %d reads, more is buffered: %v", step.until, last, err, p.reads, j.Buffered())
		}
	}
	if last, err := until(100); last != 9 || !errors.Is(err, errNoMore) {
		t.Errorf("a log that cannot be read: last %d, %v", last, err)
	}
	w.world.Remove(journal, 4, 7)
	j, _ = w.journal(2, 0)
	last, err := until(6)
	if loss, ok := errors.AsType[*materializer.LostError](err); !ok || loss.Offset != 7 || loss.Missing != 3 || last != 7 {
		t.Errorf("records 4 to 6 are lost: last %d, %v", last, err)
	}
}

// TestJournalOfALogWithoutItsEnd: offsets that the log has given away and that have no record are a
// loss, with records before them in the same batch or not; where losses are passed over, reading
// ends after them.
func TestJournalOfALogWithoutItsEnd(t *testing.T) {
	w := newWriter(t)
	w.claim()
	for range 4 {
		w.put("counter/1", "1", record.Envelope{Kind: record.State, TypeURL: "t/v"})
	}
	w.world.Remove(journal, 2, 5)
	for from := range int64(5) {
		reader, err := w.log.Read(journal, from)
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		j := materializer.NewJournal(reader, address, "topic", materializer.MetaFrom("topic", from))
		var lost error
		for _, err := range j.Until(t.Context(), w.end()) {
			lost = errors.Join(lost, err)
		}
		loss, ok := errors.AsType[*materializer.LostError](lost)
		if want := 5 - max(from, 2); !ok || loss.Missing != want || loss.Offset != 5 || j.Position() != 5 {
			t.Errorf("from offset %d: %v at position %d, want %d records lost", from, lost, j.Position(), want)
		}
		if reader, err = w.log.Read(journal, from); err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		j = materializer.Browse(reader, address, from)
		for _, err := range j.Until(t.Context(), w.end()) {
			if err != nil {
				t.Errorf("from offset %d, losses passed over: %v", from, err)
			}
		}
		if j.Position() != 5 || j.Lost() != uint64(5-max(from, 2)) {
			t.Errorf("from offset %d, losses passed over: position %d, %d lost", from, j.Position(), j.Lost())
		}
	}
}

// TestBrowse: from the middle of a log, records count from the next claim on. Browse takes the
// writer of the first record for the owner, and passes over what is lost.
func TestBrowse(t *testing.T) {
	w := newWriter(t)
	w.claim()
	for seq := range uint64(3) {
		w.put("cart/1", "e", record.Envelope{Kind: record.Event, Sequence: seq + 1, TypeURL: "t/e"})
	}
	w.claim()
	w.put("cart/1", "late", record.Envelope{Kind: record.Event, Epoch: 1, Nonce: 7, Ordinal: 4, Sequence: 4})
	for browse, want := range map[bool]string{
		true:  "[2 complete [2] by 1, next 3 3 complete [3] by 1, next 4 4 claimed by 2, next 5 5 void by 2, next 6]",
		false: "[2 void by 0, next 3 3 void by 0, next 4 4 claimed by 2, next 5 5 void by 2, next 6]",
	} {
		j, p := w.journal(3, 2)
		if browse {
			j = materializer.Browse(p, address, 2)
		}
		var got []string
		for r, err := range j.Until(t.Context(), w.end()) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, told(j, r))
		}
		if fmt.Sprint(got) != want {
			t.Errorf("browsed %v: %v, want %v", browse, got, want)
		}
	}
	w.world.Remove(journal, 1, 3)
	for r, err := range materializer.Browse(w.read(), address, 0).Until(t.Context(), w.end()) {
		if err != nil || r == nil {
			t.Errorf("a log with a gap: %v", err)
		}
	}
}

// TestObserverAndJournalAgree: of random logs, a fold gives its observer the records that a journal
// calls effective, in the same order and with the same position: the fold of a follower, which
// reads them, and that of an owner, which reads only claims and what others wrote.
func TestObserverAndJournalAgree(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		w := newWriter(t)
		randomLog(w, rnd, 300)
		line := func(e *materializer.Entry, m materializer.Meta) string {
			return fmt.Sprintf("%d %s %q, next %d, owner %d, ordinal %d, log time %d", e.Offset, e.Key, e.Value, m.Next,
				m.Owner.Epoch, m.Ordinal, m.LogTime)
		}
		var read []string
		j, _ := w.journal(1+rnd.IntN(50), 0)
		for r, err := range j.Until(t.Context(), w.end()) {
			if err != nil {
				t.Fatal(err)
			}
			for e := range r.Effective {
				read = append(read, line(e, j.Meta()))
			}
		}
		for name, fold := range map[string]func(*materializer.Fold, *broker.Record) error{
			"a follower": followed, "an owner": owned,
		} {
			var observed []string
			f := materializer.NewFold(address, "topic", materializer.Meta{})
			f.Observe(func(e *materializer.Entry) { observed = append(observed, line(e, f.Meta())) })
			for _, r := range w.world.Records(journal) {
				if err := fold(f, &r); err != nil {
					t.Fatal(err)
				}
			}
			if !slices.Equal(observed, read) || len(read) == 0 {
				t.Fatalf("seed %d: %s: %s", seed, name, firstDifference(observed, read))
			}
			f.Observe(nil)
			w.put("cart/1", "e", record.Envelope{Kind: record.Event, Sequence: 1, TypeURL: "t/e"})
			if last := w.world.Records(journal)[w.end()-1]; fold(f, &last) != nil || len(observed) != len(read) {
				t.Errorf("seed %d: %s: it observes after it was told not to", seed, name)
			}
			w.world.Truncate(journal, w.end()-1)
			w.ordinal--
		}
	}
}

// followed folds a record as a follower does, without a store.
func followed(f *materializer.Fold, r *broker.Record) error {
	_, err := f.Record(materializer.Discard{}, r)
	return err
}

// owned folds a record as its owner does, without a store: what it wrote itself is not read.
func owned(f *materializer.Fold, r *broker.Record) error {
	return ownedInto(f, materializer.Discard{}, r)
}

func ownedInto(f *materializer.Fold, rows materializer.Rows, r *broker.Record) error {
	var parser record.Parser
	e := materializer.Entry{Offset: r.Offset, Key: r.Key, Value: r.Value}
	if parser.Parse(r.Header(record.HeaderKey), &e.Envelope) != nil || e.Envelope.Kind == record.Claim {
		_, err := f.Record(rows, r)
		return err
	}
	_, err := f.Step(rows, &e)
	return err
}
