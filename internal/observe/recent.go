package observe

import (
	"sync"
	"sync/atomic"
	"time"
)

// RecentWindow is the least time that a Recent covers; the most is twice that.
const RecentWindow = time.Minute

// Recent is a Histogram that also has the recent observations and their maximum. The zero
// value is ready. Observe does not allocate, and locks only when a window ends.
type Recent struct {
	all Histogram
	// newest is the largest observation of the present window, before that of the previous one.
	newest, before atomic.Int64
	// ends is when the present window does, in nanoseconds since 1970.
	ends atomic.Int64

	mu sync.Mutex // guards what follows, and the change of windows
	// present and earlier are the counts at the start of the present window and of the previous
	// one.
	present, earlier Snapshot
}

// Observe counts one duration that was measured now; a negative one counts as zero.
func (r *Recent) Observe(now time.Time, d time.Duration) {
	r.turn(now)
	d = max(d, 0)
	r.all.Observe(d)
	for {
		largest := r.newest.Load()
		if int64(d) <= largest || r.newest.CompareAndSwap(largest, int64(d)) {
			return
		}
	}
}

// Snapshot returns all counts.
func (r *Recent) Snapshot() Snapshot { return r.all.Snapshot() }

// Lately returns the observations of the present and the previous window, and the largest.
func (r *Recent) Lately(now time.Time) (Snapshot, time.Duration) {
	r.turn(now)
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all.Snapshot()
	return all.Since(&r.earlier), time.Duration(max(r.newest.Load(), r.before.Load()))
}

// turn begins another window when the present one has ended, and drops both if that was long ago.
func (r *Recent) turn(now time.Time) {
	if now.UnixNano() < r.ends.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	late := now.UnixNano() - r.ends.Load()
	if late < 0 {
		return // another goroutine has done it
	}
	r.earlier, r.present = r.present, r.all.Snapshot()
	r.before.Store(r.newest.Swap(0))
	if late >= int64(RecentWindow) {
		r.earlier = r.present
		r.before.Store(0)
	}
	r.ends.Store(now.Add(RecentWindow).UnixNano())
}
