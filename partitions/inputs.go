package partitions

import (
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/core"
	"github.com/millrace-io/millrace/partitions/repair"
)

// message is an input for a partition. Without an input it is a tick, for all partitions of the
// loop.
type message struct {
	to    *Partition
	input input
}

// input is one input of a partition. The types below are all that exist, in the order in which a
// partition gets them. Those that every command needs hold a single pointer, so that converting
// them to an input does not allocate.
type input interface {
	// receive passes the input to the core.
	receive(p *Partition)
}

// Inputs from the group, the log and the manager.
type (
	inAssigned struct{ handedOver bool }
	inFollowed struct{ followed bool }
	// inFollowFailed: the log could not be followed.
	inFollowFailed struct{ fail error }
	// inFailed: catching up, claiming or reading back did not work.
	inFailed struct {
		incarnation uint64
		fail        error
	}
	inCaughtUp struct {
		owner record.Owner
		next  int64
	}
	// inClaimAcked: the log has answered the claim that a batch holds.
	inClaimAcked struct{ *core.Batch }
	inReadBack   struct {
		incarnation uint64
		owner       record.Owner
		next        int64
		fold        *materializer.Fold
	}
	inWaited struct{ incarnation uint64 }
	// inRevoked: fail is why, if the group still assigns the partition to this worker. released is
	// called at its end.
	inRevoked struct {
		fail     error
		released func()
	}
	inLost struct{}
	// inReplaced: the journal is not the one that the store was folded from.
	inReplaced struct{ fail error }
	// inAlarm is something that an operator should look at.
	inAlarm struct{ fail error }
	// inInspected: the log was inspected.
	inInspected struct{ finding repair.Finding }
	// inQuiet waits until nothing is under way; atOnce reports that nothing was.
	inQuiet struct{ quiet func(atOnce bool) }
)

// Inputs from callers and the function.
type (
	inSubmitted struct{ *core.Call }
	// inConcluded brings the answer to a forward.
	inConcluded struct{ *core.Call }
	// inPosition asks for the position after everything that is committed.
	inPosition  struct{ *core.Call }
	inWithdrawn struct{ *core.Call }
	// inSessionEnded: the function has ended the session on which the call was to run.
	inSessionEnded struct{ *core.Call }
	// inDecided: the decision is in the call's waiter.
	inDecided struct{ *core.Call }
	inOpened  struct {
		entity      *core.Entity
		incarnation uint64
		opening     *core.Opening
		err         *entities.Error
	}
	inPassivated struct {
		entity      *core.Entity
		incarnation uint64
	}
)

// Inputs from the log, targets and timers.
type (
	// inAcked: the log has answered an append; the answer is in the batch.
	inAcked   struct{ *core.Batch }
	inGapRead struct {
		incarnation uint64
		gap         []materializer.GapRecord
		fail        error
	}
	inDelivered struct {
		offset int64
		reply  *entities.Reply
		err    *entities.Error
	}
	// inUnheld: no caller waits for the effects from offset on, below next.
	inUnheld struct{ offset, next int64 }
	inFired  struct {
		incarnation uint64
		timer       *core.Timer
		superseded  bool
		err         *entities.Error
	}
)

// Inputs from an operator.
type (
	inResolve  struct{ *instruction }
	inRepair   struct{ *core.Repair }
	inSurveyed struct {
		incarnation uint64
		survey      materializer.Survey
		fail        error
	}
	inRestored struct {
		incarnation uint64
		owner       record.Owner
		page        []materializer.Entry
		restored    materializer.Restored
		fail        error
	}
)

func (in inAssigned) receive(p *Partition) { p.core.Assigned(in.handedOver) }

func (in inFollowed) receive(p *Partition) { p.core.Followed(in.followed) }

func (in inFollowFailed) receive(p *Partition) {
	p.failed(in.fail)
	p.core.FollowFailed(in.fail)
}

func (in inFailed) receive(p *Partition) {
	p.failed(in.fail)
	p.core.Failed(in.incarnation, in.fail)
}

