package host_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/crdt"
)

type fakeTallies struct {
	crdt.UnimplementedCrdtServer
	*fakeFunction
}

func (f fakeTallies) Handle(stream grpc.BidiStreamingServer[crdt.CrdtStreamIn, crdt.CrdtStreamOut]) error {
	return f.offer(&fakeStream{
		ctx:  stream.Context(),
		recv: func() (proto.Message, error) { return stream.Recv() },
		send: func(m proto.Message) error { return stream.SendMsg(m) },
		end:  make(chan error, 1),
	})
}

func delta(t *testing.T, change int64) (*crdt.CrdtDelta, entities.Payload) {
	t.Helper()
	d := &crdt.CrdtDelta{Delta: &crdt.CrdtDelta_Pncounter{Pncounter: &crdt.PNCounterDelta{Change: change}}}
	value, err := proto.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return d, entities.Payload{TypeURL: host.DeltaURL, Value: value}
}

// tallies is a spec whose service t.Carts has entities of the tests' own kind.
func tallies(t *testing.T) *cloudstate.EntitySpec {
	t.Helper()
	spec := newSpec(t)
	spec.Entities[0].EntityType = host.Tally.Spec().Protocol
	return spec
}

// TestAKindOfItsOwn: a kind of entities needs a row in package entities and a value here: it is
// discovered, loaded, called, checked and reported, remotely and in process.
func TestAKindOfItsOwn(t *testing.T) {
	_, five := delta(t, 5)
	one, oneStored := delta(t, 1)
	stored := entities.Loaded{
		Sequence: 2, State: &five, StateSequence: 1,
		Events: func(yield func(entities.Event) error) error {
			return yield(entities.Event{Sequence: 2, Payload: oneStored})
		},
	}
	load := func(context.Context) (entities.Loaded, error) { return stored, nil }

	f := newFake(tallies(t))
	f.also = func(r grpc.ServiceRegistrar) { crdt.RegisterCrdtServer(r, fakeTallies{fakeFunction: f}) }
	address, _ := serve(t, f, "127.0.0.1:0")
	h, _ := connect(t, address, host.Options{})
	if kind := h.Catalog().Service("t.Carts").Kind; kind != host.Tally {
		t.Fatalf("the service is of the kind %s", kind)
	}
	s, err := h.Open(t.Context(), "t.Carts", cartKey, load)
	if err != nil {
		t.Fatal(err)
	}
	stream := take(t, "a stream", f.streams)
	hear := func() *crdt.CrdtStreamIn {
		m, err := stream.recv()
		if err != nil {
			t.Fatal(err)
		}
		in, ok := m.(*crdt.CrdtStreamIn)
		if !ok {
			t.Fatalf("heard %T", m)
		}
		return in
	}
	if got := hear().GetInit().GetDelta().GetPncounter().GetChange(); got != 5 {
		t.Errorf("the state is %d", got)
	}
	if got := hear().GetDelta().GetPncounter().GetChange(); got != 1 {
		t.Errorf("the delta is %d", got)
	}
	decide := func(change *crdt.CrdtStateAction) (*entities.Outcome, error) {
		t.Helper()
		replied := make(chan error, 1)
		go func() { // ends with the command
			m, err := stream.recv()
			if err == nil {
				in, _ := m.(*crdt.CrdtStreamIn)
				err = stream.send(&crdt.CrdtStreamOut{Message: &crdt.CrdtStreamOut_Reply{Reply: &crdt.CrdtReply{
					CommandId: in.GetCommand().GetId(), StateAction: change,
					ClientAction: &cloudstate.ClientAction{
						Action: &cloudstate.ClientAction_Reply{Reply: &cloudstate.Reply{Payload: textAny("ok")}},
					},
				}}})
			}
			replied <- err
		}()
		out, err := s.Handle(t.Context(), invocation("t.Carts", "Add", cartKey, "x"))
		if failed := take(t, "the reply", replied); failed != nil {
			t.Fatal(failed)
		}
		return out, err
	}
	out, err := decide(&crdt.CrdtStateAction{Action: &crdt.CrdtStateAction_Update{Update: one}})
	if err != nil || len(out.Events) != 1 || string(out.Events[0].Value) != string(oneStored.Value) ||
		valueText(out.Reply.Payload.Value) != "ok" {
		t.Errorf("decided %+v, error %v", out, err)
	}
	if s.Size() < 8 {
		t.Errorf("size %d", s.Size())
	}
	_, err = decide(&crdt.CrdtStateAction{Action: &crdt.CrdtStateAction_Update{Update: &crdt.CrdtDelta{}}})
	wantError(t, err, entities.FunctionFailed, entities.NotApplied, "Unexpected tally reply: /t.Carts/Add: delta 1 is not one of a number")
	_, err = s.Handle(t.Context(), invocation("t.Carts", "Add", cartKey, "x"))
	wantError(t, err, entities.FunctionFailed, entities.NotApplied, "Tally terminated")
	s.Close(t.Context())

	local := host.New(host.Settings{})
	word := textPayload("x")
	set(t, local, newInProcess(t, &outcomeFunction{
		localFunction{spec: tallies(t)},
		entities.Outcome{Events: []entities.Payload{oneStored}},
	}, host.Hooks{}))
	s, err = local.Open(t.Context(), "t.Carts", cartKey, load)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	if out, err = s.Handle(t.Context(), invocation("t.Carts", "Add", cartKey, "x")); err != nil || len(out.Events) != 1 {
		t.Errorf("decided %+v, error %v", out, err)
	}
	refusing := host.New(host.Settings{})
	set(t, refusing, newInProcess(t, &outcomeFunction{
		localFunction{spec: tallies(t)},
		entities.Outcome{StateAction: entities.StateUpdated, State: word},
	}, host.Hooks{}))
	broken, err := refusing.Open(t.Context(), "t.Carts", cartKey, load)
	if err != nil {
		t.Fatal(err)
	}
	defer broken.Close(t.Context())
	if _, err = broken.Handle(t.Context(), invocation("t.Carts", "Add", cartKey, "x")); err == nil ||
		!strings.Contains(err.Error(), "Unexpected tally failure") {
		t.Errorf("a value of a tally: %v", err)
	}
}
