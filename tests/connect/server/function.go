package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/action"
	conformancev1 "github.com/millrace-io/millrace/tests/connect/proto/connectrpc/conformance/v1"
)

// function is ConformanceService as a user function. A call does as its first message says, which
// service.proto describes. What Cloudstate's messages have no place for is left out: trailers, and
// everything of an error but code and message.
type function struct {
	cloudstate.UnimplementedEntityDiscoveryServer
	action.UnimplementedActionProtocolServer
}

// Discover describes the function.
func (function) Discover(context.Context, *cloudstate.ProxyInfo) (*cloudstate.EntitySpec, error) {
	set := &descriptorpb.FileDescriptorSet{}
	for _, file := range []protoreflect.FileDescriptor{
		anypb.File_google_protobuf_any_proto, conformancev1.File_connectrpc_conformance_v1_config_proto,
		conformancev1.File_connectrpc_conformance_v1_service_proto,
	} {
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	files, err := proto.Marshal(set)
	if err != nil {
		return nil, err
	}
	return &cloudstate.EntitySpec{
		Proto: files,
		Entities: []*cloudstate.Entity{{
			EntityType:  action.ActionProtocol_ServiceDesc.ServiceName,
			ServiceName: conformancev1.ConformanceService_ServiceDesc.ServiceName,
		}},
		ServiceInfo: &cloudstate.ServiceInfo{
			ServiceName: "conformance", ProtocolMajorVersion: 0, ProtocolMinorVersion: 2,
			MillraceExtensions: []cloudstate.MillraceExtension{cloudstate.MillraceExtension_MILLRACE_FAILURE_CODE},
		},
	}, nil
}

// ReportError ends the test with a mistake that millrace found in this function.
func (function) ReportError(_ context.Context, e *cloudstate.UserFunctionError) (*emptypb.Empty, error) {
	return nil, status.Error(codes.Internal, e.GetMessage())
}

// HandleUnary answers a call of a unary method.
func (function) HandleUnary(ctx context.Context, c *action.ActionCommand) (*action.ActionResponse, error) {
	in, err := c.GetPayload().UnmarshalNew()
	if err != nil {
		return nil, err
	}
	seen := observed{ctx: ctx, metadata: c.GetMetadata(), requests: []*anypb.Any{c.GetPayload()}}
	switch in := in.(type) {
	case *conformancev1.UnaryRequest:
		return seen.only(in.GetResponseDefinition(), func(p *conformancev1.ConformancePayload) proto.Message {
			return &conformancev1.UnaryResponse{Payload: p}
		})
	case *conformancev1.IdempotentUnaryRequest:
		return seen.only(in.GetResponseDefinition(), func(p *conformancev1.ConformancePayload) proto.Message {
			return &conformancev1.IdempotentUnaryResponse{Payload: p}
		})
	default:
		return refusal(&conformancev1.Error{
			Code: conformancev1.Code_CODE_UNIMPLEMENTED, Message: proto.String(c.GetName() + " is not implemented"),
		}), nil
	}
}

// HandleStreamedIn answers ClientStream, when all messages have come.
func (function) HandleStreamedIn(stream action.ActionProtocol_HandleStreamedInServer) error {
	seen, err := begin(stream.Context(), stream.Recv)
	if err != nil {
		return err
	}
	var definition *conformancev1.UnaryResponseDefinition
	for first := true; ; first = false {
		in := &conformancev1.ClientStreamRequest{}
		if err := seen.receive(stream.Recv, in); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		if first {
			definition = in.GetResponseDefinition()
		}
	}
	answer, err := seen.only(definition, func(p *conformancev1.ConformancePayload) proto.Message {
		return &conformancev1.ClientStreamResponse{Payload: p}
	})
	if err != nil {
		return err
	}
	return stream.SendAndClose(answer)
}

// HandleStreamedOut answers ServerStream.
func (function) HandleStreamedOut(c *action.ActionCommand, stream action.ActionProtocol_HandleStreamedOutServer) error {
	in := &conformancev1.ServerStreamRequest{}
	if err := c.GetPayload().UnmarshalTo(in); err != nil {
		return err
	}
	answers := answers{
		observed:   &observed{ctx: stream.Context(), metadata: c.GetMetadata(), requests: []*anypb.Any{c.GetPayload()}},
		definition: in.GetResponseDefinition(), send: stream.Send,
		wrap: func(p *conformancev1.ConformancePayload) proto.Message {
			return &conformancev1.ServerStreamResponse{Payload: p}
		},
	}
	return answers.rest()
}

// HandleStreamed answers BidiStream: in full duplex one message for each, otherwise all after the
// caller's last.
func (function) HandleStreamed(stream action.ActionProtocol_HandleStreamedServer) error {
	seen, err := begin(stream.Context(), stream.Recv)
	if err != nil {
		return err
	}
	answers := answers{
		observed: seen, send: stream.Send,
		wrap: func(p *conformancev1.ConformancePayload) proto.Message {
			return &conformancev1.BidiStreamResponse{Payload: p}
		},
	}
	fullDuplex := false
	for first := true; ; first = false {
		in := &conformancev1.BidiStreamRequest{}
		if err := seen.receive(stream.Recv, in); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		if first {
			answers.definition, fullDuplex = in.GetResponseDefinition(), in.GetFullDuplex()
		}
		if !fullDuplex {
			continue
		}
		if !answers.more() {
			break
		}
		if err := answers.next(); err != nil {
			return err
		}
		seen.requests = nil // the next answer has those that come after this one
	}
	return answers.rest()
}

// observed is what a call has sent so far.
type observed struct {
	ctx      context.Context //nolint:containedctx // lives as long as the call
	metadata *cloudstate.Metadata
	requests []*anypb.Any
}

type recv func() (*action.ActionCommand, error)

// begin takes the first element of a stream, which has the metadata and no message.
func begin(ctx context.Context, recv recv) (*observed, error) {
	c, err := recv()
	if err != nil {
		return nil, err
	}
	return &observed{ctx: ctx, metadata: c.GetMetadata()}, nil
}

// receive takes a message of a stream.
func (o *observed) receive(recv recv, in proto.Message) error {
	c, err := recv()
	if err != nil {
		return err
	}
	o.requests = append(o.requests, c.GetPayload())
	return c.GetPayload().UnmarshalTo(in)
}

// info is what the caller wants to have back.
func (o *observed) info() *conformancev1.ConformancePayload_RequestInfo {
	info := &conformancev1.ConformancePayload_RequestInfo{Requests: o.requests}
	headers := map[string]*conformancev1.Header{}
	for _, e := range o.metadata.GetEntries() {
		h := headers[e.GetKey()]
		if h == nil {
			h = &conformancev1.Header{Name: e.GetKey()}
			headers[e.GetKey()] = h
			info.RequestHeaders = append(info.RequestHeaders, h)
		}
		h.Value = append(h.Value, e.GetStringValue())
	}
	if end, ok := o.ctx.Deadline(); ok {
		info.TimeoutMs = proto.Int64(time.Until(end).Milliseconds())
	}
	return info
}

// only is the answer of a method that does not stream its output.
func (o *observed) only(d *conformancev1.UnaryResponseDefinition,
	wrap func(*conformancev1.ConformancePayload) proto.Message,
) (*action.ActionResponse, error) {
	if err := pause(o.ctx, d.GetResponseDelayMs()); err != nil {
		return nil, err
	}
	if problem := d.GetError(); problem != nil {
		return refusal(problem), nil
	}
	return reply(d.GetResponseHeaders(),
		wrap(&conformancev1.ConformancePayload{Data: d.GetResponseData(), RequestInfo: o.info()}))
}

// answers are those of a method that streams its output.
type answers struct {
	*observed
	definition *conformancev1.StreamResponseDefinition
	wrap       func(*conformancev1.ConformancePayload) proto.Message
	send       func(*action.ActionResponse) error
	sent       int
}

func (a *answers) more() bool { return a.sent < len(a.definition.GetResponseData()) }

// next sends one answer. The first has all that was observed, a later one only the messages since.
func (a *answers) next() error {
	payload := &conformancev1.ConformancePayload{Data: a.definition.GetResponseData()[a.sent]}
	var headers []*conformancev1.Header
	if a.sent == 0 {
		payload.RequestInfo, headers = a.info(), a.definition.GetResponseHeaders()
	} else if a.requests != nil {
		payload.RequestInfo = &conformancev1.ConformancePayload_RequestInfo{Requests: a.requests}
	}
	a.sent++
	if err := pause(a.ctx, a.definition.GetResponseDelayMs()); err != nil {
		return err
	}
	answer, err := reply(headers, a.wrap(payload))
	if err != nil {
		return err
	}
	return a.send(answer)
}

// rest sends the answers that are left, and the error.
func (a *answers) rest() error {
	for a.more() {
		if err := a.next(); err != nil {
			return err
		}
		a.requests = nil
	}
	if problem := a.definition.GetError(); problem != nil {
		return a.send(refusal(problem))
	}
	return nil
}

// pause waits as a definition says.
func pause(ctx context.Context, ms uint32) error {
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

func reply(headers []*conformancev1.Header, m proto.Message) (*action.ActionResponse, error) {
	payload, err := anypb.New(m)
	if err != nil {
		return nil, err
	}
	md := &cloudstate.Metadata{}
	for _, h := range headers {
		for _, value := range h.GetValue() {
			md.Entries = append(md.Entries, &cloudstate.MetadataEntry{
				Key: h.GetName(), Value: &cloudstate.MetadataEntry_StringValue{StringValue: value},
			})
		}
	}
	return &action.ActionResponse{
		Response: &action.ActionResponse_Reply{Reply: &cloudstate.Reply{Payload: payload, Metadata: md}},
	}, nil
}

func refusal(e *conformancev1.Error) *action.ActionResponse {
	return &action.ActionResponse{Response: &action.ActionResponse_Failure{
		Failure: &cloudstate.Failure{Description: e.GetMessage(), GrpcCode: int32(e.GetCode())},
	}}
}
