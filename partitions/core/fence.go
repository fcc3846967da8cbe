package core

import (
	"errors"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

// How an ownership ends because another one may exist, and how a partition halts.
//
//	R10 An append that fails, or that the log does not answer within Limits.AckTimeout, ends the
//	    ownership. The core does not send its commands again: their outcome is unknown, unless
//	    a higher claim stands before them or the log reports that it wrote nothing. A command
//	    without records was not applied.
//
// The incarnation of a result shows whether it belongs to an ownership that ended; then it is
// ignored.

// fence ends the ownership. The outcome of what was sent is unknown, unless a higher claim stands
// before it in the log, or the log reported that it wrote nothing. A command without records was
// not applied in any case.
func (c *Core) fence(why string, claimed bool) {
	if c.state == Repairing {
		c.repairFailed(errors.New(why))
		return
	}
	for _, b := range c.sent {
		err := entities.OutcomeLost(c.partition, why)
		if claimed || (b.acked && notWritten(b.Result.Err)) {
			err = entities.PartitionMoved(c.partition, why)
		}
		for _, call := range b.Calls {
			if call.wrote {
				c.refuse(call, err)
			} else {
				c.refuse(call, entities.PartitionMoved(c.partition, why))
			}
		}
	}
	for _, b := range c.full {
		c.refuseAll(b.Calls, entities.PartitionMoved(c.partition, why))
	}
	c.refuseAll(c.open.Calls, entities.PartitionMoved(c.partition, why))
	c.forgetEffects()
	clear(c.concluding)
	c.timers = newTimers()
	c.sent, c.full, c.open = nil, nil, &Batch{}
	for e := c.all.first; e != nil; e = e.next {
		c.refuseAll(e.queue, entities.PartitionMoved(c.partition, why))
		e.queue = nil
		if e.running != nil { // the function has it; calls of the same command need not wait for that, and the loop may end
			c.refuseAll(e.running.followers, entities.PartitionMoved(c.partition, why))
			e.running.followers = nil
		}
		if e.session != nil && e.running == nil {
			c.emit(Close{Session: e.session})
		}
		if e.ending != nil {
			c.emit(Close{Session: e.ending})
		}
	}
	clear(c.entities)
	clear(c.ids)
	c.all, c.idle, c.active = entityList{}, nil, 0
	c.incarnation++
	c.owner = record.Owner{}
	c.lastFence = why
	c.stepDown()
}

// Lost reports that the partition already has another owner.
func (c *Core) Lost() {
	if !c.assigned {
		return
	}
	c.assigned = false
	if c.state != Halted && c.state != Repairing {
		c.fence("another worker owns it by the latest rebalance", false)
	}
}

// ClockJumped reports that the machine's clock went on without this process: the machine was
// suspended, or its clock was set. The ownership ends, because another worker may own the partition
// by now, and the log time is no longer known. The next claim gets both from the log. It returns
// false if nothing in the partition depends on that.
func (c *Core) ClockJumped(by time.Duration) bool {
	why := fmt.Errorf("the machine's clock jumped by %v, as after a suspension: the partition is claimed again, by which the log tells owner and time",
		by.Round(time.Millisecond))
	switch c.state {
	case Active, Suspect, Releasing, Passing:
		c.fence(why.Error(), false)
	case Claiming:
		c.Failed(c.incarnation, why)
	default:
		return false
	}
	return true
}

// Ended reports that the worker stops. All calls that wait are answered, in every state of the
// partition.
func (c *Core) Ended() {
	c.assigned = false
	if c.state != Halted {
		c.fence("the worker is stopping", false)
	}
}

// Halt stops the partition until an operator repairs it: going on would hide that acknowledged data
// is lost.
func (c *Core) Halt(why error) {
	c.halted = why
	assigned, followed, waiting := c.assigned, c.followed, c.takeWaiting()
	c.assigned, c.followed = false, false // so that nothing is read again
	c.fence(why.Error(), false)
	c.assigned, c.followed, c.state = assigned, followed, Halted
	if followed {
		c.emit(Rest{})
	}
	c.refuseAll(waiting, errHalted(c.partition, why))
	if !errors.Is(why, materializer.ErrHaltedBefore) {
		c.emit(MarkHalted{Next: c.next, Why: why})
	}
}
