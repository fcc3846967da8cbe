package partitions

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/internal/tracing"
)

const (
	// maxHops bounds a chain of forwards, so that two commands that forward to each other end in an error.
	maxHops = 32
	// maxAsync bounds the asynchronous effects under way; beyond it the caller waits for a place.
	maxAsync = 4096
	// effectTimeout bounds one asynchronous effect.
	effectTimeout = time.Minute
)

// Local is the partitions of this worker, by number. Errors are *entities.Error.
type Local interface {
	// Submit runs a command on its entity and returns what was decided, after it is durable. Errors speak of this attempt.
	Submit(ctx context.Context, partition int32, cmd *entities.Command) (entities.Committed, error)
	// Conclude keeps what the forward of a command was answered with the command's id, or with its source, and returns what its caller is
	// told once that is in the log: outcome, or what is kept already. forward is the offset of the forward's record. A nil outcome asks
	// for what is kept: the result has none where nothing is.
	Conclude(ctx context.Context, partition int32, cmd *entities.Command, forward int64, outcome *entities.Outcome) (entities.Committed, error)
	// Delivered tells the outbox of the source's partition what came of an effect that the router sent itself.
	Delivered(source entities.Source, reply *entities.Reply, err error)
	// Unheld leaves the effects from one offset up to (not including) another, which their caller does not come to send, to the outbox.
	Unheld(partition int32, from, until int64)
	// Position returns the offset behind everything that is committed, as of some moment after the call.
	Position(ctx context.Context, partition int32) (int64, error)
	// Read answers a relaxed command from the image of a followed partition. served is false when that cannot be: there is no image, it
	// does not have what the command asks for, or the command wants to write.
	Read(ctx context.Context, partition int32, cmd *entities.Command) (read entities.Committed, served bool, err error)
}

// Router takes commands from the gateway to where they are decided, and carries out what the decision asks for: side
// effects and forwards, after commit.
type Router struct {
	local     Local
	functions Functions
	app       string
	carrier   *carrier
	// flights are the forwards and effects on their way to their targets.
	flights flights
	// async are the goroutines of asynchronous effects; Drain waits for them.
	async sync.WaitGroup
	slots chan struct{}
	// OnEffectError is told about an asynchronous effect that did not succeed. Nil: nobody.
	onEffectError func(target entities.Target, err error)
}

func newRouter(o *Options, partitions Local) *Router {
	return &Router{
		local: partitions, functions: o.Functions, app: o.App,
		carrier: newCarrier(o.Worker, o.Layout, o.Routes, o.Peers, o.Limits, o.Clock, o.Random, o.Tracer),
		slots:   make(chan struct{}, maxAsync), onEffectError: o.OnEffectError,
	}
}

// Counts say how commands reached their owners.
func (r *Router) Counts() CarrierCounts { return r.carrier.stats.counts() }

// Run runs the command of a timer. Errors speak of this attempt.
func (r *Router) Run(ctx context.Context, cmd *entities.Command) error {
	_, err := r.dispatch(ctx, cmd, 0)
	return err
}

// Send takes an effect out of an outbox to its target.
func (r *Router) Send(ctx context.Context, source entities.Source, t entities.Target) (*entities.Reply, error) {
	return r.flights.share(ctx, source, func(bool) (*entities.Reply, error) { return r.follow(ctx, t, &source, 0) })
}

// Drain waits for the asynchronous effects that are under way.
func (r *Router) Drain() { r.async.Wait() }

// Dispatch runs one command and returns the caller's answer. Errors are *entities.Error; their outcome is that of the command, whatever
// attempts at it there were before under its id.
func (r *Router) Dispatch(ctx context.Context, cmd *entities.Command) (*entities.Reply, error) {
	reply, err := r.dispatch(ctx, cmd, 0)
	return reply, told(cmd, err)
}

// DispatchHere runs a command that another worker has sent because this one owns its partition. It is not sent on from here;
// what it causes may be. hops is how long the chain of commands is that it comes from. Errors speak of this attempt.
func (r *Router) DispatchHere(ctx context.Context, cmd *entities.Command, hops int) (*entities.Reply, error) {
	layout := &r.carrier.layout
	if s := cmd.Source; s != nil && (s.Generation != layout.Generation || !layout.Has(int32(s.Partition))) {
		return nil, entities.Errorf(entities.InvalidCommand, entities.NotApplied,
			"the effect comes from partition %d of generation %d, and the journal is of %s", s.Partition, s.Generation, layout)
	}
	if err := r.carrier.accepts(cmd); err != nil {
		return nil, err
	}
	if cmd.Type == nil {
		return r.act(ctx, cmd, hops)
	}
	partition := r.carrier.partition(cmd)
	if cmd.Consistency.Relaxed() {
		if reply, served, err := r.read(ctx, partition, cmd); served {
			return reply, err
		}
	}
	reply, _, err := r.here(ctx, partition, cmd, hops)
	return reply, err
}

