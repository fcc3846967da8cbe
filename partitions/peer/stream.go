package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/fields"
	"github.com/millrace-io/millrace/internal/multiplex"
	peerv1 "github.com/millrace-io/millrace/proto/gen/millrace/peer/v1"
)

// The fields of the messages of streamed calls, as in peer.proto.
const (
	streamOpening = 1
	streamMessage = 2

	openingCall          = 1
	openingClientStreams = 2
	openingServerStreams = 3

	messageTypeURL = 1
	messagePayload = 2

	streamReply = 1
)

// DispatchStream runs a streamed call of an action on the worker at an address. It returns when the
// call is over; s.Recv is not called after that. The error is an *entities.Error: that of s.Recv or
// s.Send, the other worker's, or one as from Dispatch.
func (c *Client) DispatchStream(ctx context.Context, address string, s *entities.Stream) error {
	on, err := c.Conn(ctx, address)
	if err != nil {
		return err
	}
	call, cancel := context.WithCancelCause(ctx)
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel(errCallOver) // ends what is left of it
	stream, err := peerv1.NewPeerServiceClient(on).Stream(call)
	if err != nil {
		return callFailed(ctx, address, entities.NotApplied, err)
	}
	first := multiplex.NewMessage()
	b, at := fields.Begin(*first, streamOpening)
	b = appendCall(b, openingCall, 0, s.Command, 0, 0)
	b = fields.AppendBool(b, openingClientStreams, s.ClientStreams)
	b = fields.AppendBool(b, openingServerStreams, s.ServerStreams)
	*first = fields.End(b, at)
	// io.EOF: the other side has ended the call already, and RecvMsg returns why.
	if err := stream.SendMsg(first); err != nil && !errors.Is(err, io.EOF) {
		return callFailed(ctx, address, entities.Unknown, err)
	}
	if s.ClientStreams {
		// Ends with the caller's input, or with the call; waited for above.
		sending.Go(func() { passOn(call, cancel, s, stream) })
	} else if err := stream.CloseSend(); err != nil {
		return callFailed(ctx, address, entities.Unknown, err)
	}
	known := names{}
	for {
		reply := &entities.Reply{}
		in := multiplex.Incoming{Consume: func(b []byte) error { return parseReply(b, known, reply) }}
		err := stream.RecvMsg(&in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			if err = s.Send(reply); err == nil {
				continue
			}
			return asError(err)
		}
		if byCaller, ok := errors.AsType[callerError](context.Cause(call)); ok {
			return asError(byCaller.error)
		}
		return callFailed(ctx, address, entities.Unknown, err)
	}
}

var errCallOver = errors.New("the call is over")

// callerError is a call's end by its caller, to distinguish it from one by the worker.
type callerError struct{ error }

// Unwrap returns the error of the caller's side.
func (e callerError) Unwrap() error { return e.error }

// passOn sends the caller's messages, and their end. If the caller leaves, the call ends.
func passOn(ctx context.Context, cancel context.CancelCauseFunc, s *entities.Stream, stream grpc.ClientStream) {
	for {
		payload, err := s.Recv(ctx)
		if errors.Is(err, io.EOF) {
			if err = stream.CloseSend(); err == nil {
				return
			}
		}
		if err != nil {
			cancel(callerError{err})
			return
		}
		message := multiplex.NewMessage()
		b, at := fields.Begin(*message, streamMessage)
		b = fields.AppendString(b, messageTypeURL, payload.TypeURL)
		b = fields.AppendBytes(b, messagePayload, payload.Value)
		*message = fields.End(b, at)
		if err := stream.SendMsg(message); err != nil {
			return // the receiving side gets the error
		}
	}
}

// parseReply reads one reply of a stream. A failure comes as the end of the call, never among them.
func parseReply(b []byte, known names, reply *entities.Reply) error {
	f := fields.Of(b, errWire)
	for f.Next() {
		if f.Number == streamReply {
			if failure, err := parseAnswer(f.B, known, reply); err != nil || failure != nil {
				return fmt.Errorf("%w: a failure among the replies of a stream: %w", errWire, err)
			}
		}
	}
	return f.Err
}

// opening is the first message of a streamed call.
type opening struct {
	call                         received
	clientStreams, serverStreams bool
}

