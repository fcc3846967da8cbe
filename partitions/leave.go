package partitions

import (
	"context"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/partitions/core"
)

// This file has the goroutines that carry a command to its decision although its caller leaves
// (ADR 25). While a caller waits without a deadline, its own goroutine runs the function. A caller
// with a deadline hands the turn to a goroutine of the loop, and so can leave at any moment: then
// another goroutine stands in for it until the call is answered.

// idleRunners is how many goroutines of a loop wait for the next turn instead of ending.
const idleRunners = 64

// invoked is a call whose caller may leave while the function works.
type invoked struct {
	partition *Partition
	ctx       context.Context //nolint:containedctx // the caller's
	call      *core.Call
}

// Run implements multiplex.Task.
func (i *invoked) Run() { i.partition.invoke(i.ctx, i.call) }

// standIn takes the place of a caller that left while the function had its command: one that runs,
// or one that was sent ahead of its turn. The command is decided all the same, and counts as
// waiting until then; what it caused is left to the outbox.
func (p *Partition) standIn(ctx context.Context, call *core.Call) {
	defer p.waiting.Add(-1)
	wait := waiterOf(call)
	for range wait.wake {
		switch core.Phase(wait.phase.Load()) {
		case core.PhaseAnswered:
			if call.Err == nil && call.Effects > 0 {
				p.post(inUnheld{offset: call.FirstEffect, next: call.FirstEffect + int64(call.Effects)})
			}
			return
		case core.PhaseForsaken:
			p.invoke(ctx, call)
		case core.PhaseLeft: // the function had lost the command
			return
		default:
		}
	}
}

// imageRead is a read from the image of a partition that its caller may leave.
type imageRead struct {
	partition *Partition
	ctx       context.Context //nolint:containedctx // the caller's
	cmd       *entities.Command
	done      chan struct{}
	outcome   *entities.Outcome
	next      int64
	err       error
}

// Run implements multiplex.Task.
func (r *imageRead) Run() {
	defer close(r.done)
	r.outcome, r.next, r.err = r.partition.readImage(r.ctx, r.cmd)
}
