package fire

import (
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
)

// trouble is what fails now, and so which errors callers may get.
type trouble int32

const (
	// anything may fail.
	anything trouble = iota
	// nothing fails: every call is answered, but for those that take too long.
	nothing
	// functionOnly: the log is never in doubt, so no outcome is unknown.
	functionOnly
)

// troubles are the codes that a caller may see while something fails.
var troubles = []codes.Code{
	codes.Unavailable,       // the outcome is not known, or the worker is down
	codes.Aborted,           // the partition moves to another worker
	codes.DeadlineExceeded,  // there was no answer in time
	codes.ResourceExhausted, // too many wait
	codes.Unknown,           // the function crashed in the command, as in Cloudstate
}

// allows reports whether a call may end with an error. For a command with an id, the error may be
// that of another attempt, whose caller has left.
func (now trouble) allows(c *command, code codes.Code, outcome string) bool {
	switch {
	case !slices.Contains(troubles, code) || outcome == "refused":
		return false
	case now == anything || c.id != "" || code == codes.DeadlineExceeded:
		return true
	default:
		return now == functionOnly && (outcome == "not_applied" || !c.changes())
	}
}

// trouble is what fails now.
func (w *world) trouble() trouble { return trouble(w.troubled.Load()) }

// fails sets what fails from now on. Where that is less than before, it waits for the calls that
// began before.
func (w *world) fails(now trouble) {
	if now == anything {
		w.troubled.Store(int32(now))
		return
	}
	w.quietly(func() { w.troubled.Store(int32(now)) })
}

// onlyFunction runs f, in which only the function fails, and waits for some answers after it.
func (w *world) onlyFunction(f func()) {
	w.t.Helper()
	w.fails(functionOnly)
	f()
	w.awaitAnswers(least)
	w.fails(anything)
}

// askAgain sends the commands again whose outcome is unknown, if they have an id, until each is
// answered: it takes effect once.
func (w *world) askAgain() {
	w.t.Helper()
	w.mu.Lock()
	open := slices.Clone(w.open)
	w.mu.Unlock()
	for _, k := range open {
		again := k.command
		for deadline := w.now() + int64(healing); ; {
			w.revive()
			if f := w.call(k.entity, &again, w.rng); f == done || f == refused {
				w.outcome("unknown outcomes asked for again")
				break
			}
			if w.ctx.Err() != nil {
				return
			}
			if w.now() > deadline {
				w.broken(violation{
					unhealed, k.entity.name(),
					fmt.Sprintf("%v, and sent again it is not answered for %v", &k.command, healing),
				})
				return
			}
			w.wait(reachPause)
		}
	}
}

// endOnceMore kills the only worker of a world when no caller waits for anything: what it shows
// then was durable.
func (w *world) endOnceMore() {
	w.t.Helper()
	if len(w.workers) > 1 || w.supervised != "" {
		return
	}
	p := w.worker()
	p.Kill(w.t)
	w.restart(p)
}
