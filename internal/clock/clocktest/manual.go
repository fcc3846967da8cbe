package clocktest

import (
	"sync"
	"time"

	"github.com/millrace-io/millrace/internal/clock"
)

// Manual is a clock that stands still until it is advanced. Its methods may be called from many
// goroutines.
type Manual struct {
	mu      sync.Mutex
	now     time.Time
	waiting map[chan time.Time]time.Time
	jumped  clock.Jumps
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

// Advance turns the clock on by d and ends the waits whose time has come.
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

// Waiting returns how many waits are open, so that a test can tell when a goroutine waits.
func (m *Manual) Waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.waiting)
}

// Suspend lets d pass as a machine does that is suspended: the time is later, and no wait is over.
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
func (m *Manual) Jumps() clock.Jumps {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.jumped
}
