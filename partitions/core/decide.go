package core

import (
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/invariant"
	"github.com/millrace-io/millrace/materializer"
)

// The function has decided. The entity's next command may run at once; the answer may not leave yet
// (answer.go).

// Opening is the result of opening a session.
type Opening struct {
	Session entities.Session
	Loaded  entities.Loaded
}

// Decided takes the function's decision about the running command of an entity. opening is set if
// the call opened the session, err if there is no decision. The decision is not durable yet.
func (c *Core) Decided(call *Call, opening *Opening, outcome *entities.Outcome, err *entities.Error) {
	e := call.entity
	if call.incarnation != c.incarnation {
		if opening != nil {
			c.emit(Close{Session: opening.Session})
		}
		c.leaveSession(e)
		c.refuse(call, errFenced(c.partition))
		return
	}
	if opening != nil {
		c.adopt(e, opening)
	}
	if err != nil && (err.Reason == entities.Deadline || err.Reason == entities.Cancelled) {
		c.forgo(e, call, err)
		return
	}
	e.running = nil
	if err != nil {
		c.lose(e, call, err)
		return
	}
	call.Outcome = outcome
	switch {
	case outcome.Restart:
		e.ending, e.reopen = e.session, true
		c.detach(e)
		if call.Command.Timer == nil && call.Command.Source == nil {
			c.unwritten(call)
			break
		}
		// Only the fact that it has run is kept.
		call.Outcome = &entities.Outcome{Reply: outcome.Reply, Failure: outcome.Failure}
		if err := c.write(e, call); err != nil {
			c.refuse(call, err)
		}
	case outcome.Wrote() || call.Command.Timer != nil || call.remembers():
		if tooLarge := c.write(e, call); tooLarge != nil {
			// The function's memory is ahead of the store.
			c.emit(Close{Session: e.session})
			c.detach(e)
			if !c.giveUp(e, call, tooLarge) {
				c.refuse(call, tooLarge)
			}
		}
	default:
		if tooLarge := c.forwardTooLarge(e, call); tooLarge != nil {
			c.refuse(call, tooLarge)
			break
		}
		c.unwritten(call)
	}
	c.advance(e)
}

func (c *Core) adopt(e *Entity, opening *Opening) {
	e.session = opening.Session
	e.position = materializer.PositionOf(&opening.Loaded)
	c.weigh(e)
}

// EntityOverhead is roughly what the core holds in memory for an active entity, in bytes.
const EntityOverhead = 256

// weigh updates the memory size of an entity.
func (c *Core) weigh(e *Entity) {
	size := 0
	if e.session != nil {
		size = EntityOverhead + e.session.Size()
	}
	c.active += size - e.size
	e.size = size
}

func (c *Core) detach(e *Entity) {
	e.session = nil
	c.weigh(e)
}

// lose handles a command without a decision: the session, if there was one, has ended.
func (c *Core) lose(e *Entity, call *Call, err *entities.Error) {
	if e.session != nil {
		c.emit(Close{Session: e.session})
		c.detach(e)
	}
	queued := err
	if err.Reason == entities.FunctionFailed {
		queued = errTerminated(e.Type.Kind)
		queued.Reference = err.Reference
	}
	rest := e.queue
	e.queue = nil
	if !c.giveUp(e, call, err) {
		c.refuse(call, err)
	}
	for _, call := range rest {
		c.refuse(call, queued)
	}
	c.advance(e)
}

// forgo ends a command that the function gave up because its caller's time was over. That concerns
// this caller only: the commands behind it, and another attempt at the same one, have their turn.
func (c *Core) forgo(e *Entity, call *Call, err *entities.Error) {
	if e.session != nil {
		c.emit(Close{Session: e.session})
		c.detach(e)
	}
	successor := c.promote(call)
	call.checked = call.checked && successor == nil
	c.refuse(call, err)
	c.vacate(call, successor)
}

// SessionEnded reports that the function ended an idle session.
func (c *Core) SessionEnded(call *Call) {
	e := call.entity
	if call.incarnation != c.incarnation {
		c.leaveSession(e)
		c.refuse(call, errFenced(c.partition))
		return
	}
	invariant.Check(e.running == call, "%s: the session of a call ended that is not running", e.Key)
	c.emit(Close{Session: e.session})
	c.detach(e)
	e.running = nil
	e.queue = append([]*Call{call}, e.queue...)
	if len(call.followers) == 0 {
		call.check()
	}
	c.advance(e)
}

// Opened takes a session that was opened ahead of the next command.
func (c *Core) Opened(e *Entity, incarnation uint64, opening *Opening, err *entities.Error) {
	if incarnation != c.incarnation {
		if opening != nil {
			c.emit(Close{Session: opening.Session})
		}
		return
	}
	e.opening = false
	if err == nil {
		c.adopt(e, opening)
	}
	c.advance(e) // after an error the next command opens the session, or its caller gets the error
}
