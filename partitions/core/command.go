package core

import (
	"cmp"
	"slices"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
)

// A command arrives. It gets the stored answer, follows another call of the same command, or waits
// for its turn at its entity.
//
//	C1  A command with an id that took effect within the window gets the stored answer and does
//	    not run again. (repeat)
//	C2  An effect of another partition that took effect here, or is done at its source, does not
//	    run again, without a window. (delivered)
//	C3  One command of an entity is undecided at a time. A caller that leaves hands its turn to
//	    the first call that follows it and has not left. (promote)
//	C4  A call that waits for the partition to become active is answered within
//	    Limits.MovePatience. (patience)

// Submitted takes a command from a caller. call.Stored is the row of the dedup table for its id.
func (c *Core) Submitted(call *Call) {
	switch {
	case c.state == Halted || c.state == Repairing:
		c.refuse(call, errHalted(c.partition, c.halted))
		return
	case !c.assigned || c.releasing:
		c.refuse(call, entities.PartitionMoved(c.partition, cmp.Or(c.withheld, "it is not owned here")))
		return
	}
	if c.state != Active && c.state != Suspect {
		call.came = c.now.Mono
		c.waiting = append(c.waiting, call)
		return
	}
	c.admit(call)
}

// dismiss answers the calls that have waited too long for the partition to become active.
func (c *Core) dismiss() {
	n := 0
	for n < len(c.waiting) && c.now.Mono-c.waiting[n].came >= c.limits.MovePatience && !mutation.On(mutation.Patience) {
		n++
	}
	if n == 0 {
		return
	}
	late := c.waiting[:n]
	c.waiting = c.waiting[n:]
	c.refuseAll(late, errNotActive(c.partition, c.state, c.limits.MovePatience, c.lastFence))
}

// Recheck looks up again the calls that wait for the partition to become active. Those for which
// lookup returns false have been answered.
func (c *Core) Recheck(lookup func(*Call) bool) {
	c.waiting = slices.DeleteFunc(c.waiting, func(call *Call) bool { return !lookup(call) })
}

// admit gives a call the stored answer, makes it follow another call of the same command, or queues
// it at its entity.
func (c *Core) admit(call *Call) {
	call.incarnation = c.incarnation
	if call.Named() {
		if c.repeated(call) {
			return
		}
		call.check()
	}
	if call.Named() {
		c.ids[call.commandID()] = call
	}
	e := c.entity(call)
	if len(e.queue) >= c.limits.MaxWaitingEntity {
		c.refuse(call, errEntityBusy(e.Key, c.limits.MaxWaitingEntity))
		return
	}
	e.queue = append(e.queue, call)
	c.advance(e)
}

// repeated handles a command that was seen before, under the same id or from the same source.
func (c *Core) repeated(call *Call) bool {
	if first, inflight := c.ids[call.commandID()]; inflight {
		if first.hash != call.hash {
			call.check()
			c.refuse(call, errIDReused(call.Command.ID, call.Command.Key))
		} else {
			first.Caller.Accompanied()
			call.first, call.Stored = first, nil // although it is stored, the first was decided again
			first.followers = append(first.followers, call)
		}
		return true
	}
	if call.Stored != nil && record.Retracted(call.Stored.Answer) {
		call.Stored = nil
	}
	if s := call.Command.Source; s != nil {
		return !mutation.On(mutation.Delivered) && c.delivered(call, s)
	}
	if call.Stored == nil || mutation.On(mutation.Repeat) || c.now.Log-call.Stored.LogTime > int64(c.limits.DedupWindow) {
		call.Stored = nil
		return false
	}
	if call.Stored.PayloadHash != call.hash {
		call.check()
		c.refuse(call, errIDReused(call.Command.ID, call.Command.Key))
	} else {
		call.Next = call.Stored.Offset + 1
		c.emit(Answer{call})
	}
	return true
}

// delivered handles an effect of another partition that took effect here before. There is no
// window: its source sends it until it has settled it, and settled effects are known.
func (c *Core) delivered(call *Call, s *entities.Source) bool {
	switch {
	case call.Stored != nil:
		call.Next = call.Stored.Offset + 1
	case c.doneAtSource(s, call.Settled):
		call.Outcome = &entities.Outcome{}
		call.Next = c.next
	default:
		return false
	}
	c.emit(Answer{call})
	return true
}

