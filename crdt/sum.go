package crdt

import "math"

// total is a sum of amounts that may leave the range of int64: removal can take the negative ones
// and leave the others. It counts in units of 2^62, so that adding never overflows.
type total struct {
	high, low int64
}

const unit = 1 << 62

func (t *total) add(n int64) {
	t.high += n / unit
	t.low += n % unit
	t.high += t.low / unit
	t.low %= unit
	if t.high > 0 && t.low < 0 {
		t.high, t.low = t.high-1, t.low+unit
	} else if t.high < 0 && t.low > 0 {
		t.high, t.low = t.high+1, t.low-unit
	}
}

// fits reports whether the sum is an int64.
func (t *total) fits() bool {
	return t.high >= -1 && t.high <= 1 || t.high == -2 && t.low == 0
}

// value returns the sum, or the end of the range of int64 that it is beyond.
func (t *total) value() int64 {
	switch {
	case t.fits():
		return t.high*unit + t.low
	case t.high > 0:
		return math.MaxInt64
	default:
		return math.MinInt64
	}
}

func sumOf(l []contribution) total {
	var t total
	for i := range l {
		t.add(l[i].amount)
	}
	return t
}
