package partitions

import (
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/core"
	"github.com/millrace-io/millrace/partitions/repair"
)

// message is an input on its way to a partition. One without an input is a tick, for all partitions
// of the loop.
type message struct {
	to    *Partition
	input input
}

// input is one thing that a partition is told. The types below are all that there are, in the order
// in which a partition meets them. Those that each command needs hold one pointer and nothing else,
// so that they cost no allocation as an input.
type input interface {
	// receive gives the input to the core.
	receive(p *Partition)
}

// What the group, the log and the manager say.
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
	// inRevoked: fail is why, where the group gives the partition to this worker all the same.
	// released is called at its end.
	inRevoked struct {
		fail     error
		released func()
	}
	inLost struct{}
	// inReplaced: the journal is not the one that the store was folded from.
	inReplaced struct{ fail error }
	// inAlarm is something that an operator should look at.
	inAlarm struct{ fail error }
	// inInspected: the log was looked through.
	inInspected struct{ finding repair.Finding }
	// inQuiet asks to be told when nothing is under way; at once says that nothing was.
	inQuiet struct{ quiet func(atOnce bool) }
)

// What callers and the function say.
type (
	inSubmitted struct{ *core.Call }
	// inConcluded brings what a forward was answered.
	inConcluded struct{ *core.Call }
	// inPosition asks for the position behind everything that is committed.
	inPosition  struct{ *core.Call }
	inWithdrawn struct{ *core.Call }
	// inSessionEnded: the function has ended the session on which the call was to run.
	inSessionEnded struct{ *core.Call }
	// inDecided: what was decided is in the call's meeting.
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

// What the log, targets and timers answer.
type (
	// inAcked: the log has answered an append; what, is in the batch.
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
	// inUnheld: no caller waits for the effects from an offset on, below another.
	inUnheld struct{ offset, next int64 }
	inFired  struct {
		incarnation uint64
		timer       *core.Timer
		superseded  bool
		err         *entities.Error
	}
)

// What an operator asks for.
type (
	inResolved struct{ *instruction }
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
	p.core.ReadBack(in.incarnation, in.owner, in.next, in.fold.Meta().Floor)
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
	if p.core.Settling() {
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

func (in inPosition) receive(p *Partition) { p.core.Asked(in.Call) }

func (in inWithdrawn) receive(p *Partition) { p.core.Withdrawn(in.Call) }

func (in inSessionEnded) receive(p *Partition) { p.core.SessionEnded(in.Call) }

func (in inDecided) receive(p *Partition) {
	wait := meetingOf(in.Call)
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

func (in inResolved) receive(p *Partition) {
	if in.refusal {
		p.resolveRefusal(in.instruction)
	} else {
		p.resolve(in.instruction)
	}
}

func (in inRepair) receive(p *Partition) { p.core.Repair(in.Repair) }

func (in inSurveyed) receive(p *Partition) {
	p.core.Surveyed(in.incarnation, in.survey, p.random()|1, in.fail)
}

func (in inRestored) receive(p *Partition) {
	p.core.Restored(in.incarnation, in.owner, in.page, in.restored, in.fail)
}
