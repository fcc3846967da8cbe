package core

import (
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
)

// Which answers may leave, and when.
//
//	I3  Nothing leaves before the records that it depends on are acknowledged, contiguous and
//	    applied: all that was decided before it in the partition. (durable)
//	A1  The answer of a command that wrote nothing is about the present: where others may
//	    write, it waits for an append that was sent after it was decided. (barrier)
//	A2  Only an owner reports that a command with an id was not applied: one that has looked
//	    for other attempts and found none, and whose ownership the log has confirmed since.
//	    (verdict, in the router, which does not decide it alone)
//	A3  A refusal too long to be kept loses the end of its text; it stays a refusal. (shortened)

// unkept returns what is stored in place of an outcome whose answer is too large: a refusal with
// the beginning of its text, otherwise that the command took effect.
func unkept(out *entities.Outcome, entity string, size, limit int) *entities.Outcome {
	if e := out.Failure; e != nil && e.Reason == entities.FunctionRefused && !mutation.On(mutation.Shortened) {
		short := *e
		short.Message = shortened(e.Message)
		return &entities.Outcome{Failure: &short}
	}
	return &entities.Outcome{Failure: errAnswerTooLarge(entity, size, limit)}
}

// askerOf returns the asker of a call's forward. It is nil for a command without a name.
func askerOf(entity []byte, call *Call) *record.Asker {
	if !call.Named() {
		return nil
	}
	return &record.Asker{
		Entity: entity, CommandID: call.Command.ID, Principal: call.Command.Principal, PayloadHash: call.hash,
		Source: call.Command.Source, Wrote: call.Outcome.Wrote(),
	}
}

// unwritten holds the answer of a command that wrote nothing until everything decided before it is
// committed and, where others may write, an append that was sent after it is acknowledged.
func (c *Core) unwritten(call *Call) {
	if call.Command.Consistency == entities.Local {
		c.answer(call)
		return
	}
	last := c.lastClosed()
	if mutation.On(mutation.Barrier) && len(c.open.Entries) == 0 && last == nil {
		c.answer(call)
		return
	}
	if c.mustConfirm(call) || len(c.open.Entries) > 0 {
		c.open.Calls = append(c.open.Calls, call)
		return
	}
	if last != nil {
		last.Calls = append(last.Calls, call)
		return
	}
	c.answer(call)
}

// lastClosed returns the last batch that gets no more records: one that waits to be sent, else the
// last one sent. It is nil if there is none.
func (c *Core) lastClosed() *Batch {
	switch {
	case len(c.full) > 0:
		return c.full[len(c.full)-1]
	case len(c.sent) > 0:
		return c.sent[len(c.sent)-1]
	default:
		return nil
	}
}

// mustConfirm reports whether the log has to confirm the ownership before an answer that wrote
// nothing may leave.
func (c *Core) mustConfirm(call *Call) bool {
	switch {
	case c.single:
		return false
	case call.Command.Consistency == entities.Eventual:
		return false
	case call.Command.Consistency == entities.Bounded:
		return c.now.Mono-c.confirmed > call.Command.Bound
	case call.Command.Consistency == entities.AtLeast:
		return c.next < call.Command.AfterIn(c.partition)
	default:
		return true
	}
}

func (c *Core) answer(call *Call) {
	call.Next = c.next
	c.finish(call)
}

// Refuse answers a call that the core has not seen.
func (c *Core) Refuse(call *Call, err *entities.Error) { c.refuse(call, err) }

func (c *Core) refuseAll(calls []*Call, err *entities.Error) {
	for _, call := range calls {
		c.refuse(call, err)
	}
}

// refuse answers a call, and those that wait for the same command, with an error.
func (c *Core) refuse(call *Call, err *entities.Error) {
	if call.finished {
		return
	}
	call.Outcome, call.Err = nil, err
	if c.mustConfirmError(call) && call.Caller.Decided() {
		c.open.Calls = append(c.open.Calls, call)
		return
	}
	c.finish(call)
}

// mustConfirmError reports whether the log has to confirm the ownership before an error may leave.
// The error states that no attempt under the command's id took effect. A former owner that does not
// know its successor must not state that.
func (c *Core) mustConfirmError(call *Call) bool {
	return !c.single && call.verified() && call.Command.ID != "" && call.incarnation == c.incarnation &&
		(c.state == Active || c.state == Suspect || c.state == Releasing)
}

func (c *Core) finish(call *Call) {
	c.complete(call)
	c.emit(Answer{call})
}

// complete removes a call and its followers from the core's maps; the followers get the call's
// answer.
func (c *Core) complete(call *Call) {
	call.finished = true
	c.drop(call)
	call.shared = call.shared || len(call.followers) > 0
	for _, f := range call.followers {
		f.Result, f.shared, f.finished, f.first = call.Result, true, true, nil
		c.emit(Answer{f})
	}
	call.followers = nil
}

func (c *Core) drop(call *Call) {
	if call.Named() && c.ids[call.commandID()] == call {
		delete(c.ids, call.commandID())
	}
}
