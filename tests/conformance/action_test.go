package conformance_test

import (
	"errors"
	"io"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/action"
	"github.com/millrace-io/millrace/tests/conformance/proto/actionmodel"
)

func actionCases() []conformanceCase {
	return []conformanceCase{
		{"action/verify unary command processing", actionUnary},
		{"action/verify streamed-in command processing", actionStreamedIn},
		{"action/verify streamed-out command processing", actionStreamedOut},
		{"action/verify streamed command processing", actionStreamed},
		{"action/verify unary forwards and side effects", actionUnaryForwardsAndEffects},
		{"action/verify streamed forwards and side effects", actionStreamedForwardsAndEffects},
		{"action/verify unary failures", actionUnaryFailures},
		{"action/verify streamed failures", actionStreamedFailures},
		{"action/verify unary HTTP API", actionHTTP},
	}
}

const (
	actionService    = "cloudstate.tck.model.action.ActionTckModel"
	actionTwoService = "cloudstate.tck.model.action.ActionTwo"
)

func actionUnary(t *testing.T, s *subject) {
	request := groups(steps(actionReply("one")))
	got, err := s.actions().ProcessUnary(t.Context(), request)
	answered(t, got, err, &actionmodel.Response{Message: "one"})
	s.unaryAction(t, actionCommand(actionService, "ProcessUnary", request), actionReplied("one"))
}

func actionStreamedIn(t *testing.T, s *subject) {
	stream, err := s.actions().ProcessStreamedIn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	call := s.next(t, action.ActionProtocol_HandleStreamedIn_FullMethodName)
	call.in(t, actionNames("ProcessStreamedIn"))
	request := groups(steps(actionReply("one")))
	send(t, stream, request)
	call.in(t, actionPayload(request))
	got, err := stream.CloseAndRecv()
	answered(t, got, err, &actionmodel.Response{Message: "one"})
	call.inEnds(t)
	call.out(t, actionReplied("one"))
	call.outEnds(t)
}