func (o *opening) parse(b []byte) error {
	f := fields.Of(b, errWire)
	for f.Next() {
		if f.Number != streamOpening {
			return fmt.Errorf("%w: a streamed call does not begin with its opening", errWire)
		}
		inner := fields.Of(f.B, errWire)
		for inner.Next() {
			switch inner.Number {
			case openingCall:
				if err := o.call.parse(inner.B, names{}); err != nil {
					return err
				}
			case openingClientStreams:
				o.clientStreams = inner.N != 0
			case openingServerStreams:
				o.serverStreams = inner.N != 0
			}
		}
		if inner.Err != nil {
			return inner.Err
		}
	}
	return f.Err
}

// Stream serves one streamed call. It is called by grpc-go.
func (s *Server) Stream(stream grpc.BidiStreamingServer[peerv1.StreamRequest, peerv1.StreamResponse]) error {
	s.stats.commands.Add(1)
	var o opening
	if err := stream.RecvMsg(&multiplex.Incoming{Consume: o.parse}); err != nil {
		return err
	}
	cmd, err := s.worker.Resolve(o.call.target)
	if err != nil {
		return s.streamFailed(err)
	}
	o.call.complete(cmd)
	call := &entities.Stream{Command: cmd, ClientStreams: o.clientStreams, ServerStreams: o.serverStreams}
	call.Send = func(reply *entities.Reply) error {
		message := multiplex.NewMessage()
		*message = appendAnswer(*message, streamReply, 0, reply, nil)
		if size := len(*message); size > s.options.MaxFrameBytes {
			return entities.Errorf(entities.TooLarge, entities.Unknown, "a reply of %d bytes cannot be sent: the limit between workers is %d", size, s.options.MaxFrameBytes)
		}
		return stream.SendMsg(message)
	}
	if o.clientStreams { // the opening names the method only; the messages come after it
		cmd.Payload = entities.Payload{}
		call.Recv = s.readAhead(stream)
	}
	if err := s.worker.DispatchStream(stream.Context(), call); err != nil {
		return s.streamFailed(err)
	}
	return nil
}

func (s *Server) streamFailed(err error) error {
	e := asError(err)
	s.stats.failed(e)
	return statusOf(e)
}

// next is a message of a caller that streams, or the end.
type next struct {
	payload entities.Payload
	err     error
}

// readAhead reads a caller's messages, one ahead of their consumer, so that the consumer can stop
// waiting for one.
func (s *Server) readAhead(stream grpc.ServerStream) func(context.Context) (entities.Payload, error) {
	messages := make(chan next)
	done := stream.Context().Done()
	// It ends when the call does, because that ends RecvMsg too; Shutdown waits for it.
	s.runners.Go(func() {
		known := names{}
		for {
			var n next
			n.err = stream.RecvMsg(&multiplex.Incoming{Consume: func(b []byte) (err error) {
				n.payload, err = parseMessage(b, known)
				return err
			}})
			select {
			case messages <- n:
			case <-done:
				return
			}
			if n.err != nil {
				return
			}
		}
	})
	var last error
	return func(ctx context.Context) (entities.Payload, error) {
		if last != nil {
			return entities.Payload{}, last
		}
		select {
		case n := <-messages:
			if n.err != nil && !errors.Is(n.err, io.EOF) {
				n.err = entities.Errorf(entities.Cancelled, entities.Unknown, "the caller's side of the stream ended: %w", n.err)
			}
			last = n.err
			return n.payload, n.err
		case <-ctx.Done():
			return entities.Payload{}, ctx.Err()
		case <-done:
			return entities.Payload{}, stream.Context().Err()
		}
	}
}

// parseMessage reads one message of a caller that streams, and copies it.
func parseMessage(b []byte, known names) (entities.Payload, error) {
	var p entities.Payload
	f := fields.Of(b, errWire)
	for f.Next() {
		if f.Number != streamMessage {
			return p, fmt.Errorf("%w: a second opening of a streamed call", errWire)
		}
		inner := fields.Of(f.B, errWire)
		for inner.Next() {
			switch inner.Number {
			case messageTypeURL:
				p.TypeURL = known.of(inner.B)
			case messagePayload:
				p.Value = append([]byte(nil), inner.B...)
			}
		}
		if inner.Err != nil {
			return p, inner.Err
		}
	}
	return p, f.Err
}
