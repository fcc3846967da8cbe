package clock

import (
	"sync"
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

// Manual is a clock that stands still until it is advanced. Its methods may be called from many goroutines.
type Manual struct {
	mu      sync.Mutex
	now     time.Time
	waiting map[chan time.Time]time.Time
	jumped  Jumps
}

// NewManual returns a manual clock that shows start.
func NewManual(start time.Time) *Manual {
	return &Manual{now: start, waiting: map[chan time.Time]time.Time{}}
}

// Now returns the time to which the clock was turned.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// After waits until the clock is advanced by d.
func (m *Manual) After(d time.Duration) (<-chan time.Time, func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ch := make(chan time.Time, 1)
	if d <= 0 {
		ch <- m.now
		return ch, func() {}
	}
	m.waiting[ch] = m.now.Add(d)
	return ch, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.waiting, ch)
	}
}

// Advance turns the clock on by d and wakes everyone whose time has come.
func (m *Manual) Advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
	for ch, due := range m.waiting {
		if !due.After(m.now) {
			delete(m.waiting, ch)
			ch <- m.now
		}
	}
}

// Waiting returns how many waits are open, so that a test can tell when someone has gone to sleep.
func (m *Manual) Waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.waiting)
}

// Suspend lets d pass as a machine does that is suspended: the time is later, and nobody has waited.
func (m *Manual) Suspend(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
	m.jumped.Forward += d
	for ch, due := range m.waiting {
		m.waiting[ch] = due.Add(d)
	}
}

// Jumps returns the suspensions.
func (m *Manual) Jumps() Jumps {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.jumped
}
