package partitions

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// encodeAnswer returns what is stored with a command's records so that a repeat under the same id gets the same answer;
// nil for a command without an id.
func encodeAnswer(call *Call) []byte {
	if !call.named() {
		return nil
	}
	out := call.outcome
	a := &recordv1.Answer{}
	switch {
	case out.Failure != nil:
		a.Code, a.Message = int32(out.Failure.Code), out.Failure.Message //nolint:gosec // gRPC codes are small
		if a.Code == 0 {
			a.Code = int32(codeUnknown)
		}
	case out.Forward != nil:
		a.Forward = &recordv1.Target{Service: out.Forward.Service, Method: out.Forward.Method, Metadata: toMetadata(out.Forward.Metadata), Forward: true}
		a.ForwardTypeUrl, a.ForwardPayload = out.Forward.Payload.TypeURL, out.Forward.Payload.Value
	case out.Reply != nil && !out.Reply.NoPayload:
		a.TypeUrl, a.Payload = out.Reply.Payload.TypeURL, out.Reply.Payload.Value
		a.Metadata = toMetadata(out.Reply.Metadata)
	}
	return mustMarshal("answer", a)
}

// codeUnknown is gRPC's UNKNOWN: what the protocol says for a failure without a code.
const codeUnknown = 2

// decodeAnswer is the way back: the outcome as it was told the first time. Effects are not repeated.
func decodeAnswer(b []byte) (*entities.Outcome, error) {
	a := &recordv1.Answer{}
	if err := proto.Unmarshal(b, a); err != nil {
		return nil, fmt.Errorf("stored answer: %w", err)
	}
	switch {
	case a.GetCode() != 0:
		return &entities.Outcome{Failure: &entities.Error{
			Reason: entities.FunctionRefused, Outcome: entities.Refused, Message: a.GetMessage(), Code: uint32(a.GetCode()), //nolint:gosec // gRPC codes are small
		}}, nil
	case a.GetForward() != nil:
		return &entities.Outcome{Forward: &entities.Target{
			Service: a.GetForward().GetService(), Method: a.GetForward().GetMethod(), Metadata: fromMetadata(a.GetForward().GetMetadata()),
			Payload: entities.Payload{TypeURL: a.GetForwardTypeUrl(), Value: a.GetForwardPayload()},
		}}, nil
	case a.GetTypeUrl() == "":
		return &entities.Outcome{}, nil
	default:
		return &entities.Outcome{Reply: &entities.Reply{
			Payload: entities.Payload{TypeURL: a.GetTypeUrl(), Value: a.GetPayload()}, Metadata: fromMetadata(a.GetMetadata()),
		}}, nil
	}
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

// decodeEffect is the way back.
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
		onRefused: target.GetOnRefused(), forward: target.GetForward(),
	}, nil
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
