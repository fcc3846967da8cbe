package partitions

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/materializer"
)

// Assigned says that this worker should own the partition. handedOver: its present owner is about to release it. To claim before that
// is safe, and would cost the owner's last commands.
func (c *core) Assigned(handedOver bool) {
	if c.assigned {
		return
	}
	c.assigned, c.withheld, c.goneSince = true, "", 0
	if c.state == Standby {
		c.catchUp(handedOver)
	}
}

// Followed says whether this worker should keep its image fresh while another one owns the partition.
func (c *core) Followed(followed bool) {
	switch {
	case c.followed == followed:
	case c.state != Standby:
		c.followed = followed
	case followed:
		c.followed = true
		c.standBy()
	default:
		c.followed = false
		c.emit(effect{kind: doRest})
	}
}

// standBy leaves the partition to others, and follows it if this worker is to.
func (c *core) standBy() {
	c.state = Standby
	if c.followed {
		c.emit(effect{kind: doFollow})
	}
}

// Asked takes a question for the position behind everything that is committed. It is answered like a command that wrote
// nothing: a paused former owner must not answer it.
func (c *core) Asked(call *Call) {
	switch c.state {
	case Active, Suspect:
		call.incarnation = c.incarnation
		call.outcome = &entities.Outcome{}
		c.unwritten(call)
	case Halted:
		c.refuse(call, errHalted(c.partition, c.halted))
	default:
		c.refuse(call, entities.PartitionMoved(c.partition, "it is not owned here"))
	}
}

func (c *core) catchUp(handedOver bool) {
	c.state = CatchingUp
	c.emit(effect{kind: doCatchUp, handedOver: handedOver})
}

// CaughtUp says that the log was folded up to next and that cur owns the partition there, and offers a random nonce. types are the entity
// types that this worker serves.
func (c *core) CaughtUp(cur record.Owner, next int64, nonce uint64, types []string) {
	c.types = types
	if c.state != CatchingUp {
		return
	}
	if !c.assigned {
		c.standBy()
		return
	}
	if cur.Epoch == math.MaxUint64 {
		c.Halt(fmt.Errorf("%w: partition %d: owner %016x has the last one", errEpochsUsed, c.partition, cur.Nonce))
		return
	}
	c.state, c.next, c.goneSince = Claiming, next, 0 // the log has what the store has
	c.owner = record.Owner{Epoch: cur.Epoch + 1, Nonce: nonce}
	claim := record.Envelope{
		Kind: record.Claim, Epoch: c.owner.Epoch, Nonce: c.owner.Nonce,
		Claim: &record.ClaimInfo{Worker: c.worker, ReadTo: uint64(next), PreviousEpoch: cur.Epoch, PreviousNonce: cur.Nonce, Layout: c.layout, Types: c.types}, //nolint:gosec // offsets are positive
	}
	b := c.newBatch()
	b.incarnation = c.incarnation
	b.entries = append(b.entries, materializer.Entry{Envelope: claim})
	c.emit(effect{kind: doClaim, batch: b})
}

// ClaimAcked takes the log's answer to the claim. On an error the claim may still arrive: its nonce is given up, and a late
// own claim is just an unused epoch.
func (c *core) ClaimAcked(incarnation uint64, result broker.AppendResult) {
	if c.state != Claiming || incarnation != c.incarnation {
		return
	}
	if result.Err != nil {
		c.Failed(incarnation, fmt.Errorf("append claim: %w", result.Err))
		return
	}
	switch {
	case result.Base < 0:
		c.Failed(incarnation, errNoOffset)
	case result.Base < c.next && !mutation.On(mutation.Regress):
		// Reading back would find nothing new: the claim stands where the store has folded something else.
		c.Halt(errWentBack(c.partition, result.Base, c.next))
	default:
		c.emit(effect{kind: doReadBack, offset: result.Base})
	}
}

