package host

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// Local is a user function in this process. Its methods may be called from many goroutines. Panics
// are caught: they cost one entity its session, not the process.
type Local interface {
	// Spec is what a remote function would answer to discovery.
	Spec() *cloudstate.EntitySpec
	// OpenEntity returns an entity in its initial state.
	OpenEntity(service string, id string) (LocalEntity, error)
	// Act runs a unary action. An error that is an *entities.Error is the caller's answer; any
	// other one is a crash.
	Act(ctx context.Context, inv entities.Invocation) (*entities.Outcome, error)
	// ActStream runs a streamed action; on takes every outcome in order, one at a time, and its
	// error ends the call.
	ActStream(ctx context.Context, s *entities.Stream, on func(context.Context, *entities.Outcome) error) error
}

// LocalEntity is one live entity; calls never overlap. Any error is a crash: the entity is opened
// anew for the next command.
type LocalEntity interface {
	// Load sets the stored state: a value, or a snapshot and the sequence of the last event in it.
	// Nil: there is none.
	Load(state *entities.Payload, sequence uint64) error
	// Apply changes the state by a stored event. Its payload is valid only during the call.
	Apply(entities.Event) error
	// Handle decides about one command.
	Handle(ctx context.Context, inv entities.Invocation) (*entities.Outcome, error)
	// Size estimates the memory that the entity holds, in bytes.
	Size() int
}

// PanicError is the cause of an error that a panic in a function of this process became.
type PanicError struct {
	// Err says what happened.
	Err error
	// Stack is where.
	Stack []byte
}

// Error returns what happened, without the stack.
func (e *PanicError) Error() string { return e.Err.Error() }

// Unwrap returns what happened.
func (e *PanicError) Unwrap() error { return e.Err }

// Stack returns where a function of this process panicked; empty where err is not from a panic.
func Stack(err error) string {
	if p, ok := errors.AsType[*PanicError](err); ok {
		return string(p.Stack)
	}
	return ""
}

// InProcess hosts a Local.
type InProcess struct {
	local   Local
	options Options
	catalog *discovery.Catalog
	stats   counters
	// forsaken are the actions whose callers have left.
	forsaken forsaken
	// refusedBeside has the methods whose refusals carried what is dropped, and were reported.
	refusedBeside sync.Map
}

// NewInProcess hosts a function of this process. The error is a *discovery.RejectedError.
func NewInProcess(local Local, options Options, checks discovery.Options) (*InProcess, error) {
	catalog, err := discovery.NewCatalog(local.Spec(), checks)
	if err != nil {
		return nil, err
	}
	return &InProcess{local: local, options: options.withDefaults(), catalog: catalog}, nil
}

// Catalog returns what the function serves.
func (p *InProcess) Catalog() *discovery.Catalog { return p.catalog }

// Stats returns what happened so far.
func (p *InProcess) Stats() Stats { return p.stats.read() }

// Report reports a mistake in the function to the operator.
func (p *InProcess) Report(message string) {
	p.stats.warnings.Add(1)
	p.options.Hooks.OnWarning(message)
}

// warnOfRefusal reports that a refusal carried what is dropped, once for each method.
func (p *InProcess) warnOfRefusal(m *discovery.Method) {
	if _, before := p.refusedBeside.LoadOrStore(m, true); !before {
		p.Report(refusedBeside(m))
	}
}

// Open begins the session of one entity: a fresh one, with its stored state and events applied.
func (p *InProcess) Open(ctx context.Context, service *discovery.Service, key entities.Key,
	load entities.Loader,
) (entities.Session, error) {
	loaded, err := load(ctx)
	if err != nil {
		return nil, err
	}
	s := &localSession{host: p, service: service, key: key}
	crash := guard(func() error { return s.open(loaded) })
	if crash != nil {
		fault := functionFailed(kinds[service.Kind].texts().failure, fmt.Errorf("open %s: %w", key, crash))
		p.options.Hooks.OnSessionFault(key, fault)
		return nil, fault
	}
	if s.loadErr != nil {
		return nil, s.loadErr
	}
	p.stats.sessionsOpen.Add(1)
	p.stats.sessionsOpened.Add(1)
	return s, nil
}

