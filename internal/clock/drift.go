package clock

import (
	"sync"
	"sync/atomic"
	"time"
)

// The machine has one clock, so this state is global.
//
//nolint:gochecknoglobals // see above
var (
	begin = time.Now()
	drift = newDrifting(begin.UnixNano())
)

// jumpAbove is how far the wall clock must deviate from the monotonic one to count as a jump.
// Smaller corrections are ignored until they add up.
const jumpAbove = time.Second

// drifting compares a wall clock with a monotonic one. It is safe for concurrent use; without a
// jump, observe takes no lock.
type drifting struct {
	wall int64 // at monotonic 0
	// seen is how far the wall clock was ahead at the last jump, ahead the maximum so far.
	seen, ahead   atomic.Int64
	mu            sync.Mutex // held while a jump is noted
	forward, back atomic.Int64
}

func newDrifting(wall int64) *drifting { return &drifting{wall: wall} }

// observe takes one reading of both clocks and returns how far time is ahead of the monotonic one;
// the result never decreases.
func (d *drifting) observe(wall int64, mono time.Duration) time.Duration {
	now := wall - d.wall - int64(mono)
	if step := now - d.seen.Load(); step > int64(jumpAbove) || step < -int64(jumpAbove) {
		d.note(now)
	}
	return time.Duration(d.ahead.Load())
}

// note records a jump, unless another goroutine has.
func (d *drifting) note(now int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch step := now - d.seen.Load(); {
	case step > int64(jumpAbove):
		d.forward.Add(step)
	case step < -int64(jumpAbove):
		d.back.Add(-step)
	default:
		return
	}
	d.ahead.Store(max(d.ahead.Load(), now))
	d.seen.Store(now)
}

func (d *drifting) jumps() Jumps {
	return Jumps{Forward: time.Duration(d.forward.Load()), Back: time.Duration(d.back.Load())}
}
