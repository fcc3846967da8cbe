package partitions

import (
	"slices"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// This file is the part of the core that keeps what forwards were answered: pure, like core.go.
//
// The records of a command that is forwarded say where to. What the target answered comes later, and is a group of its own: that
// the forward is done, and the answer, which takes the place of the first one in the row of the command's id. The two are one
// group, so that a forward is open as long as its answer is not kept. Its caller is answered when the group is committed: whoever
// sends the command again gets the same, from whatever worker.

// conclusion is what a forward was answered, in a batch that is not committed yet.
type conclusion struct {
	batch   *batch
	outcome *entities.Outcome
	// parked: the forward counts as parked until then.
	parked bool
}

// Concluded takes what the target of a forward answered (call.outcome) from the caller who waited for it. He is told what is kept:
// that, or what the log has already.
func (c *core) Concluded(call *Call) {
	if c.state != Active && c.state != Suspect && c.state != Draining {
		c.refuse(call, entities.PartitionMoved(c.partition, "it is not owned here any more"))
		return
	}
	d, x := c.outbox.byOffset[call.forward], c.concluding[call.forward]
	switch {
	case x != nil:
	case d == nil && call.stored != nil && !record.Forwards(call.stored.Answer):
		call.next = call.stored.Offset + 1
		c.emit(effect{kind: doAnswer, call: call})
		return
	case call.outcome == nil && d == nil && call.stored == nil:
		c.refuse(call, errTakenBack(call.cmd.Key))
		return
	case call.outcome == nil: // the question whether there is an answer
		call.stored = nil
		c.emit(effect{kind: doAnswer, call: call})
		return
	case call.outcome.Failure != nil && call.outcome.Failure.Outcome == entities.NotApplied && (d == nil || d.state != deliveryHeld || d.attempts > 0):
		// Another attempt may have taken effect: the forward stays, and the outbox delivers it.
		c.refuse(call, call.outcome.Failure)
		c.Unheld(call.forward)
		return
	default:
		if d != nil && c.attempted(d) {
			c.reached(d.lane)
			d.state = deliveryAnswered
		}
		parked := c.unpark(d, call)
		x = c.conclude(call.forward, askerOf([]byte(call.cmd.Key.String()), call), call.outcome)
		x.parked = parked
		c.pump()
	}
	call.outcome, call.stored = x.outcome, nil
	x.batch.calls = append(x.batch.calls, call)
}

// unpark says whether a forward that ends counts as parked. What no record says of it yet, none will
// say, and what an operator asked for comes too late. d is nil where the forward is not in memory.
func (c *core) unpark(d *delivery, call *Call) bool {
	o := &c.outbox
	delete(o.resolving, call.forward)
	switch {
	case d == nil:
		return call.parked
	case d.state != deliveryParked:
		return false
	}
	n := len(o.said.Parked)
	o.said.Parked = slices.DeleteFunc(o.said.Parked, func(p *recordv1.Parked) bool {
		return p.GetOffset() == uint64(call.forward) //nolint:gosec // offsets are positive
	})
	return len(o.said.Parked) == n
}

// conclude writes what a forward was answered. A caller who gave an id is told what is kept, even where that is only why it is not.
func (c *core) conclude(offset int64, by *record.Asker, outcome *entities.Outcome) *conclusion {
	done := []uint64{uint64(offset)} //nolint:gosec // offsets are positive
	settled, answered := c.control(record.Settled), c.control(record.Answered)
	settled.Value = record.EncodeSettled(&recordv1.Settled{Done: done})
	settled.Envelope.Count, answered.Envelope.Index, answered.Envelope.Count = 2, 1, 2
	answered.Key = by.Entity
	env := &answered.Envelope
	env.CommandID, env.Principal, env.PayloadHash, env.Cause = by.CommandID, by.Principal, by.PayloadHash, c.cause(by.Source)
	env.Answer = record.EncodeAnswer(outcome)
	if limit := c.limits.MaxCommit; settled.Size()+answered.Size() > limit {
		instead := unkept(outcome, string(by.Entity), len(env.Answer), limit)
		env.Answer = record.EncodeAnswer(instead)
		if by.CommandID != "" && !entities.IsRouted(by.CommandID) {
			outcome = instead
		}
	}
	if mutation.On(mutation.Kept) {
		c.ordinal--
		settled.Envelope.Count = 1
		c.put(settled)
	} else {
		c.put(settled, answered)
	}
	c.open.settles = append(c.open.settles, settles{done: done})
	x := &conclusion{batch: c.open, outcome: outcome}
	c.concluding[offset] = x
	return x
}
