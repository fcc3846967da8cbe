package partitions

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/internal/plural"
	"github.com/millrace-io/millrace/internal/tracing"
	"github.com/millrace-io/millrace/partitions/core"
)

// waiter is the state that the caller's goroutine, or the one that stands in for it, and the loop
// share.
type waiter struct {
	phase atomic.Int32
	// ctx is the caller's.
	ctx context.Context //nolint:containedctx // a call lives as long as its caller waits
	// watched: the caller wants a signal when the function, on another goroutine, has decided.
	watched bool
	// wake has room for two of the signals that a caller gets: its turn, the decision if it is
	// watched, and the answer.
	wake chan struct{}
	at   int64
	// opening, outcome and err are the result of the call's turn.
	opening *core.Opening
	outcome *entities.Outcome
	err     *entities.Error
	// behind are the commands to announce to the session, the call's own one first.
	behind []entities.Invocation
}

// waiterOf returns the waiter of a call.
func waiterOf(call *core.Call) *waiter { return call.Caller.(*waiter) } //nolint:errcheck,forcetypeassert // newCall makes all calls

// step moves the call to its next phase, and returns the previous one.
func (w *waiter) step(next func(core.Phase) core.Phase) (before core.Phase) {
	for {
		before = core.Phase(w.phase.Load())
		if after := next(before); after == before || w.phase.CompareAndSwap(int32(before), int32(after)) {
			return before
		}
	}
}

// set sets the phase of the call. Only one goroutine may change it at that moment.
func (w *waiter) set(p core.Phase) { w.phase.Store(int32(p)) }

// Alone implements Caller.
func (w *waiter) Alone() { w.step(core.Phase.Alone) }

// Accompanied implements Caller.
func (w *waiter) Accompanied() { w.step(core.Phase.Accompanied) }

// Decided implements Caller.
func (w *waiter) Decided() bool { return w.step(core.Phase.Decided) != core.PhaseLeft }

// run starts the turn of a call, unless its caller has left or is about to: a caller that sends the
// command again, after it has left, gets an answer that no earlier attempt belies. (gone)
func (w *waiter) run() bool {
	if !core.Phase(w.phase.Load()).HasFunction() && w.ctx.Err() != nil && !mutation.On(mutation.Gone) {
		return false
	}
	return w.step(core.Phase.Run).MayRun()
}

// Submit runs a command on its entity and returns the decision, after it is durable. If ctx ends
// before the function has the command, nothing is applied; if it ends later, the outcome is
// unknown. The function runs on the calling goroutine if ctx has no deadline, and on another one
// otherwise (leave.go). Errors are *entities.Error, and concern this attempt only.
func (p *Partition) Submit(ctx context.Context, cmd *entities.Command) (entities.Committed, error) {
	ctx, span := p.tracer.Begin(ctx, tracing.Internal, "partition", cmd.TraceParent)
	if span == nil {
		return p.await(ctx, cmd)
	}
	span.SetInt("millrace.partition", int64(p.id))
	done, err := p.await(ctx, cmd.WithTraceParent(span.Parent()))
	span.End(err)
	return done, err
}

func newCall(ctx context.Context, cmd *entities.Command) *core.Call {
	c := &struct {
		core.Call
		waiter
	}{} // one allocation
	c.wake, c.ctx = make(chan struct{}, 2), ctx
	c.Call.Begin(cmd, &c.waiter)
	if c.Named() {
		c.set(core.PhaseUnchecked)
	}
	return &c.Call
}

// await is Submit within its span, with child spans for the queue, the function, and the log.
func (p *Partition) await(ctx context.Context, cmd *entities.Command) (_ entities.Committed, err error) {
	_, part := p.tracer.Begin(ctx, tracing.Internal, "queue", cmd.TraceParent)
	if part != nil {
		defer func() { part.End(err) }()
	}
	if p.waiting.Add(1) > int64(p.limits.MaxWaiting) {
		p.waiting.Add(-1)
		return entities.Committed{}, errPartitionBusy(p.id, p.limits.MaxWaiting)
	}
	standIn := false
	defer func() {
		if !standIn {
			p.waiting.Add(-1)
		}
	}()
	call := newCall(ctx, cmd)
	if !p.submit(inSubmitted{call}) {
		return entities.Committed{}, entities.PartitionMoved(p.id, "the worker is stopping")
	}
	wait, done := waiterOf(call), ctx.Done()
	for {
		select {
		case <-wait.wake:
			switch core.Phase(wait.phase.Load()) {
			case core.PhaseAnswered:
				if wait.watched && part == nil { // the answer came as soon as the decision
					_, part = p.tracer.Begin(ctx, tracing.Internal, "log", cmd.TraceParent)
				}
				return call.Committed()
			case core.PhaseRunning:
				part.End(nil)
				if _, mayLeave := ctx.Deadline(); mayLeave {
					part, wait.watched = nil, p.traced(call)
					p.loop.runners.Run(&invoked{partition: p, ctx: ctx, call: call})
					continue
				}
				p.invoke(ctx, call)
			default: // the function has decided elsewhere
			}
			_, part = p.tracer.Begin(ctx, tracing.Internal, "log", cmd.TraceParent)
		case <-done:
			switch was := wait.step(core.Phase.Leave); was {
			case core.PhaseAnswered: // its signal comes, or is there
				done = nil
			case core.PhaseRunning:
				standIn = true
				go p.standIn(ctx, call) // ends with the answer; the loop answers every call
				return entities.Committed{}, errLeft(ctx, call, was)
			default:
				return entities.Committed{}, p.withdraw(ctx, call, was)
			}
		}
	}
}