// Position says how far a partition is that this worker owns: the offset behind everything that is committed.
func (r *Router) Position(ctx context.Context, partition int32) (int64, error) {
	if layout := &r.carrier.layout; !layout.Has(partition) {
		return 0, entities.Errorf(entities.InvalidCommand, entities.NotApplied,
			"there is no partition %d: the journal has %d", partition, layout.Partitions)
	}
	return r.local.Position(ctx, partition)
}

// OwnerPosition returns what asks the owner of a partition how far it is; nil where no other worker is known to own it.
func (r *Router) OwnerPosition(partition int32) func(context.Context) (int64, error) {
	owner, owned := r.carrier.routes.Table().Owner(partition)
	if !owned || r.carrier.peers == nil {
		return nil
	}
	return func(ctx context.Context) (int64, error) {
		return r.carrier.peers.Position(ctx, owner.Address, partition)
	}
}

// Background runs something beside the caller; Drain waits for it, so that f must end soon.
func (r *Router) Background(f func()) { r.async.Go(f) }

func (r *Router) dispatch(ctx context.Context, cmd *entities.Command, hops int) (*entities.Reply, error) {
	if err := r.carrier.accepts(cmd); err != nil {
		return nil, err
	}
	if cmd.Type == nil {
		return r.act(ctx, cmd, hops)
	}
	if cmd.Consistency.Relaxed() {
		if reply, served, err := r.read(ctx, r.carrier.partition(cmd), cmd); served {
			return reply, err
		}
	}
	return r.carrier.carry(ctx, cmd, hops, func(partition int32, cmd *entities.Command) (*entities.Reply, bool, error) {
		return r.here(ctx, partition, cmd, hops)
	})
}

// read answers a relaxed command from the image on this worker, if it can.
func (r *Router) read(ctx context.Context, partition int32, cmd *entities.Command) (_ *entities.Reply, served bool, _ error) {
	read, served, err := r.local.Read(ctx, partition, cmd)
	if err != nil || !served {
		return nil, served, err
	}
	reply, err := replyOf(read.Outcome)
	if err != nil {
		return nil, true, err
	}
	reply.Token = r.token(partition, read.Next)
	return reply, true, nil
}

// act runs a unary action, and carries out what it asks for.
func (r *Router) act(ctx context.Context, cmd *entities.Command, hops int) (*entities.Reply, error) {
	run, span := r.carrier.tracer.Begin(ctx, tracing.Client, "function", cmd.TraceParent)
	outcome, err := r.functions.Act(run, entities.Invocation{Command: cmd.WithTraceParent(span.Parent()), Time: r.carrier.clock.Now()})
	span.End(err)
	d := &decision{outcome: outcome, source: cmd.Source}
	var reply *entities.Reply
	if err == nil {
		reply, err = r.conclude(ctx, d, hops)
	}
	if err != nil {
		return nil, actionFailed(err, d.caused)
	}
	return reply, nil
}

// actionFailed is what the caller of an action is told; caused: something that the action asked for took effect, or may have.
// Nobody looks for another worker because of what an action met on its way.
func actionFailed(err error, caused bool) *entities.Error {
	e := *entities.AsError(err)
	if e.Reason == entities.Moved {
		e.Reason = entities.Unavailable
	}
	if caused && (e.Outcome == entities.NotApplied || e.Outcome == entities.Refused) && !mutation.On(mutation.Caused) {
		e.Outcome, e.Cause = entities.Unknown, err
		e.Message = "the action took effect in part: " + e.Message
	}
	return &e
}

// here runs a command on its partition on this worker, and carries out what it asks for. decided: the command has its outcome,
// and an error is about what it asked for.
func (r *Router) here(ctx context.Context, partition int32, cmd *entities.Command, hops int) (_ *entities.Reply, decided bool, _ error) {
	done, err := r.local.Submit(ctx, partition, cmd)
	if err != nil {
		return nil, false, err
	}
	reply, err := r.conclude(ctx, &decision{cmd: cmd, outcome: done.Outcome, recorded: true, partition: partition, done: done}, hops)
	if err != nil {
		return nil, !errors.Is(err, errUnconcluded), err
	}
	if reply.Token == "" {
		reply.Token = r.token(partition, done.Next)
	}
	return reply, true, nil
}

