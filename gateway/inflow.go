package gateway

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/mutation"
)

// grpcEnvelopeBytes is the size of the prefix of each message on the wire.
const grpcEnvelopeBytes = 5

// inflow is the body of a request that grpc-go serves through net/http. There grpc-go reads a body
// as fast as it arrives and buffers it, so inflow stops at a window that always has space for one
// whole message.
type inflow struct {
	body io.ReadCloser
	// request is the body that net/http reads from the connection.
	request *requestBody
	control *http.ResponseController

	mu     sync.Mutex // guards what follows
	room   int        // bytes that may still be read
	closed bool
	// changed wakes the one reader.
	changed chan struct{}
}

type inflowKey struct{}

// Read waits until the window has space. Only one goroutine reads.
func (f *inflow) Read(p []byte) (int, error) {
	room, err := f.wait()
	if err != nil {
		return 0, err
	}
	n, err := f.body.Read(p[:min(len(p), room)])
	f.give(-n)
	return n, err
}

func (f *inflow) wait() (int, error) {
	for {
		f.mu.Lock()
		room, closed := f.room, f.closed
		f.mu.Unlock()
		switch {
		case closed:
			return 0, http.ErrBodyReadAfterClose
		case room > 0:
			return room, nil
		}
		<-f.changed
	}
}

// give adds space to the window after a message was taken; a negative n removes it.
func (f *inflow) give(n int) {
	f.mu.Lock()
	f.room += n
	f.mu.Unlock()
	f.wake()
}

func (f *inflow) wake() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// Close implements io.Closer. It ends a waiting Read: grpc-go closes the body when the call ends,
// which may be before the caller has sent everything, and a transcoder would wait for the rest.
// After the end of the body net/http reads from the connection itself, and a deadline would cancel
// every later request of the connection.
func (f *inflow) Close() error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.wake()
	if !f.request.ended.Load() || mutation.On(mutation.Ended) {
		_ = f.control.SetReadDeadline(time.Unix(1, 0))
	}
	return f.body.Close()
}

// requestBody is the body of a request that knows whether it has been read to its end.
type requestBody struct {
	io.ReadCloser
	ended atomic.Bool
}

// Read implements io.Reader.
func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.ended.Store(true)
	}
	return n, err
}

// openWindow is an interceptor that opens the window when a message was taken. Calls with one
// message have none.
func openWindow(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	flow, _ := stream.Context().Value(inflowKey{}).(*inflow)
	if flow == nil {
		return handler(srv, stream)
	}
	err := handler(srv, &inflowStream{ServerStream: stream, flow: flow})
	if problem, ok := errors.AsType[*entities.Error](err); ok { // of the runtime's own services
		return writeGRPCError(stream, problem)
	}
	return err
}

// inflowStream is a call that came through net/http.
type inflowStream struct {
	grpc.ServerStream
	flow *inflow
}

// RecvMsg reads a message and opens the window by its size: the body has messages that are not
// compressed. A request that is wrong ends with the reason.
func (s *inflowStream) RecvMsg(v any) error {
	if err := s.ServerStream.RecvMsg(v); err != nil {
		if messages, ok := s.flow.body.(*messageStream); ok {
			if problem := messages.problem.Load(); problem != nil {
				return problem
			}
		}
		return err
	}
	size := grpcEnvelopeBytes
	switch v := v.(type) {
	case *frame:
		size += len(v.payload)
	case proto.Message: // of the gateway's own services
		size += proto.Size(v)
	}
	s.flow.give(size)
	return nil
}
