package byhand

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/action"
	"github.com/millrace-io/millrace/tests/conformance/proto/actionmodel"
)

// actions is the protocol service for actions.
type actions struct {
	action.UnimplementedActionProtocolServer
}

// HandleUnary answers once for all groups of the request.
func (actions) HandleUnary(_ context.Context, c *action.ActionCommand) (*action.ActionResponse, error) {
	if c.GetServiceName() == actionmodel.ActionTwo_ServiceDesc.ServiceName {
		return &action.ActionResponse{Response: &action.ActionResponse_Reply{
			Reply: &cloudstate.Reply{Payload: payload(&actionmodel.Response{})},
		}}, nil
	}
	groups, err := groupsOf(c)
	if err != nil {
		return nil, err
	}
	return respond(groups...), nil
}

// HandleStreamedIn answers once for all groups of all requests.
func (actions) HandleStreamedIn(stream action.ActionProtocol_HandleStreamedInServer) error {
	if err := receiveNames(stream.Recv); err != nil {
		return err
	}
	var all []*actionmodel.ProcessGroup
	for {
		c, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(respond(all...))
		}
		if err != nil {
			return err
		}
		groups, err := groupsOf(c)
		if err != nil {
			return err
		}
		all = append(all, groups...)
	}
}

// HandleStreamedOut answers once for each group.
func (actions) HandleStreamedOut(c *action.ActionCommand, stream action.ActionProtocol_HandleStreamedOutServer) error {
	groups, err := groupsOf(c)
	if err != nil {
		return err
	}
	for _, group := range groups {
		if err := stream.Send(respond(group)); err != nil {
			return err
		}
	}
	return nil
}

// HandleStreamed answers once for each group of each request.
func (actions) HandleStreamed(stream action.ActionProtocol_HandleStreamedServer) error {
	if err := receiveNames(stream.Recv); err != nil {
		return err
	}
	for {
		c, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		groups, err := groupsOf(c)
		if err != nil {
			return err
		}
		for _, group := range groups {
			if err := stream.Send(respond(group)); err != nil {
				return err
			}
		}
	}
}

// receiveNames takes the first message of a stream, which has the names and nothing else.
func receiveNames(recv func() (*action.ActionCommand, error)) error {
	first, err := recv()
	if err != nil {
		return err
	}
	if first.GetServiceName() == "" || first.GetName() == "" || first.GetPayload() != nil {
		return status.Errorf(codes.InvalidArgument, "protocol: the first message of a stream is %v", first)
	}
	return nil
}

func groupsOf(c *action.ActionCommand) ([]*actionmodel.ProcessGroup, error) {
	request := &actionmodel.Request{}
	if err := c.GetPayload().UnmarshalTo(request); err != nil {
		return nil, status.Error(codes.InvalidArgument, fmt.Sprintf("protocol: %v", err))
	}
	return request.GetGroups(), nil
}

// respond takes the steps of groups; the last reply, forward or failure counts, effects add up.
func respond(groups ...*actionmodel.ProcessGroup) *action.ActionResponse {
	const two = "Call"
	response := &action.ActionResponse{}
	for _, group := range groups {
		for _, s := range group.GetSteps() {
			switch step := s.GetStep().(type) {
			case *actionmodel.ProcessStep_Reply:
				response.Response = &action.ActionResponse_Reply{
					Reply: &cloudstate.Reply{Payload: payload(&actionmodel.Response{Message: step.Reply.GetMessage()})},
				}
			case *actionmodel.ProcessStep_Forward:
				response.Response = &action.ActionResponse_Forward{
					Forward: forwardTo(actionmodel.ActionTwo_ServiceDesc.ServiceName, two,
						&actionmodel.OtherRequest{Id: step.Forward.GetId()}).GetForward(),
				}
			case *actionmodel.ProcessStep_Fail:
				response.Response = &action.ActionResponse_Failure{
					Failure: &cloudstate.Failure{Description: step.Fail.GetMessage()},
				}
			case *actionmodel.ProcessStep_Effect:
				response.SideEffects = append(response.SideEffects, sideEffect(actionmodel.ActionTwo_ServiceDesc.ServiceName, two,
					step.Effect.GetSynchronous(), &actionmodel.OtherRequest{Id: step.Effect.GetId()}))
			}
		}
	}
	return response
}
