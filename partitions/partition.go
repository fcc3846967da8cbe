package partitions

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/failpoint"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/internal/plural"
	"github.com/millrace-io/millrace/internal/tracing"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/core"
	"github.com/millrace-io/millrace/partitions/repair"
	"github.com/millrace-io/millrace/partitions/replica"
	"github.com/millrace-io/millrace/partitions/routing"
)

// Hooks observe a partition. They run on its loop and must not block. Nil ones are skipped.
type Hooks struct {
	// StateChanged reports a step; why is empty on the way up.
	StateChanged func(partition int32, from, to core.State, why string)
	// Alarm reports something that an operator should look at.
	Alarm func(partition int32, what string)
	// Progress reports a catch-up.
	Progress func(materializer.Progress)
	// RoleChanged is called when the role of a Replica has changed; it must not block.
	RoleChanged func()
	// WatchFailed reports that the group did not answer who owns which partition.
	WatchFailed func(error)
}

func (h *Hooks) watchFailed(err error) {
	if h.WatchFailed != nil {
		h.WatchFailed(err)
	}
}

// shared is what the partitions of a worker share.
type shared struct {
	functions Functions
	// types lists the entity types that the function serves.
	types  func() []string
	limits Limits
	hooks  Hooks
	clock  clock.Clock
	random func() uint64
	tracer *tracing.Tracer
	// router takes effects to their targets and the commands of timers to their entities, and knows
	// the owner of a followed partition.
	router *routing.Router
	// refused has room for one request to the manager to check the topic's settings.
	refused chan struct{}
	// staleness holds the measured ages of relaxed reads.
	staleness replica.Ages
}

// Partition is one partition of the journal on this worker: core and fold, driven by a loop that it
// shares with others.
type Partition struct {
	*shared

	id    int32
	image *materializer.Image

	core *core.Core
	fold *materializer.Fold
	// tap publishes what the fold folds, while this worker owns the partition; nil: it does not.
	tap       *materializer.Tap
	replica   *replica.Replica
	inspector *repair.Inspector
	repair    *repair.Repair
	tasks     tasks
	loop      *loop

	released []func()
	// awaited are called when nothing is under way.
	awaited []func(atOnce bool)

	turn turn

	waiting atomic.Int64
	status  atomic.Pointer[published]
	stats   stats
	time    coreTime
	expiry  expiry
	// last is the last failure.
	last failure
}

// turn is the progress of the loop with a partition in one turn.
type turn struct {
	// touched: something happened to the partition.
	touched bool
	// Of the core's effects, those before committed are in the store, if they belong there; those
	// before performed are performed.
	committed, performed int
}

// failure is something that failed.
type failure struct {
	what string
	when time.Time
}

// post adds an input to the partition's loop. It returns false if the loop has ended.
func (p *Partition) post(in input) bool {
	return p.loop.post(message{p, in})
}

// submit is post for a caller, which may drive the turn itself.
func (p *Partition) submit(in input) bool {
	return p.loop.submit(message{p, in})
}

// advance sets the core's time. After a suspension, the log's end and time are as old as the
// suspension.
func (p *Partition) advance() {
	p.core.SetNow(p.time.now())
	if by := p.time.jump(); by != 0 {
		p.replica.Suspended()
		if p.core.ClockJumped(by) {
			p.alarm(p.core.LastFence())
		}
	}
}

