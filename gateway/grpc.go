package gateway

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // native clients may compress; grpc-go bounds the result
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
)

// streamWorkers is how many goroutines of the native server are kept for calls: their stacks have
// already grown, which costs a tenth of a call otherwise. Calls beyond that number get goroutines
// of their own.
const streamWorkers = 256

// The flow control windows of the native server, for one call and for one connection. They are
// fixed, because grpc-go would estimate them with pings and two more frames per round trip.
const (
	streamWindowBytes     = 1 << 20
	connectionWindowBytes = 4 << 20
)

// newGRPC returns a server for one generation. Its services are dynamic; unknown ones are looked up
// once more, because a call may have come before the first catalog.
func (s *Server) newGRPC(g *generation, more ...grpc.ServerOption) *grpc.Server {
	o := s.opts
	server := grpc.NewServer(append(more,
		grpc.ForceServerCodecV2(rawCodec{}),
		grpc.MaxRecvMsgSize(o.MaxRequest),
		grpc.MaxSendMsgSize(o.MaxRequest),
		grpc.MaxConcurrentStreams(uint32(o.MaxStreams)), //nolint:gosec // a small positive number
		grpc.StaticStreamWindowSize(streamWindowBytes),
		grpc.StaticConnWindowSize(connectionWindowBytes),
		grpc.MaxHeaderListSize(uint32(o.MaxHeaderBytes)), //nolint:gosec // a small positive number
		grpc.ConnectionTimeout(o.SniffTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: o.KeepaliveTime, Timeout: o.KeepaliveTimeout,
			MaxConnectionAge: o.MaxConnectionAge, MaxConnectionAgeGrace: o.RetireAfter,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: o.MinPingInterval, PermitWithoutStream: true,
		}),
		grpc.UnknownServiceHandler(s.serveUnknown),
		grpc.WaitForHandlers(true),
	)...)
	if g.catalog != nil {
		for _, service := range g.catalog.Services() {
			server.RegisterService(s.serviceDesc(g, service), nil)
		}
	}
	s.registerHealth(server, g.life)
	if o.Reflection {
		s.registerReflection(server)
	}
	return server
}

// serviceDesc describes a service of the catalog to grpc-go. Unary methods are listed as streams,
// too: grpc-go runs them through the same code, and such a handler can answer OK without a message,
// as functions may. All are listed with streams of callers: of any other method grpc-go refuses
// none or several messages itself, and its answer has no outcome. receiveOnly does that here.
func (s *Server) serviceDesc(g *generation, service *discovery.Service) *grpc.ServiceDesc {
	desc := &grpc.ServiceDesc{ServiceName: service.Name, Metadata: service.Descriptor.ParentFile().Path()}
	for _, m := range service.Methods {
		desc.Streams = append(desc.Streams, grpc.StreamDesc{
			StreamName:    m.Name,
			Handler:       func(_ any, stream grpc.ServerStream) error { return s.serveKnown(g, m, stream) },
			ClientStreams: true,
			ServerStreams: m.ServerStreams,
		})
	}
	return desc
}

// serveUnknown serves calls that came before their generation had a catalog, and refuses methods
// that do not exist.
func (s *Server) serveUnknown(_ any, stream grpc.ServerStream) error {
	path, _ := grpc.MethodFromServerStream(stream)
	g, problem := s.await(stream.Context())
	if problem != nil {
		return writeGRPCError(stream, problem.ForCommand(grpcCommandID(stream.Context())))
	}
	m := g.catalog.Method(path)
	if m == nil {
		return writeGRPCError(stream, s.unknown(unknownMethod(path)))
	}
	return s.serveGRPC(m, stream)
}

// serveKnown serves a method that the generation has. If the generation was replaced and the client
// has not left the connection yet, the call goes to the new catalog.
func (s *Server) serveKnown(g *generation, m *discovery.Method, stream grpc.ServerStream) error {
	if now := s.current.Load(); now != g {
		successor := now.catalog.Method(m.FullName)
		if successor == nil {
			return writeGRPCError(stream, s.unknown(unknownMethod(m.FullName)))
		}
		if successor.ClientStreams != m.ClientStreams || successor.ServerStreams != m.ServerStreams {
			return writeGRPCError(stream,
				unavailable("the streaming kind of the method has changed: call again on a new connection").ForCommand(
					grpcCommandID(stream.Context())))
		}
		m = successor
	}
	return s.serveGRPC(m, stream)
}

