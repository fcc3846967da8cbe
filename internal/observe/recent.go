package observe

import (
	"sync"
	"sync/atomic"
	"time"
)

// RecentWindow is how far back a Recent remembers at least; at most it is twice as far.
const RecentWindow = time.Minute

// Recent is a Histogram that also knows what was observed lately, and the largest of it. The zero value is ready. Observe does not
// allocate, and locks only when a window ends.
type Recent struct {
	all Histogram
	// newest is the largest observation of the present window, before that of the one before.
	newest, before atomic.Int64
	// ends is when the present window does, in nanoseconds since 1970.
	ends atomic.Int64

	mu sync.Mutex // guards what follows, and the change of windows
	// present and earlier are what was counted when the present window and the one before it began.
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

// Lately returns what was observed in the present window and the one before it, and the largest of it.
func (r *Recent) Lately(now time.Time) (Snapshot, time.Duration) {
	r.turn(now)
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all.Snapshot()
	return all.Since(&r.earlier), time.Duration(max(r.newest.Load(), r.before.Load()))
}

// turn begins another window when the present one has ended, and forgets both when that was long ago.
func (r *Recent) turn(now time.Time) {
	if now.UnixNano() < r.ends.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	late := now.UnixNano() - r.ends.Load()
	if late < 0 {
		return // somebody else was quicker
	}
	r.earlier, r.present = r.present, r.all.Snapshot()
	r.before.Store(r.newest.Swap(0))
	if late >= int64(RecentWindow) {
		r.earlier = r.present
		r.before.Store(0)
	}
	r.ends.Store(now.Add(RecentWindow).UnixNano())
}
