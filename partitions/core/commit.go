package core

import (
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/materializer"
)

// Batches go to the log, acknowledgements come back.
//
//	R7  An acknowledgement counts only if its records stand exactly where the last one ended.
//	    (contiguity)
//	R8  If they stand higher, the records in between are read. No-ops are passed over. A claim
//	    above the owner's ends the ownership, and so does a record of the owner itself, which
//	    was written twice or out of order. (gap; with gapscan, which does not read them, the
//	    ownership ends in any case)
//	R9  If they stand lower, acknowledged records are gone: halt.
//	I2  Batches release their answers in the order in which they are committed.

// Flush sends what may go: closed batches as soon as there is room, then the open one: at once if
// no batch is on its way, otherwise when it is full enough.
func (c *Core) Flush() {
	if c.state != Active && c.state != Releasing {
		return
	}
	n := c.outbox.pendingResults()
	if n > 0 && c.state == Active && (c.settleNow || n >= settleBatch || len(c.open.Entries) > 0) {
		c.settleEffects()
	}
	c.settleNow = false
	for len(c.full) > 0 && len(c.sent) < c.limits.Inflight {
		b := c.full[0]
		c.full[0] = nil
		c.full = c.full[1:]
		c.send(b)
	}
	if len(c.full) > 0 {
		return
	}
	if c.open.empty() {
		c.endRelease()
		return
	}
	if len(c.sent) > 0 && (c.open.bytes < c.limits.FillBytes || len(c.sent) >= c.limits.Inflight) {
		return
	}
	b := c.open
	if len(b.Entries) == 0 {
		b.Entries = append(b.Entries, c.control(record.Barrier))
	}
	c.open = c.newBatch()
	c.send(b)
}

func (c *Core) send(b *Batch) {
	b.SentAt, b.Incarnation = c.now.Mono, c.incarnation
	c.sent = append(c.sent, b)
	c.emit(Append{b})
}

// Acked takes the log's answer to a batch. Answers of one ownership arrive in the order of sending.
func (c *Core) Acked(b *Batch, result broker.AppendResult) {
	if b.Incarnation != c.incarnation {
		return
	}
	b.acked, b.Result = true, result
	c.acknowledge()
}

// acknowledge handles the acknowledgements at the head of the queue: rules R7 to R10.
func (c *Core) acknowledge() {
	switch c.state {
	case Passing:
		c.passed()
		return
	case Repairing:
		c.repairAcked()
		return
	default:
	}
	for len(c.sent) > 0 && c.sent[0].acked && (c.state == Active || c.state == Releasing) {
		b := c.sent[0]
		r := b.Result
		want := int64(len(b.Entries))
		switch {
		case r.Err != nil:
			c.fence("append to the log failed: "+r.Err.Error(), false)
		case mutation.On(mutation.Contiguity) || (r.Base == c.next && r.Last-r.Base+1 == want):
			c.commit(b)
		case r.Base > c.next && mutation.On(mutation.GapScan):
			c.fence("the log holds records of another writer", false)
		case r.Base > c.next:
			c.state = Suspect
			c.emit(ReadGap{From: c.next, Until: r.Base})
		case r.Base == c.next:
			c.fence("the log holds something between the records of an append", false)
		case r.Base < 0:
			c.fence(errNoOffset.Error(), false)
		default:
			c.Halt(errWentBack(c.partition, r.Base, c.next))
		}
	}
	c.endRelease()
}

