package partitions

import (
	"context"
	"errors"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/failpoint"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/core"
)

// This file performs the core's effects for the outbox and for timers.

// effectTimeout bounds one attempt to deliver an effect, or to run the command of a timer.
const effectTimeout = time.Minute

// deliver sends an effect to its target, on its own goroutine.
func (p *Partition) deliver(ctx context.Context, d *core.Delivery, progress entities.Progress) {
	source, target := p.source(d.Offset, progress), d.Effect.Target
	p.tasks.call(func() {
		ctx, cancel := context.WithTimeout(ctx, effectTimeout)
		defer cancel()
		failpoint.Hit(failpoint.BeforeEffect)
		reply, err := p.router.Send(ctx, source, target)
		failpoint.Hit(failpoint.AfterEffect)
		p.stats.delivered.Add(1)
		p.post(inDelivered{offset: source.Offset, reply: reply, err: entities.AsError(err)})
	})
}

// Delivered reports to the outbox the result of an effect that the caller sent itself, because it
// waits for the answer.
func (p *Partition) Delivered(source entities.Source, reply *entities.Reply, err error) {
	p.post(inDelivered{offset: source.Offset, reply: reply, err: entities.AsError(err)})
}

// Conclude keeps the answer to a command's forward with the command's id, or with its source, and
// returns what its caller gets once that is in the log: outcome, or what is kept already. forward
// is the offset of the forward's record. A nil outcome asks for what is kept: the result has none
// if nothing is.
func (p *Partition) Conclude(
	ctx context.Context, cmd *entities.Command, forward int64, outcome *entities.Outcome,
) (entities.Committed, error) {
	call := newCall(ctx, cmd)
	call.Forward, call.Outcome = forward, outcome
	waiterOf(call).set(core.PhaseDecided)
	if !p.submit(inConcluded{call}) {
		return entities.Committed{}, entities.PartitionMoved(p.id, "the worker is stopping")
	}
	select {
	case <-waiterOf(call).wake:
	case <-ctx.Done():
		if was := waiterOf(call).step(core.Phase.Leave); was != core.PhaseAnswered {
			return entities.Committed{}, p.withdraw(ctx, call, was)
		}
		<-waiterOf(call).wake // the loop has answered in between
	}
	return call.Committed()
}

// source returns the address of one of the partition's records.
func (p *Partition) source(offset int64, progress entities.Progress) entities.Source {
	return entities.Source{
		Generation: p.image.Address.Generation, Partition: p.image.Address.Partition, Offset: offset,
		Settled: progress.Through, Open: progress.Open,
	}
}

// laneOf returns the lane of an effect's target. A target that cannot be resolved has a lane as
// well: sending to it returns the reason.
func (p *Partition) laneOf(t *entities.Target) core.LaneName {
	cmd, err := p.functions.Resolve(*t)
	if err != nil || cmd.Type == nil {
		return core.LaneName{Service: t.Service, Partition: -1}
	}
	return core.LaneName{Service: t.Service, Partition: entities.Partition(cmd.Key.ID, int(p.image.Layout.Partitions))}
}

// unheld leaves the effects of a caller that left to the outbox.
func (p *Partition) unheld(call *core.Call) {
	for i := range call.Effects {
		p.core.Unheld(call.FirstEffect + int64(i))
	}
}

// loadOutbox reads open effects that are not parked, and passes them to loaded. It runs on the
// loop, so that nothing is committed while it reads.
func (p *Partition) loadOutbox(from int64, limit int, loaded func(effects []*core.Delivery, next int64, more bool)) {
	view := p.image.View()
	found, next, more, err := view.Unparked(from, limit, core.PageBytes)
	effects := make([]*core.Delivery, 0, len(found))
	for i := 0; i < len(found) && err == nil; i++ {
		var d *core.Delivery
		d, err = core.DeliveryOf(found[i])
		effects = append(effects, d)
	}
	if err != nil {
		p.failed(err)
		p.core.ApplyFailed(err)
		return
	}
	loaded(effects, next, more)
}

// loadOpen reads the offsets of open effects and, the first time in an ownership, how many are
// parked.
func (p *Partition) loadOpen(from int64, limit int) {
	view := p.image.View()
	open, err := view.Open(from, limit)
	if err == nil && from == 0 {
		var parked int
		parked, err = view.CountParked()
		p.core.ParkedCounted(parked)
	}
	if err != nil {
		p.failed(err)
		p.core.ApplyFailed(err)
		return
	}
	p.core.OpenLoaded(open, len(open) == limit)
}

