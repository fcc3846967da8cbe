package sdk_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/crdt"
	"github.com/millrace-io/millrace/sdk"
)

// TestAKindOfItsOwn: a kind of services is checked, declared, served and driven from its own file.
func TestAKindOfItsOwn(t *testing.T) {
	if err := sdk.Check(sdk.NewTally("")); err == nil || !strings.Contains(err.Error(), "the first argument of sdk.NewTally is empty") {
		t.Errorf("without a persistence id: %v", err)
	}
	service := sdk.NewTally("tally")
	spec, err := sdk.EntitySpec(service)
	if err != nil {
		t.Fatal(err)
	}
	if got := spec.GetEntities()[0].GetEntityType(); got != "cloudstate.crdt.Crdt" {
		t.Errorf("declared as %s", got)
	}
	if got := service.String(); got != `tally service "tally" (counter.v1.CounterService)` {
		t.Errorf("named %s", got)
	}

	stream, err := crdt.NewCrdtClient(start(t, service, cellService()).conn).Handle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	number := func(n int64) *crdt.CrdtDelta {
		return &crdt.CrdtDelta{Delta: &crdt.CrdtDelta_Pncounter{Pncounter: &crdt.PNCounterDelta{Change: n}}}
	}
	send := func(in *crdt.CrdtStreamIn) {
		t.Helper()
		if err := stream.Send(in); err != nil {
			t.Fatal(err)
		}
	}
	send(&crdt.CrdtStreamIn{Message: &crdt.CrdtStreamIn_Init{
		Init: &crdt.CrdtInit{ServiceName: "counter.v1.CounterService", EntityId: "1", Delta: number(5)},
	}})
	send(&crdt.CrdtStreamIn{Message: &crdt.CrdtStreamIn_Command{Command: &cloudstate.Command{
		EntityId: "1", Id: 1, Name: "Increment", Payload: pack(t, &counterv1.IncrementRequest{CounterId: "1", By: 2}),
	}}})
	out, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	want := &crdt.CrdtReply{
		CommandId: 1,
		ClientAction: &cloudstate.ClientAction{
			Action: &cloudstate.ClientAction_Reply{Reply: &cloudstate.Reply{Payload: pack(t, &counterv1.Counter{Value: 7})}},
		},
		StateAction: &crdt.CrdtStateAction{Action: &crdt.CrdtStateAction_Update{Update: number(2)}},
	}
	if !proto.Equal(out.GetReply(), want) {
		t.Errorf("got %v, want %v", out, want)
	}
	send(&crdt.CrdtStreamIn{Message: &crdt.CrdtStreamIn_Command{Command: &cloudstate.Command{EntityId: "2", Id: 2, Name: "Get"}}})
	if out, err = stream.Recv(); err != nil || !strings.Contains(out.GetFailure().GetDescription(), `the stream is that of "1"`) {
		t.Errorf("a command of another entity: %v, %v", out, err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
}