// ReadBack says that the log was folded up to and including the claim, and who owns the partition there. Below floor nothing may be put but
// barriers.
func (c *core) ReadBack(incarnation uint64, cur record.Owner, next, floor int64) {
	if c.state != Claiming || incarnation != c.incarnation {
		return
	}
	if cur != c.owner && !mutation.On(mutation.ReadBack) {
		c.Failed(incarnation, errClaimLost)
		return
	}
	c.floor = floor
	c.activate(next)
}

var (
	errClaimLost = errors.New("another worker claimed the partition first")
	errNoOffset  = errors.New("the log did not say where it put an append")
	// errEpochsUsed: no claim can be above the owner's. Workers count up by one, so somebody else has written claims.
	errEpochsUsed = errors.New("the partition cannot be claimed, its epochs are used up: see who may write to the topic, and restore it from before that")
)

// never is before every moment of Now.Mono.
const never = time.Duration(math.MinInt64 / 2)

func (c *core) activate(next int64) {
	c.next, c.ordinal, c.attempts = next, 0, 0
	c.confirmed = never
	if next < c.floor && !mutation.On(mutation.Reuse) {
		c.pass()
		return
	}
	c.serve()
}

// serve opens the partition for its callers.
func (c *core) serve() {
	c.state = Active
	c.loadOutbox()
	c.loadOpen()
	c.emit(effect{kind: doLoadRefusals})
	c.loadTimers()
	waiting := c.waiting
	c.waiting = nil
	for _, call := range waiting {
		c.admit(call)
	}
	if !c.assigned {
		c.drain()
	}
}

// Failed says that catching up, claiming or reading back did not work. It is tried again after a pause, unless the error
// says that data is gone.
func (c *core) Failed(incarnation uint64, err error) {
	if incarnation != c.incarnation || (c.state != CatchingUp && c.state != Claiming) {
		return
	}
	if materializer.Halts(err) && !c.mayPass(err) {
		c.Halt(err)
		return
	}
	c.incarnation++
	c.owner = record.Owner{}
	c.lastFence = err.Error()
	c.stepDown()
}

// FollowFailed says that the log could not be followed. That is tried again, unless the log has lost records, or the partition
// halted in an earlier life of this worker.
func (c *core) FollowFailed(err error) {
	if c.state == Standby && (errors.Is(err, materializer.ErrLost) || errors.Is(err, materializer.ErrHaltedBefore) || errors.Is(err, materializer.ErrOnlyCopy)) {
		c.Halt(err)
	}
}

// mayPass says whether an error that looks like lost data may be that of an old leader of the log, which was paused and
// shows what it had then. It is believed when it has said so for as long as the log may be silent; a log in this process has no
// leaders, and is believed at once.
func (c *core) mayPass(err error) bool {
	if c.single || (!errors.Is(err, broker.ErrRegressed) && !errors.Is(err, broker.ErrOutOfRange)) {
		return false
	}
	if c.goneSince == 0 {
		c.goneSince = max(c.now.Mono, 1)
	}
	return c.now.Mono-c.goneSince < c.limits.AckTimeout
}

// stepDown goes back to the start: to claim again after a pause while assigned, else to stand by.
func (c *core) stepDown() {
	if c.releasing {
		c.releasing = false
		c.emit(effect{kind: doReleased})
	}
	if !c.assigned {
		c.standBy()
		c.refuseAll(c.takeWaiting(), entities.PartitionMoved(c.partition, c.lastFence))
		return
	}
	c.state = CatchingUp
	c.attempts++
	c.emit(effect{kind: doWait, attempt: c.attempts})
}

func (c *core) takeWaiting() []*Call {
	waiting := c.waiting
	c.waiting = nil
	return waiting
}

// Waited says that the pause before another attempt is over.
func (c *core) Waited(incarnation uint64) {
	if incarnation != c.incarnation || c.state != CatchingUp {
		return
	}
	if !c.assigned {
		c.stepDown()
		return
	}
	c.emit(effect{kind: doCatchUp})
}

// Withheld says why the partition is about to be revoked although the group gives it to this worker.
func (c *core) Withheld(why error) { c.withheld = why.Error() }