// do performs an effect.
func (p *Partition) do(ctx context.Context, e core.Emitted) {
	switch do := e.Do.(type) {
	case core.CatchUp:
		p.tasks.read(ctx, func(ctx context.Context) { p.catchUp(ctx, e.Incarnation, do.HandedOver) })
	case core.AppendClaim:
		p.append(do.Batch, inClaimAcked{do.Batch})
	case core.FoldClaim:
		timed, end := context.WithTimeout(ctx, p.limits.AckTimeout) // an old leader may show an old end for a while
		p.tasks.read(timed, func(ctx context.Context) { p.readBack(ctx, e.Incarnation, do.Offset); end() })
	case core.Follow:
		p.tasks.read(ctx, func(ctx context.Context) {
			p.replica.Follow(ctx, func(err error) { p.post(inFollowFailed{fail: err}) })
		})
	case core.Rest:
		p.tasks.stopReading()
	case core.Pause:
		p.pause(ctx, e.Incarnation, do.Attempt)
	case core.Invoke:
		p.prompt(ctx, do.Call)
	case core.Open:
		p.reopen(do.Entity, do.Ending, e.Incarnation)
	case core.Close:
		p.tasks.start(func() { p.closeSession(do.Session) })
	case core.Passivate:
		p.stats.passivated.Add(1)
		p.tasks.start(func() {
			p.closeSession(do.Session)
			p.post(inPassivated{entity: do.Entity, incarnation: e.Incarnation})
		})
	case core.Append:
		p.append(do.Batch, inAcked{do.Batch})
	case core.Commit, core.Skip: // commit has applied it
	case core.Answer:
		p.complete(do.Call, p.core.Confirmed())
	case core.ReadGap:
		p.alarm("records of another writer stand where own ones were expected")
		p.tasks.start(func() { p.readGap(ctx, e.Incarnation, do.From, do.Until) })
	case core.Send:
		p.deliver(ctx, do.Delivery, do.Progress)
	case core.LoadOutbox:
		p.loadOutbox(do.From, do.Limit, p.core.OutboxLoaded)
	case core.SweepOutbox:
		p.loadOutbox(do.From, do.Limit, p.core.OutboxSwept)
	case core.LoadOpen:
		p.loadOpen(do.From, do.Limit)
	case core.LoadRefusals:
		p.loadRefusals()
	case core.DropRefusals:
		p.stats.refusalsDropped.Add(uint64(do.Count)) //nolint:gosec // positive
		p.alarm(fmt.Sprintf("more than %d refused effects are kept: the oldest ones, %d, were dropped; look at `millrace parked --refused`, use sdk.OnRefused or sdk.IgnoreRefusal", core.MaxRefusals, do.Count))
	case core.LoadTimers:
		p.loadTimers(do.After, do.Limit, p.core.TimersLoaded)
	case core.SearchTimers:
		p.loadTimers(do.After, do.Limit, func(due []materializer.Due, more bool) {
			p.core.TimersFound(do.After.Key.Type, due, more)
		})
	case core.Fire:
		p.fire(ctx, do.Timer, e.Incarnation)
	case core.Sweep:
		if err := materializer.Sweep(p.image.Store, p.image.Address, do.Due); err != nil {
			p.failed(err)
		}
	case core.MarkHalted:
		if err := p.repair.Mark(do.Next, do.Why); err != nil {
			p.alarm("the halt of the partition could not be stored: " + err.Error())
		}
	case core.Survey:
		p.tasks.read(ctx, func(ctx context.Context) { p.surveyed(ctx, e.Incarnation, do.Choice) })
	case core.Restore:
		p.tasks.read(ctx, func(ctx context.Context) { p.restored(ctx, e.Incarnation, do.Repair.Choice, do.Until) })
	case core.StartOver:
		p.repaired(p.repair.StartOver(do.Survey.Start))
	case core.Resume:
		p.repaired(p.repair.Resume())
	case core.ReportResolved:
		p.show() // the operator reads the totals next
		do.Done(do.Logged)
	case core.ReportRepaired:
		p.show() // the operator reads the status next
		do.Done(do.Repair)
	case core.ReportReleased:
		for _, done := range p.released {
			if done != nil {
				done()
			}
		}
		p.released = nil
	}
}

// repaired reports to the core that the store is as a repair wants it or, with err, that it is not.
func (p *Partition) repaired(err error) {
	if err == nil {
		p.inspector.Forget()
	}
	p.core.StartedOver(err)
}

// complete ends a call: it wakes the caller. confirmed is when the append for which the answer
// waited was sent to the log.
func (p *Partition) complete(call *core.Call, confirmed time.Duration) {
	if call.Err != nil {
		p.stats.failed.Add(1)
	}
	switch wait := waiterOf(call); wait.step(core.Phase.Answered) {
	case core.PhaseLeft:
		p.unheld(call)
	case core.PhaseAnswered:
	default:
		p.measure(call, confirmed)
		wait.wake <- struct{}{}
	}
}

