package host

import (
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
)

// eventSourcedWire is the conversation about an event-sourced entity: Init, the events after the snapshot, then commands.
type eventSourcedWire struct {
	channel
	// in and out are used again and again, in by the sending goroutine and out by the receiving one.
	in  eventsourced.EventSourcedStreamIn
	out eventsourced.EventSourcedStreamOut
}

func (w *eventSourcedWire) load(s *session, loaded entities.Loaded, progress func()) error {
	init := &eventsourced.EventSourcedInit{ServiceName: s.service.Name, EntityId: s.key.ID}
	if loaded.Snapshot != nil {
		init.Snapshot = &eventsourced.EventSourcedSnapshot{
			SnapshotSequence: int64(loaded.Snapshot.Sequence), //nolint:gosec // counts events
			Snapshot:         anyOf(loaded.Snapshot.State),
		}
		s.bytes.Store(int64(len(loaded.Snapshot.State.Value)))
	}
	w.in.Message = &eventsourced.EventSourcedStreamIn_Init{Init: init}
	if err := w.SendMsg(&w.in); err != nil {
		return streamError{err}
	}
	if loaded.Events == nil {
		return nil
	}
	return w.replay(s, loaded.Events, progress)
}

// replay sends stored events. Sending blocks while the function is behind, so a long history needs no buffer.
func (w *eventSourcedWire) replay(s *session, events func(func(entities.Event) error) error, progress func()) error {
	payload := new(anypb.Any)
	event := &eventsourced.EventSourcedEvent{Payload: payload}
	w.in.Message = &eventsourced.EventSourcedStreamIn_Event{Event: event}
	return events(func(e entities.Event) error {
		event.Sequence = int64(e.Sequence) //nolint:gosec // counts events
		payload.TypeUrl, payload.Value = e.Payload.TypeURL, e.Payload.Value
		if err := w.SendMsg(&w.in); err != nil {
			return streamError{err}
		}
		s.bytes.Add(int64(len(e.Payload.Value)))
		s.remote.stats.eventsReplayed.Add(1)
		progress()
		return nil
	})
}

func (w *eventSourcedWire) sendCommand(c *cloudstate.Command) error {
	if m, ok := w.in.GetMessage().(*eventsourced.EventSourcedStreamIn_Command); !ok || m.Command != c {
		w.in.Message = &eventsourced.EventSourcedStreamIn_Command{Command: c}
	}
	return w.SendMsg(&w.in)
}

func (w *eventSourcedWire) recv(a *answer) error {
	if err := w.RecvMsg(&w.out); err != nil {
		return err
	}
	readEventSourced(&w.out, a)
	w.out.Reset() // what it says is in the answer; a waiting session need not hold it
	return nil
}

func readEventSourced(out *eventsourced.EventSourcedStreamOut, a *answer) {
	switch m := out.GetMessage().(type) {
	case *eventsourced.EventSourcedStreamOut_Reply:
		a.kind = replyAnswer
		a.commandID = m.Reply.GetCommandId()
		a.action = m.Reply.GetClientAction()
		a.effects = m.Reply.GetSideEffects()
		a.timers = m.Reply.GetMillraceTimers()
		a.events = m.Reply.GetEvents()
		a.snapshot = m.Reply.GetSnapshot()
	case *eventsourced.EventSourcedStreamOut_Failure:
		a.kind = failureAnswer
		a.commandID = m.Failure.GetCommandId()
		a.failure = m.Failure.GetDescription()
	}
}
