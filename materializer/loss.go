package materializer

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/internal/plural"
)

// ErrLost: the log proves by what it has that it has lost records. To fold on would take a part of
// the log for the whole.
var ErrLost = errors.New("the log has lost records")

// LostError is a place in a log that proves that records before it are lost. A journal is never
// compacted and has no transactions, so each offset has a record; and a claim names the ownership
// that it follows. Or it is a record that must not be folded, because the claim of its owner has
// another layout, or that claim (Layout).
type LostError struct {
	// Offset is that of the record that proves it.
	Offset int64
	// Missing is how many offsets before it have no record; 0: the record is a claim whose
	// predecessor is gone.
	Missing int64
	// What was expected and what was found.
	What string
	// Layout says how the layouts differ; nil: this is not about layouts.
	Layout error
}

// Error returns what is lost and what to do.
func (l *LostError) Error() string {
	if l.Layout != nil {
		return fmt.Sprintf(
			"%v: %s; if no worker of that layout has written it on purpose, see `millrace repair`", ErrUnfoldable, l.What)
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
func (r *reading) at(offset int64) error {
	expected := r.next
	r.next = offset + 1
	if offset == expected || mutation.On(mutation.NoRecord) {
		return nil
	}
	return r.lose(Hole(expected, offset))
}

// upTo says that the log has nothing more below an offset: it checks that every offset has had a
// record.
func (r *reading) upTo(next int64) error {
	expected := r.next
	if next <= expected || mutation.On(mutation.NoRecord) {
		return nil
	}
	r.next = next
	what := fmt.Sprintf("it has no records at offsets %d to %d, and goes on at offset %d", expected, next-1, next)
	if next == expected+1 {
		what = fmt.Sprintf("it has no record at offset %d, and goes on at offset %d", expected, next)
	}
	return r.lose(&LostError{Offset: next, Missing: next - expected, What: what})
}

// Hole returns the loss of a log whose next record should have one offset and has another.
func Hole(expected, found int64) *LostError {
	l := &LostError{Offset: found, Missing: 1}
	switch {
	case found < expected:
		l.What = fmt.Sprintf("offset %d came behind offset %d", found, expected-1)
	case found == expected+1:
		l.What = fmt.Sprintf("it has no record at offset %d, the next one is at offset %d", expected, found)
	default:
		l.Missing = found - expected
		l.What = fmt.Sprintf("it has no records at offsets %d to %d, the next one is at offset %d",
			expected, found-1, found)
	}
	return l
}

// follows checks that a claim that counts follows on the owner that the log has before it.
func (r *reading) follows(e *Entry, before record.Owner) error {
	if what := before.Broken(e.Envelope.Claim, e.Offset, r.meta.Start); what != "" {
		if err := r.lose(&LostError{Offset: e.Offset, What: what}); err != nil {
			return err
		}
	}
	if c := e.Envelope.Claim; c != nil && c.Lost > r.lost {
		return r.refuses(&LostError{Offset: e.Offset, What: fmt.Sprintf(
			"the repair at offset %d accepted %s, and what was folded before it has %d: it has records that the log has not",
			e.Offset, plural.Of(c.Lost, "loss"), r.lost)})
	}
	return nil
}

// lose ends the fold with a loss, unless it is passed over; then it counts.
func (r *reading) lose(l *LostError) error {
	r.lost += uint64(max(l.Missing, 1))
	return r.refuses(l)
}

func (r *reading) refuses(l *LostError) error {
	switch {
	case r.onLoss != nil:
		r.onLoss(l)
		return nil
	case l.Offset < r.accepted:
		return nil
	default:
		return l
	}
}

// Accept passes over what is lost before an offset: a repair has accepted it (Inspected.Accepted).
func (r *reading) Accept(below int64) { r.accepted = below }

// PassOver passes over everything that is lost, and counts it (Meta.Lost). onLoss is called with
// each loss; it may be nil.
func (r *reading) PassOver(onLoss func(*LostError)) {
	r.onLoss = onLoss
	if onLoss == nil {
		r.onLoss = func(*LostError) {}
	}
}

// Lost counts the losses that were passed over.
func (r *reading) Lost() uint64 { return r.lost }

// Inspected is what an inspection found.
type Inspected struct {
	// Loss is the first loss that no repair has accepted; nil: there is none.
	Loss *LostError
	// Accepted is the offset after the last claim of a repair that accepts all losses before it; 0:
	// there is none.
	Accepted int64
}

// Inspect reads up to an offset, and looks for losses only. The journal must not be used
// afterwards. progress is called with the position; it may be nil.
func (j *Journal) Inspect(ctx context.Context, until int64, progress func(next int64)) (Inspected, error) {
	var found Inspected
	j.PassOver(func(l *LostError) {
		if found.Loss == nil {
			found.Loss = l
		}
	})
	for r, err := range j.Until(ctx, until) {
		if r == nil {
			return found, err
		}
		if err == nil && r.Accepts { // other errors matter only to a fold
			found = Inspected{Accepted: r.Offset + 1}
		}
		if progress != nil && !j.Buffered() {
			progress(min(j.position, until))
		}
	}
	return found, nil
}
