package e2e_test

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/action"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	"github.com/millrace-io/millrace/tests/conformance/byhand"
	"github.com/millrace-io/millrace/tests/conformance/proto/actionmodel"
	"github.com/millrace-io/millrace/tests/conformance/proto/esmodel"
)

// What a command tells the function to do. It refuses anything else with these words.
const (
	emitOne       = "emit"
	emitOpaque    = "emit an event of a type that discovery did not describe"
	emitUntyped   = "emit an event without a type"
	emitUnknown   = "emit an event of a type URL that means nothing"
	emitMany      = "emit 1001 events"
	emitMuch      = "emit 901 KiB"
	hang          = "hang"
	hold          = "hold until the connection is cut"
	breakStream   = "break the stream"
	endStream     = "end the stream"
	giveUp        = "give up"
	answerAnother = "answer another command"
	answerTwice   = "answer twice"
	answerGarbage = "answer garbage"
	sayNothing    = "say nothing"
	forwardToNone = "forward to none"
)

// opaqueURL is a type that has no description.
const opaqueURL = "type.googleapis.com/no.such.Event"

// script is a user function that follows its commands. Its entities keep the concatenation of what
// they emitted, "x" or "?".
type script struct {
	eventsourced.UnimplementedEventSourcedServer
	// ended gets the id of each entity whose stream is over.
	ended chan string
	// holding is closed when a command is held.
	holding chan struct{}
}

func (s *script) register(server *grpc.Server) {
	byhand.RegisterDiscovery(server)
	eventsourced.RegisterEventSourcedServer(server, s)
	action.RegisterActionProtocolServer(server, actions{})
}

// Handle carries one entity.
func (s *script) Handle(stream eventsourced.EventSourced_HandleServer) error {
	var id, state string
	defer func() { s.ended <- id }()
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch m := in.GetMessage().(type) {
		case *eventsourced.EventSourcedStreamIn_Init:
			id = m.Init.GetEntityId()
		case *eventsourced.EventSourcedStreamIn_Event:
			state += letter(m.Event.GetPayload())
		case *eventsourced.EventSourcedStreamIn_Command:
			reply, err := s.perform(stream, m.Command, state)
			if err != nil || reply == nil {
				return err
			}
			for _, event := range reply.GetEvents() {
				state += letter(event)
			}
		}
	}
}

// letter is what an event adds to the state.
func letter(event *anypb.Any) string {
	if event.GetTypeUrl() == opaqueURL {
		return "?"
	}
	return "x"
}

// perform executes a command and sends the reply. Without reply and error the stream is to be
// ended.
func (s *script) perform(stream eventsourced.EventSourced_HandleServer, c *cloudstate.Command,
	state string,
) (*eventsourced.EventSourcedReply, error) {
	request := &esmodel.Request{}
	if err := c.GetPayload().UnmarshalTo(request); err != nil {
		return nil, err
	}
	do := request.GetActions()[0].GetFail().GetMessage()
	reply := &eventsourced.EventSourcedReply{CommandId: c.GetId()}
	event := wrap(&esmodel.Persisted{Value: "x"})
	switch do {
	case emitOne:
		reply.Events = []*anypb.Any{event}
	case emitOpaque:
		reply.Events = []*anypb.Any{{TypeUrl: opaqueURL, Value: event.GetValue()}}
	case emitUntyped:
		reply.Events = []*anypb.Any{event, {Value: event.GetValue()}}
	case emitUnknown:
		reply.Events = []*anypb.Any{event, {TypeUrl: "nonsense", Value: event.GetValue()}}
	case emitMany:
		for range 1001 {
			reply.Events = append(reply.Events, event)
		}
	case emitMuch:
		reply.Events = []*anypb.Any{wrap(&esmodel.Persisted{Value: strings.Repeat("x", 901<<10)})}
	case hang, hold:
		if do == hold {
			close(s.holding)
		}
		<-stream.Context().Done()
		return nil, stream.Context().Err()
	case breakStream:
		return nil, status.Error(codes.DataLoss, "broken")
	case endStream:
		return nil, nil
	case answerAnother:
		reply.CommandId += 7
	case answerTwice:
		defer stream.Send(replyOut(reply)) //nolint:errcheck // the stream may be over before it
	case answerGarbage:
		return reply, stream.SendMsg(raw([]byte{0xff, 0xff, 0xff}))
	case sayNothing:
		return reply, stream.Send(&eventsourced.EventSourcedStreamOut{})
	case giveUp:
		return reply, stream.Send(&eventsourced.EventSourcedStreamOut{Message: &eventsourced.EventSourcedStreamOut_Failure{
			Failure: &cloudstate.Failure{CommandId: c.GetId(), Description: "given up"},
		}})
	default:
		reply.ClientAction = &cloudstate.ClientAction{Action: &cloudstate.ClientAction_Failure{
			Failure: &cloudstate.Failure{CommandId: c.GetId(), Description: do},
		}}
		return reply, stream.Send(replyOut(reply))
	}
	for _, event := range reply.GetEvents() {
		state += letter(event)
	}
	reply.ClientAction = &cloudstate.ClientAction{
		Action: &cloudstate.ClientAction_Reply{Reply: &cloudstate.Reply{Payload: wrap(&esmodel.Response{Message: state})}},
	}
	return reply, stream.Send(replyOut(reply))
}

func replyOut(reply *eventsourced.EventSourcedReply) *eventsourced.EventSourcedStreamOut {
	return &eventsourced.EventSourcedStreamOut{Message: &eventsourced.EventSourcedStreamOut_Reply{Reply: reply}}
}

// actions is an action that answers with the words of its request, or does as they say.
type actions struct {
	action.UnimplementedActionProtocolServer
}

// HandleUnary answers one call.
func (actions) HandleUnary(ctx context.Context, c *action.ActionCommand) (*action.ActionResponse, error) {
	request := &actionmodel.Request{}
	if err := c.GetPayload().UnmarshalTo(request); err != nil {
		return nil, err
	}
	if len(request.GetGroups()) == 0 {
		return &action.ActionResponse{}, nil
	}
	do := request.GetGroups()[0].GetSteps()[0].GetReply().GetMessage()
	switch do {
	case hang:
		<-ctx.Done()
		return nil, ctx.Err()
	case breakStream:
		return nil, status.Error(codes.DataLoss, "broken")
	case answerGarbage:
		garbage := &action.ActionResponse{}
		garbage.ProtoReflect().SetUnknown([]byte{0xff, 0xff, 0xff})
		return garbage, nil
	case forwardToNone:
		return &action.ActionResponse{Response: &action.ActionResponse_Forward{
			Forward: &cloudstate.Forward{ServiceName: "no.such.Service", CommandName: "Call", Payload: c.GetPayload()},
		}}, nil
	default:
		return &action.ActionResponse{Response: &action.ActionResponse_Reply{
			Reply: &cloudstate.Reply{Payload: wrap(&actionmodel.Response{Message: do})},
		}}, nil
	}
}

// wrap is a message as replies contain it. These always encode.
func wrap(m proto.Message) *anypb.Any {
	wrapped, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return wrapped
}
