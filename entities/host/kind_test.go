package host

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/crdt"
)

// Tally is a kind of this package's tests: a number, whose function speaks the protocol of
// replicated entities. Its events are encoded deltas, and its state is one. It needs nothing
// outside of this file.
const Tally entities.Kind = 200

func init() { //nolint:gochecknoinits // a kind is registered before anything uses the table
	entities.Register(Tally, &entities.KindSpec{
		Name: "tally", Protocol: "test.Tally", HasEntities: true, Owned: true, Terminated: "Tally terminated",
	})
	kinds[Tally] = tally{}
}

// DeltaURL is the type of a tally's events and of its state.
const DeltaURL = "type.googleapis.com/cloudstate.crdt.CrdtDelta"

type tally struct{}

func (tally) texts() *texts {
	return &texts{
		reply: "Unexpected tally reply", failure: "Unexpected tally failure",
		message: "Unexpected tally message", termination: "Unexpected tally termination",
	}
}

func (tally) stream(ctx context.Context, conn grpc.ClientConnInterface) (grpc.ClientStream, error) {
	return crdt.NewCrdtClient(conn).Handle(ctx)
}

func (tally) messages() messages { return &tallyMessages{} }

// tallyMessages are not framed, so that each session has a stream of its own.
type tallyMessages struct{ in crdt.CrdtStreamIn }

func (m *tallyMessages) load(s *session, loaded entities.Loaded) error {
	init := &crdt.CrdtInit{ServiceName: s.service.Name, EntityId: s.key.ID}
	if loaded.State != nil {
		init.Delta = new(crdt.CrdtDelta)
		if err := proto.Unmarshal(loaded.State.Value, init.GetDelta()); err != nil {
			return err
		}
	}
	m.in.Message = &crdt.CrdtStreamIn_Init{Init: init}
	if err := s.tell(); err != nil || loaded.Events == nil {
		return err
	}
	return loaded.Events(func(e entities.Event) error {
		delta := new(crdt.CrdtDelta)
		if err := proto.Unmarshal(e.Payload.Value, delta); err != nil {
			return err
		}
		m.in.Message = &crdt.CrdtStreamIn_Delta{Delta: delta}
		return s.replay(delta, len(e.Payload.Value))
	})
}

func (m *tallyMessages) command(c *cloudstate.Command) {
	m.in.Message = &crdt.CrdtStreamIn_Command{Command: c}
}

func (m *tallyMessages) next() proto.Message { return &m.in }

func (*tallyMessages) receive(stream grpc.ClientStream, a *answer) error {
	out := new(crdt.CrdtStreamOut)
	if err := stream.RecvMsg(out); err != nil {
		return err
	}
	switch m := out.GetMessage().(type) {
	case *crdt.CrdtStreamOut_Reply:
		a.replied(m.Reply, nil)
	case *crdt.CrdtStreamOut_Failure:
		a.failed(m.Failure)
	}
	return nil
}

func (tally) outcome(a *answer, out *entities.Outcome) {
	reply, _ := a.reply.(*crdt.CrdtReply)
	if delta := reply.GetStateAction().GetUpdate(); delta != nil {
		value, err := proto.Marshal(delta)
		if err != nil {
			panic(err) // it came over the wire
		}
		out.Events = []entities.Payload{{TypeURL: DeltaURL, Value: value}}
	}
}

func (tally) check(out *entities.Outcome, _ int) error {
	if out.StateAction != entities.StateKept {
		return errors.New("a tally has no value")
	}
	for i, e := range out.Events {
		delta := new(crdt.CrdtDelta)
		if err := proto.Unmarshal(e.Value, delta); err != nil || delta.GetPncounter() == nil {
			return fmt.Errorf("delta %d is not one of a number", i+1)
		}
	}
	return nil
}

func (tally) weigh(size int64, _ *entities.Outcome) int64 { return max(size, 8) }
