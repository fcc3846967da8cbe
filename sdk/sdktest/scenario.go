package sdktest

import (
	"context"
	"errors"
	"io"
	"reflect"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/millrace-io/millrace/sdk"
)

// T is what a scenario needs of a test; *testing.T is one.
type T interface {
	Helper()
	Context() context.Context
	// Fatalf reports a failure and ends the test.
	Fatalf(format string, args ...any)
}

// Scenario is one entity, or one action, and its history. Its methods return the scenario, so that
// calls can be chained.
type Scenario struct {
	t       T
	service *sdk.Service
	spec    sdk.Spec
	id      string

	now       time.Time
	principal string

	// entity is nil for actions.
	entity sdk.Entity
	// events is the whole history of an event-sourced entity, value the state of a value entity
	// (nil: none).
	events []sdk.Payload
	value  *sdk.Payload

	// method and decisions are the last command and what was decided about it: one decision for a
	// unary method, one for each element of a streamed answer.
	method    string
	decisions []sdk.Decision
}

// firstTime is the log time of a scenario's first command; each command is a second later than the
// one before.
var firstTime = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC) //nolint:gochecknoglobals // a constant

// New starts a scenario with an entity of the service that has no state yet. An action has no
// entities; its id is not used.
func New(t T, service *sdk.Service, id string) *Scenario {
	t.Helper()
	if err := sdk.Check(service); err != nil {
		t.Fatalf("the service cannot be run:\n%v", err)
	}
	s := &Scenario{t: t, service: service, spec: service.Spec(), id: id, now: firstTime}
	if s.spec.Kind.HasEntities() {
		s.entity = s.replay(nil, 0)
	}
	return s
}

// Given adds to the history: events of an event-sourced entity, or the stored value of a value
// entity.
func (s *Scenario) Given(history ...proto.Message) *Scenario {
	s.t.Helper()
	if !s.spec.Kind.HasEntities() {
		s.t.Fatalf("Given: %s has no history", s.service)
	}
	for _, message := range history {
		payload := s.encode(message)
		if s.spec.Kind.HasEvents() {
			s.events = append(s.events, payload)
		} else {
			s.value = &payload
		}
	}
	s.entity = s.replay(s.value, 0)
	s.verify("Given", nil, len(s.events))
	return s
}

// At sets the log time of the next command.
func (s *Scenario) At(now time.Time) *Scenario {
	s.now = now
	return s
}

// As sets who sends the following commands; "" stands for an unknown caller.
func (s *Scenario) As(principal string) *Scenario {
	s.principal = principal
	return s
}

// When sends a command, named by the generated constant of its method. A method whose input streams
// takes any number of messages, any other exactly one. The test ends if the handler crashes.
func (s *Scenario) When(method string, in ...proto.Message) *Scenario {
	s.t.Helper()
	m := s.find(method)
	if !m.IsStreamingClient() && len(in) != 1 {
		s.t.Fatalf("When %s: the method takes 1 message, %d given", m.Name(), len(in))
	}
	requests := make([]sdk.Payload, 0, len(in))
	for _, message := range in {
		if got := message.ProtoReflect().Descriptor().FullName(); got != m.Input().FullName() {
			s.t.Fatalf("When %s: a %s given, the method takes a %s", m.Name(), got, m.Input().FullName())
		}
		requests = append(requests, s.encode(message))
	}
	s.method = string(m.Name())
	inv := sdk.Invocation{Method: s.method, Principal: s.principal, Time: s.now}
	s.now = s.now.Add(time.Second)
	if s.entity == nil {
		s.call(inv, m, requests)
	} else {
		inv.Payload = requests[0]
		s.handle(inv)
	}
	return s
}

// call runs one call of an action.
func (s *Scenario) call(inv sdk.Invocation, m protoreflect.MethodDescriptor, requests []sdk.Payload) {
	s.t.Helper()
	if !m.IsStreamingClient() {
		inv.Payload, requests = requests[0], nil
	}
	s.decisions = nil
	err := s.service.Call(s.t.Context(), inv,
		func() (sdk.Payload, error) {
			if len(requests) == 0 {
				return sdk.Payload{}, io.EOF
			}
			next := requests[0]
			requests = requests[1:]
			return next, nil
		},
		func(d sdk.Decision) error {
			s.decisions = append(s.decisions, d)
			return nil
		})
	s.mustNotCrash(err)
}

