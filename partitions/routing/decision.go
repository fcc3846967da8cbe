package routing

import (
	"context"
	"fmt"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/mutation"
)

// decision is the outcome of a command, and where its records stand.
type decision struct {
	outcome *entities.Outcome
	// recorded: the decision is in the log of a partition, with its effects and its forward. Then cmd,
	// partition and done are set.
	recorded  bool
	cmd       *entities.Command
	partition int32
	done      entities.Committed
	// source is set for an action that was called because of a record: what it asks for takes effect
	// once, too.
	source *entities.Source
	// caused: something that an action asked for took effect, or may have.
	caused bool
}

// carryOut carries out what an outcome asks for beyond its own records: effects in order, then the
// forward or the reply.
func (r *Router) carryOut(ctx context.Context, d *decision, hops int) (*entities.Reply, error) {
	if err := r.effects(ctx, d, hops); err != nil {
		r.leaveToOutbox(d)
		return nil, err
	}
	if d.outcome.Forward != nil && d.outcome.Failure == nil {
		return r.forward(ctx, d, hops)
	}
	return replyOf(d.outcome)
}

// replyOf returns the reply to the caller of a command without a forward.
func replyOf(outcome *entities.Outcome) (*entities.Reply, error) {
	switch {
	case outcome.Failure != nil:
		return nil, outcome.Failure
	case outcome.Reply != nil:
		reply := *outcome.Reply
		return &reply, nil
	default:
		return &entities.Reply{NoPayload: true}, nil
	}
}

// leaveToOutbox leaves to the outbox what the caller will not send.
func (r *Router) leaveToOutbox(d *decision) {
	if !d.recorded || d.done.FirstEffect < 0 {
		return
	}
	end := d.done.Forward
	if d.outcome.Forward != nil {
		end++
	}
	r.partitions.Unheld(d.partition, d.done.FirstEffect, end)
}

// forward runs the target of a forward, whose answer is the caller's.
func (r *Router) forward(ctx context.Context, d *decision, hops int) (*entities.Reply, error) {
	source, err := r.sourceOf(d, d.done.Forward, len(d.outcome.Effects))
	if err != nil {
		return nil, err
	}
	if d.recorded && source != nil {
		led := false
		reply, err := r.flights.share(ctx, *source, func(again bool) (*entities.Reply, error) {
			led = true
			d.done.Shared = (d.done.Shared || again) && !mutation.On(mutation.Shared)
			return r.bring(ctx, d, source, hops)
		})
		if led {
			return reply, err
		}
		return r.joined(ctx, d, source.Offset, reply, err)
	}
	reply, err := r.toTarget(ctx, *d.outcome.Forward, source, hops)
	d.caused = d.caused || mayHaveTaken(entities.AsError(err))
	return forAsker(reply), err
}

// forAsker returns the reply of a target for the caller of the command that forwarded: that caller
// did not call the target's owner.
func forAsker(reply *entities.Reply) *entities.Reply {
	if reply != nil {
		reply.Owner = ""
	}
	return reply
}

// bring brings a recorded forward to its target, and has the answer kept if the command has a name.
func (r *Router) bring(ctx context.Context, d *decision, source *entities.Source, hops int) (*entities.Reply, error) {
	// The previous attempt may have ended since the command was looked up.
	if d.done.Repeated || (d.keeps() && d.done.Shared) {
		done, err := r.partitions.Conclude(ctx, d.partition, d.cmd, source.Offset, nil)
		if err != nil {
			r.leaveToOutbox(d)
		}
		if err != nil || done.Outcome != nil {
			return d.kept(&done, err)
		}
	}
	reply, err := r.toTarget(ctx, *d.outcome.Forward, source, hops)
	reply = forAsker(reply)
	e := d.targetError(err)
	if e != nil {
		err = e
	}
	if d.keeps() && (e.Definite() || d.retractable(e)) {
		return r.keep(ctx, d, source.Offset, &entities.Outcome{Reply: reply, Failure: e})
	}
	r.partitions.Delivered(*source, reply, err)
	if e != nil && e.Outcome == entities.NotApplied {
		return nil, d.notYet(e)
	}
	return reply, err
}

