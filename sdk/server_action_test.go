package sdk_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/action"
	scriptv1 "github.com/millrace-io/millrace/sdk/internal/script/v1"
)

func flowCommand(t *testing.T, method string, in *scriptv1.FlowRequest) *action.ActionCommand {
	command := &action.ActionCommand{ServiceName: "script.v1.FlowService", Name: method}
	if in != nil {
		command.Payload = pack(t, in)
	}
	return command
}

// element is a message of a stream after the first one.
func element(t *testing.T, in *scriptv1.FlowRequest) *action.ActionCommand {
	return &action.ActionCommand{Payload: pack(t, in)}
}

func flowReply(t *testing.T, text string, effects ...*cloudstate.SideEffect) *action.ActionResponse {
	return &action.ActionResponse{
		Response:    &action.ActionResponse_Reply{Reply: &cloudstate.Reply{Payload: pack(t, response(text))}},
		SideEffects: effects,
	}
}

func flowForward(t *testing.T, text string, effects ...*cloudstate.SideEffect) *action.ActionResponse {
	return &action.ActionResponse{
		Response:    &action.ActionResponse_Forward{Forward: wireForward(t, text)},
		SideEffects: effects,
	}
}

func flowFailure(description string, effects ...*cloudstate.SideEffect) *action.ActionResponse {
	return &action.ActionResponse{
		Response:    &action.ActionResponse_Failure{Failure: &cloudstate.Failure{Description: description}},
		SideEffects: effects,
	}
}

func flowNothing(effects ...*cloudstate.SideEffect) *action.ActionResponse {
	return &action.ActionResponse{SideEffects: effects}
}

// answers are all that an element can be, each plain, with an effect, an awaited one, and three.
func answers(t *testing.T) (groups []*scriptv1.Group, want []*action.ActionResponse) {
	for _, kind := range []struct {
		steps    []*scriptv1.Step
		response func(...*cloudstate.SideEffect) *action.ActionResponse
	}{
		{[]*scriptv1.Step{reply("one")}, func(e ...*cloudstate.SideEffect) *action.ActionResponse { return flowReply(t, "one", e...) }},
		{nil, flowNothing},
		{[]*scriptv1.Step{forward("two")}, func(e ...*cloudstate.SideEffect) *action.ActionResponse { return flowForward(t, "two", e...) }},
		{[]*scriptv1.Step{refuse("three")}, func(e ...*cloudstate.SideEffect) *action.ActionResponse { return flowFailure("three", e...) }},
	} {
		with := func(steps ...*scriptv1.Step) { groups = append(groups, group(append(kind.steps, steps...)...)) }
		with()
		with(effect("other"))
		with(awaited("another"))
		with(effect("a"), effect("b"), effect("c"))
		want = append(want, kind.response(), kind.response(wireEffects(t, false, "other")...),
			kind.response(wireEffects(t, true, "another")...), kind.response(wireEffects(t, false, "a", "b", "c")...))
	}
	return groups, want
}

func TestUnaryActions(t *testing.T) {
	client := action.NewActionProtocolClient(startAll(t).conn)
	groups, want := answers(t)
	for i, g := range groups {
		got, err := client.HandleUnary(t.Context(), flowCommand(t, "Unary", flow(g)))
		if err != nil {
			t.Fatalf("group %v: %v", g, err)
		}
		same(t, got, want[i])
	}
}

// Effects of all messages of a streamed-in call go out with its one answer.
func TestStreamedInActions(t *testing.T) {
	client := action.NewActionProtocolClient(startAll(t).conn)
	gathered := append(wireEffects(t, false, "a"),
		append(wireEffects(t, true, "b"), wireEffects(t, false, "c", "d")...)...)
	for name, c := range map[string]struct {
		first []*scriptv1.Step
		want  func(...*cloudstate.SideEffect) *action.ActionResponse
	}{
		"reply":   {[]*scriptv1.Step{reply("one")}, func(e ...*cloudstate.SideEffect) *action.ActionResponse { return flowReply(t, "one", e...) }},
		"nothing": {nil, flowNothing},
		"forward": {[]*scriptv1.Step{forward("two")}, func(e ...*cloudstate.SideEffect) *action.ActionResponse { return flowForward(t, "two", e...) }},
		"refusal": {[]*scriptv1.Step{refuse("three")}, func(e ...*cloudstate.SideEffect) *action.ActionResponse { return flowFailure("three", e...) }},
	} {
		t.Run(name, func(t *testing.T) {
			streamIn(t, client, c.want(), flow(group(c.first...)))
			streamIn(t, client, c.want(gathered...),
				flow(group(append(c.first, effect("a"))...)), flow(group(awaited("b"))), flow(group(effect("c"), effect("d"))))
		})
	}
	t.Run("no requests", func(t *testing.T) { streamIn(t, client, flowNothing()) })
}

func streamIn(t *testing.T, client action.ActionProtocolClient, want *action.ActionResponse,
	in ...*scriptv1.FlowRequest,
) {
	t.Helper()
	stream, err := client.HandleStreamedIn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	send := func(command *action.ActionCommand) {
		if err := stream.Send(command); err != nil {
			t.Fatal(err)
		}
	}
	send(flowCommand(t, "In", nil))
	for _, message := range in {
		send(element(t, message))
	}
	got, err := stream.CloseAndRecv()
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, want)
}