// token says where in the log an answer stands.
func (r *Router) token(partition int32, next int64) string {
	t := entities.Token{App: r.app, Generation: uint32(r.carrier.layout.Generation), Positions: []entities.Position{{Partition: partition, Next: next}}}
	return t.Encode()
}

// decision is what a command led to, and where that stands.
type decision struct {
	outcome *entities.Outcome
	// recorded: the decision is in the log of a partition, with its effects and its forward. Then cmd, partition and done are set.
	recorded  bool
	cmd       *entities.Command
	partition int32
	done      entities.Committed
	// source is set for an action that was called because of a record: what it asks for takes effect once, too.
	source *entities.Source
	// caused: something that an action asked for took effect, or may have.
	caused bool
}

// conclude carries out what an outcome asks for beyond its own records: effects in order, then the forward or the reply.
func (r *Router) conclude(ctx context.Context, d *decision, hops int) (*entities.Reply, error) {
	if err := r.effects(ctx, d, hops); err != nil {
		r.leaveToOutbox(d)
		return nil, err
	}
	if d.outcome.Forward != nil && d.outcome.Failure == nil {
		return r.forward(ctx, d, hops)
	}
	return replyOf(d.outcome)
}

// replyOf is what the caller of a command without a forward is told.
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

// leaveToOutbox leaves what the caller does not come to send to the outbox.
func (r *Router) leaveToOutbox(d *decision) {
	if !d.recorded || d.done.FirstEffect < 0 {
		return
	}
	end := d.done.Forward
	if d.outcome.Forward != nil {
		end++
	}
	r.local.Unheld(d.partition, d.done.FirstEffect, end)
}

// follow runs the target of a forward or an effect. source is the record that asks for it, nil for none.
func (r *Router) follow(ctx context.Context, t entities.Target, source *entities.Source, hops int) (*entities.Reply, error) {
	if hops >= maxHops {
		return nil, entities.Errorf(entities.FunctionFailed, entities.Unknown,
			"more than %d commands in one chain of forwards and effects, the last to %s/%s: does it come back to itself?", maxHops, t.Service, t.Method)
	}
	cmd, err := r.functions.Resolve(t)
	if err != nil {
		return nil, entities.AsError(err)
	}
	cmd.Source = source
	reply, err := r.dispatch(ctx, cmd, hops+1)
	if e := entities.AsError(err); e != nil && e.Checked { // that is about the target's command, and not about the one that asks for it
		unchecked := *e
		unchecked.Checked = false
		return nil, &unchecked
	}
	return reply, err
}

// forward runs the target of a forward, whose answer is the caller's.
func (r *Router) forward(ctx context.Context, d *decision, hops int) (*entities.Reply, error) {
	source, err := r.child(d, d.done.Forward, len(d.outcome.Effects))
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
	reply, err := r.follow(ctx, *d.outcome.Forward, source, hops)
	d.caused = d.caused || mayHaveTaken(entities.AsError(err))
	return forTheAsker(reply), err
}

// forTheAsker is the reply of a target as the caller of the command that forwarded gets it: he did not call the target's owner.
func forTheAsker(reply *entities.Reply) *entities.Reply {
	if reply != nil {
		reply.Owner = ""
	}
	return reply
}

// bring brings a recorded forward to its target, and has the answer kept where the command is known by a name.
func (r *Router) bring(ctx context.Context, d *decision, source *entities.Source, hops int) (*entities.Reply, error) {
	if d.done.Repeated || (d.named() && d.done.Shared) { // the attempt before may have ended since the command was looked up
		if done, err := r.local.Conclude(ctx, d.partition, d.cmd, source.Offset, nil); err != nil || done.Outcome != nil {
			return d.kept(&done, err)
		}
	}
	reply, err := r.follow(ctx, *d.outcome.Forward, source, hops)
	reply = forTheAsker(reply)
	e := d.forCaller(err)
	if e != nil {
		err = e
	}
	if d.named() && (e.Definite() || d.retractable(e)) {
		return r.keep(ctx, d, source.Offset, &entities.Outcome{Reply: reply, Failure: e})
	}
	r.local.Delivered(*source, reply, err)
	if e != nil && e.Outcome == entities.NotApplied {
		return nil, d.notYet(e)
	}
	return reply, err
}

