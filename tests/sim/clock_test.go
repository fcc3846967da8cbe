package sim

import (
	"sync"
	"testing/synctest"
	"time"
)

// virtual is a deterministic clock: waits for the same moment end in the order of the calls, each
// after all goroutines are blocked again. The timers of a synctest bubble have no such order.
type virtual struct {
	mu      sync.Mutex
	now     time.Time
	asked   int
	waiting []*wait
}

type wait struct {
	due   time.Time
	order int
	wake  chan time.Time
}

func newVirtual() *virtual { return &virtual{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }

// Now returns the virtual time.
func (v *virtual) Now() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.now
}

// After waits for virtual time to pass.
func (v *virtual) After(d time.Duration) (<-chan time.Time, func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked++
	w := &wait{due: v.now.Add(max(d, 1)), order: v.asked, wake: make(chan time.Time, 1)}
	v.waiting = append(v.waiting, w)
	return w.wake, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.remove(w)
	}
}

func (v *virtual) remove(w *wait) {
	for i := range v.waiting {
		if v.waiting[i] == w {
			v.waiting = append(v.waiting[:i], v.waiting[i+1:]...)
			return
		}
	}
}

// pass advances the time, also for the deadlines of contexts.
func (v *virtual) pass(d time.Duration) {
	until := v.Now().Add(d)
	for {
		w := v.next(until)
		if w == nil {
			break
		}
		w.wake <- w.due
		synctest.Wait()
	}
	v.mu.Lock()
	v.now = until
	v.mu.Unlock()
	time.Sleep(d) //nolint:forbidigo // the bubble's time, which the deadlines of contexts run on
	synctest.Wait()
}

// next removes the first wait that is due by then, and advances the clock to it.
func (v *virtual) next(until time.Time) *wait {
	v.mu.Lock()
	defer v.mu.Unlock()
	var first *wait
	for _, w := range v.waiting {
		if !w.due.After(until) && (first == nil || w.due.Before(first.due) ||
			(w.due.Equal(first.due) && w.order < first.order)) {
			first = w
		}
	}
	if first != nil {
		v.remove(first)
		v.now = first.due
	}
	return first
}
