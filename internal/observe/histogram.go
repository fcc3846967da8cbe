package observe

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// The buckets of a Histogram: from 2^minExponent nanoseconds (1 µs) to 2^maxExponent (69 s), each
// doubling cut into equal steps, so that a quantile is at most a quarter too high. The first bucket
// also counts shorter durations, the last one longer ones.
const (
	minExponent = 10
	maxExponent = 36
	steps       = 4
	buckets     = 1 + (maxExponent-minExponent)*steps + 1
)

// Histogram counts durations. The zero value is ready. It never locks and never allocates.
type Histogram struct {
	counts [buckets]atomic.Uint64
	sum    atomic.Int64 // nanoseconds
}

// Observe counts one duration; a negative one counts as zero.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	h.counts[bucketOf(d)].Add(1)
	h.sum.Add(int64(d))
}

// Snapshot returns the counts as they are now. Concurrent observations may be included in part.
func (h *Histogram) Snapshot() Snapshot {
	var s Snapshot
	for i := range h.counts {
		s.counts[i] = h.counts[i].Load()
		s.Count += s.counts[i]
	}
	s.Sum = time.Duration(h.sum.Load())
	return s
}

// Snapshot has the counts of a Histogram at one moment.
type Snapshot struct {
	// Count is the number of observations, Sum their total.
	Count  uint64
	Sum    time.Duration
	counts [buckets]uint64
}

// Quantile returns a duration that the share q (0 to 1) of the observations did not exceed: the
// upper bound of the bucket in which it falls, or 0 without observations. Durations beyond the last
// bound are reported as that bound.
func (s *Snapshot) Quantile(q float64) time.Duration {
	if s.Count == 0 {
		return 0
	}
	rank := min(uint64(q*float64(s.Count))+1, s.Count)
	var seen uint64
	for i, n := range s.counts {
		if seen += n; seen >= rank {
			return boundOf(min(i, buckets-2))
		}
	}
	return boundOf(buckets - 2)
}

// Since returns the observations that were made after the earlier snapshot of the same histogram.
func (s *Snapshot) Since(earlier *Snapshot) Snapshot {
	d := Snapshot{Count: s.Count - earlier.Count, Sum: s.Sum - earlier.Sum}
	for i := range d.counts {
		d.counts[i] = s.counts[i] - earlier.counts[i]
	}
	return d
}

// cumulative returns for every doubling the number of observations up to it, keyed by the bound in
// seconds: fewer buckets than the histogram has, because each is a time series.
func (s *Snapshot) cumulative() map[float64]uint64 {
	m := make(map[float64]uint64, maxExponent-minExponent+1)
	var seen uint64
	for i, n := range s.counts[:buckets-1] {
		seen += n
		if i%steps == 0 {
			m[boundOf(i).Seconds()] = seen
		}
	}
	return m
}

// bucketOf returns the bucket whose bounds enclose d: above the one before, up to and including its
// own.
func bucketOf(d time.Duration) int {
	if d <= 1<<minExponent {
		return 0
	}
	n := uint64(d) - 1 // bounds belong to the bucket below
	exponent := bits.Len64(n) - 1
	if exponent >= maxExponent {
		return buckets - 1
	}
	step := int(n >> (exponent - 2) & (steps - 1))
	return 1 + (exponent-minExponent)*steps + step
}

// boundOf returns the upper bound of a bucket, which must not be the last.
func boundOf(bucket int) time.Duration {
	if bucket == 0 {
		return 1 << minExponent
	}
	exponent, step := minExponent+(bucket-1)/steps, (bucket-1)%steps
	return time.Duration(1<<exponent) / steps * time.Duration(steps+step+1)
}