func TestStreamedOutActions(t *testing.T) {
	client := action.NewActionProtocolClient(startAll(t).conn)
	groups, want := answers(t)
	stream, err := client.HandleStreamedOut(t.Context(), flowCommand(t, "Out", flow(groups...)))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		got, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, w)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("want the end, got %v", err)
	}
}

// Each answer of a bidirectional call is sent after its request, not at the end.
func TestStreamedActions(t *testing.T) {
	client := action.NewActionProtocolClient(startAll(t).conn)
	stream, err := client.HandleStreamed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conversation := talk[*action.ActionCommand, *action.ActionResponse]{t, stream}
	conversation.send(flowCommand(t, "Both", nil))
	groups, want := answers(t)
	for i, g := range groups {
		conversation.send(element(t, flow(g))).expect(want[i])
	}
	conversation.send(element(t, flow(groups[0], groups[1]))).expect(want[0]).expect(want[1])
	conversation.passivate()
}

// Returning a refusal from a streamed handler makes it the last element; effects without one go out
// at the end.
func TestTheEndOfAStreamedAnswer(t *testing.T) {
	client := action.NewActionProtocolClient(start(t, endingService()).conn)
	for in, want := range map[*scriptv1.FlowRequest]*action.ActionResponse{
		flow(group(effect("x"), refuse("no"))):    flowFailure("no", wireEffects(t, false, "x")...),
		flow(group(effect("x"), forward("else"))): flowForward(t, "else", wireEffects(t, false, "x")...),
		flow(group(effect("x"))):                  flowNothing(wireEffects(t, false, "x")...),
		flow(group()):                             nil,
	} {
		stream, err := client.HandleStreamedOut(t.Context(), flowCommand(t, "Out", in))
		if err != nil {
			t.Fatal(err)
		}
		if want != nil {
			got, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			same(t, got, want)
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("want the end, got %v", err)
		}
	}
}

// The caller of a crashed action learns that it crashed, and not why.
func TestActionCrashes(t *testing.T) {
	client := action.NewActionProtocolClient(startAll(t).conn)
	const told = "script.v1.FlowService/Unary crashed; the log of the function says why (reference "
	for _, step := range []*scriptv1.Step{panics("secret"), crash("secret")} {
		_, err := client.HandleUnary(t.Context(), flowCommand(t, "Unary", flow(group(step))))
		if status.Code(err) != codes.Internal || !strings.HasPrefix(status.Convert(err).Message(), told) {
			t.Errorf("got %v", err)
		}
	}
	_, err := client.HandleUnary(t.Context(), flowCommand(t, "Walk", flow()))
	if status.Code(err) != codes.Internal {
		t.Errorf("unknown method: got %v", err)
	}
	stray := flowCommand(t, "Unary", flow())
	stray.ServiceName = "script.v1.CellService"
	if _, err := client.HandleUnary(t.Context(), stray); status.Code(err) != codes.Unimplemented {
		t.Errorf("unknown service: got %v", err)
	}
	stream, err := client.HandleStreamedOut(t.Context(), flowCommand(t, "Out", flow(group(reply("one")), group(panics("secret")))))
	if err != nil {
		t.Fatal(err)
	}
	got, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, flowReply(t, "one"))
	if _, err := stream.Recv(); status.Code(err) != codes.Internal {
		t.Errorf("after the crash: got %v", err)
	}
}

// A caller that leaves is no crash: the handler sees it as an error of the iterator.
func TestACancelledCallEndsTheHandler(t *testing.T) {
	ended := make(chan error, 1)
	client := action.NewActionProtocolClient(start(t, waitingService(ended)).conn)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := client.HandleStreamed(ctx)
	if err != nil {
		t.Fatal(err)
	}
	conversation := talk[*action.ActionCommand, *action.ActionResponse]{t, stream}
	conversation.send(flowCommand(t, "Both", nil)).send(element(t, flow())).expect(flowReply(t, "first"))
	cancel()
	if err := <-ended; status.Code(errors.Unwrap(err)) != codes.Canceled {
		t.Errorf("the handler saw %v", err)
	}
}

func TestActionRequestsThatCannotBeDecodedAreRefused(t *testing.T) {
	client := action.NewActionProtocolClient(startAll(t).conn)
	bad := flowCommand(t, "Unary", flow())
	bad.Payload.Value = []byte{0xff}
	got, err := client.HandleUnary(t.Context(), bad)
	if err != nil {
		t.Fatal(err)
	}
	if got.GetFailure().GetGrpcCode() != int32(codes.InvalidArgument) {
		t.Errorf("unary: got %v", got)
	}
	stream, err := client.HandleStreamed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	broken := element(t, flow())
	broken.Payload.Value = []byte{0xff}
	for _, command := range []*action.ActionCommand{flowCommand(t, "Both", nil), broken} {
		if err := stream.Send(command); err != nil {
			t.Fatal(err)
		}
	}
	got, err = stream.Recv()
	if err != nil || got.GetFailure().GetGrpcCode() != int32(codes.InvalidArgument) {
		t.Errorf("streamed: got %v, %v", got, err)
	}
}
