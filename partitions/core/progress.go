package core

import (
	"slices"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
)

// Which effects of this partition are done, which its targets learn, and which effects of other
// partitions are done.
//
//	E7  The known progress of a source never goes back. (watermark)
//	E8  A source tells its targets which effects below its progress are open. (exceptions)

type source struct{ generation, partition uint16 }

// progress returns what targets get with an effect: which effects of the partition are done. Parked
// effects, and those for targets that fail or do not answer, are exceptions, so that they do not
// hold it up.
func (c *Core) progress() entities.Progress {
	o := &c.outbox
	p := entities.Progress{Through: o.bound}
	if o.bound == everything {
		p.Through = c.next
	}
	open := 0
	for ; open < len(o.lowest); open++ {
		if open == entities.MaxOpen || !o.delayed(o.lowest[open]) {
			p.Through = o.lowest[open]
			break
		}
	}
	if mutation.On(mutation.Exceptions) {
		return p
	}
	if open > 0 {
		if !slices.Equal(o.exceptions, o.lowest[:open]) {
			o.exceptions = slices.Clone(o.lowest[:open])
		}
		p.Open = o.exceptions
	}
	return p
}

// delayed reports whether an open effect may stay open for long.
func (o *outbox) delayed(offset int64) bool {
	d := o.byOffset[offset]
	if d == nil {
		return true
	}
	return d.slow || d.state == deliveryWaiting || d.state == deliveryParked ||
		(d.lane != nil && d.lane.failed > 0 && d.state != deliveryAnswered)
}

// opened notes the offset of an effect that is open from now on. Those of one batch come in any
// order.
func (o *outbox) opened(offset int64) {
	n := len(o.lowest)
	switch {
	case offset >= o.bound: // it is read with the others
	case n > 0 && o.lowest[n-1] > offset:
		at, _ := slices.BinarySearch(o.lowest, offset)
		o.lowest = slices.Insert(o.lowest, at, offset)
	case n >= maxLowest:
		o.bound = offset
	default:
		o.lowest = append(o.lowest, offset)
	}
}

// loadOpen asks for the offsets of open effects after those that are known.
func (c *Core) loadOpen() {
	c.outbox.reading = true
	c.emit(LoadOpen{From: c.outbox.bound, Limit: maxLowest})
}

// OpenLoaded takes the offsets of open effects from the store, in order, parked ones included.
func (c *Core) OpenLoaded(open []int64, more bool) {
	o := &c.outbox
	o.reading = false
	o.lowest = append(o.lowest, open...)
	o.bound = everything
	if more {
		o.bound = open[len(open)-1] + 1
	}
}

// close removes the offsets of effects that are done from the lowest ones.
func (o *outbox) close(done []uint64) {
	slices.Sort(done)
	o.lowest = slices.DeleteFunc(o.lowest, func(offset int64) bool {
		for len(done) > 0 && record.Offset(done[0]) < offset {
			done = done[1:]
		}
		return len(done) > 0 && record.Offset(done[0]) == offset
	})
}

// doneAtSource reports whether an effect of another partition is known to be done there, so that
// this is a late copy of it.
func (c *Core) doneAtSource(s *entities.Source, stored entities.Progress) bool {
	key := source{s.Generation, s.Partition}
	known := c.outbox.known[key].Latest(stored)
	c.outbox.known[key] = known
	return known.Done(s.Offset)
}

// cause returns what the records of a command state about the effect that it follows from. The
// progress of the source in it never goes back, in whatever order effects arrive: rows that were
// removed because of it must not be missed later.
func (c *Core) cause(s *entities.Source) *record.Cause {
	if s == nil {
		return nil
	}
	key := source{s.Generation, s.Partition}
	known := c.outbox.known[key].Latest(s.Progress())
	if mutation.On(mutation.Watermark) {
		known = s.Progress()
	}
	c.outbox.known[key] = known
	cause := &record.Cause{
		Generation: uint32(s.Generation), Partition: uint32(s.Partition), Offset: record.Unsigned(s.Offset), Index: s.Index,
		Settled: record.Unsigned(known.Through),
	}
	for _, offset := range known.Open {
		cause.Open = append(cause.Open, record.Unsigned(offset))
	}
	return cause
}
