package conformance_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/valueentity"
	"github.com/millrace-io/millrace/tests/conformance/proto/vemodel"
)

func valueCases() []conformanceCase {
	return []conformanceCase{
		{"value entity/verify state changes", valueStateChanges},
		{"value entity/verify forwards and side effects", valueForwardsAndEffects},
		{"value entity/verify failures", valueFailures},
		{"value entity/verify HTTP API", valueHTTP},
		{"value entity/verify passivation timeout", valuePassivation},
	}
}

const (
	veService    = "cloudstate.tck.model.valueentity.ValueEntityTckModel"
	veTwo        = "cloudstate.tck.model.valueentity.ValueEntityTwo"
	veConfigured = "cloudstate.tck.model.valueentity.ValueEntityConfigured"
)

func valueStateChanges(t *testing.T, s *subject) {
	id := s.entity()
	var x *exchange
	for n, step := range []struct {
		actions []*vemodel.RequestAction
		state   string
		change  *valueentity.ValueEntityAction
	}{
		{state: ""},
		{actions: updates("A"), state: "A", change: updated("A")},
		{actions: updates("B"), state: "B", change: updated("B")},
		{state: "B"},
		{actions: deletes(), state: "", change: deleted()},
		{state: ""},
		{actions: updates("C"), state: "C", change: updated("C")},
		{actions: deletes(), state: "", change: deleted()},
	} {
		command := int64(n + 1)
		s.change(t, id, step.state, step.actions...)
		if x == nil {
			x = s.next(t, valueentity.ValueEntity_Handle_FullMethodName)
			x.in(t, veInit(veService, id))
		}
		x.in(t, veProcess(command, id, step.actions...))
		x.out(t, veReplied(command, step.state, step.change))
	}
	x.silent(t)
}

func valueForwardsAndEffects(t *testing.T, s *subject) {
	id, two := s.entity(), s.entity()
	s.change(t, id, "", veForward(two))
	x := s.next(t, valueentity.ValueEntity_Handle_FullMethodName)
	x.in(t, veInit(veService, id), veProcess(1, id, veForward(two)))
	x.out(t, veDecided(1,
		&cloudstate.ClientAction{Action: &cloudstate.ClientAction_Forward{Forward: forwardTo(veTwo,
			&vemodel.Request{Id: two})}}))
	y := s.next(t, valueentity.ValueEntity_Handle_FullMethodName)
	y.in(t, veInit(veTwo, two), veCommand(1, two, "Call", &vemodel.Request{Id: two}))
	y.out(t, veReplied(1, "", nil))

	for n, synchronous := range []bool{false, true} {
		command := int64(n + 2)
		s.change(t, id, "", veEffect(two, synchronous))
		if synchronous && y.In.Waiting() == 0 {
			t.Error("the caller had its answer before the synchronous effect was sent")
		}
		x.in(t, veProcess(command, id, veEffect(two, synchronous)))
		reply := veReplied(command, "", nil)
		reply.GetReply().SideEffects = []*cloudstate.SideEffect{effectOn(veTwo, synchronous, &vemodel.Request{Id: two})}
		x.out(t, reply)
		y.in(t, veCommand(command, two, "Call", &vemodel.Request{Id: two}))
		y.out(t, veReplied(command, "", nil))
	}
	x.silent(t)
	y.silent(t)
}

// valueFailures: a refusal does not affect stream and state.
func valueFailures(t *testing.T, s *subject) {
	id := s.entity()
	s.change(t, id, "one", updates("one")...)
	x := s.next(t, valueentity.ValueEntity_Handle_FullMethodName)
	x.in(t, veInit(veService, id), veProcess(1, id, updates("one")...))
	x.out(t, veReplied(1, "one", updated("one")))

	_, err := vemodel.NewValueEntityTckModelClient(s.conn).Process(t.Context(),
		&vemodel.Request{Id: id, Actions: veFails("expected failure")})
	refused(t, err, "expected failure")
	x.in(t, veProcess(2, id, veFails("expected failure")...))
	x.out(t, veRefused(2, "expected failure"))

	s.change(t, id, "one")
	x.in(t, veProcess(3, id))
	x.out(t, veReplied(3, "one", nil))
	x.silent(t)
}

func valueHTTP(t *testing.T, s *subject) {
	id := s.entity()
	path := "/tck/model/entity/" + id
	s.answersJSON(t, path, "{}", `{"message":""}`)
	x := s.next(t, valueentity.ValueEntity_Handle_FullMethodName)
	x.in(t, veInit(veService, id), veProcess(1, id))
	x.out(t, veReplied(1, "", nil))

	s.answersJSON(t, path, `{"actions":[{"update":{"value":"one"}}]}`, `{"message":"one"}`)
	x.in(t, veProcess(2, id, updates("one")...))
	x.out(t, veReplied(2, "one", updated("one")))

	two := s.entity()
	s.answersJSON(t, "/"+veTwo+"/Call", `{"id":"`+two+`"}`, `{"message":""}`)
	y := s.next(t, valueentity.ValueEntity_Handle_FullMethodName)
	y.in(t, veInit(veTwo, two), veCommand(1, two, "Call", &vemodel.Request{Id: two}))
	y.out(t, veReplied(1, "", nil))

	s.answersJSON(t, path, `{"actions":[{"update":{"value":"two"}}]}`, `{"message":"two"}`)
	x.in(t, veProcess(3, id, updates("two")...))
	x.out(t, veReplied(3, "two", updated("two")))

	s.refusesJSON(t, path, `{"actions":[{"fail":{"message":"expected failure"}}]}`, "expected failure")
	x.in(t, veProcess(4, id, veFails("expected failure")...))
	x.out(t, veRefused(4, "expected failure"))
	x.silent(t)
	y.silent(t)
}