// joined is what the caller is told who has waited for an attempt of another at its forward. That may
// have been the outbox's, which says what the target said: what counts for the caller is kept first.
func (r *Router) joined(ctx context.Context, d *decision, forward int64, reply *entities.Reply, err error) (*entities.Reply, error) {
	e := d.forCaller(err)
	switch {
	case d.named() && e.Definite():
		return r.keep(ctx, d, forward, &entities.Outcome{Reply: forTheAsker(reply), Failure: e})
	case e == nil:
		return reply, nil
	case e.Outcome == entities.NotApplied && !e.Checked:
		return nil, d.notYet(e)
	default:
		return nil, e
	}
}

// named says whether what the command is told is kept: it has an id, or another record asks for it.
func (d *decision) named() bool { return d.cmd.ID != "" || d.cmd.Source != nil }

// forCaller is what the command's caller is told of a target's error.
func (d *decision) forCaller(err error) *entities.Error {
	return entities.AsError(err).ForForwarder(d.outcome.Wrote() || d.done.Wrote)
}

// retractable says whether a command may be taken back because of what its forward was answered: it stored nothing but the forward,
// and the target did not apply that. The outbox has the last word: it may have tried, too. Another attempt that has the same decision
// would bring the forward to its target all the same.
func (d *decision) retractable(e *entities.Error) bool {
	return e.Outcome == entities.NotApplied && !d.done.Repeated && !d.done.Shared && !d.outcome.Wrote()
}

// notYet is what the caller is told when the target did nothing yet: the forward is in the log, and the outbox will deliver it.
func (d *decision) notYet(e *entities.Error) error {
	return &entities.Error{
		Reason: e.Reason, Outcome: entities.Unknown, RetryAfter: e.RetryAfter, Cause: e,
		Message: fmt.Sprintf("the command took effect, its forward to %s/%s did not yet: %s", d.outcome.Forward.Service, d.outcome.Forward.Method, e.Message),
	}
}

// keep has the partition keep what a forward was answered, and returns what the caller is told.
func (r *Router) keep(ctx context.Context, d *decision, forward int64, outcome *entities.Outcome) (*entities.Reply, error) {
	done, err := r.local.Conclude(ctx, d.partition, d.cmd, forward, outcome)
	if err != nil && outcome.Failure != nil && outcome.Failure.Outcome == entities.NotApplied {
		return nil, d.notYet(outcome.Failure)
	}
	return d.kept(&done, err)
}

