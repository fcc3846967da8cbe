// Package backoff computes pauses between retries: doubling, bounded, with jitter. It does not
// sleep and starts no goroutine; the caller waits on its own clock.
package backoff

import (
	"math/rand/v2"
	"time"
)

// Policy is a range of pauses.
type Policy struct {
	// First is the pause after the first attempt, Max the longest one.
	First, Max time.Duration
	// Jitter is the share of a pause that is random, 0 to 1.
	Jitter float64
}

// Pause returns the pause after the given number of failed attempts, counted from 1.
func (p Policy) Pause(attempt int) time.Duration {
	return p.PauseBy(attempt, rand.Uint64()) //nolint:gosec // jitter, not a secret
}

// PauseBy is Pause with its randomness passed in.
func (p Policy) PauseBy(attempt int, random uint64) time.Duration {
	d := p.First
	for i := 1; i < attempt && d < p.Max; i++ {
		d *= 2
	}
	d = min(d, p.Max)
	spread := time.Duration(float64(d) * p.Jitter)
	if spread <= 0 {
		return d
	}
	return d - spread + time.Duration(random%uint64(2*spread)) //nolint:gosec // below 2*spread
}
