package interceptor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

const (
	// maxWaiting bounds the calls that no test has taken; further ones are refused.
	maxWaiting = 256
	// maxMessageBytes is the largest message that is relayed.
	maxMessageBytes = 16 << 20
)

// Interceptor relays calls to a function and keeps a record of them.
type Interceptor struct {
	function *grpc.ClientConn
	server   *grpc.Server
	addr     string
	// work are the goroutines of Serve and of the proxy's side of each call.
	work sync.WaitGroup

	mu sync.Mutex
	// waiting are the calls that no test has taken, in order of arrival.
	waiting []*Call
	// arrived is signalled when waiting grows; it holds one signal.
	arrived chan struct{}
}

// New returns an interceptor for the function at an address (host and port). Close must be
// called.
func New(function string) (*Interceptor, error) {
	conn, err := grpc.NewClient(function,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallRecvMsgSize(maxMessageBytes)))
	if err != nil {
		return nil, fmt.Errorf("intercept the function at %s: %w", function, err)
	}
	i := &Interceptor{function: conn, arrived: make(chan struct{}, 1)}
	i.server = grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.UnknownServiceHandler(i.relay),
		grpc.MaxRecvMsgSize(maxMessageBytes), grpc.WaitForHandlers(true))
	return i, nil
}

// Serve accepts proxies until Close, which also closes the listener. It does not wait.
func (i *Interceptor) Serve(l net.Listener) {
	i.addr = l.Addr().String()
	i.work.Go(func() { _ = i.server.Serve(l) }) // ends with the server; Close waits for it
}

// Addr returns the address of the interceptor, once it serves.
func (i *Interceptor) Addr() string { return i.addr }

// Close ends all calls and waits for their goroutines.
func (i *Interceptor) Close() error {
	i.server.Stop()
	i.work.Wait()
	return i.function.Close()
}

// Next takes the first waiting call of a method, such as /cloudstate.EntityDiscovery/discover, and
// waits for it until ctx ends.
func (i *Interceptor) Next(ctx context.Context, method string) (*Call, error) {
	for {
		if call := i.take(func(c *Call) bool { return c.Method == method }); call != nil {
			return call, nil
		}
		select {
		case <-i.arrived:
		case <-ctx.Done():
			return nil, fmt.Errorf("no call of %s: %w; waiting are %v", method, context.Cause(ctx), i.names())
		}
	}
}

// Any takes the first waiting call, and waits for one until ctx ends; then it returns nil.
func (i *Interceptor) Any(ctx context.Context) *Call {
	for {
		if call := i.take(func(*Call) bool { return true }); call != nil {
			return call
		}
		select {
		case <-i.arrived:
		case <-ctx.Done():
			return nil
		}
	}
}

func (i *Interceptor) take(wanted func(*Call) bool) *Call {
	i.mu.Lock()
	defer i.mu.Unlock()
	at := slices.IndexFunc(i.waiting, wanted)
	if at < 0 {
		return nil
	}
	call := i.waiting[at]
	i.waiting = slices.Delete(i.waiting, at, at+1)
	return call
}

func (i *Interceptor) names() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	names := make([]string, len(i.waiting))
	for n, call := range i.waiting {
		names[n] = call.Method
	}
	return names
}

// record adds a call to those that wait for a test.
func (i *Interceptor) record(call *Call) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.waiting) == maxWaiting {
		return status.Errorf(codes.ResourceExhausted, "interceptor: %d calls were not taken by a test", maxWaiting)
	}
	i.waiting = append(i.waiting, call)
	select {
	case i.arrived <- struct{}{}:
	default:
	}
	return nil
}

// relay relays one call of any kind: it starts the proxy's side and runs the function's.
func (i *Interceptor) relay(_ any, proxy grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(proxy)
	call := newCall(method)
	if err := i.record(call); err != nil {
		return err
	}
	requests, responses, err := typesOf(method)
	if err != nil {
		return status.Error(codes.Unimplemented, err.Error())
	}
	ctx, cancel := context.WithCancel(proxy.Context())
	defer cancel()
	bidirectional := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	function, err := i.function.NewStream(ctx, bidirectional, method)
	if err != nil {
		call.Out.end(ctx, err)
		return err
	}
	// Ends when the proxy ends its side, or with this handler: only that ends a receive on the
	// server's side.
	i.work.Go(func() {
		if err := pump(proxy, function, requests, &call.In); err != nil {
			cancel()
			return
		}
		_ = function.CloseSend() // the receiving side gets the error
	})
	return pump(function, proxy, responses, &call.Out)
}

// receiver and sender are the two ends of one direction.
type (
	receiver interface {
		Context() context.Context
		RecvMsg(m any) error
	}
	sender interface{ SendMsg(m any) error }
)

// pump relays and records one direction of a call until it ends. It returns nil for a regular end.
func pump(from receiver, to sender, messages protoreflect.MessageType, flow *Flow) error {
	for {
		var raw frame
		err := from.RecvMsg(&raw)
		if errors.Is(err, io.EOF) {
			flow.end(from.Context(), nil)
			return nil
		}
		if err != nil {
			flow.end(from.Context(), err)
			return err
		}
		message := messages.New().Interface()
		if err := proto.Unmarshal(raw, message); err != nil {
			err = status.Errorf(codes.Internal, "interceptor: a message is not a %s: %v", messages.Descriptor().FullName(), err)
			flow.end(from.Context(), err)
			return err
		}
		flow.add(from.Context(), message)
		// EOF: the other side has ended the call, and RecvMsg returns the reason
		if err := to.SendMsg(&raw); err != nil && !errors.Is(err, io.EOF) {
			flow.end(from.Context(), err)
			return err
		}
	}
}

// typesOf returns the request and reply types of a method.
func typesOf(method string) (in, out protoreflect.MessageType, err error) {
	name := strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", ".")
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil, nil, fmt.Errorf("interceptor: method %s: %w", method, err)
	}
	m, ok := found.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, nil, fmt.Errorf("interceptor: %s is not a method", method)
	}
	if in, err = protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName()); err != nil {
		return nil, nil, fmt.Errorf("interceptor: request type of %s: %w", method, err)
	}
	if out, err = protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName()); err != nil {
		return nil, nil, fmt.Errorf("interceptor: reply type of %s: %w", method, err)
	}
	return in, out, nil
}
