package sdk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	sessionv1 "github.com/millrace-io/millrace/proto/gen/millrace/session/v1"
)

// Server speaks the Cloudstate protocol 0.2 for services: it is the user function that a worker, or
// any other Cloudstate proxy, connects to. [Serve] runs one; tests register one with a gRPC server
// of their own.
//
// Each stream of an entity has one goroutine of the server, which ends with the stream. A stream
// that all entities share has one that reads, and runners, which handle what was read. Close ends
// the streams.
type Server struct {
	spec     *cloudstate.EntitySpec
	services map[string]*Service

	mu      sync.Mutex
	closed  bool
	closing chan struct{}
	streams sync.WaitGroup
}

// NewServer returns a server of the services. The error is that of [Check].
func NewServer(services ...*Service) (*Server, error) {
	spec, err := EntitySpec(services...)
	if err != nil {
		return nil, err
	}
	s := &Server{spec: spec, services: map[string]*Service{}, closing: make(chan struct{})}
	for _, service := range services {
		s.services[service.name()] = service
	}
	return s, nil
}

// line is where a session sends its messages: a gRPC stream of its own, or a place on a link.
type line[Out any] interface {
	Context() context.Context
	Send(message *Out) error
}

// Register adds the protocol's services to a gRPC server.
func (s *Server) Register(registrar grpc.ServiceRegistrar) {
	cloudstate.RegisterEntityDiscoveryServer(registrar, discoveryServer{server: s})
	for _, k := range kinds {
		if k != nil {
			k.register(registrar, s)
		}
	}
	sessionv1.RegisterSessionServiceServer(registrar, linkServer{server: s})
}

// Close ends the stream of each entity as soon as its current command is answered, and waits until
// all have ended. Streams that are opened later are refused. Calls of actions are the gRPC server's
// to wait for. Close may be called again.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	s.mu.Unlock()
	s.streams.Wait()
}

// enter counts a stream; it returns false when the server is closed.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.streams.Add(1)
	}
	return !s.closed
}

var errClosing = status.Error(codes.Unavailable, "the function is shutting down; connect again")

// service finds the service that a proxy names.
func (s *Server) service(name string, kind Kind) (*Service, error) {
	service := s.services[name]
	if service == nil || service.kind != kind {
		return nil, fmt.Errorf("this function has no %s service %s; the proxy should discover it again", kind, name)
	}
	return service, nil
}

// converse carries the stream of one entity: every message from recv goes to step, until the proxy
// half-closes, step says that it is over, or the server closes.
//
// The loop has a goroutine of its own, because a server-side receive ends only when the gRPC
// handler returns: that is how Close reaches a stream that waits for its next command. The
// goroutine ends right after this function returns.
func converse[In any](s *Server, recv func() (In, error), step func(In) (over bool, err error)) error {
	if !s.enter() {
		return errClosing
	}
	var turn sync.Mutex // held while a message is worked on
	ended := false
	loop := func() error {
		for {
			in, err := recv()
			if err != nil {
				return endOf(err)
			}
			turn.Lock()
			if ended {
				turn.Unlock()
				return nil
			}
			over, err := step(in)
			turn.Unlock()
			if over || err != nil {
				return err
			}
		}
	}
	done := make(chan error, 1)
	go func() { // ends when recv does; Close waits for it
		defer s.streams.Done()
		done <- loop()
	}()
	select {
	case err := <-done:
		return err
	case <-s.closing:
		turn.Lock()
		defer turn.Unlock()
		ended = true
		return errClosing
	}
}

// endOf tells the proxy's half-close from a broken line.
func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// logCrash logs what the caller does not get, and returns the reference by which the worker or the
// caller finds it.
func logCrash(ctx context.Context, err error) (reference string) {
	reference = strings.ToLower(rand.Text()[:8])
	attrs := []any{"reference", reference}
	if stack := Stack(err); stack != nil {
		attrs = append(attrs, "stack", string(stack))
	}
	crash, ok := errors.AsType[*CrashError](err)
	if !ok {
		slog.ErrorContext(ctx, "entity could not be rebuilt", append(attrs, "error", err)...)
		return reference
	}
	attrs = append(attrs, "service", crash.Service, "method", crash.Method, "error", crash.Cause)
	if crash.Entity != "" {
		attrs = append(attrs, "entity", crash.Entity)
	}
	slog.ErrorContext(ctx, "command crashed", attrs...)
	return reference
}

// discoveryServer answers the handshake.
type discoveryServer struct {
	cloudstate.UnimplementedEntityDiscoveryServer
	server *Server
}

func (d discoveryServer) Discover(ctx context.Context, proxy *cloudstate.ProxyInfo) (*cloudstate.EntitySpec, error) {
	slog.InfoContext(ctx, "discovered", "proxy", proxy.GetProxyName(), "version", proxy.GetProxyVersion())
	return d.server.spec, nil
}

func (d discoveryServer) ReportError(ctx context.Context,
	mistake *cloudstate.UserFunctionError,
) (*emptypb.Empty, error) {
	slog.ErrorContext(ctx, "the proxy found a mistake in this function", "error", mistake.GetMessage())
	return &emptypb.Empty{}, nil
}
