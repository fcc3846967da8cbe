package sdk

import (
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// This file converts between decisions of services and messages of the Cloudstate protocol.

func toAny(p Payload) *anypb.Any { return &anypb.Any{TypeUrl: p.TypeURL, Value: p.Value} }

// toAnyOrNil keeps an absent payload absent.
func toAnyOrNil(p *Payload) *anypb.Any {
	if p == nil {
		return nil
	}
	return toAny(*p)
}

func fromAny(a *anypb.Any) Payload { return Payload{TypeURL: a.GetTypeUrl(), Value: a.GetValue()} }

// fromAnyOrNil keeps an absent payload absent.
func fromAnyOrNil(a *anypb.Any) *Payload {
	if a == nil {
		return nil
	}
	p := fromAny(a)
	return &p
}

func fromMetadata(m *cloudstate.Metadata) Metadata {
	if len(m.GetEntries()) == 0 {
		return nil
	}
	metadata := make(Metadata, 0, len(m.GetEntries()))
	for _, entry := range m.GetEntries() {
		binary, isBinary := entry.GetValue().(*cloudstate.MetadataEntry_BytesValue)
		next := MetadataEntry{Key: entry.GetKey(), Text: entry.GetStringValue(), IsBinary: isBinary}
		if isBinary {
			next.Binary = binary.BytesValue
		}
		metadata = append(metadata, next)
	}
	return metadata
}

// fromCommand reads a command of an entity. A worker that supports the context sends principal, id
// and time; any other proxy does not, and the time is that of arrival.
func fromCommand(command *cloudstate.Command) Invocation {
	inv := Invocation{Method: command.GetName(), Payload: fromAny(command.GetPayload())}
	known := command.GetContext()
	if known == nil {
		inv.Metadata, inv.Time = fromMetadata(command.GetMetadata()), time.Now()
		return inv
	}
	inv.ID, inv.Principal = known.GetCommandId(), known.GetPrincipal()
	inv.Metadata, inv.Time = fromMetadata(known.GetMetadata()), time.Unix(0, known.GetTimeUnixNanos()).UTC()
	return inv
}

func toEffects(effects []Effect) []*cloudstate.SideEffect {
	if len(effects) == 0 {
		return nil
	}
	sent := make([]*cloudstate.SideEffect, len(effects))
	for i, e := range effects {
		sent[i] = &cloudstate.SideEffect{
			ServiceName: e.Service, CommandName: e.Method, Payload: toAny(e.Payload), Synchronous: e.Synchronous,
		}
	}
	return sent
}

// toEffects encodes the effects of a command. A proxy that keeps no refusals would not report one
// to the entity; there a command that asks for the report crashes.
func (s *Service) toEffects(command *cloudstate.Command, effects []Effect) ([]*cloudstate.SideEffect, error) {
	sent := toEffects(effects)
	if !command.GetContext().GetRefusals() {
		for i := range effects {
			if effects[i].OnRefused != "" {
				return nil, &CrashError{
					Service: s.name(), Method: command.GetName(), Entity: s.key(command.GetEntityId()),
					Cause: fmt.Errorf(
						"effect on %s: this proxy tells no entity of a refusal: nothing was applied; run the function beside a millrace worker", effects[i].FullMethod()),
				}
			}
		}
		return sent, nil
	}
	for i := range effects {
		sent[i].MillraceOnRefused, sent[i].MillraceIgnoreRefusal = effects[i].OnRefused, effects[i].IgnoreRefusal
	}
	return sent, nil
}

func toReply(p Payload) *cloudstate.Reply { return &cloudstate.Reply{Payload: toAny(p)} }

func toForward(t *Target) *cloudstate.Forward {
	return &cloudstate.Forward{ServiceName: t.Service, CommandName: t.Method, Payload: toAny(t.Payload)}
}

// toFailure describes a refusal. Unknown is what a failure without a code means, so it is not
// spelled out.
func toFailure(commandID int64, refusal *Refusal, restart bool) *cloudstate.Failure {
	failure := &cloudstate.Failure{CommandId: commandID, Description: refusal.Message, Restart: restart}
	if refusal.Code != codes.Unknown {
		failure.GrpcCode = int32(refusal.Code) //nolint:gosec // a gRPC code is below 17
	}
	return failure
}

// toClientAction returns what the caller of an entity's command gets; nil for nothing.
func toClientAction(commandID int64, d *Decision) *cloudstate.ClientAction {
	switch {
	case d.Reply != nil:
		return &cloudstate.ClientAction{Action: &cloudstate.ClientAction_Reply{Reply: toReply(*d.Reply)}}
	case d.Forward != nil:
		return &cloudstate.ClientAction{Action: &cloudstate.ClientAction_Forward{Forward: toForward(d.Forward)}}
	case d.Refusal != nil:
		return &cloudstate.ClientAction{Action: &cloudstate.ClientAction_Failure{Failure: toFailure(commandID, d.Refusal,
			d.Restart)}}
	default:
		return nil
	}
}