// serveGRPC runs one call, native or through net/http.
func (s *Server) serveGRPC(m *discovery.Method, stream grpc.ServerStream) error {
	subtype, problem := contentSubtype(stream.Context())
	if problem != nil {
		return writeGRPCError(stream, problem)
	}
	if subtype == subtypeJSON {
		g, problem := s.await(stream.Context())
		if problem != nil {
			return writeGRPCError(stream, problem.ForCommand(grpcCommandID(stream.Context())))
		}
		stream = &jsonStream{ServerStream: stream, method: m, codec: g.json}
	}
	if m.IsUnary() {
		return s.serveGRPCUnary(m, stream)
	}
	return s.serveGRPCStream(m, stream)
}

// serveGRPCUnary runs a call with one message in each direction. Headers come before the message,
// so the token of a unary call is a header; a stream has it in its trailer.
func (s *Server) serveGRPCUnary(m *discovery.Method, stream grpc.ServerStream) error {
	ctx := stream.Context()
	var message frame
	if err := receiveOnly(m, stream, &message); err != nil {
		return writeTransportError(stream, err)
	}
	env := grpcEnvelope(ctx, s.opts.App, m)
	reply, failure := s.serve(ctx, m, message.payload, &env)
	if failure != nil {
		return writeGRPCError(stream, failure)
	}
	if md := grpcReplyHeaders(reply, reply.Token); md != nil {
		if err := stream.SetHeader(md); err != nil {
			return err
		}
	}
	if reply.NoPayload {
		return s.writeNoPayload(m, stream)
	}
	message.payload = reply.Payload.Value
	if err := stream.SendMsg(&message); err != nil {
		return writeTransportError(stream, err)
	}
	return nil
}

// writeNoPayload ends a call without a reply message. Native gRPC allows that; the other
// protocols have no such reply.
func (s *Server) writeNoPayload(m *discovery.Method, stream grpc.ServerStream) error {
	if stream.Context().Value(rpcCallKey{}) == nil {
		return nil
	}
	return writeGRPCError(stream, noPayload(m))
}

// noPayload is the function's mistake. The command took effect, perhaps, and sending it again would
// not bring a message.
func noPayload(m *discovery.Method) *entities.Error {
	return entities.Errorf(entities.FunctionFailed, entities.Unknown,
		"%s: the function answered without a message: let it reply with %s", m.FullName, m.Output.FullName())
}

// serveGRPCStream runs a call with more than one message in a direction. The last reply's token
// goes into the trailer.
func (s *Server) serveGRPCStream(m *discovery.Method, stream grpc.ServerStream) error {
	ctx := stream.Context()
	var call streamIO
	if m.ClientStreams {
		call.recv = s.readAhead(stream)
	} else {
		var message frame
		if err := receiveOnly(m, stream, &message); err != nil {
			return writeTransportError(stream, err)
		}
		call.first = message.payload
	}
	token, answered := "", false
	call.send = func(reply *entities.Reply) error {
		if !answered {
			answered = true
			if md := grpcReplyHeaders(reply, ""); md != nil {
				if err := stream.SendHeader(md); err != nil {
					return err
				}
			}
		}
		if reply.Token != "" {
			token = reply.Token
		}
		return stream.SendMsg(&frame{payload: reply.Payload.Value})
	}

	env := grpcEnvelope(ctx, s.opts.App, m)
	failure := s.serveStream(ctx, m, &env, call)
	if token != "" {
		stream.SetTrailer(metadata.Pairs(headerToken, token))
	}
	if failure != nil {
		return writeGRPCError(stream, failure)
	}
	return nil
}

// receiveOnly reads the message of a call whose caller sends exactly one.
func receiveOnly(m *discovery.Method, stream grpc.ServerStream, message *frame) error {
	err := stream.RecvMsg(message)
	if err == nil {
		payload := message.payload
		if err = stream.RecvMsg(message); errors.Is(err, io.EOF) {
			message.payload = payload
			return nil
		}
	}
	switch {
	case err == nil:
		return wrongCount(m, "more than one")
	case errors.Is(err, io.EOF):
		return wrongCount(m, "none")
	default:
		return err
	}
}

