package core

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// The results of effects are written, and an effect leaves memory when its record is committed.
//
//	E2  An effect is done only when a committed record says so. (settle)
//	E6  An effect that waits for an operator leaves memory. (parkedplace)

// Resolution is an operator's decision about parked effects, or about a refusal that is kept.
type Resolution struct {
	// Drop: they are dropped; otherwise they are sent again.
	Drop bool
	// Effects are the parked ones concerned.
	Effects []*Delivery
	// Offset is that of a refused record, Again its effect, to be sent once more.
	Offset int64
	Again  *Delivery
	// Logged: the log has it. The core sets this, and then asks for a ReportResolved.
	Logged bool
	// Done reports Logged to the operator. The partition calls it, once, after its status shows it.
	Done func(logged bool)
}

// report asks for the report of a resolution to its operator.
func (c *Core) report(r *Resolution, logged bool) {
	r.Logged = logged
	c.emit(ReportResolved{r})
}

// Resolve applies an operator's decision about parked effects: to be sent again, or dropped. It
// skips those that another resolution concerns already, or that end now.
func (c *Core) Resolve(r *Resolution) {
	o := &c.outbox
	if c.state != Active {
		r.Effects = nil
		c.report(r, false)
		return
	}
	r.Effects = slices.DeleteFunc(r.Effects, func(d *Delivery) bool {
		_, known := o.resolving[d.Offset]
		return known || c.concluding[d.Offset] != nil
	})
	if len(r.Effects) == 0 {
		c.report(r, true)
		return
	}
	for _, d := range r.Effects {
		o.resolving[d.Offset] = struct{}{}
		if r.Drop {
			o.results.Done = append(o.results.Done, record.Unsigned(d.Offset))
		} else {
			o.results.Replayed = append(o.results.Replayed, record.Unsigned(d.Offset))
		}
	}
	o.resolved = append(o.resolved, r)
	c.settleNow = true
}

// pendingResults returns the number of items for the next settled record.
func (o *outbox) pendingResults() int {
	return len(o.results.GetDone()) + len(o.results.GetParked()) + len(o.results.GetReplayed()) +
		len(o.results.GetRefused()) + len(o.refusals)
}

// settleEffects writes the results of effects into the open batch, in as many records as needed.
func (c *Core) settleEffects() {
	o := &c.outbox
	for proto.Size(o.results) > 0 {
		part := nextSettled(o.results)
		entry := c.control(record.Settled)
		entry.Value = record.EncodeSettled(part)
		c.put(entry)
		c.open.settles = append(c.open.settles, settles{done: part.Done, parked: part.Parked})
	}
	for _, r := range o.refusals {
		c.writeRefusal(r)
	}
	if len(o.resolved) > 0 { // what they wait for is before it, or in the same batch
		c.open.settles = append(c.open.settles, settles{resolved: o.resolved})
	}
	o.resolved, o.refusals = nil, nil
}

// The limits of one settled record. With the longest texts it stays below 100 KiB, for which any
// topic has room.
const (
	settledOffsets = 1024
	settledTexts   = 32
)

// nextSettled splits off from s the content of one record: parked effects come first, then what
// happened to them since.
func nextSettled(s *recordv1.Settled) *recordv1.Settled {
	next := &recordv1.Settled{}
	if next.Parked, s.Parked = head(s.Parked, settledTexts); len(s.Parked) > 0 {
		return next
	}
	if next.Replayed, s.Replayed = head(s.Replayed, settledOffsets); len(s.Replayed) > 0 {
		return next
	}
	if next.Refused, s.Refused = head(s.Refused, settledOffsets); len(s.Refused) > 0 {
		return next
	}
	next.Done, s.Done = head(s.Done, settledOffsets)
	return next
}

// head splits off the first n of a list. The rest shares no memory with them; an empty one is nil.
func head[T any](list []T, n int) (first, rest []T) {
	if len(list) <= n {
		return list, nil
	}
	return list[:n:n], list[n:]
}

// settles is the content of a batch's settled records, to be applied when the batch is committed.
type settles struct {
	done     []uint64
	parked   []*recordv1.Parked
	resolved []*Resolution
	// kept are places of refused records, followUps those of the commands that inform entities of
	// refusals.
	kept      []int
	followUps []followUp
}

// settled removes effects from the outbox whose settled record is committed.
func (c *Core) settled(s settles) {
	o := &c.outbox
	for _, offset := range s.done {
		if x := c.concluding[record.Offset(offset)]; x != nil && x.parked {
			o.parked--
		}
		delete(c.concluding, record.Offset(offset))
		if d := o.byOffset[record.Offset(offset)]; d != nil {
			o.remove(d)
		}
	}
	o.close(s.done)
	for _, p := range s.parked {
		o.parked++
		if mutation.On(mutation.ParkedPlace) {
			continue
		}
		if d := o.byOffset[record.Offset(p.GetOffset())]; d != nil {
			o.remove(d)
		}
	}
	for _, r := range s.resolved {
		for _, d := range r.Effects {
			if _, open := o.resolving[d.Offset]; !open {
				continue // the command was sent again in between, and its forward has ended
			}
			delete(o.resolving, d.Offset)
			o.parked--
			if !r.Drop {
				c.replay(d)
			}
		}
		c.report(r, true)
	}
	c.pump()
	c.refill()
}

// replay takes a parked effect into memory again, if there is room.
func (c *Core) replay(d *Delivery) {
	o := &c.outbox
	if len(o.byOffset) < OutboxWindow {
		c.take(d)
	} else if !o.more || d.Offset < o.frontier {
		o.left, o.idle = true, false
	}
}

// forgetEffects empties the outbox at the end of an ownership; the store has the open effects.
func (c *Core) forgetEffects() {
	for _, b := range c.sent {
		c.unresolved(b)
	}
	for _, b := range c.full {
		c.unresolved(b)
	}
	c.unresolved(c.open)
	for _, r := range c.outbox.resolved {
		c.report(r, false)
	}
	c.outbox = newOutbox()
}

// unresolved reports the resolutions in a batch that will not be committed.
func (c *Core) unresolved(b *Batch) {
	for _, s := range b.settles {
		for _, r := range s.resolved {
			c.report(r, false)
		}
	}
}