// joined returns the result for a caller that waited for another attempt at its forward. That
// attempt may have been the outbox's, which returns the target's answer: it has to be kept before
// the caller gets it.
func (r *Router) joined(
	ctx context.Context, d *decision, forward int64, reply *entities.Reply, err error,
) (*entities.Reply, error) {
	e := d.targetError(err)
	switch {
	case d.keeps() && e.Definite():
		return r.keep(ctx, d, forward, &entities.Outcome{Reply: forAsker(reply), Failure: e})
	case e == nil:
		return reply, nil
	case e.Outcome == entities.NotApplied && !e.Checked:
		return nil, d.notYet(e)
	default:
		return nil, e
	}
}

// keeps reports whether the command's answer is kept: it has an id, or another record asks for it.
func (d *decision) keeps() bool { return d.cmd.ID != "" || d.cmd.Source != nil }

// targetError returns the error for the command's caller after a target's error.
func (d *decision) targetError(err error) *entities.Error {
	return entities.AsError(err).ForForwarder(d.outcome.Wrote() || d.done.Wrote)
}

// retractable reports whether a command may be taken back because of the answer to its forward: it
// stored nothing but the forward, and the target did not apply that. The outbox decides: it may
// have tried, too. Another attempt with the same decision would still bring the forward to its
// target.
func (d *decision) retractable(e *entities.Error) bool {
	return e.Outcome == entities.NotApplied && !d.done.Repeated && !d.done.Shared && !d.outcome.Wrote()
}

// notYet returns the error for a caller whose target has not acted yet: the forward is in the log,
// and the outbox will deliver it.
func (d *decision) notYet(e *entities.Error) error {
	return &entities.Error{
		Reason: e.Reason, Outcome: entities.Unknown, RetryAfter: e.RetryAfter, Cause: e,
		Message: fmt.Sprintf("the command took effect, its forward to %s/%s did not yet: %s",
			d.outcome.Forward.Service, d.outcome.Forward.Method, e.Message),
	}
}

// keep has the partition keep the answer to a forward, and returns the result for the caller.
func (r *Router) keep(
	ctx context.Context, d *decision, forward int64, outcome *entities.Outcome,
) (*entities.Reply, error) {
	done, err := r.partitions.Conclude(ctx, d.partition, d.cmd, forward, outcome)
	if err != nil && outcome.Failure != nil && outcome.Failure.Outcome == entities.NotApplied {
		return nil, d.notYet(outcome.Failure)
	}
	return d.kept(&done, err)
}

// kept returns the result for the caller from what is kept.
func (d *decision) kept(done *entities.Committed, err error) (*entities.Reply, error) {
	switch {
	case err != nil:
		return nil, errNotKept(d.cmd.Key, err)
	case done.Outcome.Failure != nil && done.Outcome.Failure.Outcome == entities.NotApplied:
		// The command was taken back: by the log its id is free, so this holds for the command and not
		// only for this attempt.
		failure := *done.Outcome.Failure
		failure.Checked = true
		return nil, &failure
	case done.Outcome.Failure != nil:
		return nil, done.Outcome.Failure
	case done.Outcome.Reply == nil:
		return &entities.Reply{NoPayload: true}, nil
	default:
		return done.Outcome.Reply, nil
	}
}

