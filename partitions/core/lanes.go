package core

import (
	"slices"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/mutation"
)

// Lanes keep targets apart.
//
//	E4  A target that fails or is slow holds up only its own effects. (lane)
//	E5  What waits behind attempts that do not end leaves memory. (stalled)

// LaneName names the targets whose effects wait for each other: a partition of a service, or an
// action.
type LaneName struct {
	Service string
	// Partition is a partition of the journal; -1 for actions, and for targets that are not known.
	Partition int32
}

// lane holds the effects in memory for one target. A failure closes it: then one effect at a time
// is sent, after a pause, until the target has answered.
type lane struct {
	name  LaneName
	ready []*Delivery
	// sending counts the effects under way, slow those of them without an answer for a while, members
	// all effects in memory of this lane.
	sending, slow, members int
	// answered: an attempt has ended, with any result.
	answered bool
	// failed counts the failures in a row; 0: the lane is open. A closed one sends again when due.
	failed int
	due    time.Duration
	// blocked: the lane is closed, or all that is under way is slow. Its ready effects are stuck.
	blocked bool
	// queued: it is in the list of turns.
	queued bool
}

// enqueue puts an effect into its lane. If the lane is blocked and enough effects wait, the effect
// leaves memory.
func (c *Core) enqueue(d *Delivery) {
	o := &c.outbox
	if d.lane == nil {
		name := c.laneOf(&d.Effect.Target)
		l := o.lanes[name]
		if l == nil {
			l = &lane{name: name}
			o.lanes[name] = l
		}
		d.lane = l
		l.members++
	}
	l := d.lane
	d.state = deliveryReady
	l.ready = append(l.ready, d)
	if l.blocked {
		o.stuck++
		c.evict(l)
	}
	c.turn(l)
}

// block updates whether a lane is blocked.
func (o *outbox) block(l *lane) {
	blocked := l.failed > 0 || (l.slow > 0 && l.slow == l.sending && !mutation.On(mutation.Stalled))
	switch {
	case blocked == l.blocked:
		return
	case blocked:
		o.stuck += len(l.ready)
	default:
		o.stuck -= len(l.ready)
		o.idle = false
	}
	l.blocked = blocked
}

// evict removes effects of a blocked lane from memory while too many wait. One stays, to be sent as
// a probe.
func (c *Core) evict(l *lane) {
	o := &c.outbox
	for o.stuck+len(o.later) > maxWaiting && len(l.ready) > 1 {
		d := l.ready[len(l.ready)-1]
		l.ready[len(l.ready)-1] = nil
		l.ready = l.ready[:len(l.ready)-1]
		o.stuck--
		o.left = true
		o.remove(d)
	}
}

// remove removes an effect from memory.
func (o *outbox) remove(d *Delivery) {
	delete(o.byOffset, d.Offset)
	l := d.lane
	if l == nil {
		return
	}
	if l.members--; l.members == 0 {
		if l.failed > 0 {
			o.closed = slices.DeleteFunc(o.closed, func(other *lane) bool { return other == l })
		}
		delete(o.lanes, l.name)
	}
}

// turn lets a lane send an effect, if it may.
func (c *Core) turn(l *lane) {
	if !l.queued && c.maySend(l) {
		l.queued = true
		c.outbox.turns = append(c.outbox.turns, l)
	}
}

func (c *Core) maySend(l *lane) bool {
	switch {
	case len(l.ready) == 0:
		return false
	case mutation.On(mutation.Lane):
		return true
	case l.failed > 0:
		return l.sending == 0 && l.due <= c.now.Mono
	default:
		return l.sending < c.outbox.places(l)
	}
}

// places returns how many effects of an open lane may be under way.
func (o *outbox) places(l *lane) int {
	switch {
	case o.slow < maxSlow:
		return maxPerLane
	case l.slow > 0:
		return 0
	case !l.answered:
		return 1
	default:
		return maxPerLane
	}
}

// unqueue removes an effect from the queue of its lane.
func (o *outbox) unqueue(d *Delivery) {
	l := d.lane
	l.ready = slices.DeleteFunc(l.ready, func(other *Delivery) bool { return other == d })
	if l.blocked {
		o.stuck--
	}
}

// reached opens a lane whose target has answered.
func (c *Core) reached(l *lane) {
	if l == nil {
		return
	}
	if l.failed > 0 {
		o := &c.outbox
		l.failed = 0
		o.block(l)
		o.closed = slices.DeleteFunc(o.closed, func(other *lane) bool { return other == l })
	}
	c.turn(l)
}

// unreached closes the lane of an effect whose target did not answer. Effects that were sent with
// it and fail as well count as the same failure.
func (c *Core) unreached(d *Delivery) {
	o, l := &c.outbox, d.lane
	if l.failed > 0 && !d.probe {
		return
	}
	if l.failed == 0 {
		o.closed = append(o.closed, l)
	}
	l.failed++
	o.block(l)
	c.evict(l)
	l.due = c.now.Mono + resend.PauseBy(l.failed, spread(d.Offset))
}

// ownFault reports whether a failure concerns one effect only, and not others for its target.
func ownFault(err *entities.Error) bool {
	return err.Reason == entities.FunctionFailed || err.Reason == entities.Overloaded
}
