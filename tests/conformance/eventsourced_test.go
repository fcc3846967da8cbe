package conformance_test

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	"github.com/millrace-io/millrace/tests/conformance/proto/esmodel"
)

func eventSourcedCases() []conformanceCase {
	return []conformanceCase{
		{"event sourced/verify state changes", eventSourcedStateChanges},
		{"event sourced/verify forwards and side effects", eventSourcedForwardsAndEffects},
		{"event sourced/verify failures", eventSourcedFailures},
		{"event sourced/verify HTTP API", eventSourcedHTTP},
		{"event sourced/verify passivation timeout", eventSourcedPassivation},
	}
}

const (
	esService    = "cloudstate.tck.model.EventSourcedTckModel"
	esTwo        = "cloudstate.tck.model.EventSourcedTwo"
	esConfigured = "cloudstate.tck.model.EventSourcedConfigured"
)

func eventSourcedStateChanges(t *testing.T, s *subject) {
	id := s.entity()
	s.process(t, id, "")
	x := s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
	x.in(t, esInit(esService, id), esProcess(1, id))
	x.out(t, esReplied(1, ""))
	for n, step := range []struct {
		emit     []string
		state    string
		snapshot bool
	}{
		{emit: []string{"A"}, state: "A"},
		{emit: []string{"B", "C", "D"}, state: "ABCD"},
		{emit: []string{"E"}, state: "ABCDE", snapshot: true},
		{emit: []string{"F", "G", "H", "I"}, state: "ABCDEFGHI"},
		{emit: []string{"J", "K"}, state: "ABCDEFGHIJK", snapshot: true},
	} {
		command := int64(n + 2)
		s.process(t, id, step.state, emits(step.emit...)...)
		x.in(t, esProcess(command, id, emits(step.emit...)...))
		reply := esEmitted(command, step.state, step.emit...)
		if step.snapshot {
			reply.GetReply().Snapshot = persisted(step.state)
		}
		x.out(t, reply)
	}
	x.silent(t)
}

func eventSourcedForwardsAndEffects(t *testing.T, s *subject) {
	id, two := s.entity(), s.entity()
	s.process(t, id, "", esForward(two))
	x := s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
	x.in(t, esInit(esService, id), esProcess(1, id, esForward(two)))
	x.out(t, esDecided(1,
		&cloudstate.ClientAction{Action: &cloudstate.ClientAction_Forward{Forward: forwardTo(esTwo,
			&esmodel.Request{Id: two})}}))
	y := s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
	y.in(t, esInit(esTwo, two), esCommand(1, two, "Call", &esmodel.Request{Id: two}))
	y.out(t, esReplied(1, ""))

	for n, synchronous := range []bool{false, true} {
		command := int64(n + 2)
		s.process(t, id, "", esEffect(two, synchronous))
		if synchronous && y.In.Waiting() == 0 {
			t.Error("the caller had its answer before the synchronous effect was sent")
		}
		x.in(t, esProcess(command, id, esEffect(two, synchronous)))
		reply := esReplied(command, "")
		reply.GetReply().SideEffects = []*cloudstate.SideEffect{effectOn(esTwo, synchronous, &esmodel.Request{Id: two})}
		x.out(t, reply)
		y.in(t, esCommand(command, two, "Call", &esmodel.Request{Id: two}))
		y.out(t, esReplied(command, ""))
	}
	x.silent(t)
	y.silent(t)
}

// eventSourcedFailures: a refusal costs nothing. One after an event was emitted asks for a restart
// with some SDKs: then the stream ends, another one replays what is stored, before the next command
// comes, and counts commands from 1.
func eventSourcedFailures(t *testing.T, s *subject) {
	id := s.entity()
	s.process(t, id, "ABC", emits("A", "B", "C")...)
	x := s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
	x.in(t, esInit(esService, id), esProcess(1, id, emits("A", "B", "C")...))
	x.out(t, esEmitted(1, "ABC", "A", "B", "C"))

	s.refuses(t, id, "expected failure 1", esFail("expected failure 1"))
	x.in(t, esProcess(2, id, esFail("expected failure 1")))
	x.out(t, esRefused(2, "expected failure 1", false))

	s.process(t, id, "ABC")
	x.in(t, esProcess(3, id))
	x.out(t, esReplied(3, "ABC"))

	failing := append(append(emits("4"), esFail("expected failure 2")), emits("5")...)
	s.refuses(t, id, "expected failure 2", failing...)
	x.in(t, esProcess(4, id, failing...))
	x.out(t, esRefused(4, "expected failure 2", s.restarts))
	x, command := s.restarted(t, x, 5, esInit(esService, id), esEvent(1, "A"), esEvent(2, "B"), esEvent(3, "C"))

	s.process(t, id, "ABCDE", emits("D", "E")...)
	x.in(t, esProcess(command, id, emits("D", "E")...))
	reply := esEmitted(command, "ABCDE", "D", "E")
	reply.GetReply().Snapshot = persisted("ABCDE")
	x.out(t, reply)
	x.silent(t)
}

