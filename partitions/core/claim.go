package core

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

// How an ownership begins: assignment, catch-up, claim, activation.
//
//	R5  An owner serves only after it has folded the log up to and including its claim, and the
//	    fold names it there. (readback)
//	R6  A claim that is acknowledged at an offset below what was read shows that the log has
//	    lost records: halt. (regress)
//	P1  Below the floor of a repair an owner appends nothing but barriers. (reuse; see repair.go)
//
// A claim whose outcome is unknown is given up with its nonce. If it arrives later, it is an unused
// epoch. (nonce)

// Assigned is called when this worker should own the partition. handedOver: the present owner is
// about to release it. Claiming before the release is safe, but would cost the owner its last
// commands.
func (c *Core) Assigned(handedOver bool) {
	if c.assigned {
		return
	}
	c.assigned, c.withheld, c.goneSince = true, "", 0
	if c.state == Standby {
		c.catchUp(handedOver)
	}
}

// Followed sets whether this worker should keep its image fresh while another one owns the
// partition.
func (c *Core) Followed(followed bool) {
	switch {
	case c.followed == followed:
	case c.state != Standby:
		c.followed = followed
	case followed:
		c.followed = true
		c.standBy()
	default:
		c.followed = false
		c.emit(Rest{})
	}
}

// standBy gives up the partition, and follows it if this worker is to do so.
func (c *Core) standBy() {
	c.state = Standby
	if c.followed {
		c.emit(Follow{})
	}
}

// FollowFailed reports that the log could not be followed. The core tries again, unless the log has
// lost records or the partition halted in an earlier process of this worker.
func (c *Core) FollowFailed(err error) {
	lost := errors.Is(err, materializer.ErrLost) || errors.Is(err, materializer.ErrHaltedBefore) ||
		errors.Is(err, materializer.ErrOnlyCopy)
	if c.state == Standby && lost {
		c.Halt(err)
	}
}

func (c *Core) catchUp(handedOver bool) {
	c.state = CatchingUp
	c.emit(CatchUp{HandedOver: handedOver})
}

// CaughtUp reports that the log was folded up to next, that cur owns the partition there, and a
// random nonce. types are the entity types that this worker serves.
func (c *Core) CaughtUp(cur record.Owner, next int64, nonce uint64, types []string) {
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
		Claim: &record.ClaimInfo{
			Worker: c.worker, ReadTo: record.Unsigned(next), PreviousEpoch: cur.Epoch, PreviousNonce: cur.Nonce,
			Layout: c.layout, Types: c.types,
		},
	}
	b := c.newBatch()
	b.Incarnation = c.incarnation
	b.Entries = append(b.Entries, materializer.Entry{Envelope: claim})
	c.emit(AppendClaim{b})
}

// ClaimAcked takes the log's answer to the claim. On an error the claim may still arrive: its nonce
// is given up, and a late claim of this worker is an unused epoch.
func (c *Core) ClaimAcked(incarnation uint64, result broker.AppendResult) {
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
		// Reading back would find nothing new: at the claim's offset the store has folded another record.
		c.Halt(errWentBack(c.partition, result.Base, c.next))
	default:
		c.emit(FoldClaim{Offset: result.Base})
	}
}

// ReadBack reports that the log was folded up to and including the claim, and who owns the
// partition there. Below floor only barriers may be appended.
func (c *Core) ReadBack(incarnation uint64, cur record.Owner, next, floor int64) {
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
	errNoOffset  = errors.New("the log acknowledged an append without its offset")
	// errEpochsUsed: no epoch is left above the owner's. Workers count up by one, so another program
	// has written claims.
	errEpochsUsed = errors.New("the partition cannot be claimed, its epochs are used up: check who may write to the topic, and restore an earlier copy of it")
)

// Never is before every value of Now.Mono.
const Never = time.Duration(math.MinInt64 / 2)

func (c *Core) activate(next int64) {
	c.next, c.ordinal, c.attempts = next, 0, 0
	c.confirmed = Never
	if next < c.floor && !mutation.On(mutation.Reuse) {
		c.pass()
		return
	}
	c.serve()
}

// serve opens the partition for its callers.
func (c *Core) serve() {
	c.state = Active
	c.loadOutbox()
	c.loadOpen()
	c.emit(LoadRefusals{})
	c.loadTimers()
	waiting := c.waiting
	c.waiting = nil
	for _, call := range waiting {
		c.admit(call)
	}
	if !c.assigned {
		c.beginRelease()
	}
}

// Failed reports that catching up, claiming or reading back did not work. The core tries again
// after a pause, unless the error means that data is lost.
func (c *Core) Failed(incarnation uint64, err error) {
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

// mayPass reports whether an error that looks like lost data may come from an old leader of the
// log, which was paused and returns what it had then. The core believes it after it has lasted as
// long as the log may be silent. A log in this process has no leaders, and is believed at once.
func (c *Core) mayPass(err error) bool {
	if c.single || (!errors.Is(err, broker.ErrRegressed) && !errors.Is(err, broker.ErrOutOfRange)) {
		return false
	}
	if c.goneSince == 0 {
		c.goneSince = max(c.now.Mono, 1)
	}
	return c.now.Mono-c.goneSince < c.limits.AckTimeout
}

// stepDown goes back to the start: to claim again after a pause if assigned, otherwise to stand by.
func (c *Core) stepDown() {
	if c.releasing {
		c.releasing = false
		c.emit(ReportReleased{})
	}
	if !c.assigned {
		c.standBy()
		c.refuseAll(c.takeWaiting(), entities.PartitionMoved(c.partition, c.lastFence))
		return
	}
	c.state = CatchingUp
	c.attempts++
	c.emit(Pause{Attempt: c.attempts})
}

func (c *Core) takeWaiting() []*Call {
	waiting := c.waiting
	c.waiting = nil
	return waiting
}

// Waited reports that the pause before another attempt is over.
func (c *Core) Waited(incarnation uint64) {
	if incarnation != c.incarnation || c.state != CatchingUp {
		return
	}
	if !c.assigned {
		c.stepDown()
		return
	}
	c.emit(CatchUp{})
}
