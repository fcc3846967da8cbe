package host

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/valueentity"
	sessionv1 "github.com/millrace-io/millrace/proto/gen/millrace/session/v1"
)

// value is the kind of value entities: Init with the value, then commands, whose replies may
// replace or delete it.
type value struct{}

func (value) texts() *texts { return &valueTexts }

var valueTexts = texts{ //nolint:gochecknoglobals // constants
	reply:       "Unexpected Value entity reply",
	failure:     "Unexpected Value entity failure",
	message:     "Unexpected Value entity failure",
	termination: "Unexpected Value entity termination",
}

func (value) stream(ctx context.Context, conn grpc.ClientConnInterface) (grpc.ClientStream, error) {
	return valueentity.NewValueEntityClient(conn).Handle(ctx)
}

func (value) messages() messages {
	m := &valueMessages{}
	m.framed.Value = &m.in
	return m
}

// valueMessages are the messages of one session, used again for every command.
type valueMessages struct {
	in     valueentity.ValueEntityStreamIn
	out    valueentity.ValueEntityStreamOut
	framed sessionv1.Request_Value
}

func (m *valueMessages) load(s *session, loaded entities.Loaded) error {
	// The state is always there, also when it says nothing: functions and the protocol's tests
	// count on it.
	state := new(valueentity.ValueEntityInitState)
	if loaded.State != nil {
		state.Value = anyOf(*loaded.State)
		s.bytes.Store(int64(len(loaded.State.Value)))
	}
	m.in.Message = &valueentity.ValueEntityStreamIn_Init{Init: &valueentity.ValueEntityInit{
		ServiceName: s.service.Name,
		EntityId:    s.key.ID,
		State:       state,
	}}
	return s.tell()
}

func (m *valueMessages) command(c *cloudstate.Command) {
	if in, ok := m.in.GetMessage().(*valueentity.ValueEntityStreamIn_Command); !ok || in.Command != c {
		m.in.Message = &valueentity.ValueEntityStreamIn_Command{Command: c}
	}
}

func (m *valueMessages) next() proto.Message { return &m.in }

func (m *valueMessages) receive(stream grpc.ClientStream, a *answer) error {
	if err := stream.RecvMsg(&m.out); err != nil {
		return err
	}
	readValue(&m.out, a)
	m.out.Reset() // the answer has its content; a waiting session need not hold it
	return nil
}

func (m *valueMessages) frame(r *sessionv1.Request) { r.Message = &m.framed }

func (*valueMessages) unframe(r *sessionv1.Response, a *answer) { readValue(r.GetValue(), a) }

func readValue(out *valueentity.ValueEntityStreamOut, a *answer) {
	switch m := out.GetMessage().(type) {
	case *valueentity.ValueEntityStreamOut_Reply:
		a.replied(m.Reply, m.Reply.GetMillraceTimers())
	case *valueentity.ValueEntityStreamOut_Failure:
		a.failed(m.Failure)
	}
}

func (value) outcome(a *answer, out *entities.Outcome) {
	reply, _ := a.reply.(*valueentity.ValueEntityReply)
	switch change := reply.GetStateAction().GetAction().(type) {
	case *valueentity.ValueEntityAction_Update:
		out.StateAction, out.State = entities.StateUpdated, payloadOf(change.Update.GetValue())
	case *valueentity.ValueEntityAction_Delete:
		out.StateAction = entities.StateDeleted
	}
}

func (value) check(out *entities.Outcome, _ int) error {
	if len(out.Events) > 0 || out.Snapshot != nil {
		return errors.New("there are events, and a value entity has a value instead")
	}
	if out.StateAction == entities.StateUpdated {
		if err := checkStored(out.State); err != nil {
			return fmt.Errorf("the new value %w", err)
		}
	}
	return nil
}

// weigh returns the size of the new value; a deleted one has none.
func (value) weigh(size int64, out *entities.Outcome) int64 {
	if out.StateAction == entities.StateKept {
		return size
	}
	return int64(len(out.State.Value))
}
