package partitions

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/materializer"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// encodeAnswer returns what is stored with a command's records so that a repeat under the same id gets the same answer;
// nil for a command without an id.
func encodeAnswer(call *Call) []byte {
	if !call.named() {
		return nil
	}
	return answerOf(call.outcome)
}

// answerOf encodes what the caller of a command is told.
func answerOf(out *entities.Outcome) []byte {
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
		a.Forward = &recordv1.Target{Service: out.Forward.Service, Method: out.Forward.Method, Metadata: toMetadata(out.Forward.Metadata), Forward: true}
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

// noCode stands for a failure without a code. Code 0 is an answer that is no failure.
const noCode = -1

// unkept is what is kept instead of an outcome whose answer has too many bytes: a refusal with the
// beginning of its text, else that the command took effect.
func unkept(out *entities.Outcome, entity string, size, limit int) *entities.Outcome {
	if e := out.Failure; e != nil && e.Reason == entities.FunctionRefused && !mutation.On(mutation.Shortened) {
		short := *e
		short.Message = shortened(e.Message)
		return &entities.Outcome{Failure: &short}
	}
	return &entities.Outcome{Failure: errAnswerTooLarge(entity, size, limit)}
}

// decodeAnswer is the way back: the outcome as it was told the first time. Effects are not repeated.
// wrote: the answer was left to a forward, and the command stored something beside that.
func decodeAnswer(b []byte) (out *entities.Outcome, wrote bool, err error) {
	a := &recordv1.Answer{}
	if err := proto.Unmarshal(b, a); err != nil {
		return nil, false, fmt.Errorf("stored answer: %w", err)
	}
	return outcomeOf(a), a.GetForward().GetAsker().GetWrote(), nil
}

func outcomeOf(a *recordv1.Answer) *entities.Outcome {
	switch {
	case a.GetRetracted():
		return &entities.Outcome{Failure: &entities.Error{Reason: entities.Unavailable, Outcome: entities.NotApplied, Message: a.GetMessage()}}
	case a.GetUnkept():
		e := &entities.Error{Reason: entities.TooLarge, Outcome: entities.Unknown, Message: a.GetMessage()}
		if a.GetApplied() {
			e.Outcome = entities.Applied
		}
		return &entities.Outcome{Failure: e}
	case a.GetCode() != 0:
		e := &entities.Error{
			Reason: entities.FunctionRefused, Outcome: entities.Refused, Message: a.GetMessage(), Code: uint32(max(0, a.GetCode())),
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
			Service: a.GetForward().GetService(), Method: a.GetForward().GetMethod(), Metadata: fromMetadata(a.GetForward().GetMetadata()),
			Payload: entities.Payload{TypeURL: a.GetForwardTypeUrl(), Value: a.GetForwardPayload()},
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

// forwards says whether a stored answer leaves the answer to another command.
func forwards(answer []byte) bool {
	a := &recordv1.Answer{}
	return proto.Unmarshal(answer, a) == nil && a.GetForward() != nil
}

// retracted says whether a stored answer leaves its id free.
func retracted(answer []byte) bool {
	a := &recordv1.Answer{}
	return proto.Unmarshal(answer, a) == nil && a.GetRetracted()
}

// encodeTarget returns what the record of a timer says about where its payload goes.
func encodeTarget(t entities.Target) []byte {
	return mustMarshal("target", &recordv1.Target{Service: t.Service, Method: t.Method, Metadata: toMetadata(t.Metadata)})
}

// encodeEffect returns what the record of an effect, or of a forward, says about it. onRefused is the method of the asking
// entity that learns of a refusal, as service/method.
func encodeEffect(e *entities.SideEffect, onRefused string, forward bool) []byte {
	return mustMarshal("target", &recordv1.Target{
		Service: e.Service, Method: e.Method, Synchronous: e.Synchronous, Forward: forward, Metadata: toMetadata(e.Metadata),
		OnRefused: onRefused, IgnoreRefusal: e.IgnoreRefusal,
	})
}

// encodeForward is encodeEffect for a forward. by is the command that it was made by; nil: that one is known by no name.
func encodeForward(t *entities.Target, by *asker) []byte {
	target := &recordv1.Target{Service: t.Service, Method: t.Method, Synchronous: true, Forward: true, Metadata: toMetadata(t.Metadata)}
	if by != nil {
		target.Asker = &recordv1.Asker{CommandId: by.commandID, Principal: by.principal, PayloadHash: by.hash, Wrote: by.wrote}
		if s := by.source; s != nil {
			target.Asker.Cause = &recordv1.Cause{
				Generation: uint32(s.Generation), Partition: uint32(s.Partition), Offset: uint64(s.Offset), Index: s.Index, //nolint:gosec // offsets are positive
			}
		}
	}
	return mustMarshal("target", target)
}

// asker names the command that made a forward, so that what the target answers is kept with its id, or with its source.
type asker struct {
	// entity is the command's, as type/id.
	entity               []byte
	commandID, principal string
	hash                 uint64
	source               *entities.Source
	// wrote: it stored something beside its forward.
	wrote bool
}

// askerOf is the asker of a call's forward; nil where the command is known by no name.
func askerOf(entity []byte, call *Call) *asker {
	if !call.named() {
		return nil
	}
	return &asker{entity: entity, commandID: call.cmd.ID, principal: call.cmd.Principal, hash: call.hash, source: call.cmd.Source, wrote: call.outcome.Wrote()}
}

// decodeAsker is the way back, but for the entity; nil: there is none.
func decodeAsker(a *recordv1.Asker) *asker {
	if a == nil {
		return nil
	}
	by := &asker{commandID: a.GetCommandId(), principal: a.GetPrincipal(), hash: a.GetPayloadHash(), wrote: a.GetWrote()}
	if c := a.GetCause(); c != nil {
		s := materializer.Source(&record.Cause{Generation: c.GetGeneration(), Partition: c.GetPartition(), Offset: c.GetOffset(), Index: c.GetIndex()})
		by.source = &s
	}
	return by
}

// decodeEffect is the way back from encodeEffect and encodeForward.
func decodeEffect(b []byte, payload entities.Payload) (*delivery, error) {
	var target recordv1.Target
	if err := proto.Unmarshal(b, &target); err != nil {
		return nil, fmt.Errorf("stored target: %w", err)
	}
	return &delivery{
		effect: entities.SideEffect{
			Target:      entities.Target{Service: target.GetService(), Method: target.GetMethod(), Payload: payload, Metadata: fromMetadata(target.GetMetadata())},
			Synchronous: target.GetSynchronous(), IgnoreRefusal: target.GetIgnoreRefusal(),
		},
		onRefused: target.GetOnRefused(), forward: target.GetForward(), asker: decodeAsker(target.GetAsker()),
	}, nil
}

// TargetOf returns service and method of an encoded target; both are empty where it cannot be read.
func TargetOf(b []byte) (service, method string) {
	t, err := decodeTarget(b, entities.Payload{})
	if err != nil {
		return "", ""
	}
	return t.Service, t.Method
}

// decodeTarget is the way back from encodeTarget.
func decodeTarget(b []byte, payload entities.Payload) (entities.Target, error) {
	d, err := decodeEffect(b, payload)
	if err != nil {
		return entities.Target{}, err
	}
	return d.effect.Target, nil
}

func toMetadata(md entities.Metadata) []*recordv1.MetadataEntry {
	var out []*recordv1.MetadataEntry
	for _, e := range md {
		entry := &recordv1.MetadataEntry{Key: e.Key, Value: &recordv1.MetadataEntry_Text{Text: e.Text}}
		if e.IsBinary {
			entry.Value = &recordv1.MetadataEntry_Binary{Binary: e.Binary}
		}
		out = append(out, entry)
	}
	return out
}

func fromMetadata(md []*recordv1.MetadataEntry) entities.Metadata {
	var out entities.Metadata
	for _, e := range md {
		_, binary := e.GetValue().(*recordv1.MetadataEntry_Binary)
		out = append(out, entities.MetadataEntry{Key: e.GetKey(), Text: e.GetText(), Binary: e.GetBinary(), IsBinary: binary})
	}
	return out
}
