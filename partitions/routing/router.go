package routing

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/tracing"
)

const (
	// maxHops bounds a chain of forwards, so that two commands that forward to each other end in an
	// error.
	maxHops = 32
	// maxAsync bounds the asynchronous effects under way; beyond it the caller waits for a place.
	maxAsync = 4096
	// effectTimeout bounds one asynchronous effect.
	effectTimeout = time.Minute
)

// Functions is what a router needs of the hosted user functions.
type Functions interface {
	// Act runs a unary action.
	Act(ctx context.Context, inv entities.Invocation) (*entities.Outcome, error)
	// ActStream runs a streamed action. on gets every outcome in order, one at a time; its error
	// ends the call.
	ActStream(ctx context.Context, s *entities.Stream, on func(context.Context, *entities.Outcome) error) error
	// Resolve turns the target of a forward or an effect into a command.
	Resolve(t entities.Target) (*entities.Command, error)
}

// Partitions is the partitions of this worker, by number. Errors are *entities.Error.
type Partitions interface {
	// Submit runs a command on its entity and returns the decision, after it is durable. Errors
	// concern this attempt only.
	Submit(ctx context.Context, partition int32, cmd *entities.Command) (entities.Committed, error)
	// Conclude keeps the answer to a command's forward with the command's id, or with its source, and
	// returns what its caller gets once that is in the log: outcome, or what is kept already. forward
	// is the offset of the forward's record. A nil outcome asks for what is kept: the result has none
	// if nothing is.
	Conclude(
		ctx context.Context, partition int32, cmd *entities.Command, forward int64, outcome *entities.Outcome,
	) (entities.Committed, error)
	// Delivered reports to the outbox of the source's partition the result of an effect that the
	// router sent itself.
	Delivered(source entities.Source, reply *entities.Reply, err error)
	// Unheld leaves the effects from one offset up to (not including) another to the outbox: their
	// caller will not send them.
	Unheld(partition int32, from, until int64)
	// Position returns the offset after everything that is committed, as of some moment after the
	// call. It is as strong as a read.
	Position(ctx context.Context, partition int32) (int64, error)
	// Read answers a relaxed command from the image of a followed partition. served is false if that
	// is not possible: there is no image, the image does not have what the command asks for, or the
	// command wants to write.
	Read(ctx context.Context, partition int32, cmd *entities.Command) (read entities.Committed, served bool, err error)
}

// Router takes commands to where they are decided, and carries out what the decision asks for: side
// effects and forwards, after commit. Safe for concurrent use.
type Router struct {
	sender     *sender
	partitions Partitions
	functions  Functions
	// flights are the forwards and effects on their way to their targets.
	flights flights
	// async are the goroutines of asynchronous effects; Wait waits for them.
	async sync.WaitGroup
	slots chan struct{}
	// onEffectError is called for an asynchronous effect that did not succeed; it may be nil.
	onEffectError func(target entities.Target, err error)
}

// NewRouter returns a router over the partitions of the worker with this name and, if o.Peers is
// not nil, those of other workers. It does not call partitions before the first command.
// onEffectError is called for a side effect of an action that did not succeed and that no caller
// waits for; it may be nil.
func NewRouter(
	o Options, worker string, partitions Partitions, functions Functions, onEffectError func(entities.Target, error),
) *Router {
	r := &Router{
		sender: newSender(o), partitions: partitions, functions: functions,
		slots: make(chan struct{}, maxAsync), onEffectError: onEffectError,
	}
	r.sender.worker, r.sender.here = worker, r.onPartition
	return r
}

// Counts returns how commands reached their owners.
func (r *Router) Counts() Counts { return r.sender.counts() }

// Wait waits for the asynchronous effects that are under way, and for what Background runs.
func (r *Router) Wait() { r.async.Wait() }

// Background runs f on a goroutine. Wait waits for it, so f must end soon.
func (r *Router) Background(f func()) { r.async.Go(f) }

// Dispatch runs one command and returns the caller's answer. Errors are *entities.Error; their
// outcome is that of the command, including earlier attempts under its id.
func (r *Router) Dispatch(ctx context.Context, cmd *entities.Command) (*entities.Reply, error) {
	reply, err := r.dispatch(ctx, cmd, 0)
	return reply, forCaller(cmd, err)
}

func (r *Router) dispatch(ctx context.Context, cmd *entities.Command, hops int) (*entities.Reply, error) {
	if err := r.sender.accepts(cmd); err != nil {
		return nil, err
	}
	if cmd.Type == nil {
		return r.act(ctx, cmd, hops)
	}
	if cmd.Consistency.Relaxed() {
		if reply, served, err := r.read(ctx, r.sender.partition(cmd), cmd); served {
			return reply, err
		}
	}
	return r.sender.toOwner(ctx, cmd, hops)
}

// DispatchHere runs a command that another worker has sent because this one owns its partition. It
// is not sent on from here; what it causes may be. hops is the length of the chain of commands that
// led to it. Errors concern this attempt only.
func (r *Router) DispatchHere(ctx context.Context, cmd *entities.Command, hops int) (*entities.Reply, error) {
	layout := &r.sender.Layout
	if s := cmd.Source; s != nil && (s.Generation != layout.Generation || !layout.Has(int32(s.Partition))) {
		return nil, entities.Errorf(entities.InvalidCommand, entities.NotApplied,
			"the effect comes from partition %d of generation %d, and the journal is of %s", s.Partition, s.Generation, layout)
	}
	if err := r.sender.accepts(cmd); err != nil {
		return nil, err
	}
	if cmd.Type == nil {
		return r.act(ctx, cmd, hops)
	}
	partition := r.sender.partition(cmd)
	if cmd.Consistency.Relaxed() {
		if reply, served, err := r.read(ctx, partition, cmd); served {
			return reply, err
		}
	}
	reply, _, err := r.onPartition(ctx, partition, cmd, hops)
	return reply, err
}

