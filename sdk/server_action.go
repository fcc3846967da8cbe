package sdk

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	actionproto "github.com/millrace-io/millrace/proto/gen/cloudstate/action"
	sessionv1 "github.com/millrace-io/millrace/proto/gen/millrace/session/v1"
)

// action is the kind of services without state.
type action struct{}

func (action) name() string        { return "action" }
func (action) constructor() string { return "sdk.Action" }
func (action) streams(shape) bool  { return true }
func (action) hasEntities() bool   { return false }
func (action) hasEvents() bool     { return false }
func (action) protocol() string    { return actionproto.ActionProtocol_ServiceDesc.ServiceName }

func (action) option(s shape) string {
	switch s {
	case shape{}:
		return "sdk.Unary"
	case shape{out: true}:
		return "sdk.ServerStream"
	case shape{in: true}:
		return "sdk.ClientStream"
	default:
		return "sdk.Bidi"
	}
}

func (action) register(registrar grpc.ServiceRegistrar, server *Server) {
	actionproto.RegisterActionProtocolServer(registrar, actionServer{server: server})
}

func (action) session(*place, *sessionv1.Request) step { return nil }

// actionServer carries calls of actions, one gRPC call for each. Where the input streams, the first
// message names the method and carries no payload, and the others carry a payload only.
type actionServer struct {
	actionproto.UnimplementedActionProtocolServer
	server *Server
}

func (s actionServer) HandleUnary(ctx context.Context,
	command *actionproto.ActionCommand,
) (*actionproto.ActionResponse, error) {
	var response *actionproto.ActionResponse
	err := s.call(ctx, command, nil, func(d Decision) error {
		response = toActionResponse(&d)
		return nil
	})
	return response, err
}

func (s actionServer) HandleStreamedIn(stream actionproto.ActionProtocol_HandleStreamedInServer) error {
	first, err := stream.Recv()
	if err != nil {
		return endOf(err)
	}
	return s.call(stream.Context(), first, payloads(stream.Recv), func(d Decision) error {
		return stream.SendAndClose(toActionResponse(&d))
	})
}

func (s actionServer) HandleStreamedOut(command *actionproto.ActionCommand,
	stream actionproto.ActionProtocol_HandleStreamedOutServer,
) error {
	return s.call(stream.Context(), command, nil, func(d Decision) error {
		return stream.Send(toActionResponse(&d))
	})
}

func (s actionServer) HandleStreamed(stream actionproto.ActionProtocol_HandleStreamedServer) error {
	first, err := stream.Recv()
	if err != nil {
		return endOf(err)
	}
	return s.call(stream.Context(), first, payloads(stream.Recv), func(d Decision) error {
		return stream.Send(toActionResponse(&d))
	})
}

// call runs a call of the service that the command names.
func (s actionServer) call(ctx context.Context, command *actionproto.ActionCommand, recv func() (Payload, error),
	send func(Decision) error,
) error {
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
		return status.Errorf(codes.Internal, "%s/%s crashed; the log of the function says why (reference %s)",
			crash.Service, crash.Method, logCrash(ctx, err))
	}
	return err
}

// payloads receives what follows the first message.
func payloads(recv func() (*actionproto.ActionCommand, error)) func() (Payload, error) {
	return func() (Payload, error) {
		command, err := recv()
		if err != nil {
			return Payload{}, err
		}
		return fromAny(command.GetPayload()), nil
	}
}

func toActionResponse(d *Decision) *actionproto.ActionResponse {
	response := &actionproto.ActionResponse{SideEffects: toEffects(d.Effects)}
	switch {
	case d.Reply != nil:
		response.Response = &actionproto.ActionResponse_Reply{Reply: toReply(*d.Reply)}
	case d.Forward != nil:
		response.Response = &actionproto.ActionResponse_Forward{Forward: toForward(d.Forward)}
	case d.Refusal != nil:
		response.Response = &actionproto.ActionResponse_Failure{Failure: toFailure(0, d.Refusal, false)}
	}
	return response
}