// Revoked says that the partition should be released in order.
func (c *core) Revoked() {
	if !c.assigned {
		if !c.releasing { // otherwise the end of that release tells
			c.emit(effect{kind: doReleased})
		}
		return
	}
	c.assigned = false
	switch c.state {
	case Active, Suspect:
		c.drain()
	case Standby, Halted, Repairing:
		c.emit(effect{kind: doReleased})
	case Passing:
		c.releasing = true
		c.fence("it was revoked", false)
	case CatchingUp, Claiming:
		c.incarnation++
		c.lastFence = "it was revoked"
		c.standBy()
		c.refuseAll(c.takeWaiting(), entities.PartitionMoved(c.partition, c.lastFence))
		c.emit(effect{kind: doReleased})
	case Draining:
	}
}

// drain stops intake and lets what is decided finish.
func (c *core) drain() {
	c.releasing = true
	if c.state == Suspect {
		c.fence("it was revoked while a gap was being read", false)
		return
	}
	c.state = Draining
	c.drainBy = c.now.Mono + c.limits.ReleaseTimeout
	for e := c.all.first; e != nil; e = e.next {
		c.refuseAll(e.queue, entities.PartitionMoved(c.partition, "it is being released"))
		e.queue = nil
	}
	c.drained()
}

// drained ends an orderly release when nothing is undecided or uncommitted any more.
func (c *core) drained() {
	if c.state != Draining || len(c.sent) > 0 || len(c.full) > 0 || !c.open.empty() {
		return
	}
	for e := c.all.first; e != nil; e = e.next {
		if e.running != nil || e.opening {
			return
		}
	}
	b := c.newBatch()
	b.entries = append(b.entries, c.control(record.Release))
	b.incarnation = nobody
	c.emit(effect{kind: doAppend, batch: b})
	c.fence("it was released", true)
	c.lastFence = "" // nothing went wrong
}

// nobody is the incarnation of a batch whose answer interests nobody.
const nobody = ^uint64(0)

// Lost says that the partition has another owner already.
func (c *core) Lost() {
	if !c.assigned {
		return
	}
	c.assigned = false
	if c.state != Halted && c.state != Repairing {
		c.fence("another worker owns it by the latest rebalance", false)
	}
}

// ClockJumped says that the machine's clock went on without this process: the machine was suspended, or its clock was set. The ownership
// ends, for another worker may have the partition by now, and the log's time is not known any more. The next claim asks the log for both.
// It returns false where nothing of the partition depends on that.
func (c *core) ClockJumped(by time.Duration) bool {
	why := fmt.Errorf("the machine's clock jumped by %v, as after a suspension: owner and time are asked of the log anew", by.Round(time.Millisecond))
	switch c.state {
	case Active, Suspect, Draining, Passing:
		c.fence(why.Error(), false)
	case Claiming:
		c.Failed(c.incarnation, why)
	default:
		return false
	}
	return true
}

// Ended says that the worker stops. Whoever waits is answered, in whatever state the partition is.
func (c *core) Ended() {
	c.assigned = false
	if c.state != Halted {
		c.fence("the worker is stopping", false)
	}
}

// Halt stops the partition until an operator looks at it: going on would hide that acknowledged data is gone.
func (c *core) Halt(why error) {
	c.halted = why
	assigned, followed, waiting := c.assigned, c.followed, c.takeWaiting()
	c.assigned, c.followed = false, false // so that nothing is read again
	c.fence(why.Error(), false)
	c.assigned, c.followed, c.state = assigned, followed, Halted
	if followed {
		c.emit(effect{kind: doRest})
	}
	c.refuseAll(waiting, errHalted(c.partition, why))
	if !errors.Is(why, materializer.ErrHaltedBefore) {
		c.emit(effect{kind: doHalt, offset: c.next})
	}
}

func errWentBack(partition int32, base, next int64) error {
	return fmt.Errorf("%w: partition %d: an append was put at offset %d, and %d was acknowledged or read before", broker.ErrRegressed, partition, base, next-1)
}

func notWritten(err error) bool {
	return errors.Is(err, broker.ErrNotWritten) || errors.Is(err, broker.ErrTooLarge) || errors.Is(err, broker.ErrUnknownTopic)
}