// received is a message of a streaming caller, or the end, on its way from the goroutine that reads
// to the one that serves the call.
type received struct {
	payload []byte
	err     error
}

// readAhead reads a caller's messages one ahead, so that waiting for one can be cancelled.
func (s *Server) readAhead(stream grpc.ServerStream) func(context.Context) ([]byte, error) {
	messages := make(chan received)
	done := stream.Context().Done()
	// It ends with the call, which ends RecvMsg; Shutdown waits for it.
	s.background.Go(func() {
		for {
			var message frame
			err := stream.RecvMsg(&message)
			select {
			case messages <- received{message.payload, err}:
			case <-done:
				return
			}
			if err != nil {
				return
			}
		}
	})
	var last error
	return func(ctx context.Context) ([]byte, error) {
		if last != nil {
			return nil, last
		}
		select {
		case next := <-messages:
			last = next.err
			return next.payload, recvError(next.err)
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-done:
			return nil, stream.Context().Err()
		}
	}
}

// recvError converts an error of the transport to one that dispatchers know.
func recvError(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if e, ok := errors.AsType[*entities.Error](err); ok {
		return e
	}
	st, _ := status.FromError(err)
	return &entities.Error{
		Reason: entities.FunctionRefused, Code: uint32(st.Code()), Outcome: entities.Unknown, Message: st.Message(),
		Cause: err,
	}
}

// writeGRPCError is the last step of a call that did not succeed.
func writeGRPCError(stream grpc.ServerStream, e *entities.Error) error {
	stream.SetTrailer(metadata.Pairs(headerOutcome, e.Outcome.String()))
	return statusOf(e).Err()
}

// writeTransportError ends a call whose message could not be read or written. The status of an
// error of grpc-go is on its way already, without an outcome (ADR 31).
func writeTransportError(stream grpc.ServerStream, err error) error {
	if e, ok := errors.AsType[*entities.Error](err); ok {
		return writeGRPCError(stream, e)
	}
	return err
}

// Content subtypes of gRPC that are served.
const (
	subtypeProto = "proto"
	subtypeJSON  = "json"
)

// contentSubtype returns how a call's messages are encoded. The codec is the same for all, so
// grpc-go does not check it.
func contentSubtype(ctx context.Context) (string, *entities.Error) {
	contentType := firstValue(ctx, "content-type")
	if contentType == contentTypeGRPC || contentType == contentTypeGRPC+"+"+subtypeProto { // of most calls
		return subtypeProto, nil
	}
	media, _ := mediaType(contentType)
	subtype := strings.TrimPrefix(media, contentTypeGRPC)
	switch {
	case subtype == "" || subtype == "+"+subtypeProto:
		return subtypeProto, nil
	case subtype == "+"+subtypeJSON:
		return subtypeJSON, nil
	default:
		return "", invalid("content type %q is not served: use %s+%s or %s+%s", contentType, contentTypeGRPC,
			subtypeProto, contentTypeGRPC, subtypeJSON)
	}
}

// jsonStream makes a call with JSON messages look like one with protobuf messages. Sizes are
// checked on the protobuf message, which is what the log gets.
type jsonStream struct {
	grpc.ServerStream
	method *discovery.Method
	codec  *jsonCodec
}

// RecvMsg reads a message into a *frame.
func (j *jsonStream) RecvMsg(v any) error {
	if err := j.ServerStream.RecvMsg(v); err != nil {
		return err
	}
	message, _ := v.(*frame)
	payload, problem := j.codec.fromJSON(j.method, message.payload)
	if problem != nil {
		return problem
	}
	message.payload = payload
	return nil
}

// SendMsg writes a *frame.
func (j *jsonStream) SendMsg(v any) error {
	message, _ := v.(*frame)
	text, problem := j.codec.toJSON(j.method, message.payload)
	if problem != nil {
		return problem
	}
	return j.ServerStream.SendMsg(&frame{payload: text})
}