// restarted follows an entity after a refusal of a command that had emitted. With a function that
// restarts, it returns the new stream, which must be there and have replayed without any further
// command; else the same one. command is the id of the next command.
func (s *subject) restarted(t *testing.T, x *exchange, next int64,
	replay ...proto.Message,
) (_ *exchange, command int64) {
	t.Helper()
	if !s.restarts {
		return x, next
	}
	x.ends(t)
	again := s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
	again.in(t, replay...)
	again.silent(t)
	return again, 1
}

func eventSourcedHTTP(t *testing.T, s *subject) {
	id := s.entity()
	path := "/tck/model/eventsourced/" + id
	s.answersJSON(t, path, "{}", `{"message":""}`)
	x := s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
	x.in(t, esInit(esService, id), esProcess(1, id))
	x.out(t, esReplied(1, ""))

	s.answersJSON(t, path, `{"actions":[{"emit":{"value":"x"}}]}`, `{"message":"x"}`)
	x.in(t, esProcess(2, id, emits("x")...))
	x.out(t, esEmitted(2, "x", "x"))

	two := s.entity()
	s.answersJSON(t, "/"+esTwo+"/Call", `{"id":"`+two+`"}`, `{"message":""}`)
	y := s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
	y.in(t, esInit(esTwo, two), esCommand(1, two, "Call", &esmodel.Request{Id: two}))
	y.out(t, esReplied(1, ""))

	s.answersJSON(t, path, `{"actions":[{"emit":{"value":"y"}}]}`, `{"message":"xy"}`)
	x.in(t, esProcess(3, id, emits("y")...))
	x.out(t, esEmitted(3, "xy", "y"))

	s.refusesJSON(t, path, `{"actions":[{"fail":{"message":"expected failure 1"}}]}`, "expected failure 1")
	x.in(t, esProcess(4, id, esFail("expected failure 1")))
	x.out(t, esRefused(4, "expected failure 1", false))

	failing := append(emits("z"), esFail("expected failure 2"))
	s.refusesJSON(t, path, `{"actions":[{"emit":{"value":"z"}},{"fail":{"message":"expected failure 2"}}]}`,
		"expected failure 2")
	x.in(t, esProcess(5, id, failing...))
	x.out(t, esRefused(5, "expected failure 2", s.restarts))
	x, command := s.restarted(t, x, 6, esInit(esService, id), esEvent(1, "x"), esEvent(2, "y"))

	s.answersJSON(t, path, "{}", `{"message":"xy"}`)
	x.in(t, esProcess(command, id))
	x.out(t, esReplied(command, "xy"))
	x.silent(t)
	y.silent(t)
}

func eventSourcedPassivation(t *testing.T, s *subject) {
	id := s.entity()
	got, err := esmodel.NewEventSourcedConfiguredClient(s.conn).Call(t.Context(), &esmodel.Request{Id: id})
	answered(t, got, err, &esmodel.Response{})
	x := s.next(t, eventsourced.EventSourced_Handle_FullMethodName)
	x.in(t, esInit(esConfigured, id), esCommand(1, id, "Call", &esmodel.Request{Id: id}))
	x.out(t, esReplied(1, ""))
	x.ends(t)
}

// process calls the model and compares the state that it answers with; refuses wants a refusal.
func (s *subject) process(t *testing.T, id, state string, actions ...*esmodel.RequestAction) {
	t.Helper()
	got, err := esmodel.NewEventSourcedTckModelClient(s.conn).Process(t.Context(),
		&esmodel.Request{Id: id, Actions: actions})
	answered(t, got, err, &esmodel.Response{Message: state})
}