func actionStreamedOut(t *testing.T, s *subject) {
	request := groups(steps(actionReply("A")), steps(actionReply("B")), steps(actionReply("C")))
	stream, err := s.actions().ProcessStreamedOut(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	call := s.next(t, action.ActionProtocol_HandleStreamedOut_FullMethodName)
	call.in(t, actionCommand(actionService, "ProcessStreamedOut", request))
	call.inEnds(t)
	for _, message := range []string{"A", "B", "C"} {
		got, err := stream.Recv()
		answered(t, got, err, &actionmodel.Response{Message: message})
		call.out(t, actionReplied(message))
	}
	completed(t, stream)
	call.outEnds(t)
}

func actionStreamed(t *testing.T, s *subject) {
	stream, err := s.actions().ProcessStreamed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	call := s.next(t, action.ActionProtocol_HandleStreamed_FullMethodName)
	call.in(t, actionNames("ProcessStreamed"))
	for _, message := range []string{"A", "B", "C"} {
		request := groups(steps(actionReply(message)))
		send(t, stream, request)
		call.in(t, actionPayload(request))
		got, err := stream.Recv()
		answered(t, got, err, &actionmodel.Response{Message: message})
		call.out(t, actionReplied(message))
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	completed(t, stream)
	call.ends(t)
}

func actionUnaryForwardsAndEffects(t *testing.T, s *subject) {
	forward := groups(steps(actionForward("one")))
	got, err := s.actions().ProcessUnary(t.Context(), forward)
	answered(t, got, err, &actionmodel.Response{})
	s.unaryAction(t, actionCommand(actionService, "ProcessUnary", forward), &action.ActionResponse{
		Response: &action.ActionResponse_Forward{Forward: forwardTo(actionTwoService, &actionmodel.OtherRequest{Id: "one"})},
	})
	s.actionTwo(t, "one")

	effect := groups(steps(actionReply("two"), actionEffect("two", false)))
	got, err = s.actions().ProcessUnary(t.Context(), effect)
	answered(t, got, err, &actionmodel.Response{Message: "two"})
	replied := actionReplied("two")
	replied.SideEffects = []*cloudstate.SideEffect{effectOn(actionTwoService, false, &actionmodel.OtherRequest{Id: "two"})}
	s.unaryAction(t, actionCommand(actionService, "ProcessUnary", effect), replied)
	s.actionTwo(t, "two")
}

func actionStreamedForwardsAndEffects(t *testing.T, s *subject) {
	stream, err := s.actions().ProcessStreamed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	call := s.next(t, action.ActionProtocol_HandleStreamed_FullMethodName)
	call.in(t, actionNames("ProcessStreamed"))

	forward := groups(steps(actionForward("one")))
	send(t, stream, forward)
	call.in(t, actionPayload(forward))
	call.out(t, &action.ActionResponse{
		Response: &action.ActionResponse_Forward{Forward: forwardTo(actionTwoService, &actionmodel.OtherRequest{Id: "one"})},
	})
	s.actionTwo(t, "one")
	got, err := stream.Recv()
	answered(t, got, err, &actionmodel.Response{})

	effect := groups(steps(actionEffect("two", false)))
	send(t, stream, effect)
	call.in(t, actionPayload(effect))
	call.out(t, &action.ActionResponse{SideEffects: []*cloudstate.SideEffect{
		effectOn(actionTwoService, false, &actionmodel.OtherRequest{Id: "two"}),
	}})
	s.actionTwo(t, "two")

	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	completed(t, stream) // the effect made no element
	call.ends(t)
}

func actionUnaryFailures(t *testing.T, s *subject) {
	request := groups(steps(actionFail("expected failure")))
	_, err := s.actions().ProcessUnary(t.Context(), request)
	refused(t, err, "expected failure")
	s.unaryAction(t, actionCommand(actionService, "ProcessUnary", request), actionFailed("expected failure"))
}

func actionStreamedFailures(t *testing.T, s *subject) {
	stream, err := s.actions().ProcessStreamed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	call := s.next(t, action.ActionProtocol_HandleStreamed_FullMethodName)
	call.in(t, actionNames("ProcessStreamed"))
	request := groups(steps(actionFail("expected failure")))
	send(t, stream, request)
	call.in(t, actionPayload(request))
	call.out(t, actionFailed("expected failure"))
	_, err = stream.Recv()
	refused(t, err, "expected failure")
	call.isReset(t) // the caller's side was still open
}

func actionHTTP(t *testing.T, s *subject) {
	const path = "/tck/model/action/unary"
	s.answersJSON(t, path, `{"groups":[{"steps":[{"reply":{"message":"foo"}}]}]}`, `{"message":"foo"}`)
	s.unaryAction(t, actionCommand(actionService, "ProcessUnary", groups(steps(actionReply("foo")))), actionReplied("foo"))

	s.refusesJSON(t, path, `{"groups":[{"steps":[{"fail":{"message":"boom"}}]}]}`, "boom")
	s.unaryAction(t, actionCommand(actionService, "ProcessUnary", groups(steps(actionFail("boom")))), actionFailed("boom"))
}

func (s *subject) actions() actionmodel.ActionTckModelClient {
	return actionmodel.NewActionTckModelClient(s.conn)
}

// unaryAction is a whole intercepted call of a unary action.
func (s *subject) unaryAction(t *testing.T, command, response proto.Message) {
	t.Helper()
	call := s.next(t, action.ActionProtocol_HandleUnary_FullMethodName)
	call.in(t, command)
	call.out(t, response)
	call.ends(t)
}

// actionTwo is the call caused by a forward or an effect.
func (s *subject) actionTwo(t *testing.T, id string) {
	t.Helper()
	s.unaryAction(t, actionCommand(actionTwoService, "Call", &actionmodel.OtherRequest{Id: id}), actionReplied(""))
}

// completed waits for the regular end of a stream.
func completed[M any](t *testing.T, stream interface{ Recv() (M, error) }) {
	t.Helper()
	if got, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("the stream did not end, but brought %v (%v)", got, err)
	}
}

func send[M any](t *testing.T, stream interface{ Send(M) error }, message M) {
	t.Helper()
	if err := stream.Send(message); err != nil {
		t.Fatal(err)
	}
}

// Constructors of requests.

func groups(g ...*actionmodel.ProcessGroup) *actionmodel.Request {
	return &actionmodel.Request{Groups: g}
}

func steps(s ...*actionmodel.ProcessStep) *actionmodel.ProcessGroup {
	return &actionmodel.ProcessGroup{Steps: s}
}

func actionReply(message string) *actionmodel.ProcessStep {
	return &actionmodel.ProcessStep{Step: &actionmodel.ProcessStep_Reply{Reply: &actionmodel.Reply{Message: message}}}
}

func actionForward(id string) *actionmodel.ProcessStep {
	return &actionmodel.ProcessStep{Step: &actionmodel.ProcessStep_Forward{Forward: &actionmodel.Forward{Id: id}}}
}

func actionFail(message string) *actionmodel.ProcessStep {
	return &actionmodel.ProcessStep{Step: &actionmodel.ProcessStep_Fail{Fail: &actionmodel.Fail{Message: message}}}
}

func actionEffect(id string, synchronous bool) *actionmodel.ProcessStep {
	return &actionmodel.ProcessStep{Step: &actionmodel.ProcessStep_Effect{
		Effect: &actionmodel.SideEffect{Id: id, Synchronous: synchronous},
	}}
}

// Constructors of protocol messages.

func actionCommand(service, name string, request proto.Message) *action.ActionCommand {
	return &action.ActionCommand{ServiceName: service, Name: name, Payload: wrap(request)}
}

// actionNames is the first message of a stream, actionPayload each of the others.
func actionNames(name string) *action.ActionCommand {
	return &action.ActionCommand{ServiceName: actionService, Name: name}
}

func actionPayload(request proto.Message) *action.ActionCommand {
	return &action.ActionCommand{Payload: wrap(request)}
}

func actionReplied(message string) *action.ActionResponse {
	return &action.ActionResponse{Response: &action.ActionResponse_Reply{
		Reply: &cloudstate.Reply{Payload: wrap(&actionmodel.Response{Message: message})},
	}}
}

func actionFailed(description string) *action.ActionResponse {
	return &action.ActionResponse{
		Response: &action.ActionResponse_Failure{Failure: &cloudstate.Failure{Description: description}},
	}
}

func forwardTo(service string, request proto.Message) *cloudstate.Forward {
	return &cloudstate.Forward{ServiceName: service, CommandName: "Call", Payload: wrap(request)}
}

func effectOn(service string, synchronous bool, request proto.Message) *cloudstate.SideEffect {
	return &cloudstate.SideEffect{
		ServiceName: service, CommandName: "Call", Payload: wrap(request), Synchronous: synchronous,
	}
}

// wrap returns a message as in commands and replies.
func wrap(m proto.Message) *anypb.Any {
	wrapped, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return wrapped
}