// append encodes a batch and passes it to the log.
func (p *Partition) append(b *core.Batch, reply input) {
	records := b.Encode()
	p.stats.batches.Add(1)
	failpoint.Hit(failpoint.BeforeSend)
	p.image.Log.Append(p.image.Journal, records, func(r broker.AppendResult) {
		if r.Err != nil && !mutation.On(mutation.Recheck) {
			select {
			case p.refused <- struct{}{}:
			default: // a check is due already
			}
		}
		b.Result = r
		p.post(reply)
	})
	failpoint.Hit(failpoint.AfterSend)
}

// committed completes the calls of the batches among the fresh effects, after the store took them
// or, with err, did not.
func (p *Partition) committed(err error) {
	fresh := p.core.Effects()[p.turn.committed:]
	p.turn.committed = len(p.core.Effects())
	applied := false
	for i := range fresh {
		if do, is := fresh[i].Do.(core.Commit); is {
			p.completeBatch(do.Batch, err)
			applied = true
		}
	}
	if applied {
		p.published(err)
	}
	if applied && err != nil {
		p.failed(err)
		p.core.ApplyFailed(err)
	}
	p.endFeed()
}

// completeBatch completes the calls of a batch that is in the store or, with err, is not.
func (p *Partition) completeBatch(b *core.Batch, err error) {
	if err != nil {
		for _, call := range b.Calls {
			call.Outcome, call.Err = nil, entities.OutcomeLost(p.id, err.Error())
			p.complete(call, core.Never)
		}
		return
	}
	p.stats.records.Add(uint64(len(b.Entries)))
	for _, call := range b.Calls {
		p.complete(call, b.SentAt)
	}
	p.core.Recycle(b)
}

// jumps raises an alarm if the fold has read claims with absurd epochs; before is how many were
// known.
func (p *Partition) jumps(before uint64) {
	if n := p.fold.Counts().Jumped - before; n > 0 {
		p.alarm("void because of absurdly high epochs: " + plural.Of(n, "claim") + "; no worker makes such claims: check who may write to the topic")
	}
}

// skip folds records that change nothing, so that the store's position passes them.
func (p *Partition) skip(gap []materializer.GapRecord) {
	defer p.jumps(p.fold.Counts().Jumped)
	for i := range gap {
		if _, err := p.fold.Record(nil, &gap[i].Record); err != nil {
			p.failed(err)
		}
	}
}

// claimBackoff is the pause between attempts to own a partition.
var claimBackoff = backoff.Policy{First: 50 * time.Millisecond, Max: 5 * time.Second, Jitter: 0.5} //nolint:gochecknoglobals // a constant

// pause waits before the next attempt to own the partition; attempt counts from 1.
func (p *Partition) pause(ctx context.Context, incarnation uint64, attempt int) {
	over, stop := p.clock.After(claimBackoff.PauseBy(attempt, p.random()))
	p.tasks.start(func() {
		defer stop()
		select {
		case <-over:
			p.post(inWaited{incarnation: incarnation})
		case <-ctx.Done():
		}
	})
}

// expire frees the space of what is no longer needed, from time to time.
func (p *Partition) expire() {
	if p.core.State() != core.Active {
		return
	}
	n, err := p.expiry.run(p.image, p.clock.Now(), p.core.Now().Log, p.limits.DedupWindow)
	if err != nil {
		p.failed(err)
	}
	p.stats.expired.Add(uint64(n)) //nolint:gosec // a count
}

// attempted keeps why an effect or a timer did not succeed.
func (p *Partition) attempted(what string, offset int64, err *entities.Error) {
	if err != nil && err.Reason != entities.FunctionRefused {
		p.last = failure{fmt.Sprintf(what, offset, err.Message), p.clock.Now()}
	}
}

func (p *Partition) failed(err error) {
	p.last = failure{err.Error(), p.clock.Now()}
}

func (p *Partition) alarm(what string) {
	p.stats.alarms.Add(1)
	p.last = failure{what, p.clock.Now()}
	if p.hooks.Alarm != nil {
		p.hooks.Alarm(p.id, what)
	}
}

// tellQuiet calls those that wait until nothing is under way.
func (p *Partition) tellQuiet() {
	if len(p.awaited) == 0 || !p.core.Quiet() {
		return
	}
	for _, tell := range p.awaited {
		tell(false)
	}
	p.awaited = nil
}
