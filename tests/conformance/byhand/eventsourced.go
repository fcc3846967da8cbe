package byhand

import (
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	"github.com/millrace-io/millrace/tests/conformance/proto/esmodel"
)

// snapshotEvery is the number of events between two snapshots.
const snapshotEvery = 5

// journals is the protocol service for event-sourced entities.
type journals struct {
	eventsourced.UnimplementedEventSourcedServer
	options Options
}

// Handle serves one entity: Init, events, then commands with one reply each, until the proxy
// half-closes.
func (s journals) Handle(stream eventsourced.EventSourced_HandleServer) error {
	j := &journal{late: s.options.AppliesLate}
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		reply, err := j.take(in)
		if err != nil {
			return stream.Send(&eventsourced.EventSourcedStreamOut{Message: &eventsourced.EventSourcedStreamOut_Failure{
				Failure: &cloudstate.Failure{CommandId: in.GetCommand().GetId(), Description: err.Error()},
			}})
		}
		if reply == nil {
			continue
		}
		if err := stream.Send(
			&eventsourced.EventSourcedStreamOut{Message: &eventsourced.EventSourcedStreamOut_Reply{Reply: reply}}); err != nil {
			return err
		}
	}
}

// journal is one event-sourced entity: the concatenation of what was emitted.
type journal struct {
	late bool

	service, id string
	state       string
	sequence    int64
	// unstored: the state has changes that are not stored, and a restart was requested.
	unstored bool
}

// take handles one message; a command has a reply. An error is a violation of the protocol.
func (j *journal) take(in *eventsourced.EventSourcedStreamIn) (*eventsourced.EventSourcedReply, error) {
	if init := in.GetInit(); init != nil {
		return nil, j.init(init)
	}
	if j.service == "" {
		return nil, errors.New("protocol: a message before init")
	}
	switch m := in.GetMessage().(type) {
	case *eventsourced.EventSourcedStreamIn_Event:
		return nil, j.replay(m.Event)
	case *eventsourced.EventSourcedStreamIn_Command:
		return j.command(m.Command)
	default:
		return nil, fmt.Errorf("protocol: unknown message %T", m)
	}
}

func (j *journal) init(init *eventsourced.EventSourcedInit) error {
	if j.service != "" {
		return errors.New("protocol: a second init")
	}
	j.service, j.id = init.GetServiceName(), init.GetEntityId()
	if init.GetSnapshot() == nil {
		return nil
	}
	j.sequence = init.GetSnapshot().GetSnapshotSequence()
	return j.restore(init.GetSnapshot().GetSnapshot(), func(value string) { j.state = value })
}

func (j *journal) replay(event *eventsourced.EventSourcedEvent) error {
	if event.GetSequence() != j.sequence+1 {
		return fmt.Errorf("protocol: event %d after event %d", event.GetSequence(), j.sequence)
	}
	j.sequence++
	return j.restore(event.GetPayload(), func(value string) { j.state += value })
}

func (j *journal) restore(stored *anypb.Any, set func(string)) error {
	persisted := &esmodel.Persisted{}
	if err := stored.UnmarshalTo(persisted); err != nil {
		return fmt.Errorf("protocol: %w", err)
	}
	set(persisted.GetValue())
	return nil
}

func (j *journal) command(c *cloudstate.Command) (*eventsourced.EventSourcedReply, error) {
	switch {
	case c.GetEntityId() != j.id:
		return nil, fmt.Errorf("protocol: command for %q on the stream of %q", c.GetEntityId(), j.id)
	case j.unstored:
		return nil, errors.New("protocol: a command after a restart was requested")
	}
	request := &esmodel.Request{}
	if err := c.GetPayload().UnmarshalTo(request); err != nil {
		return nil, fmt.Errorf("protocol: %w", err)
	}
	reply := &eventsourced.EventSourcedReply{CommandId: c.GetId()}
	if j.service != esmodel.EventSourcedTckModel_ServiceDesc.ServiceName {
		reply.ClientAction = answerWith(&esmodel.Response{})
		return reply, nil
	}
	return j.process(c.GetId(), request, reply), nil
}

// process takes the actions of a request. A command that fails after it has emitted events has
// already changed the state, unless events are applied late; then only a restart restores the
// stored state.
func (j *journal) process(id int64, request *esmodel.Request,
	reply *eventsourced.EventSourcedReply,
) *eventsourced.EventSourcedReply {
	before := *j
	snapshot := false
	var forward *cloudstate.ClientAction
	for _, a := range request.GetActions() {
		switch action := a.GetAction().(type) {
		case *esmodel.RequestAction_Emit:
			j.state += action.Emit.GetValue()
			j.sequence++
			snapshot = snapshot || j.sequence%snapshotEvery == 0
			reply.Events = append(reply.Events, payload(&esmodel.Persisted{Value: action.Emit.GetValue()}))
		case *esmodel.RequestAction_Forward:
			forward = forwardTo(esmodel.EventSourcedTwo_ServiceDesc.ServiceName, "Call",
				&esmodel.Request{Id: action.Forward.GetId()})
		case *esmodel.RequestAction_Effect:
			reply.SideEffects = append(reply.SideEffects, sideEffect(esmodel.EventSourcedTwo_ServiceDesc.ServiceName, "Call",
				action.Effect.GetSynchronous(), &esmodel.Request{Id: action.Effect.GetId()}))
		case *esmodel.RequestAction_Fail:
			restart := len(reply.GetEvents()) > 0 && !j.late
			if j.late {
				*j = before
			}
			j.unstored = restart
			proto.Reset(reply)
			reply.CommandId, reply.ClientAction = id, refuse(id, action.Fail.GetMessage(), restart)
			return reply
		}
	}
	if reply.ClientAction = forward; forward == nil {
		reply.ClientAction = answerWith(&esmodel.Response{Message: j.state})
	}
	if snapshot {
		reply.Snapshot = payload(&esmodel.Persisted{Value: j.state})
	}
	return reply
}