// handle lets the entity decide, adds the decision to the history as a runtime does, and compares
// the images.
func (s *Scenario) handle(inv sdk.Invocation) {
	s.t.Helper()
	before, sequence := s.snapshot(s.entity), len(s.events)
	decision, err := s.entity.Handle(s.t.Context(), inv)
	s.mustNotCrash(err)
	s.decisions = []sdk.Decision{decision}
	if decision.Restart {
		s.entity = s.replay(s.value, 0)
	}
	s.events = append(s.events, decision.Events...)
	switch decision.StateAction {
	case sdk.StateUpdated:
		s.value = &decision.State
	case sdk.StateDeleted:
		s.value = nil
	case sdk.StateKept:
	}
	s.verify("When "+s.method, before, sequence)
}

func (s *Scenario) mustNotCrash(err error) {
	s.t.Helper()
	if crash, ok := errors.AsType[*sdk.CrashError](err); ok {
		s.t.Fatalf("When %s: the handler crashed: %v\n%s", s.method, crash.Cause, crash.Stack)
	}
	if err != nil {
		s.t.Fatalf("When %s: %v", s.method, err)
	}
}

// verify compares the image in memory with images that are built from what is stored. before is a
// snapshot of the state after the given number of events; nil when there is none.
func (s *Scenario) verify(step string, before *sdk.Payload, sequence int) {
	s.t.Helper()
	s.mustEqual(step, "one that is replayed from all its events or its stored value", s.replay(s.value, 0),
		"a handler changed the state outside of sdk.On, or sdk.On depends on more than state and event")
	if !s.spec.Kind.HasEvents() {
		return
	}
	if now := s.snapshot(s.entity); now != nil {
		s.mustEqual(step, "one that is restored from its snapshot", s.replay(now, len(s.events)),
			"the snapshot functions of sdk.SnapshotEvery leave something out")
	}
	if before != nil {
		s.mustEqual(step, "one that is restored from the snapshot before the command and its events",
			s.replay(before, sequence),
			"the snapshot functions of sdk.SnapshotEvery leave something out that an event needs")
	}
}

func (s *Scenario) mustEqual(step, kind string, rebuilt sdk.Entity, why string) {
	s.t.Helper()
	if d := difference(reflect.ValueOf(s.entity.Image()), reflect.ValueOf(rebuilt.Image())); d != "" {
		s.t.Fatalf("%s: the image in memory differs from %s: %s\n%s", step, kind, d, why)
	}
}

// replay builds an entity from a value, or a snapshot after some of the events, or from nothing,
// and the events that follow.
func (s *Scenario) replay(state *sdk.Payload, sequence int) sdk.Entity {
	s.t.Helper()
	entity, err := s.service.NewEntity(s.id)
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	if err := entity.Load(state, uint64(sequence)); err != nil { //nolint:gosec // a length
		s.t.Fatalf("%v", err)
	}
	for i, event := range s.events[sequence:] {
		if err := entity.Apply(uint64(sequence+i+1), event); err != nil { //nolint:gosec // a length
			s.t.Fatalf("%v", err)
		}
	}
	return entity
}

// snapshot returns the state in its stored form, nil when there is none.
func (s *Scenario) snapshot(entity sdk.Entity) *sdk.Payload {
	s.t.Helper()
	snapshot, err := entity.Snapshot()
	if err != nil {
		s.t.Fatalf("snapshot of %s: %v", s.id, err)
	}
	return snapshot
}

// find returns the method of the service that a generated constant names.
func (s *Scenario) find(method string) protoreflect.MethodDescriptor {
	s.t.Helper()
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	m := s.spec.Service.Methods().ByName(protoreflect.Name(name))
	if m == nil || service != string(s.spec.Service.FullName()) {
		s.t.Fatalf("When %s: not a method of %s", method, s.service)
	}
	return m
}
