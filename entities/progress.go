package entities

import "slices"

// MaxOpen is how many exceptions a Progress has at most.
const MaxOpen = 64

// Progress says which effects of a partition are done: all those with offsets below Through, except
// those in Open. It never becomes false, because an effect that is done is never sent again.
type Progress struct {
	Through int64
	// Open is in ascending order. It is shared, and never changed.
	Open []int64
}

// Done reports whether the effect of an offset is known to be done.
func (p Progress) Done(offset int64) bool {
	if offset >= p.Through {
		return false
	}
	_, open := slices.BinarySearch(p.Open, offset)
	return !open
}

// Latest returns the later of two values for one partition: the one with the higher Through; if
// these are equal, the one with fewer exceptions.
func (p Progress) Latest(q Progress) Progress {
	if q.Through > p.Through || (q.Through == p.Through && len(q.Open) < len(p.Open)) {
		return q
	}
	return p
}