// GapRead takes the records that stand where the core expected its own. R8: no-ops are passed over,
// anything else ends the ownership.
func (c *Core) GapRead(incarnation uint64, gap []materializer.GapRecord, err error) {
	if incarnation != c.incarnation || c.state != Suspect {
		return
	}
	if err != nil {
		c.fence("records of another writer could not be read: "+err.Error(), false)
		return
	}
	next := c.next
	for i := range gap {
		env := &gap[i].Envelope
		if offset := gap[i].Record.Offset; offset != next {
			c.Halt(materializer.Hole(next, offset))
			return
		}
		next++
		switch {
		case gap[i].Foreign:
		case env.Kind == record.Claim && c.owner.YieldsTo(env.Epoch):
			c.fence("another worker has claimed it", true)
			return
		case (record.Owner{Epoch: env.Epoch, Nonce: env.Nonce}) == c.owner && !mutation.On(mutation.Gap):
			c.fence("the log holds an own record twice or out of order", false)
			return
		}
	}
	if base := c.sent[0].Result.Base; next != base {
		c.Halt(materializer.Hole(next, base))
		return
	}
	c.emit(Skip{Gap: gap})
	c.next = c.sent[0].Result.Base
	c.state = Active
	if c.releasing {
		c.state = Releasing
	}
	c.acknowledge()
}

func (c *Core) commit(b *Batch) {
	c.sent[0] = nil
	c.sent = c.sent[1:]
	for i := range b.Entries {
		b.Entries[i].Offset = b.Result.Base + int64(i)
	}
	c.next, c.confirmed = b.Result.Last+1, b.SentAt
	c.emit(Commit{b})
	c.keepEffects(b)
	for _, call := range b.Calls {
		call.Next = c.next
		c.complete(call)
		if call.wrote {
			c.unchangeTimers(call)
			e := call.entity
			e.uncommitted--
			if e.uncommitted == 0 {
				c.advance(e)
			}
		}
	}
	for i := range b.timers {
		b.timers[i].due.Offset = b.Entries[b.timers[i].entry].Offset
		c.setTimer(b.timers[i].due)
	}
	for i := range b.settles {
		c.refusalsCommitted(b, &b.settles[i])
		c.settled(b.settles[i])
	}
	c.pump()
	if len(b.timers) > 0 {
		c.fire()
	}
}

// keepEffects takes the effects of a committed batch into the outbox, those of commands and the
// core's own. The caller sends those that it waits for; the progress that their targets get is
// known when all effects of the batch are in the outbox.
func (c *Core) keepEffects(b *Batch) {
	for _, call := range b.Calls {
		if call.Effects == 0 {
			continue
		}
		call.FirstEffect = b.Entries[call.FirstEffect].Offset
		for i := range call.Effects {
			d := &Delivery{Offset: call.FirstEffect + int64(i), from: call.Command.Key}
			if i < len(call.Outcome.Effects) {
				d.Effect = call.Outcome.Effects[i]
				d.onRefused = onRefused(call.Command, &d.Effect)
			} else {
				d.forward = true
				d.Effect = entities.SideEffect{Target: *call.Outcome.Forward, Synchronous: true}
				d.asker = askerOf(call.entity.keyBytes, call)
			}
			if d.Effect.Synchronous {
				d.state = deliveryHeld
			}
			if call.gaveUp != nil {
				d.state = deliveryParked
			}
			c.keep(d)
			if call.gaveUp != nil {
				c.parkTimer(d, call)
			}
		}
	}
	for i := range b.settles {
		for _, f := range b.settles[i].followUps {
			f.delivery.Offset = b.Entries[f.entry].Offset
			c.keep(f.delivery)
		}
	}
	for _, call := range b.Calls {
		if call.Effects > 0 {
			call.progress = c.progress()
		}
	}
}

// ApplyFailed reports that the store did not take a committed batch. The log has it, so nothing is
// lost, but the callers get no answer.
func (c *Core) ApplyFailed(why error) {
	if c.state == Active || c.state == Suspect || c.state == Releasing || c.state == Passing {
		c.fence("commit to the store failed: "+why.Error(), false)
	}
}

func errWentBack(partition int32, base, next int64) error {
	return fmt.Errorf("%w: partition %d: an append was put at offset %d, and %d was acknowledged or read before",
		broker.ErrRegressed, partition, base, next-1)
}

func notWritten(err error) bool {
	return errors.Is(err, broker.ErrNotWritten) || errors.Is(err, broker.ErrTooLarge) ||
		errors.Is(err, broker.ErrUnknownTopic)
}