// Act runs a unary action: on the caller's goroutine, or on one of its own if the caller may leave
// before its deadline.
func (p *InProcess) Act(ctx context.Context, m *discovery.Method, inv entities.Invocation) (*entities.Outcome, error) {
	p.stats.actions.Add(1)
	out, err := p.act(ctx, m, inv)
	if err == nil {
		keepEffects(out)
	}
	p.stats.decided(out, err)
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (p *InProcess) act(ctx context.Context, m *discovery.Method, inv entities.Invocation) (*entities.Outcome, error) {
	if _, mayLeave := ctx.Deadline(); !mayLeave {
		return p.actNow(ctx, m, inv)
	}
	if refusal := p.forsaken.full(m.FullName); refusal != nil {
		return nil, refusal
	}
	type decided struct {
		out *entities.Outcome
		err error
	}
	d, stayed := attend(ctx, &p.forsaken, func() (d decided) {
		d.out, d.err = p.actNow(ctx, m, inv)
		return d
	})
	if !stayed {
		return nil, errActionLeft(ctx)
	}
	return d.out, d.err
}

func (p *InProcess) actNow(
	ctx context.Context, m *discovery.Method, inv entities.Invocation,
) (out *entities.Outcome, err error) {
	err = guard(func() (err error) {
		out, err = p.local.Act(ctx, inv)
		return err
	})
	return out, p.actionCrash(ctx, m, err)
}

// ActStream runs a streamed action: on the caller's goroutine, or on one of its own if the caller
// may leave before its deadline.
func (p *InProcess) ActStream(ctx context.Context, m *discovery.Method, s *entities.Stream, on OutcomeFunc) error {
	p.stats.actions.Add(1)
	err := p.actStream(ctx, m, s, on)
	if _, ended := errors.AsType[delivered](err); ended {
		return errors.Unwrap(err)
	}
	if err != nil {
		p.stats.failures.Add(1)
	}
	return err
}

// delivered is an error by which the caller's side ended a stream, or the outcome that did.
type delivered struct{ error }

// Unwrap returns the error itself.
func (d delivered) Unwrap() error { return d.error }

func (p *InProcess) actStream(ctx context.Context, m *discovery.Method, s *entities.Stream, on OutcomeFunc) error {
	if _, mayLeave := ctx.Deadline(); !mayLeave {
		return p.actStreamNow(ctx, m, s, on)
	}
	if refusal := p.forsaken.full(m.FullName); refusal != nil {
		return refusal
	}
	var open gate
	err, stayed := attend(ctx, &p.forsaken, func() error {
		return p.actStreamNow(ctx, m, s, func(ctx context.Context, out *entities.Outcome) error {
			return open.pass(ctx, func() error { return on(ctx, out) })
		})
	})
	if !stayed {
		open.close()
		return errActionLeft(ctx)
	}
	return err
}

func (p *InProcess) actStreamNow(ctx context.Context, m *discovery.Method, s *entities.Stream, on OutcomeFunc) error {
	var ended error
	deliver := func(ctx context.Context, out *entities.Outcome) error {
		keepEffects(out)
		p.stats.decided(out, nil)
		if ended = on(ctx, out); ended == nil && out.Failure != nil {
			ended = out.Failure
		}
		return ended
	}
	err := guard(func() error { return p.local.ActStream(ctx, s, deliver) })
	if ended != nil {
		return delivered{ended}
	}
	return p.actionCrash(ctx, m, err)
}

// actionCrash lets an *entities.Error of an action pass, and the error of its context; any other
// one makes a failed function, which it reports. What the action did before is its own; so the
// outcome is unknown.
func (p *InProcess) actionCrash(ctx context.Context, m *discovery.Method, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*entities.Error](err); ok {
		return e
	}
	if gaveUp(ctx, err) {
		return errActionLeft(ctx)
	}
	crash := &entities.Error{
		Reason:    entities.FunctionFailed,
		Outcome:   entities.Unknown,
		Message:   m.FullName + ": the action crashed; its log has the reason",
		Reference: newReference(),
		Cause:     err,
	}
	p.options.Hooks.OnActionFault(m.FullName, crash)
	return crash
}

// guard makes an error of a panic.
func guard(run func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Err: fmt.Errorf("panic: %v", v), Stack: debug.Stack()}
		}
	}()
	return run()
}
