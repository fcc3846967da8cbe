package host

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	sessionv1 "github.com/millrace-io/millrace/proto/gen/millrace/session/v1"
)

// eventSourced is the kind of event-sourced entities: Init with the snapshot, the events after it,
// then commands, whose replies have events and sometimes a snapshot.
type eventSourced struct{}

func (eventSourced) texts() *texts { return &eventSourcedTexts }

var eventSourcedTexts = texts{ //nolint:gochecknoglobals // constants
	reply:       "Unexpected entity reply",
	failure:     "Unexpected entity failure",
	message:     "Unexpected entity message",
	termination: "Unexpected entity termination",
}

func (eventSourced) stream(ctx context.Context, conn grpc.ClientConnInterface) (grpc.ClientStream, error) {
	return eventsourced.NewEventSourcedClient(conn).Handle(ctx)
}

func (eventSourced) messages() messages {
	m := &eventSourcedMessages{}
	m.framed.EventSourced = &m.in
	return m
}

// eventSourcedMessages are the messages of one session, which are used again for every command: a
// session sends one at a time.
type eventSourcedMessages struct {
	in     eventsourced.EventSourcedStreamIn
	out    eventsourced.EventSourcedStreamOut
	framed sessionv1.Request_EventSourced
}

func (m *eventSourcedMessages) load(s *session, loaded entities.Loaded) error {
	init := &eventsourced.EventSourcedInit{ServiceName: s.service.Name, EntityId: s.key.ID}
	if loaded.State != nil {
		init.Snapshot = &eventsourced.EventSourcedSnapshot{
			SnapshotSequence: int64(loaded.StateSequence), //nolint:gosec // counts events
			Snapshot:         anyOf(*loaded.State),
		}
		s.bytes.Store(int64(len(loaded.State.Value)))
	}
	m.in.Message = &eventsourced.EventSourcedStreamIn_Init{Init: init}
	if err := s.tell(); err != nil || loaded.Events == nil {
		return err
	}
	payload := new(anypb.Any)
	event := &eventsourced.EventSourcedEvent{Payload: payload}
	m.in.Message = &eventsourced.EventSourcedStreamIn_Event{Event: event}
	return loaded.Events(func(e entities.Event) error {
		event.Sequence = int64(e.Sequence) //nolint:gosec // counts events
		payload.TypeUrl, payload.Value = e.Payload.TypeURL, e.Payload.Value
		return s.replay(event, len(e.Payload.Value))
	})
}

// command puts a command into the next message. The session has one Command that it fills anew each
// time, so mostly nothing is to be done.
func (m *eventSourcedMessages) command(c *cloudstate.Command) {
	if in, ok := m.in.GetMessage().(*eventsourced.EventSourcedStreamIn_Command); !ok || in.Command != c {
		m.in.Message = &eventsourced.EventSourcedStreamIn_Command{Command: c}
	}
}

func (m *eventSourcedMessages) next() proto.Message { return &m.in }

func (m *eventSourcedMessages) receive(stream grpc.ClientStream, a *answer) error {
	if err := stream.RecvMsg(&m.out); err != nil {
		return err
	}
	readEventSourced(&m.out, a)
	m.out.Reset() // the answer has its content; a waiting session need not hold it
	return nil
}

func (m *eventSourcedMessages) frame(r *sessionv1.Request) { r.Message = &m.framed }

func (*eventSourcedMessages) unframe(r *sessionv1.Response, a *answer) {
	readEventSourced(r.GetEventSourced(), a)
}

func readEventSourced(out *eventsourced.EventSourcedStreamOut, a *answer) {
	switch m := out.GetMessage().(type) {
	case *eventsourced.EventSourcedStreamOut_Reply:
		a.replied(m.Reply, m.Reply.GetMillraceTimers())
	case *eventsourced.EventSourcedStreamOut_Failure:
		a.failed(m.Failure)
	}
}

// outcome leaves a snapshot without events out: it means nothing.
func (eventSourced) outcome(a *answer, out *entities.Outcome) {
	reply, _ := a.reply.(*eventsourced.EventSourcedReply)
	out.Restart = a.action.GetFailure().GetRestart()
	if len(reply.GetEvents()) == 0 {
		return
	}
	out.Events = make([]entities.Payload, len(reply.GetEvents()))
	for i, e := range reply.GetEvents() {
		out.Events[i] = payloadOf(e)
	}
	if reply.GetSnapshot() != nil {
		snapshot := payloadOf(reply.GetSnapshot())
		out.Snapshot = &snapshot
	}
}

// check says why an outcome cannot be stored. most bounds the events; 0 does not.
func (eventSourced) check(out *entities.Outcome, most int) error {
	if out.StateAction != entities.StateKept {
		return errors.New("there is a value, and an event-sourced entity has events instead")
	}
	if most > 0 && len(out.Events) > most {
		return fmt.Errorf("too many events: %d, and the limit is %d for one command", len(out.Events), most)
	}
	for i, e := range out.Events {
		if err := checkStored(e); err != nil {
			return fmt.Errorf("event %d of %d %w", i+1, len(out.Events), err)
		}
	}
	if out.Snapshot != nil {
		if err := checkStored(*out.Snapshot); err != nil {
			return fmt.Errorf("the snapshot %w", err)
		}
	}
	return nil
}

// weigh adds events up until a snapshot tells the size of their sum.
func (eventSourced) weigh(size int64, out *entities.Outcome) int64 {
	if out.Snapshot != nil {
		return int64(len(out.Snapshot.Value))
	}
	for i := range out.Events {
		size += int64(len(out.Events[i].Value))
	}
	return size
}
