package record

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// noCode means a failure without a code. Code 0 is an answer that is not a failure.
const noCode = -1

// EncodeAnswer encodes what the caller of a command is told, as Envelope.Answer has it: a repeat
// under the same id gets the same.
func EncodeAnswer(out *entities.Outcome) []byte {
	a := &recordv1.Answer{}
	switch {
	case out.Failure != nil && out.Failure.Outcome == entities.NotApplied:
		a.Retracted, a.Message = true, out.Failure.Message
	case out.Failure != nil && out.Failure.Reason == entities.TooLarge:
		a.Unkept, a.Message, a.Applied = true, out.Failure.Message, out.Failure.Outcome == entities.Applied
	case out.Failure != nil:
		a.Code, a.Message = int32(out.Failure.Code), out.Failure.Message //nolint:gosec // gRPC codes are small
		a.Partly, a.Applied = out.Failure.Outcome == entities.Unknown, out.Failure.Outcome == entities.Applied
		if a.Code == 0 {
			a.Code = noCode
		}
	case out.Forward != nil:
		a.Forward = &recordv1.Target{
			Service: out.Forward.Service, Method: out.Forward.Method, Metadata: toMetadata(out.Forward.Metadata), Forward: true,
		}
		a.ForwardTypeUrl, a.ForwardPayload = out.Forward.Payload.TypeURL, out.Forward.Payload.Value
		if out.Wrote() {
			a.Forward.Asker = &recordv1.Asker{Wrote: true}
		}
	case out.Reply != nil:
		a.Token = out.Reply.Token
		if !out.Reply.NoPayload {
			a.TypeUrl, a.Payload = out.Reply.Payload.TypeURL, out.Reply.Payload.Value
			a.Metadata = toMetadata(out.Reply.Metadata)
		}
	}
	return mustMarshal("answer", a)
}

// DecodeAnswer decodes an answer: the outcome as it was sent the first time, without effects.
// wrote: the answer is that of a forward, and the command stored something in addition.
func DecodeAnswer(b []byte) (out *entities.Outcome, wrote bool, err error) {
	a := &recordv1.Answer{}
	if err := proto.Unmarshal(b, a); err != nil {
		return nil, false, fmt.Errorf("stored answer: %w", err)
	}
	return outcomeOf(a), a.GetForward().GetAsker().GetWrote(), nil
}

func outcomeOf(a *recordv1.Answer) *entities.Outcome {
	switch {
	case a.GetRetracted():
		return &entities.Outcome{Failure: &entities.Error{
			Reason: entities.Unavailable, Outcome: entities.NotApplied, Message: a.GetMessage(),
		}}
	case a.GetUnkept():
		e := &entities.Error{Reason: entities.TooLarge, Outcome: entities.Unknown, Message: a.GetMessage()}
		if a.GetApplied() {
			e.Outcome = entities.Applied
		}
		return &entities.Outcome{Failure: e}
	case a.GetCode() != 0:
		e := &entities.Error{
			Reason: entities.FunctionRefused, Outcome: entities.Refused, Message: a.GetMessage(),
			Code: uint32(max(0, a.GetCode())),
		}
		switch {
		case a.GetApplied():
			e.Outcome = entities.Applied
		case a.GetPartly():
			e.Outcome = entities.Unknown
		}
		return &entities.Outcome{Failure: e}
	case a.GetForward() != nil:
		return &entities.Outcome{Forward: &entities.Target{
			Service: a.GetForward().GetService(), Method: a.GetForward().GetMethod(),
			Metadata: fromMetadata(a.GetForward().GetMetadata()),
			Payload:  entities.Payload{TypeURL: a.GetForwardTypeUrl(), Value: a.GetForwardPayload()},
		}}
	case a.GetTypeUrl() == "" && a.GetToken() == "":
		return &entities.Outcome{}
	default:
		return &entities.Outcome{Reply: &entities.Reply{
			Payload: entities.Payload{TypeURL: a.GetTypeUrl(), Value: a.GetPayload()}, Metadata: fromMetadata(a.GetMetadata()),
			Token: a.GetToken(), NoPayload: a.GetTypeUrl() == "",
		}}
	}
}

// Forwards says whether an encoded answer leaves the answer to another command.
func Forwards(answer []byte) bool {
	a := &recordv1.Answer{}
	return proto.Unmarshal(answer, a) == nil && a.GetForward() != nil
}

// Retracted says whether an encoded answer leaves the command's id free.
func Retracted(answer []byte) bool {
	a := &recordv1.Answer{}
	return proto.Unmarshal(answer, a) == nil && a.GetRetracted()
}