// PositionAsked takes a question for the position after everything that is committed. It is
// answered like a command that wrote nothing: a paused former owner must not answer it.
func (c *Core) PositionAsked(call *Call) {
	switch c.state {
	case Active, Suspect:
		call.incarnation = c.incarnation
		call.Outcome = &entities.Outcome{}
		c.unwritten(call)
	case Halted:
		c.refuse(call, errHalted(c.partition, c.halted))
	default:
		c.refuse(call, entities.PartitionMoved(c.partition, "it is not owned here"))
	}
}

func (c *Core) entity(call *Call) *Entity {
	e, known := c.entities[call.Command.Key]
	if !known {
		e = &Entity{Key: call.Command.Key, keyBytes: []byte(call.Command.Key.String()), Type: call.Command.Type}
		c.entities[e.Key] = e
		c.all.add(e)
	} else if e.Type.Service == "" { // the entity was created by a command that cannot run
		e.Type = call.Command.Type
	}
	call.entity = e
	return e
}

// advance runs an entity's next command, if it may.
func (c *Core) advance(e *Entity) {
	if e.running != nil || e.opening || e.passivating {
		return
	}
	if e.session == nil && e.uncommitted > 0 {
		return // a new session would begin from an old state
	}
	if e.reopen {
		e.reopen, e.opening = false, true
		c.emit(Open{Entity: e, Ending: e.ending})
		e.ending = nil
		return
	}
	for len(e.queue) > 0 {
		call := e.queue[0]
		e.queue[0] = nil
		e.queue = e.queue[1:]
		if c.timerChanging(call) {
			c.refuse(call, errTimerChanging(e.Key, call.Command.Timer.Name))
			continue
		}
		if e.idle != nil {
			e.idle.remove(e)
		}
		e.running = call
		c.emit(Invoke{call})
		return
	}
	e.queue = nil
	switch {
	case e.session != nil && e.uncommitted == 0:
		c.rest(e)
	case e.quiet():
		c.forget(e)
	}
}

// Withdrawn takes back a call whose caller left before the function saw it. The first call that
// follows it takes its place.
func (c *Core) Withdrawn(call *Call) {
	e := call.entity
	switch {
	case call.finished:
		// The turn of a call that left goes to the next one.
		if e != nil && e.running == call && !mutation.On(mutation.Promote) {
			c.vacate(call, nil)
		}
		return
	case call.first != nil:
		call.finished = true
		if !mutation.On(mutation.Promote) {
			call.first.followers = without(call.first.followers, call)
		}
		return
	}
	call.finished = true
	c.waiting = without(c.waiting, call)
	c.drop(call)
	successor := c.promote(call)
	if e != nil {
		c.vacate(call, successor)
	}
}

// promote hands the command of a call that will not run to the first of its followers. It returns
// nil if there is none, or if it is too late.
func (c *Core) promote(call *Call) *Call {
	followers := call.followers
	call.followers = nil
	if len(followers) == 0 {
		return nil
	}
	if call.incarnation != c.incarnation || (c.state != Active && c.state != Suspect) {
		c.refuseAll(followers, entities.PartitionMoved(c.partition, cmp.Or(c.lastFence, "it is being released")))
		return nil
	}
	successor := followers[0]
	successor.first, successor.entity, successor.followers = nil, call.entity, followers[1:]
	for _, f := range successor.followers {
		f.first = successor
	}
	c.ids[successor.commandID()] = successor
	if successor.checked = true; len(successor.followers) == 0 {
		successor.check()
	}
	return successor
}

// vacate hands the place of a call in its entity's queue, or its turn, to successor. If successor
// is nil, the next call in the queue takes it.
func (c *Core) vacate(call, successor *Call) {
	e := call.entity
	running := e.running == call
	if running {
		e.running = nil
	}
	if call.incarnation != c.incarnation {
		if running {
			c.leaveSession(e)
		}
		return
	}
	switch {
	case successor == nil:
		e.queue = without(e.queue, call)
	case running:
		e.queue = append([]*Call{successor}, e.queue...)
	default:
		e.queue[slices.Index(e.queue, call)] = successor
	}
	c.advance(e)
}

// leaveSession closes the session of an entity whose ownership ended while a call had its turn:
// fence does not close it.
func (c *Core) leaveSession(e *Entity) {
	if e.session != nil {
		c.emit(Close{Session: e.session})
		e.session = nil
	}
}

func without(calls []*Call, call *Call) []*Call {
	for i := range calls {
		if calls[i] == call {
			return append(calls[:i], calls[i+1:]...)
		}
	}
	return calls
}
