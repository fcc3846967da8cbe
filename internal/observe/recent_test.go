package observe

import (
	"sync"
	"testing"
	"time"
)

// Recent observations are kept for at least one window and at most two; the histogram keeps
// everything.
func TestRecentForgets(t *testing.T) {
	var r Recent
	start := time.Unix(1_700_000_000, 0)
	for _, step := range []struct {
		after   time.Duration
		observe time.Duration
		count   uint64
		largest time.Duration
	}{
		{0, time.Second, 1, time.Second},
		{RecentWindow / 2, time.Millisecond, 2, time.Second},
		{RecentWindow, time.Millisecond, 3, time.Second},
		{2 * RecentWindow, time.Millisecond, 2, time.Millisecond},
		{9 * RecentWindow, -time.Second, 1, 0},
	} {
		now := start.Add(step.after)
		r.Observe(now, step.observe)
		if s, largest := r.Lately(now); s.Count != step.count || largest != step.largest {
			t.Errorf("after %v: %d observations, the largest %v; want %d, %v", step.after, s.Count, largest, step.count,
				step.largest)
		}
	}
	if s, largest := r.Lately(start.Add(20 * RecentWindow)); s.Count != 0 || largest != 0 {
		t.Errorf("long after the last one: %d observations, the largest %v", s.Count, largest)
	}
	if s := r.Snapshot(); s.Count != 5 {
		t.Errorf("%d observations in all, want 5", s.Count)
	}
}

func TestRecentFromManyGoroutines(t *testing.T) {
	const goroutines, each = 8, 1000
	var r Recent
	start := time.Unix(1_700_000_000, 0)
	var observers sync.WaitGroup
	for range goroutines {
		observers.Go(func() {
			for i := range each {
				now := start.Add(time.Duration(i) * RecentWindow / 100)
				r.Observe(now, time.Duration(i))
				r.Lately(now)
			}
		})
	}
	observers.Wait()
	if s := r.Snapshot(); s.Count != goroutines*each {
		t.Errorf("%d observations, want %d", s.Count, goroutines*each)
	}
}

func TestRecentDoesNotAllocate(t *testing.T) {
	var r Recent
	now := time.Unix(1_700_000_000, 0)
	if n := testing.AllocsPerRun(100, func() { r.Observe(now, time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