// Position returns the offset after everything that is committed, as of some moment after the call.
// It is as strong as a read: a former owner that does not know that it is one gives no answer.
func (p *Partition) Position(ctx context.Context) (int64, error) {
	call := newCall(ctx, &entities.Command{})
	if !p.post(inPosition{call}) {
		return 0, entities.PartitionMoved(p.id, "the worker is stopping")
	}
	select {
	case <-waiterOf(call).wake:
		if call.Err != nil {
			return 0, call.Err
		}
		return call.Next, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx) // the loop finds room for its signal later
	}
}

// withdraw gives a call up that its caller has left in the phase was, and returns the caller's
// error.
func (p *Partition) withdraw(ctx context.Context, call *core.Call, was core.Phase) error {
	err := errLeft(ctx, call, was)
	if err.Outcome == entities.NotApplied {
		p.post(inWithdrawn{call})
		// Otherwise there may be another owner, which this one learns from the log.
		err.Checked = was == core.PhaseQueued && call.Named() && p.core.Single()
	}
	return err
}

// errLeft is the error of a caller whose context ended in the phase was of its call.
func errLeft(ctx context.Context, call *core.Call, was core.Phase) *entities.Error {
	reason := endedBy(ctx)
	switch {
	case was == core.PhaseDecided:
		return entities.Errorf(reason, entities.Unknown,
			"the call ended while the log had not answered: it is not known whether the command on %s took effect; send it again under the same command id", call.Command.Key)
	case was == core.PhaseRunning && !mutation.On(mutation.Midway):
		return entities.Errorf(reason, entities.Unknown,
			"the call ended while the function had the command on %s: it may still be decided and take effect; send it again under the same command id", call.Command.Key)
	default:
		return entities.Errorf(
			reason, entities.NotApplied, "the call ended before %s had its turn: nothing was applied", call.Command.Key,
		)
	}
}

// endedBy returns why a caller's context has ended.
func endedBy(ctx context.Context) entities.Reason {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return entities.Deadline
	}
	return entities.Cancelled
}

// invoke lets the function decide. The end of the caller's context is told to the function, which
// may give the command up; it does not end the session, in whose memory others wait behind this
// call.
func (p *Partition) invoke(ctx context.Context, call *core.Call) {
	wait := waiterOf(call)
	session := call.Session()
	switch {
	case session == nil:
		// The next caller finds the session open, if this one leaves.
		wait.opening, wait.err = p.openSession(context.WithoutCancel(ctx), call.Command.Type.Service, call.Command.Key)
		if wait.err == nil {
			session = wait.opening.Session
		}
	case ended(session):
		if wait.step(core.Phase.Requeued) == core.PhaseForsaken { // the loop decides what is known
			wait.wake <- struct{}{}
		}
		if !p.submit(inSessionEnded{call}) {
			p.abandoned(call, session)
		}
		return
	}
	if wait.behind != nil {
		session.(entities.Ahead).Announce(wait.behind) //nolint:errcheck,forcetypeassert // only such sessions have commands behind
		wait.behind = nil
	}
	if wait.err == nil {
		outcome, err := p.handle(ctx, session, call.Command, time.Unix(0, wait.at))
		wait.outcome = outcome
		if err != nil {
			wait.err = entities.AsError(err)
		}
	}
	wait.set(core.PhaseDecided)
	if wait.watched {
		wait.wake <- struct{}{}
	}
	if !p.submit(inDecided{call}) {
		p.abandoned(call, session)
	}
}

// handle runs the command on the function.
func (p *Partition) handle(
	ctx context.Context, session entities.Session, cmd *entities.Command, at time.Time,
) (*entities.Outcome, error) {
	ctx, span := p.tracer.Begin(ctx, tracing.Client, "function", cmd.TraceParent)
	deadline, _ := ctx.Deadline()
	outcome, err := session.Handle(ctx, entities.Invocation{
		Command: cmd.WithTraceParent(span.Parent()), Time: at, Deadline: deadline,
	})
	span.End(err)
	return outcome, err
}

// abandoned ends a call whose loop has ended.
func (p *Partition) abandoned(call *core.Call, session entities.Session) {
	if session != nil {
		ctx, cancel := context.WithTimeout(context.Background(), p.limits.ReleaseTimeout)
		defer cancel()
		session.Close(ctx)
	}
	call.Fail(entities.PartitionMoved(p.id, "the worker is stopping"))
	wait := waiterOf(call)
	wait.set(core.PhaseAnswered)
	wait.wake <- struct{}{}
}

func ended(s entities.Session) bool {
	select {
	case <-s.Ended():
		return true
	default:
		return false
	}
}

// openSession opens an entity's session from what is stored.
func (p *Partition) openSession(
	ctx context.Context, service string, key entities.Key,
) (*core.Opening, *entities.Error) {
	opening := &core.Opening{}
	view := p.image.View()
	session, err := p.functions.Open(ctx, service, key, func(context.Context) (entities.Loaded, error) {
		loaded, err := view.Load(key)
		opening.Loaded = loaded
		return loaded, err
	})
	if failure, ok := errors.AsType[*entities.Error](err); ok {
		return nil, failure
	}
	if err != nil { // the store failed: no command has run
		return nil, entities.Errorf(entities.Unavailable, entities.NotApplied, "load %s: %w: nothing was applied", key, err)
	}
	opening.Session = session
	p.stats.activated.Add(1)
	return opening, nil
}

func errPartitionBusy(partition int32, limit int) *entities.Error {
	return entities.Overload("the limit of %s that wait in partition %d is reached", plural.Of(limit, "command"),
		partition)
}
