package replica

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/mutation"
)

// This file decides how current an image is: what reads wait for, and the questions to owner and
// log.

const (
	// readPatience is how long a read waits for the image to have what it asks for; then it goes to
	// the owner.
	readPatience = 100 * time.Millisecond
	// questionTimeout bounds a question to the owner or to the log.
	questionTimeout = 5 * time.Second
	// askEndEvery is the shortest interval between two questions for the log's end, so that an image
	// of a partition without writes does not seem to age.
	askEndEvery = time.Second
)

// Answer is how far a partition was at the time of a question.
type Answer struct {
	// Asked is that time: everything that was committed by then lies before Next.
	Asked time.Time
	Next  int64
	// before is the newest moment of which the image had everything when the log was asked.
	before time.Time
}

// question is asked in the background, once at a time. Its last answer stays.
type question struct {
	answer atomic.Pointer[Answer]
	asking atomic.Bool
}

// learn keeps an answer, unless there is one to a later question.
func (q *question) learn(a *Answer) {
	for {
		last := q.answer.Load()
		if last != nil && last.Asked.After(a.Asked) || q.answer.CompareAndSwap(last, a) {
			return
		}
	}
}

// ask asks a question, unless it is under way.
func (r *Replica) ask(q *question, before time.Time, how func(context.Context) (next int64, err error)) {
	if !q.asking.CompareAndSwap(false, true) {
		return
	}
	r.o.Background(func() { // bounded by questionTimeout
		defer q.asking.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), questionTimeout)
		defer cancel()
		asked := r.o.Clock.Now()
		if next, err := how(ctx); err == nil {
			q.learn(&Answer{Asked: asked, Next: next, before: before})
		}
	})
}

// Confirmed returns the owner's last answer of how far it is, nil if there is none.
func (r *Replica) Confirmed() *Answer { return r.confirmed.answer.Load() }

// LogEnd returns the last answer to the question for the log's end, nil if it was never asked.
// Position().End may be newer.
func (r *Replica) LogEnd() *Answer { return r.logEnd.answer.Load() }

// Suspended forgets the owner's answer: the machine's clock went on without this process, and the
// answer is older than it seems.
func (r *Replica) Suspended() { r.confirmed.answer.Store(nil) }

// Confirm asks the owner how far the partition is, now. Everything that was committed before the
// call lies before the answer.
func (r *Replica) Confirm(ctx context.Context) (next int64, err error) {
	ask := r.o.Owner()
	if ask == nil {
		return 0, entities.PartitionMoved(r.o.Image.Journal.ID, "no owner is known that could say how far it is")
	}
	asked := r.o.Clock.Now()
	if next, err = ask(ctx); err == nil {
		r.confirmed.learn(&Answer{Asked: asked, Next: next})
	}
	return next, err
}

// Reaches waits a moment for the image to be folded up to next, in whichever role.
func (r *Replica) Reaches(ctx context.Context, next int64) bool {
	if at, ok := r.Folded(); ok && at >= next {
		return true
	}
	over, stop := r.o.Clock.After(readPatience)
	defer stop()
	defer r.o.Image.Log.Expedite()()
	for {
		moved := r.o.Feed.Moved()
		if at, ok := r.Folded(); !ok || at >= next {
			return ok
		}
		select {
		case <-moved:
		case <-over:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// Fresh reports whether the image has all that was committed at some moment not longer ago than
// bound. Only an owner that the log confirms knows what that is: one answer of the owner serves
// many reads, and the next is asked for in time.
func (r *Replica) Fresh(bound time.Duration) bool {
	now := r.o.Clock.Now()
	last := r.Confirmed()
	if last == nil || now.Sub(last.Asked) > bound/2 {
		if position := r.o.Owner(); position != nil {
			r.ask(&r.confirmed, time.Time{}, position)
		}
	}
	at := r.Position()
	if mutation.On(mutation.Fresh) {
		return at != nil
	}
	return last != nil && at != nil && now.Sub(last.Asked) <= bound && at.Next >= last.Next
}

// Age returns how long ago an image at some position had everything that was committed, as far as
// is known, and asks the log so that more is known next time, unless the owner is asked anyway, as
// for bounded reads. An answer of the log that the image has not reached is replaced by a newer one
// only after it has, or after a long time: otherwise an image that is always behind would never
// have been complete.
func (r *Replica) Age(at *Position, c entities.Consistency) time.Duration {
	now := r.o.Clock.Now()
	newest := at.At
	if owner := r.Confirmed(); owner != nil && at.Next >= owner.Next {
		newest = latest(newest, owner.Asked)
	}
	end := r.LogEnd()
	reached := end == nil || at.Next >= end.Next
	if end != nil {
		newest = latest(newest, end.before)
		if reached {
			newest = latest(newest, end.Asked)
		}
	}
	age := now.Sub(newest)
	if c != entities.Bounded && age > askEndEvery && (reached || now.Sub(end.Asked) > questionTimeout) {
		r.ask(&r.logEnd, newest, r.o.Image.End)
	}
	return max(age, 0)
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
