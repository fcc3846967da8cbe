package clock

import (
	"time"

	"github.com/millrace-io/millrace/internal/failpoint"
)

// Clock tells the time and wakes those who wait for it.
type Clock interface {
	Now() time.Time
	// After returns a channel that gets one value when d has passed, and a function that gives up waiting.
	After(d time.Duration) (<-chan time.Time, func())
}

// Wall is the machine's clock. It goes on over a suspension of the machine, during which the monotonic clock of most systems stands
// still: durations between two readings contain it.
type Wall struct{}

// Now returns the present time with its monotonic reading.
func (Wall) Now() time.Time {
	now := time.Now()
	mono := now.Sub(begin)
	if ahead := drift.look(now.UnixNano()+int64(failpoint.Shift()), mono); ahead > 0 {
		return begin.Add(mono + ahead)
	}
	return now
}

// Jumps returns what was seen by the last Now.
func (Wall) Jumps() Jumps { return drift.jumps() }

// After waits on the machine's clock.
func (Wall) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// Jumps are the sums of the steps of more than a second that the wall clock took beside the monotonic one since the process began:
// Forward when the machine was suspended, or when its clock was set; Back only when it was set.
type Jumps struct{ Forward, Back time.Duration }

// JumpsOf returns what a clock has seen; nothing for one that does not look.
func JumpsOf(c Clock) Jumps {
	if j, ok := c.(interface{ Jumps() Jumps }); ok {
		return j.Jumps()
	}
	return Jumps{}
}
