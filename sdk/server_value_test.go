package sdk_test

import (
	"testing"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/valueentity"
	scriptv1 "github.com/millrace-io/millrace/sdk/internal/script/v1"
)

// What a proxy sends to a value entity, and what it gets.

func cellInit(value *anypb.Any) *valueentity.ValueEntityStreamIn {
	return &valueentity.ValueEntityStreamIn{
		Message: &valueentity.ValueEntityStreamIn_Init{Init: &valueentity.ValueEntityInit{
			ServiceName: "script.v1.CellService", EntityId: entityID, State: &valueentity.ValueEntityInitState{Value: value},
		}},
	}
}

func cellCommand(t *testing.T, id int64, steps ...*scriptv1.Step) *valueentity.ValueEntityStreamIn {
	return &valueentity.ValueEntityStreamIn{Message: &valueentity.ValueEntityStreamIn_Command{
		Command: &cloudstate.Command{EntityId: entityID, Id: id, Name: "Run", Payload: pack(t, run(steps...))},
	}}
}

func cellReply(reply *valueentity.ValueEntityReply) *valueentity.ValueEntityStreamOut {
	return &valueentity.ValueEntityStreamOut{Message: &valueentity.ValueEntityStreamOut_Reply{Reply: reply}}
}

func cellFailure(id int64, description string) *valueentity.ValueEntityStreamOut {
	return &valueentity.ValueEntityStreamOut{Message: &valueentity.ValueEntityStreamOut_Failure{
		Failure: &cloudstate.Failure{CommandId: id, Description: description},
	}}
}

func cellUpdate(t *testing.T, text string) *valueentity.ValueEntityAction {
	return &valueentity.ValueEntityAction{Action: &valueentity.ValueEntityAction_Update{
		Update: &valueentity.ValueEntityUpdate{Value: anyStored(t, text)},
	}}
}

func cellDelete() *valueentity.ValueEntityAction {
	return &valueentity.ValueEntityAction{
		Action: &valueentity.ValueEntityAction_Delete{Delete: &valueentity.ValueEntityDelete{}},
	}
}

func TestCellStates(t *testing.T) {
	f := startAll(t)
	f.cell(t).
		send(cellInit(nil)).
		send(cellCommand(t, 1)).
		expect(cellReply(&valueentity.ValueEntityReply{CommandId: 1, ClientAction: replyAction(t, "")})).
		send(cellCommand(t, 2, update("A"))).
		expect(cellReply(&valueentity.ValueEntityReply{
			CommandId: 2, ClientAction: replyAction(t, "A"),
			StateAction: cellUpdate(t, "A"),
		})).
		send(cellCommand(t, 3, remove())).
		expect(cellReply(&valueentity.ValueEntityReply{
			CommandId: 3, ClientAction: replyAction(t, ""),
			StateAction: cellDelete(),
		})).
		send(cellCommand(t, 4, update("B"), remove(), update("C"))).
		expect(cellReply(&valueentity.ValueEntityReply{
			CommandId: 4, ClientAction: replyAction(t, "C"),
			StateAction: cellUpdate(t, "C"),
		})).
		passivate()
	f.cell(t).
		send(cellInit(anyStored(t, "C"))).
		send(cellCommand(t, 1)).
		expect(cellReply(&valueentity.ValueEntityReply{CommandId: 1, ClientAction: replyAction(t, "C")})).
		passivate()
}

func TestCellForwardsEffectsAndRefusals(t *testing.T) {
	f := startAll(t)
	f.cell(t).
		send(cellInit(nil)).
		send(cellCommand(t, 1, update("A"), effect("1"), forward("f"))).
		expect(cellReply(&valueentity.ValueEntityReply{
			CommandId: 1, ClientAction: forwardAction(t, "f"), StateAction: cellUpdate(t, "A"),
			SideEffects: wireEffects(t, false, "1"),
		})).
		send(cellCommand(t, 2, update("B"), effect("x"), refuse("expected failure"))).
		expect(cellReply(&valueentity.ValueEntityReply{
			CommandId: 2, ClientAction: failureAction(&cloudstate.Failure{CommandId: 2, Description: "expected failure"}),
		})).
		send(cellCommand(t, 3, awaited("2"))).
		expect(cellReply(&valueentity.ValueEntityReply{
			CommandId: 3, ClientAction: replyAction(t, "A"),
			SideEffects: wireEffects(t, true, "2"),
		})).
		passivate()
}

func TestCellFailures(t *testing.T) {
	f := startAll(t)
	f.cell(t).send(cellInit(nil)).send(cellCommand(t, 1, crash("disk on fire"))).
		expect(cellFailure(1,
			"script.v1.CellService/Run of cell/e1: disk on fire (to say no to a command, return sdk.Refuse)")).expectEnd()
	f.cell(t).send(cellCommand(t, 1)).expect(cellFailure(1, "command Run came before init")).expectEnd()
	f.cell(t).send(cellInit(nil)).send(cellInit(nil)).expect(cellFailure(0,
		"init: a second one on the stream")).expectEnd()
	f.cell(t).send(&valueentity.ValueEntityStreamIn{}).expect(cellFailure(0,
		"a message of an unknown kind from the proxy")).expectEnd()
	f.cell(t).send(cellInit(pack(t, appended("A")[0]))).
		expect(cellFailure(0, "load cell/e1: the stored value is a script.v1.Appended, but the state of the service is a script.v1.Stored: keep the type of the state")).
		expectEnd()
	foreign := cellInit(nil)
	foreign.GetInit().ServiceName = "script.v1.JournalService"
	f.cell(t).send(foreign).
		expect(cellFailure(0, "init e1: this function has no value service script.v1.JournalService; the proxy should discover it again")).expectEnd()
	stray := cellCommand(t, 1)
	stray.GetCommand().EntityId = "e2"
	f.cell(t).send(cellInit(nil)).send(stray).
		expect(cellFailure(1, `command Run is for entity "e2", the stream is that of "e1"`)).expectEnd()
}
