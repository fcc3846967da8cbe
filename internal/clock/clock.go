package clock

import (
	"time"

	"github.com/millrace-io/millrace/internal/failpoint"
)

// Clock returns the time and wakes goroutines at a time.
type Clock interface {
	Now() time.Time
	// After returns a channel that gets one value when d has passed, and a function that cancels
	// the wait.
	After(d time.Duration) (<-chan time.Time, func())
}

// Wall is the machine's clock. It includes suspensions of the machine, during which the monotonic
// clock of most systems stops: durations between two readings contain them.
type Wall struct{}

// Now returns the present time with its monotonic reading.
func (Wall) Now() time.Time {
	now := time.Now()
	mono := now.Sub(begin)
	if ahead := drift.observe(now.UnixNano()+int64(failpoint.Shift()), mono); ahead > 0 {
		return begin.Add(mono + ahead)
	}
	return now
}

// Jumps returns the jumps seen by the last Now.
func (Wall) Jumps() Jumps { return drift.jumps() }

// After waits on the machine's clock.
func (Wall) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// Jumps are the sums of steps of more than a second between the wall clock and the monotonic one
// since the process began: Forward if the machine was suspended or its clock was set; Back only if
// its clock was set.
type Jumps struct{ Forward, Back time.Duration }

// JumpsOf returns the jumps that a clock has seen; none if it does not look for them.
func JumpsOf(c Clock) Jumps {
	if j, ok := c.(interface{ Jumps() Jumps }); ok {
		return j.Jumps()
	}
	return Jumps{}
}