func (in inCaughtUp) receive(p *Partition) {
	p.core.CaughtUp(in.owner, in.next, p.random()|1, p.types()) // no owner has nonce 0
}

func (in inClaimAcked) receive(p *Partition) { p.core.ClaimAcked(in.Incarnation, in.Result) }

func (in inReadBack) receive(p *Partition) {
	p.fold = in.fold
	p.jumps(0)
	p.time.owned(p.fold.Meta().LogTime)
	p.advance()
	p.lookupWaiting()
	was := p.core.State()
	p.core.ReadBack(in.incarnation, in.owner, in.next, in.fold.Meta().Floor)
	p.openFeed(was)
}

func (in inWaited) receive(p *Partition) { p.core.Waited(in.incarnation) }

func (in inRevoked) receive(p *Partition) {
	p.released = append(p.released, in.released)
	if in.fail != nil {
		p.failed(in.fail)
		p.core.Withheld(in.fail)
	}
	p.core.Revoked()
}

func (inLost) receive(p *Partition) { p.core.Lost() }

func (in inReplaced) receive(p *Partition) { p.core.Halt(in.fail) }

func (in inAlarm) receive(p *Partition) { p.alarm(in.fail.Error()) }

func (in inInspected) receive(p *Partition) { p.inspector.Conclude(in.finding, p.alarm) }

func (in inQuiet) receive(p *Partition) {
	if p.core.FireDue() {
		in.quiet(true)
	} else {
		p.awaited = append(p.awaited, in.quiet)
	}
}

func (in inSubmitted) receive(p *Partition) {
	p.stats.commands.Add(1)
	if p.lookup(in.Call) {
		p.core.Submitted(in.Call)
	}
}

func (in inConcluded) receive(p *Partition) {
	if p.lookup(in.Call) && p.lookupForward(in.Call) {
		p.core.Concluded(in.Call)
	}
}

func (in inPosition) receive(p *Partition) { p.core.PositionAsked(in.Call) }

func (in inWithdrawn) receive(p *Partition) { p.core.Withdrawn(in.Call) }

func (in inSessionEnded) receive(p *Partition) { p.core.SessionEnded(in.Call) }

func (in inDecided) receive(p *Partition) {
	wait := waiterOf(in.Call)
	p.core.Decided(in.Call, wait.opening, wait.outcome, wait.err)
}

func (in inOpened) receive(p *Partition) {
	p.core.Opened(in.entity, in.incarnation, in.opening, in.err)
}

func (in inPassivated) receive(p *Partition) { p.core.Passivated(in.entity, in.incarnation) }

func (in inAcked) receive(p *Partition) { p.core.Acked(in.Batch, in.Result) }

func (in inGapRead) receive(p *Partition) { p.core.GapRead(in.incarnation, in.gap, in.fail) }

func (in inDelivered) receive(p *Partition) {
	p.attempted("effect of offset %d: %s", in.offset, in.err)
	if in.err != nil && in.err.Reason == entities.FunctionRefused {
		p.stats.refused.Add(1)
	}
	p.core.Delivered(in.offset, in.reply, in.err)
}

func (in inUnheld) receive(p *Partition) {
	for offset := in.offset; offset < in.next; offset++ {
		p.core.Unheld(offset)
	}
}

func (in inFired) receive(p *Partition) {
	p.attempted("timer of offset %d: %s", in.timer.Offset, in.err)
	p.core.Fired(in.incarnation, in.timer, in.superseded, in.err)
}

func (in inResolve) receive(p *Partition) {
	if in.refusal {
		p.resolveRefusal(in.instruction)
	} else {
		p.resolve(in.instruction)
	}
}

func (in inRepair) receive(p *Partition) { p.core.RepairAsked(in.Repair) }

func (in inSurveyed) receive(p *Partition) {
	p.core.Surveyed(in.incarnation, in.survey, p.random()|1, in.fail)
}

func (in inRestored) receive(p *Partition) {
	p.core.Restored(in.incarnation, in.owner, in.page, in.restored, in.fail)
}