func valuePassivation(t *testing.T, s *subject) {
	id := s.entity()
	got, err := vemodel.NewValueEntityConfiguredClient(s.conn).Call(t.Context(), &vemodel.Request{Id: id})
	answered(t, got, err, &vemodel.Response{})
	x := s.next(t, valueentity.ValueEntity_Handle_FullMethodName)
	x.in(t, veInit(veConfigured, id), veCommand(1, id, "Call", &vemodel.Request{Id: id}))
	x.out(t, veReplied(1, "", nil))
	x.ends(t)
}

// change calls the model and compares the value that it answers with.
func (s *subject) change(t *testing.T, id, state string, actions ...*vemodel.RequestAction) {
	t.Helper()
	got, err := vemodel.NewValueEntityTckModelClient(s.conn).Process(t.Context(),
		&vemodel.Request{Id: id, Actions: actions})
	answered(t, got, err, &vemodel.Response{Message: state})
}

// Constructors of requests.

func updates(value string) []*vemodel.RequestAction {
	return []*vemodel.RequestAction{{Action: &vemodel.RequestAction_Update{Update: &vemodel.Update{Value: value}}}}
}

func deletes() []*vemodel.RequestAction {
	return []*vemodel.RequestAction{{Action: &vemodel.RequestAction_Delete{Delete: &vemodel.Delete{}}}}
}

func veForward(id string) *vemodel.RequestAction {
	return &vemodel.RequestAction{Action: &vemodel.RequestAction_Forward{Forward: &vemodel.Forward{Id: id}}}
}

func veEffect(id string, synchronous bool) *vemodel.RequestAction {
	return &vemodel.RequestAction{Action: &vemodel.RequestAction_Effect{Effect: &vemodel.Effect{
		Id:          id,
		Synchronous: synchronous,
	}}}
}

func veFails(message string) []*vemodel.RequestAction {
	return []*vemodel.RequestAction{{Action: &vemodel.RequestAction_Fail{Fail: &vemodel.Fail{Message: message}}}}
}

// Constructors of protocol messages.

// veInit is that of an entity without a value: its state is there, and empty.
func veInit(service, id string) *valueentity.ValueEntityStreamIn {
	return &valueentity.ValueEntityStreamIn{Message: &valueentity.ValueEntityStreamIn_Init{
		Init: &valueentity.ValueEntityInit{ServiceName: service, EntityId: id, State: &valueentity.ValueEntityInitState{}},
	}}
}

func veInitWith(service, id, value string) *valueentity.ValueEntityStreamIn {
	init := veInit(service, id)
	init.GetInit().State.Value = wrap(&vemodel.Persisted{Value: value})
	return init
}

func veCommand(command int64, id, name string, request proto.Message) *valueentity.ValueEntityStreamIn {
	return &valueentity.ValueEntityStreamIn{Message: &valueentity.ValueEntityStreamIn_Command{
		Command: &cloudstate.Command{EntityId: id, Id: command, Name: name, Payload: wrap(request)},
	}}
}

func veProcess(command int64, id string, actions ...*vemodel.RequestAction) *valueentity.ValueEntityStreamIn {
	return veCommand(command, id, "Process", &vemodel.Request{Id: id, Actions: actions})
}

func veDecided(command int64, a *cloudstate.ClientAction) *valueentity.ValueEntityStreamOut {
	return &valueentity.ValueEntityStreamOut{Message: &valueentity.ValueEntityStreamOut_Reply{
		Reply: &valueentity.ValueEntityReply{CommandId: command, ClientAction: a},
	}}
}

func veReplied(command int64, state string, change *valueentity.ValueEntityAction) *valueentity.ValueEntityStreamOut {
	out := veDecided(command, replied(&vemodel.Response{Message: state}))
	out.GetReply().StateAction = change
	return out
}

func veRefused(command int64, description string) *valueentity.ValueEntityStreamOut {
	return veDecided(command, &cloudstate.ClientAction{Action: &cloudstate.ClientAction_Failure{
		Failure: &cloudstate.Failure{CommandId: command, Description: description},
	}})
}

func updated(value string) *valueentity.ValueEntityAction {
	return &valueentity.ValueEntityAction{Action: &valueentity.ValueEntityAction_Update{
		Update: &valueentity.ValueEntityUpdate{Value: wrap(&vemodel.Persisted{Value: value})},
	}}
}

func deleted() *valueentity.ValueEntityAction {
	return &valueentity.ValueEntityAction{
		Action: &valueentity.ValueEntityAction_Delete{Delete: &valueentity.ValueEntityDelete{}},
	}
}
