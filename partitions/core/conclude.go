package core

import (
	"slices"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// The answers of forwards are kept.
//
//	E9  The answer of a forward's target takes the place of the forward in the row of the
//	    command's id, in one group with the end of the forward. (kept)
//
// The records of a forwarded command name the target. The target's answer comes later, in a group
// of its own: the forward is done, and the answer. As both are in one group, a forward stays open
// until its answer is kept. The caller is answered when the group is committed: if the command is
// sent again, from any worker, it gets the same answer.

// conclusion is the answer to a forward, in a batch that is not committed yet.
type conclusion struct {
	batch   *Batch
	outcome *entities.Outcome
	// parked: the forward counts as parked until then.
	parked bool
}

// Concluded takes the answer of a forward's target (call.Outcome) from the caller that waited for
// it. The caller gets what is kept: this answer, or one that the log has already.
func (c *Core) Concluded(call *Call) {
	if c.state != Active && c.state != Suspect && c.state != Releasing {
		c.refuse(call, entities.PartitionMoved(c.partition, "it is not owned here any more"))
		return
	}
	d, x := c.outbox.byOffset[call.Forward], c.concluding[call.Forward]
	switch {
	case x != nil:
	case d == nil && call.Stored != nil && !record.Forwards(call.Stored.Answer):
		call.Next = call.Stored.Offset + 1
		c.emit(Answer{call})
		return
	case call.Outcome == nil && d == nil && call.Stored == nil:
		c.refuse(call, errTakenBack(call.Command.Key))
		return
	case call.Outcome == nil: // it asks whether there is an answer
		call.Stored = nil
		c.emit(Answer{call})
		return
	case call.Outcome.Failure != nil && call.Outcome.Failure.Outcome == entities.NotApplied &&
		(d == nil || d.state != deliveryHeld || d.attempts > 0):
		// Another attempt may have taken effect: the forward stays open, and the outbox delivers it.
		c.refuse(call, call.Outcome.Failure)
		c.Unheld(call.Forward)
		return
	default:
		if d != nil && c.attempted(d) {
			c.reached(d.lane)
			d.state = deliveryAnswered
		}
		parked := c.unpark(d, call)
		x = c.conclude(call.Forward, askerOf([]byte(call.Command.Key.String()), call), call.Outcome)
		x.parked = parked
		c.pump()
	}
	call.Outcome, call.Stored = x.outcome, nil
	x.batch.Calls = append(x.batch.Calls, call)
}

// unpark reports whether a forward that ends counts as parked. Records about it that are not
// written yet are dropped, and so is what an operator asked for. d is nil if the forward is not in
// memory.
func (c *Core) unpark(d *Delivery, call *Call) bool {
	o := &c.outbox
	delete(o.resolving, call.Forward)
	switch {
	case d == nil:
		return call.Parked
	case d.state != deliveryParked:
		return false
	}
	n := len(o.results.Parked)
	o.results.Parked = slices.DeleteFunc(o.results.Parked, func(p *recordv1.Parked) bool {
		return p.GetOffset() == record.Unsigned(call.Forward)
	})
	return len(o.results.Parked) == n
}

// conclude writes the answer to a forward. Where it is too large to be kept, repeats get the
// reason; of a refusal they get the beginning of the text, and so does a first caller with an id.
func (c *Core) conclude(offset int64, by *record.Asker, outcome *entities.Outcome) *conclusion {
	done := []uint64{record.Unsigned(offset)}
	settled, answered := c.control(record.Settled), c.control(record.Answered)
	settled.Value = record.EncodeSettled(&recordv1.Settled{Done: done})
	settled.Envelope.Count, answered.Envelope.Index, answered.Envelope.Count = 2, 1, 2
	answered.Key = by.Entity
	env := &answered.Envelope
	env.CommandID, env.Principal, env.PayloadHash = by.CommandID, by.Principal, by.PayloadHash
	env.Cause = c.cause(by.Source)
	env.Answer = record.EncodeAnswer(outcome)
	if limit := c.limits.MaxCommit; settled.Size()+answered.Size() > limit {
		instead := unkept(outcome, string(by.Entity), len(env.Answer), limit)
		env.Answer = record.EncodeAnswer(instead)
		if instead.Failure.Reason == entities.FunctionRefused && by.CommandID != "" && !entities.IsRouted(by.CommandID) {
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
