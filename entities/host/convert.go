package host

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// protobufTypes begins the type URL of every protobuf message; other prefixes stand for JSON and
// primitives.
const protobufTypes = "type.googleapis.com/"

func anyOf(p entities.Payload) *anypb.Any {
	return &anypb.Any{TypeUrl: p.TypeURL, Value: p.Value}
}

func payloadOf(a *anypb.Any) entities.Payload {
	return entities.Payload{TypeURL: a.GetTypeUrl(), Value: a.GetValue()}
}

// metadataToWire keeps every byte: text that protobuf would refuse, because a caller's headers need
// not be UTF-8, is sent as binary.
func metadataToWire(md entities.Metadata) *cloudstate.Metadata {
	if len(md) == 0 {
		return nil
	}
	entries := make([]*cloudstate.MetadataEntry, len(md))
	for i, e := range md {
		entries[i] = &cloudstate.MetadataEntry{Key: asText(e.Key)}
		switch {
		case e.IsBinary:
			entries[i].Value = &cloudstate.MetadataEntry_BytesValue{BytesValue: e.Binary}
		case !utf8.ValidString(e.Text):
			entries[i].Value = &cloudstate.MetadataEntry_BytesValue{BytesValue: []byte(e.Text)}
		default:
			entries[i].Value = &cloudstate.MetadataEntry_StringValue{StringValue: e.Text}
		}
	}
	return &cloudstate.Metadata{Entries: entries}
}

// traceParent is the key of the W3C trace context in metadata.
const traceParent = "traceparent"

// traced is metadata with the trace context of the present call in the place of the caller's.
func traced(md entities.Metadata, parent string) entities.Metadata {
	if parent == "" {
		return md
	}
	all := make(entities.Metadata, 0, len(md)+1)
	for _, e := range md {
		if e.Key != traceParent {
			all = append(all, e)
		}
	}
	return append(all, entities.MetadataEntry{Key: traceParent, Text: parent})
}

// asText makes any string one that protobuf carries.
func asText(s string) string { return strings.ToValidUTF8(s, "\ufffd") }

func metadataOf(md *cloudstate.Metadata) entities.Metadata {
	if len(md.GetEntries()) == 0 {
		return nil
	}
	entries := make(entities.Metadata, len(md.GetEntries()))
	for i, e := range md.GetEntries() {
		entries[i].Key = e.GetKey()
		switch v := e.GetValue().(type) {
		case *cloudstate.MetadataEntry_BytesValue:
			entries[i].Binary, entries[i].IsBinary = v.BytesValue, true
		default:
			entries[i].Text = e.GetStringValue()
		}
	}
	return entries
}

func replyOf(r *cloudstate.Reply) *entities.Reply {
	return &entities.Reply{
		Payload:   payloadOf(r.GetPayload()),
		Metadata:  metadataOf(r.GetMetadata()),
		NoPayload: r.GetPayload() == nil,
	}
}

func forwardOf(f *cloudstate.Forward) *entities.Target {
	return &entities.Target{
		Service:  f.GetServiceName(),
		Method:   f.GetCommandName(),
		Payload:  payloadOf(f.GetPayload()),
		Metadata: metadataOf(f.GetMetadata()),
	}
}

// refusalOf is a failure that the function chose. Its gRPC code counts only when the function
// announced that it sets one.
func refusalOf(f *cloudstate.Failure, codeAnnounced bool) *entities.Error {
	e := &entities.Error{Reason: entities.FunctionRefused, Outcome: entities.Refused, Message: f.GetDescription()}
	if code := f.GetGrpcCode(); codeAnnounced && code > int32(codes.OK) && code <= int32(codes.Unauthenticated) {
		e.Code = uint32(code)
	}
	return e
}

func effectsOf(effects []*cloudstate.SideEffect) []entities.SideEffect {
	if len(effects) == 0 {
		return nil
	}
	out := make([]entities.SideEffect, len(effects))
	for i, e := range effects {
		out[i] = entities.SideEffect{
			Target: entities.Target{
				Service:  e.GetServiceName(),
				Method:   e.GetCommandName(),
				Payload:  payloadOf(e.GetPayload()),
				Metadata: metadataOf(e.GetMetadata()),
			},
			Synchronous: e.GetSynchronous(),
			OnRefused:   e.GetMillraceOnRefused(), IgnoreRefusal: e.GetMillraceIgnoreRefusal(),
		}
	}
	return out
}

// setAction puts a client action into an outcome; none, or an empty one, means that the caller gets
// no message.
func setAction(out *entities.Outcome, action *cloudstate.ClientAction, codeAnnounced bool) {
	switch a := action.GetAction().(type) {
	case *cloudstate.ClientAction_Reply:
		out.Reply = replyOf(a.Reply)
	case *cloudstate.ClientAction_Forward:
		out.Forward = forwardOf(a.Forward)
	case *cloudstate.ClientAction_Failure:
		out.Failure = refusalOf(a.Failure, codeAnnounced)
	}
}

// checkStored says why a payload cannot become a part of the log. The protocol stores any type,
// known or not: a payload needs a type URL that names something, and a protobuf message must be one
// on its top level, so that others can read it later.
func checkStored(p entities.Payload) error {
	slash := strings.LastIndexByte(p.TypeURL, '/')
	switch {
	case p.TypeURL == "":
		return errors.New("has no type URL")
	case slash < 0 || slash == len(p.TypeURL)-1:
		return fmt.Errorf("has the type URL %q, which is not of the form prefix/name", p.TypeURL)
	case !strings.HasPrefix(p.TypeURL, protobufTypes):
		return nil
	}
	for rest := p.Value; len(rest) > 0; {
		_, _, n := protowire.ConsumeField(rest)
		if n < 0 {
			return fmt.Errorf("is not a message of type %s: %w", p.TypeURL, protowire.ParseError(n))
		}
		rest = rest[n:]
	}
	return nil
}
