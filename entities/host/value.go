package host

import (
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/valueentity"
)

// valueWire is the conversation about a value entity: Init with the value, then commands.
type valueWire struct {
	channel
	// in and out are used again and again, in by the sending goroutine and out by the receiving one.
	in  valueentity.ValueEntityStreamIn
	out valueentity.ValueEntityStreamOut
}

func (w *valueWire) load(s *session, loaded entities.Loaded, _ func()) error {
	// The state is always there, also when it says nothing: functions and the protocol's tests count on it.
	state := new(valueentity.ValueEntityInitState)
	if loaded.Value != nil {
		state.Value = anyOf(*loaded.Value)
		s.bytes.Store(int64(len(loaded.Value.Value)))
	}
	w.in.Message = &valueentity.ValueEntityStreamIn_Init{Init: &valueentity.ValueEntityInit{
		ServiceName: s.service.Name,
		EntityId:    s.key.ID,
		State:       state,
	}}
	if err := w.SendMsg(&w.in); err != nil {
		return streamError{err}
	}
	return nil
}

func (w *valueWire) sendCommand(c *cloudstate.Command) error {
	if m, ok := w.in.GetMessage().(*valueentity.ValueEntityStreamIn_Command); !ok || m.Command != c {
		w.in.Message = &valueentity.ValueEntityStreamIn_Command{Command: c}
	}
	return w.SendMsg(&w.in)
}

func (w *valueWire) recv(a *answer) error {
	if err := w.RecvMsg(&w.out); err != nil {
		return err
	}
	readValue(&w.out, a)
	w.out.Reset() // what it says is in the answer; a waiting session need not hold it
	return nil
}

func readValue(out *valueentity.ValueEntityStreamOut, a *answer) {
	switch m := out.GetMessage().(type) {
	case *valueentity.ValueEntityStreamOut_Reply:
		a.kind = replyAnswer
		a.commandID = m.Reply.GetCommandId()
		a.action = m.Reply.GetClientAction()
		a.effects = m.Reply.GetSideEffects()
		a.timers = m.Reply.GetMillraceTimers()
		switch change := m.Reply.GetStateAction().GetAction().(type) {
		case *valueentity.ValueEntityAction_Update:
			a.stateAction, a.state = entities.StateUpdated, change.Update.GetValue()
		case *valueentity.ValueEntityAction_Delete:
			a.stateAction = entities.StateDeleted
		}
	case *valueentity.ValueEntityStreamOut_Failure:
		a.kind = failureAnswer
		a.commandID = m.Failure.GetCommandId()
		a.failure = m.Failure.GetDescription()
	}
}