// kept is what the caller is told of what is kept.
func (d *decision) kept(done *entities.Committed, err error) (*entities.Reply, error) {
	switch {
	case err != nil:
		return nil, errNotKept(d.cmd.Key, err)
	case done.Outcome.Failure != nil && done.Outcome.Failure.Outcome == entities.NotApplied:
		// The command was taken back: the log says that its id is free, so this is true of the command and not only of this attempt.
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

// child is the address of the nth thing that a decision asks for: that of its record, or one that is made of the action's
// own; nil when it has none.
func (r *Router) child(d *decision, offset int64, n int) (*entities.Source, error) {
	switch {
	case d.recorded && offset >= 0:
		return &entities.Source{
			Generation: r.carrier.layout.Generation, Partition: uint16(d.partition), //nolint:gosec // at most 4096
			Offset: offset, Settled: d.done.Progress.Through, Open: d.done.Progress.Open,
		}, nil
	case d.source == nil:
		return nil, nil //nolint:nilnil // no address
	case n >= maxChildren-1 || d.source.Index > (1<<32-1)/maxChildren-1:
		return nil, entities.Errorf(entities.InvalidCommand, entities.NotApplied,
			"an action that was called by an effect asks for more than %d effects, or is too deep in a chain of such actions", maxChildren-1)
	default:
		s := *d.source
		s.Index = s.Index*maxChildren + uint32(n) + 1 //nolint:gosec // checked above
		return &s, nil
	}
}

// maxChildren bounds what an action may ask for when it was called by an effect; it makes the addresses of chains of four
// such actions fit.
const maxChildren = 256

// effects sends side effects in list order. A synchronous one is awaited; what it answers does not matter, but that it
// could not be carried out fails the caller. Others are left to the outbox, if they are in the log.
func (r *Router) effects(ctx context.Context, d *decision, hops int) error {
	if d.done.Repeated {
		return nil // they were recorded the first time
	}
	for i := range d.outcome.Effects {
		e := &d.outcome.Effects[i]
		if d.recorded && !e.Synchronous {
			continue
		}
		source, err := r.child(d, d.done.FirstEffect+int64(i), i)
		if err == nil && source == nil && !e.Synchronous {
			if err := r.later(ctx, e.Target, hops); err != nil {
				return err
			}
			d.caused = true
			continue
		}
		if err == nil {
			_, err = r.follow(ctx, e.Target, source, hops)
		}
		if d.recorded {
			r.local.Delivered(*source, nil, err)
		}
		d.caused = d.caused || mayHaveTaken(entities.AsError(err))
		if err := d.sideEffectFailed(e, err); err != nil {
			return err
		}
	}
	return nil
}

// mayHaveTaken says whether a command with this answer took effect, or may have.
func mayHaveTaken(e *entities.Error) bool {
	return e == nil || e.Outcome == entities.Unknown || e.Outcome == entities.Applied
}

// sideEffectFailed is what a caller is told whose side effect did not take effect. A command of an entity itself did.
func (d *decision) sideEffectFailed(e *entities.SideEffect, err error) error {
	if err == nil {
		return nil
	}
	failure := entities.AsError(err)
	if failure.Reason == entities.FunctionRefused {
		return nil
	}
	if !d.recorded {
		return &entities.Error{
			Reason: failure.Reason, Outcome: failure.Outcome, RetryAfter: failure.RetryAfter, Cause: err,
			Message: fmt.Sprintf("the side effect of an action on %s/%s failed: %s", e.Service, e.Method, failure.Message),
		}
	}
	return &entities.Error{
		Reason: failure.Reason, Outcome: entities.Unknown, RetryAfter: failure.RetryAfter, Cause: err,
		Message: fmt.Sprintf("the command took effect, its side effect on %s/%s did not yet: %s", e.Service, e.Method, failure.Message),
	}
}

// later starts an effect that nobody waits for. It outlives the caller.
func (r *Router) later(ctx context.Context, t entities.Target, hops int) error {
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return entities.Errorf(entities.Deadline, entities.NotApplied,
			"the call ended while %d side effects of actions waited before its own on %s/%s: that one was not sent", maxAsync, t.Service, t.Method)
	}
	ctx = context.WithoutCancel(ctx)
	r.async.Go(func() { // bounded by effectTimeout, Drain waits for it
		defer func() { <-r.slots }()
		ctx, cancel := context.WithTimeout(ctx, effectTimeout)
		defer cancel()
		if _, err := r.follow(ctx, t, nil, hops); err != nil && r.onEffectError != nil {
			r.onEffectError(t, err)
		}
	})
	return nil
}

// DispatchStream runs a streamed call of an action: each outcome's effects and forward are carried out before the next one
// is looked at.
func (r *Router) DispatchStream(ctx context.Context, s *entities.Stream) error {
	if err := supported(s.Command); err != nil {
		return err
	}
	s.Time = r.carrier.clock.Now()
	ctx, span := r.carrier.tracer.Begin(ctx, tracing.Client, "function", s.TraceParent)
	s.Command = s.Command.WithTraceParent(span.Parent())
	caused := false
	err := r.functions.ActStream(ctx, s, func(ctx context.Context, outcome *entities.Outcome) error {
		d := &decision{outcome: outcome, caused: caused}
		reply, err := r.conclude(ctx, d, 0)
		caused = d.caused
		if err != nil {
			return err
		}
		if reply.NoPayload {
			return nil
		}
		return s.Send(reply)
	})
	span.End(err)
	if err != nil {
		return actionFailed(err, caused)
	}
	return nil
}

// supported refuses kinds that this version announces and does not serve, and an id on an action.
func supported(cmd *entities.Command) error {
	if cmd.Type == nil && cmd.ID != "" {
		return entities.Errorf(entities.InvalidCommand, entities.NotApplied,
			"%s/%s is an action and came with command id %q: an action keeps nothing, so an id cannot make it happen once; leave the id out, or call the entity with it: nothing was applied",
			cmd.Service, cmd.Method, cmd.ID)
	}
	if cmd.Type != nil && !cmd.Type.Kind.Spec().Served() {
		return entities.Errorf(entities.NotSupported, entities.NotApplied, "%s: %s entities are not supported yet by this version", cmd.Service, cmd.Type.Kind)
	}
	return nil
}

// errUnconcluded marks an error of errNotKept.
var errUnconcluded = errors.New("the answer of a forward is not in the log")

// errNotKept: the command took effect, and so did its forward. Sent again under its id, it gets the answer.
func errNotKept(key entities.Key, why error) *entities.Error {
	return &entities.Error{
		Reason: entities.LostOutcome, Outcome: entities.Unknown, Cause: errUnconcluded,
		Message: fmt.Sprintf("the command on %s took effect, and what its forward was answered could not be kept (%s): send it again under the same command id", key, why),
	}
}
