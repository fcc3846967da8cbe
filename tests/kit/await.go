package kit

import (
	"testing"
	"time"
)

const (
	// Patience is how long a test waits for what must happen, on a busy machine with the race
	// detector.
	Patience = 30 * time.Second
	// pollPause is the pause between two checks of a condition that can only be polled.
	pollPause = 5 * time.Millisecond
)

// Await checks a condition again and again until it holds, for Patience at most.
func Await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	AwaitWithin(t, Patience, what, holds)
}

// AwaitWithin is Await with another bound.
func AwaitWithin(t testing.TB, within time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	again := time.NewTicker(pollPause)
	defer again.Stop()
	for !holds() {
		select {
		case <-again.C:
		case <-deadline.C:
			t.Fatalf("waited %v for %s", within, what)
		}
	}
}

// Receive waits for a value of a channel, or for its end, for Patience at most.
func Receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	select {
	case v := <-from:
		return v
	case <-deadline.C:
		t.Fatalf("waited %v for %s", Patience, what)
		panic("unreachable")
	}
}
