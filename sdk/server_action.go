package sdk

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/proto/gen/cloudstate/action"
)

// actionServer carries calls of actions, one gRPC call for each. Where the input streams, the first message names the
// method and carries no payload, and the others carry a payload only.
type actionServer struct {
	action.UnimplementedActionProtocolServer
	server *Server
}

func (s actionServer) HandleUnary(ctx context.Context, command *action.ActionCommand) (*action.ActionResponse, error) {
	var response *action.ActionResponse
	err := s.call(ctx, command, nil, func(d Decision) error {
		response = toActionResponse(&d)
		return nil
	})
	return response, err
}

func (s actionServer) HandleStreamedIn(stream action.ActionProtocol_HandleStreamedInServer) error {
	first, err := stream.Recv()
	if err != nil {
		return endOf(err)
	}
	return s.call(stream.Context(), first, payloads(stream.Recv), func(d Decision) error {
		return stream.SendAndClose(toActionResponse(&d))
	})
}

func (s actionServer) HandleStreamedOut(command *action.ActionCommand, stream action.ActionProtocol_HandleStreamedOutServer) error {
	return s.call(stream.Context(), command, nil, func(d Decision) error {
		return stream.Send(toActionResponse(&d))
	})
}

func (s actionServer) HandleStreamed(stream action.ActionProtocol_HandleStreamedServer) error {
	first, err := stream.Recv()
	if err != nil {
		return endOf(err)
	}
	return s.call(stream.Context(), first, payloads(stream.Recv), func(d Decision) error {
		return stream.Send(toActionResponse(&d))
	})
}

// call runs a call of the service that the command names.
func (s actionServer) call(ctx context.Context, command *action.ActionCommand, recv func() (Payload, error), send func(Decision) error) error {
	service, err := s.server.service(command.GetServiceName(), KindAction)
	if err != nil {
		return status.Error(codes.Unimplemented, err.Error())
	}
	inv := Invocation{
		Method:   command.GetName(),
		Payload:  fromAny(command.GetPayload()),
		Metadata: fromMetadata(command.GetMetadata()),
		Time:     time.Now(),
	}
	err = service.Call(ctx, inv, recv, send)
	if crash, ok := errors.AsType[*CrashError](err); ok {
		logCrash(ctx, err)
		return status.Errorf(codes.Internal, "%s/%s crashed; the log of the function says why", crash.Service, crash.Method)
	}
	return err
}

// payloads receives what follows the first message.
func payloads(recv func() (*action.ActionCommand, error)) func() (Payload, error) {
	return func() (Payload, error) {
		command, err := recv()
		if err != nil {
			return Payload{}, err
		}
		return fromAny(command.GetPayload()), nil
	}
}

func toActionResponse(d *Decision) *action.ActionResponse {
	response := &action.ActionResponse{SideEffects: toEffects(d.Effects)}
	switch {
	case d.Reply != nil:
		response.Response = &action.ActionResponse_Reply{Reply: toReply(*d.Reply)}
	case d.Forward != nil:
		response.Response = &action.ActionResponse_Forward{Forward: toForward(d.Forward)}
	case d.Refusal != nil:
		response.Response = &action.ActionResponse_Failure{Failure: toFailure(0, d.Refusal, false)}
	}
	return response
}
