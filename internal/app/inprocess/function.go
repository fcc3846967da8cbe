package inprocess

import (
	"context"
	"fmt"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/sdk"
)

// function adapts services of package sdk to host.Local.
type function struct {
	spec     *cloudstate.EntitySpec
	services map[string]*sdk.Service
}

// New checks the services and returns them as one function. The error lists all that is wrong with
// them.
func New(services ...*sdk.Service) (host.Local, error) {
	spec, err := sdk.EntitySpec(services...)
	if err != nil {
		return nil, err
	}
	f := &function{spec: spec, services: map[string]*sdk.Service{}}
	for _, s := range services {
		f.services[string(s.Spec().Service.FullName())] = s
	}
	return f, nil
}

// Spec returns the services' answer to discovery.
func (f *function) Spec() *cloudstate.EntitySpec { return f.spec }

// OpenEntity returns an entity in its initial state.
func (f *function) OpenEntity(service, id string) (host.LocalEntity, error) {
	s, known := f.services[service]
	if !known {
		return nil, fmt.Errorf("service %s is not part of this program", service)
	}
	e, err := s.NewEntity(id)
	if err != nil {
		return nil, crashed(err)
	}
	return localEntity{e}, nil
}

// Act runs a unary action.
func (f *function) Act(ctx context.Context, inv entities.Invocation) (*entities.Outcome, error) {
	var outcome *entities.Outcome
	err := f.call(ctx, inv, nil, func(d sdk.Decision) error {
		outcome = fromDecision(&d)
		return nil
	})
	return outcome, err
}

// ActStream runs a streamed action.
func (f *function) ActStream(ctx context.Context, s *entities.Stream,
	on func(context.Context, *entities.Outcome) error,
) error {
	recv := func() (sdk.Payload, error) {
		p, err := s.Recv(ctx)
		return sdk.Payload(p), err
	}
	return f.call(ctx, entities.Invocation{Command: s.Command, Time: s.Time}, recv,
		func(d sdk.Decision) error { return on(ctx, fromDecision(&d)) })
}

func (f *function) call(ctx context.Context, inv entities.Invocation, recv func() (sdk.Payload, error),
	send func(sdk.Decision) error,
) error {
	s, known := f.services[inv.Service]
	if !known {
		return fmt.Errorf("service %s is not part of this program", inv.Service)
	}
	return crashed(s.Call(ctx, toInvocation(inv), recv, send))
}

// crashed gives a panic that the sdk caught the form in which the host tells where it happened.
func crashed(err error) error {
	if stack := sdk.Stack(err); stack != nil {
		return &host.PanicError{Err: err, Stack: stack}
	}
	return err
}

// localEntity adapts an entity of package sdk.
type localEntity struct{ entity sdk.Entity }

// Load sets the stored state.
func (e localEntity) Load(state *entities.Payload, sequence uint64) error {
	return crashed(e.entity.Load((*sdk.Payload)(state), sequence))
}

// Apply replays a stored event.
func (e localEntity) Apply(event entities.Event) error {
	return crashed(e.entity.Apply(event.Sequence, sdk.Payload(event.Payload)))
}

// Handle makes the entity decide about one command.
func (e localEntity) Handle(ctx context.Context, inv entities.Invocation) (*entities.Outcome, error) {
	d, err := e.entity.Handle(ctx, toInvocation(inv))
	if err != nil {
		return nil, crashed(err)
	}
	return fromDecision(&d), nil
}

// Size estimates the memory that the entity holds.
func (e localEntity) Size() int { return e.entity.Size() }

func toInvocation(inv entities.Invocation) sdk.Invocation {
	md := make(sdk.Metadata, 0, len(inv.Metadata))
	for _, m := range inv.Metadata {
		md = append(md, sdk.MetadataEntry(m))
	}
	return sdk.Invocation{
		Method: inv.Method, Payload: sdk.Payload(inv.Payload), ID: inv.ID, Principal: inv.Principal, Metadata: md,
		Time: inv.Time,
	}
}

func fromDecision(d *sdk.Decision) *entities.Outcome {
	out := &entities.Outcome{
		Snapshot: (*entities.Payload)(d.Snapshot), StateAction: entities.StateAction(d.StateAction),
		State: entities.Payload(d.State), Restart: d.Restart,
	}
	if len(d.Events) > 0 {
		out.Events = make([]entities.Payload, len(d.Events))
		for i := range d.Events {
			out.Events[i] = entities.Payload(d.Events[i])
		}
	}
	for i := range d.Effects {
		e := &d.Effects[i]
		out.Effects = append(out.Effects, entities.SideEffect{
			Target: target(&e.Target), Synchronous: e.Synchronous, OnRefused: e.OnRefused, IgnoreRefusal: e.IgnoreRefusal,
		})
	}
	for i := range d.Timers {
		t := &d.Timers[i]
		out.Timers = append(out.Timers, entities.TimerChange{
			Name: t.Name, Cancel: t.Cancel, After: t.After, Schedule: t.Schedule, Target: target(&t.Target),
		})
	}
	switch {
	case d.Refusal != nil:
		out.Failure = &entities.Error{
			Reason: entities.FunctionRefused, Code: uint32(d.Refusal.Code), Message: d.Refusal.Message,
			Outcome: entities.Refused,
		}
	case d.Forward != nil:
		t := target(d.Forward)
		out.Forward = &t
	case d.Reply != nil:
		out.Reply = &entities.Reply{Payload: entities.Payload(*d.Reply)}
	}
	return out
}

func target(t *sdk.Target) entities.Target {
	return entities.Target{Service: t.Service, Method: t.Method, Payload: entities.Payload(t.Payload)}
}