// onPartition runs a command on a partition of this worker, and carries out what it asks for.
// decided: the command has its outcome, and an error concerns what it asked for.
func (r *Router) onPartition(
	ctx context.Context, partition int32, cmd *entities.Command, hops int,
) (_ *entities.Reply, decided bool, _ error) {
	done, err := r.partitions.Submit(ctx, partition, cmd)
	if err != nil {
		return nil, false, err
	}
	d := &decision{cmd: cmd, outcome: done.Outcome, recorded: true, partition: partition, done: done}
	reply, err := r.carryOut(ctx, d, hops)
	if err != nil {
		return nil, !errors.Is(err, errUnconcluded), err
	}
	if reply.Token == "" {
		reply.Token = r.token(partition, done.Next)
	}
	return reply, true, nil
}

// read answers a relaxed command from the image on this worker, if it can.
func (r *Router) read(
	ctx context.Context, partition int32, cmd *entities.Command,
) (_ *entities.Reply, served bool, _ error) {
	read, served, err := r.partitions.Read(ctx, partition, cmd)
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

// token returns the token for the place of an answer in the log.
func (r *Router) token(partition int32, next int64) string {
	t := entities.Token{
		App: r.sender.Layout.App, Generation: uint32(r.sender.Layout.Generation),
		Positions: []entities.Position{{Partition: partition, Next: next}},
	}
	return t.Encode()
}

// Position returns how far a partition is that this worker owns: the offset after everything that
// is committed.
func (r *Router) Position(ctx context.Context, partition int32) (int64, error) {
	if layout := &r.sender.Layout; !layout.Has(partition) {
		return 0, entities.Errorf(entities.InvalidCommand, entities.NotApplied,
			"there is no partition %d: the journal has %d", partition, layout.Partitions)
	}
	return r.partitions.Position(ctx, partition)
}

// OwnerPosition returns a function that asks the owner of a partition for its Position; nil if
// there is no other worker to ask.
func (r *Router) OwnerPosition(partition int32) func(context.Context) (int64, error) {
	owner, owned := r.sender.Table.Current().Owner(partition)
	if !owned || r.sender.Peers == nil {
		return nil
	}
	return func(ctx context.Context) (int64, error) {
		return r.sender.Peers.Position(ctx, owner.Address, partition)
	}
}

// Run runs the command of a timer on its partition. Errors concern this attempt only.
func (r *Router) Run(ctx context.Context, cmd *entities.Command) error {
	_, err := r.dispatch(ctx, cmd, 0)
	return err
}

// Send takes an effect from an outbox to its target. A caller that sends the same one in the
// meantime gets the same answer.
func (r *Router) Send(ctx context.Context, source entities.Source, t entities.Target) (*entities.Reply, error) {
	return r.flights.share(ctx, source, func(bool) (*entities.Reply, error) { return r.toTarget(ctx, t, &source, 0) })
}

// toTarget runs the target of a forward or an effect. source is the record that asks for it, or
// nil.
func (r *Router) toTarget(
	ctx context.Context, t entities.Target, source *entities.Source, hops int,
) (*entities.Reply, error) {
	if hops >= maxHops {
		return nil, entities.Errorf(entities.FunctionFailed, entities.Unknown,
			"more than %d commands in one chain of forwards and effects, the last to %s/%s: is it a loop?",
			maxHops, t.Service, t.Method)
	}
	cmd, err := r.functions.Resolve(t)
	if err != nil {
		return nil, entities.AsError(err)
	}
	cmd.Source = source
	reply, err := r.dispatch(ctx, cmd, hops+1)
	// Checked concerns the target's command, and not the one that asks for it.
	if e := entities.AsError(err); e != nil && e.Checked {
		unchecked := *e
		unchecked.Checked = false
		return nil, &unchecked
	}
	return reply, err
}

// act runs a unary action, and carries out what it asks for.
func (r *Router) act(ctx context.Context, cmd *entities.Command, hops int) (*entities.Reply, error) {
	run, span := r.sender.Tracer.Begin(ctx, tracing.Client, "function", cmd.TraceParent)
	inv := entities.Invocation{Command: cmd.WithTraceParent(span.Parent()), Time: r.sender.Clock.Now()}
	outcome, err := r.functions.Act(run, inv)
	span.End(err)
	d := &decision{outcome: outcome, source: cmd.Source}
	var reply *entities.Reply
	if err == nil {
		reply, err = r.carryOut(ctx, d, hops)
	}
	if err != nil {
		return nil, actionFailed(err, d.caused)
	}
	return reply, nil
}

// DispatchStream runs a streamed call of an action: the effects and the forward of each outcome are
// carried out before the next outcome is handled.
func (r *Router) DispatchStream(ctx context.Context, s *entities.Stream) error {
	if err := supported(s.Command); err != nil {
		return err
	}
	s.Time = r.sender.Clock.Now()
	ctx, span := r.sender.Tracer.Begin(ctx, tracing.Client, "function", s.TraceParent)
	s.Command = s.Command.WithTraceParent(span.Parent())
	caused := false
	err := r.functions.ActStream(ctx, s, func(ctx context.Context, outcome *entities.Outcome) error {
		d := &decision{outcome: outcome, caused: caused}
		reply, err := r.carryOut(ctx, d, 0)
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
