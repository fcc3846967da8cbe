package record

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// Request is what the record of an effect, or of a forward, says about it.
type Request struct {
	Effect entities.SideEffect
	// OnRefused is the method of the asking entity that learns of a refusal, as service/method;
	// empty for none.
	OnRefused string
	// Forward: its answer is that of the command that asked.
	Forward bool
	// Asker is the command that forwarded; nil where it is known by no name.
	Asker *Asker
}

// Asker names the command that made a forward, so that what the target answers is kept with its id,
// or with its source.
type Asker struct {
	// Entity is the command's, as type/id. It is the record's key, and not encoded.
	Entity               []byte
	CommandID, Principal string
	PayloadHash          uint64
	Source               *entities.Source
	// Wrote: it stored something in addition to its forward.
	Wrote bool
}

// EncodeTarget encodes where the payload of a timer's record goes, as Envelope.Target has it.
func EncodeTarget(t entities.Target) []byte {
	return mustMarshal("target", &recordv1.Target{Service: t.Service, Method: t.Method, Metadata: toMetadata(t.Metadata)})
}

// EncodeEffect encodes what the record of an effect, or of a forward, says about it, as
// Envelope.Target has it. onRefused is the method of the asking entity that learns of a refusal, as
// service/method.
func EncodeEffect(e *entities.SideEffect, onRefused string, forward bool) []byte {
	return mustMarshal("target", &recordv1.Target{
		Service: e.Service, Method: e.Method, Synchronous: e.Synchronous, Forward: forward, Metadata: toMetadata(e.Metadata),
		OnRefused: onRefused, IgnoreRefusal: e.IgnoreRefusal,
	})
}

// EncodeForward is EncodeEffect for a forward. by is the command that made it; nil: that one is
// known by no name.
func EncodeForward(t *entities.Target, by *Asker) []byte {
	target := &recordv1.Target{
		Service: t.Service, Method: t.Method, Synchronous: true, Forward: true, Metadata: toMetadata(t.Metadata),
	}
	if by != nil {
		target.Asker = &recordv1.Asker{
			CommandId: by.CommandID, Principal: by.Principal, PayloadHash: by.PayloadHash, Wrote: by.Wrote,
		}
		if s := by.Source; s != nil {
			target.Asker.Cause = &recordv1.Cause{
				Generation: uint32(s.Generation), Partition: uint32(s.Partition), Offset: Unsigned(s.Offset), Index: s.Index,
			}
		}
	}
	return mustMarshal("target", target)
}

// DecodeEffect is the way back from EncodeEffect and EncodeForward, but for the entity of the
// asker.
func DecodeEffect(b []byte, payload entities.Payload) (*Request, error) {
	var target recordv1.Target
	if err := proto.Unmarshal(b, &target); err != nil {
		return nil, fmt.Errorf("stored target: %w", err)
	}
	return &Request{
		Effect: entities.SideEffect{
			Target: entities.Target{
				Service: target.GetService(), Method: target.GetMethod(), Payload: payload,
				Metadata: fromMetadata(target.GetMetadata()),
			},
			Synchronous: target.GetSynchronous(), IgnoreRefusal: target.GetIgnoreRefusal(),
		},
		OnRefused: target.GetOnRefused(), Forward: target.GetForward(), Asker: decodeAsker(target.GetAsker()),
	}, nil
}

func decodeAsker(a *recordv1.Asker) *Asker {
	if a == nil {
		return nil
	}
	by := &Asker{
		CommandID: a.GetCommandId(), Principal: a.GetPrincipal(), PayloadHash: a.GetPayloadHash(), Wrote: a.GetWrote(),
	}
	if c := a.GetCause(); c != nil {
		cause := Cause{Generation: c.GetGeneration(), Partition: c.GetPartition(), Offset: c.GetOffset(), Index: c.GetIndex()}
		s := cause.Source()
		by.Source = &s
	}
	return by
}

// DecodeTarget is the way back from EncodeTarget.
func DecodeTarget(b []byte, payload entities.Payload) (entities.Target, error) {
	r, err := DecodeEffect(b, payload)
	if err != nil {
		return entities.Target{}, err
	}
	return r.Effect.Target, nil
}

// TargetOf returns service and method of an encoded target; both are empty where it cannot be read.
func TargetOf(b []byte) (service, method string) {
	t, err := DecodeTarget(b, entities.Payload{})
	if err != nil {
		return "", ""
	}
	return t.Service, t.Method
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
