package byhand

import (
	"errors"
	"fmt"
	"io"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/valueentity"
	"github.com/millrace-io/millrace/tests/conformance/proto/vemodel"
)

// values is the protocol service for value entities.
type values struct {
	valueentity.UnimplementedValueEntityServer
}

// Handle serves one entity: Init with the value, then commands with one reply each, until the
// proxy half-closes.
func (values) Handle(stream valueentity.ValueEntity_HandleServer) error {
	v := &value{}
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		reply, err := v.take(in)
		if err != nil {
			return stream.Send(&valueentity.ValueEntityStreamOut{Message: &valueentity.ValueEntityStreamOut_Failure{
				Failure: &cloudstate.Failure{CommandId: in.GetCommand().GetId(), Description: err.Error()},
			}})
		}
		if reply == nil {
			continue
		}
		if err := stream.Send(
			&valueentity.ValueEntityStreamOut{Message: &valueentity.ValueEntityStreamOut_Reply{Reply: reply}}); err != nil {
			return err
		}
	}
}

// value is one value entity.
type value struct {
	service, id string
	state       string
}

// take handles one message; a command has a reply. An error is a violation of the protocol.
func (v *value) take(in *valueentity.ValueEntityStreamIn) (*valueentity.ValueEntityReply, error) {
	switch m := in.GetMessage().(type) {
	case *valueentity.ValueEntityStreamIn_Init:
		return nil, v.init(m.Init)
	case *valueentity.ValueEntityStreamIn_Command:
		if m.Command.GetEntityId() != v.id || v.service == "" {
			return nil, fmt.Errorf("protocol: command for %q on the stream of %q", m.Command.GetEntityId(), v.id)
		}
		return v.command(m.Command)
	default:
		return nil, fmt.Errorf("protocol: unknown message %T", m)
	}
}

func (v *value) init(init *valueentity.ValueEntityInit) error {
	if v.service != "" {
		return errors.New("protocol: a second init")
	}
	v.service, v.id = init.GetServiceName(), init.GetEntityId()
	if init.GetState() == nil {
		return errors.New("protocol: init without a state, not even an empty one")
	}
	if init.GetState().GetValue() == nil {
		return nil
	}
	persisted := &vemodel.Persisted{}
	if err := init.GetState().GetValue().UnmarshalTo(persisted); err != nil {
		return fmt.Errorf("protocol: %w", err)
	}
	v.state = persisted.GetValue()
	return nil
}

func (v *value) command(c *cloudstate.Command) (*valueentity.ValueEntityReply, error) {
	request := &vemodel.Request{}
	if err := c.GetPayload().UnmarshalTo(request); err != nil {
		return nil, fmt.Errorf("protocol: %w", err)
	}
	reply := &valueentity.ValueEntityReply{CommandId: c.GetId()}
	if v.service != vemodel.ValueEntityTckModel_ServiceDesc.ServiceName {
		reply.ClientAction = answerWith(&vemodel.Response{})
		return reply, nil
	}
	return v.process(c.GetId(), request, reply), nil
}

// process takes the actions of a request; the last change of the value counts, and a refused
// command changes nothing.
func (v *value) process(id int64, request *vemodel.Request,
	reply *valueentity.ValueEntityReply,
) *valueentity.ValueEntityReply {
	state := v.state
	var forward *cloudstate.ClientAction
	for _, a := range request.GetActions() {
		switch action := a.GetAction().(type) {
		case *vemodel.RequestAction_Update:
			state = action.Update.GetValue()
			reply.StateAction = &valueentity.ValueEntityAction{Action: &valueentity.ValueEntityAction_Update{
				Update: &valueentity.ValueEntityUpdate{Value: payload(&vemodel.Persisted{Value: state})},
			}}
		case *vemodel.RequestAction_Delete:
			state = ""
			reply.StateAction = &valueentity.ValueEntityAction{
				Action: &valueentity.ValueEntityAction_Delete{Delete: &valueentity.ValueEntityDelete{}},
			}
		case *vemodel.RequestAction_Forward:
			forward = forwardTo(vemodel.ValueEntityTwo_ServiceDesc.ServiceName, "Call",
				&vemodel.Request{Id: action.Forward.GetId()})
		case *vemodel.RequestAction_Effect:
			reply.SideEffects = append(reply.SideEffects, sideEffect(vemodel.ValueEntityTwo_ServiceDesc.ServiceName, "Call",
				action.Effect.GetSynchronous(), &vemodel.Request{Id: action.Effect.GetId()}))
		case *vemodel.RequestAction_Fail:
			return &valueentity.ValueEntityReply{CommandId: id, ClientAction: refuse(id, action.Fail.GetMessage(), false)}
		}
	}
	v.state = state
	if reply.ClientAction = forward; forward == nil {
		reply.ClientAction = answerWith(&vemodel.Response{Message: state})
	}
	return reply
}