// sourceOf returns the address of the nth thing that a decision asks for: that of its record, or
// one that is derived from the action's own; nil if it has none.
func (r *Router) sourceOf(d *decision, offset int64, n int) (*entities.Source, error) {
	switch {
	case d.recorded && offset >= 0:
		return &entities.Source{
			Generation: r.sender.Layout.Generation, Partition: uint16(d.partition), //nolint:gosec // at most 4096
			Offset: offset, Settled: d.done.Progress.Through, Open: d.done.Progress.Open,
		}, nil
	case d.source == nil:
		return nil, nil //nolint:nilnil // no address
	case n >= maxChildren-1 || d.source.Index > (1<<32-1)/maxChildren-1:
		return nil, entities.Errorf(entities.InvalidCommand, entities.NotApplied,
			"an action that was called by an effect asks for more than %d effects, or is too deep in a chain of such actions",
			maxChildren-1)
	default:
		s := *d.source
		s.Index = s.Index*maxChildren + uint32(n) + 1 //nolint:gosec // checked above
		return &s, nil
	}
}

// maxChildren bounds what an action may ask for when it was called by an effect; with it the
// addresses of chains of four such actions fit.
const maxChildren = 256

// effects sends side effects in list order. A synchronous one is awaited; its answer does not
// matter, but if it could not be carried out the caller gets an error. Others are left to the
// outbox, if they are in the log.
func (r *Router) effects(ctx context.Context, d *decision, hops int) error {
	if d.done.Repeated {
		return nil // the first attempt recorded them
	}
	for i := range d.outcome.Effects {
		e := &d.outcome.Effects[i]
		if d.recorded && !e.Synchronous {
			continue
		}
		source, err := r.sourceOf(d, d.done.FirstEffect+int64(i), i)
		if err == nil && source == nil && !e.Synchronous {
			if err := r.sendLater(ctx, e.Target, hops); err != nil {
				return err
			}
			d.caused = true
			continue
		}
		if err == nil {
			_, err = r.toTarget(ctx, e.Target, source, hops)
		}
		if d.recorded {
			r.partitions.Delivered(*source, nil, err)
		}
		d.caused = d.caused || mayHaveTaken(entities.AsError(err))
		if err := d.sideEffectFailed(e, err); err != nil {
			return err
		}
	}
	return nil
}

// mayHaveTaken reports whether a command with this answer took effect, or may have.
func mayHaveTaken(e *entities.Error) bool {
	return e == nil || e.Outcome == entities.Unknown || e.Outcome == entities.Applied
}

// sideEffectFailed returns the error for a caller whose side effect did not take effect. A command
// of an entity itself did.
func (d *decision) sideEffectFailed(e *entities.SideEffect, err error) error {
	if err == nil {
		return nil
	}
	failure := entities.AsError(err)
	if failure.Reason == entities.FunctionRefused {
		return nil
	}
	reason := failure.Reason
	switch reason { // the function's mistake, not the caller's
	case entities.InvalidCommand, entities.UnknownMethod, entities.NotSupported, entities.TooLarge:
		reason = entities.Internal
	default:
	}
	if !d.recorded {
		return &entities.Error{
			Reason: reason, Outcome: failure.Outcome, RetryAfter: failure.RetryAfter, Cause: err,
			Message: fmt.Sprintf("the side effect of an action on %s/%s failed: %s", e.Service, e.Method, failure.Message),
		}
	}
	return &entities.Error{
		Reason: reason, Outcome: entities.Unknown, RetryAfter: failure.RetryAfter, Cause: err,
		Message: fmt.Sprintf("the command took effect, its side effect on %s/%s did not yet: %s",
			e.Service, e.Method, failure.Message),
	}
}

// sendLater starts an effect that no caller waits for. It outlives the caller.
func (r *Router) sendLater(ctx context.Context, t entities.Target, hops int) error {
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return entities.Errorf(entities.Deadline, entities.NotApplied,
			"the call ended while %d side effects of actions waited before its own on %s/%s: that one was not sent",
			maxAsync, t.Service, t.Method)
	}
	ctx = context.WithoutCancel(ctx)
	r.async.Go(func() { // bounded by effectTimeout, Wait waits for it
		defer func() { <-r.slots }()
		ctx, cancel := context.WithTimeout(ctx, effectTimeout)
		defer cancel()
		if _, err := r.toTarget(ctx, t, nil, hops); err != nil && r.onEffectError != nil {
			r.onEffectError(t, err)
		}
	})
	return nil
}