func (s *subject) refuses(t *testing.T, id, description string, actions ...*esmodel.RequestAction) {
	t.Helper()
	_, err := esmodel.NewEventSourcedTckModelClient(s.conn).Process(t.Context(),
		&esmodel.Request{Id: id, Actions: actions})
	refused(t, err, description)
}

// Constructors of requests.

func emits(values ...string) []*esmodel.RequestAction {
	var actions []*esmodel.RequestAction
	for _, value := range values {
		actions = append(actions,
			&esmodel.RequestAction{Action: &esmodel.RequestAction_Emit{Emit: &esmodel.Emit{Value: value}}})
	}
	return actions
}

func esForward(id string) *esmodel.RequestAction {
	return &esmodel.RequestAction{Action: &esmodel.RequestAction_Forward{Forward: &esmodel.Forward{Id: id}}}
}

func esEffect(id string, synchronous bool) *esmodel.RequestAction {
	return &esmodel.RequestAction{Action: &esmodel.RequestAction_Effect{Effect: &esmodel.Effect{
		Id:          id,
		Synchronous: synchronous,
	}}}
}

func esFail(message string) *esmodel.RequestAction {
	return &esmodel.RequestAction{Action: &esmodel.RequestAction_Fail{Fail: &esmodel.Fail{Message: message}}}
}

// Constructors of protocol messages.

func esInit(service, id string) *eventsourced.EventSourcedStreamIn {
	return &eventsourced.EventSourcedStreamIn{Message: &eventsourced.EventSourcedStreamIn_Init{
		Init: &eventsourced.EventSourcedInit{ServiceName: service, EntityId: id},
	}}
}

func esInitFrom(service, id string, sequence int64, state string) *eventsourced.EventSourcedStreamIn {
	init := esInit(service, id)
	init.GetInit().Snapshot = &eventsourced.EventSourcedSnapshot{SnapshotSequence: sequence, Snapshot: persisted(state)}
	return init
}

func esEvent(sequence int64, value string) *eventsourced.EventSourcedStreamIn {
	return &eventsourced.EventSourcedStreamIn{Message: &eventsourced.EventSourcedStreamIn_Event{
		Event: &eventsourced.EventSourcedEvent{Sequence: sequence, Payload: persisted(value)},
	}}
}

func esCommand(command int64, id, name string, request proto.Message) *eventsourced.EventSourcedStreamIn {
	return &eventsourced.EventSourcedStreamIn{Message: &eventsourced.EventSourcedStreamIn_Command{
		Command: &cloudstate.Command{EntityId: id, Id: command, Name: name, Payload: wrap(request)},
	}}
}

func esProcess(command int64, id string, actions ...*esmodel.RequestAction) *eventsourced.EventSourcedStreamIn {
	return esCommand(command, id, "Process", &esmodel.Request{Id: id, Actions: actions})
}

func esDecided(command int64, a *cloudstate.ClientAction) *eventsourced.EventSourcedStreamOut {
	return &eventsourced.EventSourcedStreamOut{Message: &eventsourced.EventSourcedStreamOut_Reply{
		Reply: &eventsourced.EventSourcedReply{CommandId: command, ClientAction: a},
	}}
}

func esReplied(command int64, state string) *eventsourced.EventSourcedStreamOut {
	return esDecided(command, replied(&esmodel.Response{Message: state}))
}

func esEmitted(command int64, state string, values ...string) *eventsourced.EventSourcedStreamOut {
	out := esReplied(command, state)
	for _, value := range values {
		out.GetReply().Events = append(out.GetReply().Events, persisted(value))
	}
	return out
}

func esRefused(command int64, description string, restart bool) *eventsourced.EventSourcedStreamOut {
	return esDecided(command, &cloudstate.ClientAction{Action: &cloudstate.ClientAction_Failure{
		Failure: &cloudstate.Failure{CommandId: command, Description: description, Restart: restart},
	}})
}

func replied(response proto.Message) *cloudstate.ClientAction {
	return &cloudstate.ClientAction{
		Action: &cloudstate.ClientAction_Reply{Reply: &cloudstate.Reply{Payload: wrap(response)}},
	}
}

func persisted(value string) *anypb.Any { return wrap(&esmodel.Persisted{Value: value}) }