// resolve finds the effects that an operator's instruction concerns, and passes it to the core.
func (p *Partition) resolve(r *instruction) {
	view := p.image.View()
	if r.filter == nil {
		e, ok, err := view.ParkedEffect(r.Offset)
		if r.err = err; err == nil && ok {
			r.add(e)
		}
	} else {
		r.err = errors.Join(view.Parked(r.Offset, func(e materializer.Effect) bool {
			r.seen++
			r.next = e.Offset + 1
			if r.filter.Matches(&e) {
				r.add(e)
			}
			r.more = r.seen == resolveRows
			return !r.more && r.err == nil
		}), r.err)
	}
	if r.err != nil || (r.filter == nil && len(r.Effects) == 0) {
		r.Done(false)
		return
	}
	p.core.Resolve(&r.Resolution)
}

// resolveRows is how many parked effects one step of a resolution examines.
const resolveRows = 512

func (r *instruction) add(e materializer.Effect) {
	d, err := core.DeliveryOf(e)
	if err != nil {
		r.err = err
		return
	}
	r.Effects = append(r.Effects, d)
}

// loadRefusals reads which refusals are kept, on the loop as well.
func (p *Partition) loadRefusals() {
	var offsets []int64
	view := p.image.View()
	if err := view.RefusalOffsets(func(offset int64) { offsets = append(offsets, offset) }); err != nil {
		p.failed(err)
		p.core.ApplyFailed(err)
		return
	}
	p.core.RefusalsLoaded(offsets)
}

// resolveRefusal looks up the refusal that an operator's instruction concerns, and passes it to the
// core.
func (p *Partition) resolveRefusal(r *instruction) {
	view := p.image.View()
	kept, found, err := view.Refusal(r.Offset)
	if err == nil && found {
		r.Again, err = core.DeliveryAgain(&kept)
	}
	if err != nil {
		p.failed(err)
	}
	p.core.ResolveRefusal(&r.Resolution)
}

// loadTimers reads the next timers after a place in the index, on the loop as well.
func (p *Partition) loadTimers(after materializer.Due, limit int, take func(due []materializer.Due, more bool)) {
	var loaded []materializer.Due
	view := p.image.View()
	err := view.Due(after.At, after.Offset, func(d materializer.Due) bool {
		loaded = append(loaded, d)
		return len(loaded) < limit
	})
	if err != nil {
		p.failed(err)
		p.core.ApplyFailed(err)
		return
	}
	take(loaded, len(loaded) == limit)
}

// fire runs the command of a due timer, on its own goroutine.
func (p *Partition) fire(ctx context.Context, a *core.Timer, incarnation uint64) {
	p.tasks.call(func() {
		ctx, cancel := context.WithTimeout(ctx, effectTimeout)
		defer cancel()
		failpoint.Hit(failpoint.BeforeTimer)
		err := p.runTimer(ctx, a)
		in := inFired{incarnation: incarnation, timer: a, superseded: errors.Is(err, core.ErrSuperseded)}
		if !in.superseded {
			p.stats.fired.Add(1)
			in.err = entities.AsError(err)
		}
		p.post(in)
	})
}

func (p *Partition) runTimer(ctx context.Context, a *core.Timer) error {
	view := p.image.View()
	timer, known, err := view.Timer(a.Key, a.Name)
	switch {
	case err != nil:
		return err
	case !known || timer.Offset != a.Offset:
		return core.ErrSuperseded
	}
	target, err := record.DecodeTarget(timer.Target, timer.Payload)
	if err != nil {
		return err
	}
	cmd, err := p.functions.Resolve(target)
	if err == nil && cmd.Key != a.Key {
		err = entities.Errorf(
			entities.InvalidCommand, entities.NotApplied, "timer %q of %s is a command to %s", a.Name, a.Key, cmd.Key,
		)
	}
	firing := &entities.TimerFiring{
		Name: a.Name, Due: a.At, Offset: a.Offset, Schedule: timer.Schedule, Target: target, Failures: a.Failures,
	}
	switch failure := entities.AsError(err); {
	case failure == nil:
		cmd.Timer = firing
		return p.router.Run(ctx, cmd)
	case core.Hopeless(failure):
		firing.Err = failure
		_, err = p.Submit(ctx, unrunnable(a.Key, firing))
		return err
	default:
		return failure
	}
}

// unrunnable returns the command of a timer that cannot be run. It is given up when its turn comes
// at its entity, of whose type only the name is known.
func unrunnable(key entities.Key, firing *entities.TimerFiring) *entities.Command {
	return &entities.Command{
		Service: firing.Target.Service, Method: firing.Target.Method, Payload: firing.Target.Payload,
		Type: &entities.EntityType{Name: key.Type}, Key: key, Timer: firing,
	}
}

// superseded reports whether a committed command has cancelled the timer of a call or set it again.
func (p *Partition) superseded(call *core.Call) (bool, error) {
	view := p.image.View()
	timer, known, err := view.Timer(call.Command.Key, call.Command.Timer.Name)
	return (!known || timer.Offset != call.Command.Timer.Offset) && !mutation.On(mutation.Superseded), err
}
