package partitions

import (
	"context"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/core"
	"github.com/millrace-io/millrace/partitions/replica"
)

// This file answers reads from the image of a partition that another worker owns, and measures the
// age of the states from which relaxed reads are answered.

// Read answers a relaxed command from the image on this worker. served is false if that is not
// possible: there is no image, the image does not have what the command asks for, or the command
// wants to write.
func (p *Partition) Read(ctx context.Context, cmd *entities.Command) (_ entities.Committed, served bool, _ error) {
	var none entities.Committed
	if p.replica.Position() == nil || !p.suffices(ctx, cmd) {
		return none, false, nil
	}
	at := p.replica.Position()
	if at == nil {
		return none, false, nil // it was given up in between
	}
	age := p.replica.Age(at, cmd.Consistency)
	if p.waiting.Add(1) > int64(p.limits.MaxWaiting) {
		p.waiting.Add(-1)
		return none, true, errPartitionBusy(p.id, p.limits.MaxWaiting)
	}
	outcome, next, err := p.readImageWithin(ctx, cmd)
	switch {
	case err != nil:
		return none, true, entities.AsError(err)
	case outcome.Wrote() || outcome.Restart || outcome.Forward != nil:
		return none, false, nil
	}
	p.stats.reads[cmd.Consistency].Add(1)
	p.staleness.Answered(p.clock.Now(), cmd, replica.ByFollower, age)
	return entities.Committed{Outcome: outcome, Next: next, FirstEffect: -1, Forward: -1}, true, nil
}

// suffices reports whether the image is as fresh as the command asks, now or in a moment.
func (p *Partition) suffices(ctx context.Context, cmd *entities.Command) bool {
	switch cmd.Consistency {
	case entities.Eventual:
		return true
	case entities.AtLeast:
		return p.replica.Reaches(ctx, cmd.AfterIn(p.id))
	case entities.Bounded:
		return p.replica.Fresh(cmd.Bound)
	default:
		return false
	}
}

// readImageWithin is readImage for a caller that may leave before its deadline.
func (p *Partition) readImageWithin(
	ctx context.Context, cmd *entities.Command,
) (*entities.Outcome, int64, error) {
	if _, mayLeave := ctx.Deadline(); !mayLeave {
		return p.readImage(ctx, cmd)
	}
	r := &imageRead{partition: p, ctx: ctx, cmd: cmd, done: make(chan struct{})}
	p.loop.runners.Run(r)
	select {
	case <-r.done:
		return r.outcome, r.next, r.err
	case <-ctx.Done():
		return nil, 0, entities.Errorf(endedBy(ctx), entities.NotApplied,
			"the call ended before the function had answered for %s from the image of this worker: nothing was applied", cmd.Key)
	}
}

// readImage runs a command on a new session, begun from the image, and returns what the function
// decided and the position of the image. It ends the wait of the command.
func (p *Partition) readImage(ctx context.Context, cmd *entities.Command) (*entities.Outcome, int64, error) {
	defer p.waiting.Add(-1)
	snapshot := p.image.Store.Snapshot()
	defer snapshot.Close() //nolint:errcheck // only read
	view := materializer.Partition{Rows: snapshot, Address: p.image.Address}
	meta, _, err := view.Meta()
	if err != nil {
		return nil, 0, err
	}
	load := func(context.Context) (entities.Loaded, error) { return view.Load(cmd.Key) }
	session, err := p.functions.Open(ctx, cmd.Type.Service, cmd.Key, load)
	if err != nil {
		return nil, 0, err
	}
	defer p.closeSession(session)
	outcome, err := p.handle(ctx, session, cmd, time.Unix(0, meta.LogTime))
	return outcome, meta.Next, err
}

// measure notes an answer of the owner to a relaxed command that wrote nothing. confirmed is when
// the append for which it waited was sent to the log; later appends may have changed the entity
// since.
func (p *Partition) measure(call *core.Call, confirmed time.Duration) {
	if !call.Command.Consistency.Relaxed() || !call.FromMemory() {
		return
	}
	age, now := time.Duration(0), p.core.Now().Mono
	if !p.core.Single() {
		age = now - max(confirmed, p.time.readBack.Sub(p.time.began))
	}
	p.staleness.Answered(p.time.at(now), call.Command, replica.ByOwner, age)
}
