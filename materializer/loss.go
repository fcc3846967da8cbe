package materializer

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
)

// ErrLost: the log proves by what it has that it has lost records. Folding on would take a part of it for the whole.
var ErrLost = errors.New("the log has lost records")

// LostError is a place of a log that proves that records before it are lost. A journal is never compacted and has no transactions, so
// each offset has a record; and a claim names the ownership that it follows. Or it is a record that must not be folded, because the claim
// of its owner has another layout, or that claim (Layout).
type LostError struct {
	// Offset is that of the record that proves it.
	Offset int64
	// Missing is how many offsets before it have no record; 0: the record is a claim whose predecessor is gone.
	Missing int64
	// What was expected and what was found.
	What string
	// Layout says how the layouts differ; nil: this is not about layouts.
	Layout error
}

// Error returns what is lost and what to do.
func (l *LostError) Error() string {
	if l.Layout != nil {
		return fmt.Sprintf("%v: %s; if no worker of that layout has written it on purpose, see `millrace repair`", ErrUnfoldable, l.What)
	}
	return fmt.Sprintf("%v: %s; see `millrace repair`, and `millrace log verify` for the whole log", ErrLost, l.What)
}

// Unwrap returns ErrLost, and with a layout ErrUnfoldable and how it differs.
func (l *LostError) Unwrap() []error {
	if l.Layout != nil {
		return []error{ErrLost, ErrUnfoldable, l.Layout}
	}
	return []error{ErrLost}
}

// at checks that the record of an offset follows on the one before it.
func (f *Fold) at(offset int64) error {
	expected := f.next
	f.next = offset + 1
	if offset == expected || mutation.On(mutation.Hole) {
		return nil
	}
	return f.loses(Hole(expected, offset))
}

// UpTo says that the log has nothing more below an offset: it checks that every offset has had a record.
func (f *Fold) UpTo(next int64) error {
	expected := f.next
	if next <= expected || mutation.On(mutation.Hole) {
		return nil
	}
	f.next = next
	what := fmt.Sprintf("it has no records at offsets %d to %d, and goes on at offset %d", expected, next-1, next)
	if next == expected+1 {
		what = fmt.Sprintf("it has no record at offset %d, and goes on at offset %d", expected, next)
	}
	return f.loses(&LostError{Offset: next, Missing: next - expected, What: what})
}

// Hole is the loss that a log shows whose next record should have one offset and has another.
func Hole(expected, found int64) *LostError {
	switch {
	case found < expected:
		return &LostError{Offset: found, Missing: 1, What: fmt.Sprintf("offset %d came behind offset %d", found, expected-1)}
	case found == expected+1:
		return &LostError{Offset: found, Missing: 1, What: fmt.Sprintf("it has no record at offset %d, the next one is at offset %d", expected, found)}
	default:
		return &LostError{Offset: found, Missing: found - expected, What: fmt.Sprintf("it has no records at offsets %d to %d, the next one is at offset %d", expected, found-1, found)}
	}
}

// follows checks that a claim that counts follows on the owner that the log has before it.
func (f *Fold) follows(e *Entry, before record.Owner) error {
	if what := before.Broken(e.Envelope.Claim, e.Offset, f.meta.Start); what != "" {
		if err := f.loses(&LostError{Offset: e.Offset, What: what}); err != nil {
			return err
		}
	}
	if c := e.Envelope.Claim; c != nil && c.Lost > f.lost {
		return f.refuses(&LostError{Offset: e.Offset, What: fmt.Sprintf(
			"the repair at offset %d accepted %d losses, and what was folded before it has %d of them: it has records that the log has not", e.Offset, c.Lost, f.lost)})
	}
	return nil
}

// loses ends the fold with a loss, unless it is passed over; then it counts.
func (f *Fold) loses(l *LostError) error {
	f.lost += uint64(max(l.Missing, 1))
	return f.refuses(l)
}

func (f *Fold) refuses(l *LostError) error {
	switch {
	case f.met != nil:
		f.met(l)
		return nil
	case l.Offset < f.accepted:
		return nil
	default:
		return l
	}
}

// Accept passes over what is lost before an offset: a repair has accepted it (Inspected.Accepted).
func (f *Fold) Accept(below int64) { f.accepted = below }

// PassOver passes over everything that is lost, and counts it (Meta.Lost). met is told of each loss; it may be nil.
func (f *Fold) PassOver(met func(*LostError)) {
	f.met = met
	if met == nil {
		f.met = func(*LostError) {}
	}
}

// Lost counts the losses that were passed over.
func (f *Fold) Lost() uint64 { return f.lost }

// Inspected is what an inspection found.
type Inspected struct {
	// Loss is the first loss that no repair has accepted; nil: there is none.
	Loss *LostError
	// Accepted is the offset behind the last claim of a repair that accepts all losses before it; 0: there is none.
	Accepted int64
}

// Inspect reads a log from where a fold stands up to an offset, and looks for losses only. The reader must stand at
// fold.Meta().Next. Afterwards neither is of use. progress is told of the position; it may be nil.
func Inspect(ctx context.Context, reader broker.Reader, fold *Fold, until int64, progress func(next int64)) (Inspected, error) {
	var found Inspected
	fold.PassOver(func(l *LostError) {
		if found.Loss == nil {
			found.Loss = l
		}
	})
	for position := fold.next; position < until; {
		batch, err := reader.Next(ctx)
		if err != nil {
			return found, fmt.Errorf("read %s from offset %d: %w", fold.address, position, err)
		}
		for i := range batch.Records {
			r := &batch.Records[i]
			if r.Offset >= until && fold.next >= until {
				break
			}
			verdict, err := fold.Record(discard{}, r)
			if err != nil {
				fold.group = fold.group[:0] // whoever folds it into rows tells
				continue
			}
			if verdict == record.Claimed && fold.accepts() {
				found = Inspected{Accepted: r.Offset + 1}
			}
		}
		_ = fold.UpTo(min(batch.Next, max(until, fold.next))) // losses are told to met
		if position = batch.Next; progress != nil {
			progress(min(position, until))
		}
	}
	return found, nil
}

// accepts says whether the claim that was just folded is that of a repair that has met the same losses before it: as many. More
// were lost since, or fewer were folded by one who knows what the log has lost.
func (f *Fold) accepts() bool {
	c := f.entry.Envelope.Claim
	return c != nil && (c.Lost > 0 || c.Floor > 0) && c.Lost == f.lost
}
