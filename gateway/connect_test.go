package gateway_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/gateway"
)

// webClient speaks HTTP/1.1, or HTTP/2 with prior knowledge.
func webClient(t testing.TB, h2 bool) *http.Client {
	t.Helper()
	var protocols http.Protocols
	protocols.SetHTTP1(!h2)
	protocols.SetUnencryptedHTTP2(h2)
	transport := &http.Transport{Protocols: &protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// rpcClient is a Connect client of one method, with dynamic messages.
func (w *world) rpcClient(h2 bool, path string,
	opts ...connect.ClientOption,
) *connect.Client[dynamicpb.Message, dynamicpb.Message] {
	w.t.Helper()
	m := w.catalog.Method(path)
	return connect.NewClient[dynamicpb.Message, dynamicpb.Message](webClient(w.t, h2), "http://"+w.addr+path,
		append([]connect.ClientOption{
			connect.WithSchema(m.Descriptor),
			connect.WithResponseInitializer(func(spec connect.Spec, message any) error {
				descriptor, _ := spec.Schema.(protoreflect.MethodDescriptor)
				dynamic, _ := message.(*dynamicpb.Message)
				*dynamic = *dynamicpb.NewMessage(descriptor.Output())
				return nil
			}),
		}, opts...)...)
}

// flavours are the variants of Connect and gRPC-Web, and native gRPC through net/http.
func flavours() map[string][]connect.ClientOption {
	return map[string][]connect.ClientOption{
		"connect":       nil,
		"connect json":  {connect.WithProtoJSON()},
		"connect gzip":  {connect.WithSendGzip()},
		"grpc-web":      {connect.WithGRPCWeb()},
		"grpc-web json": {connect.WithGRPCWeb(), connect.WithProtoJSON()},
		"grpc-web gzip": {connect.WithGRPCWeb(), connect.WithSendGzip()},
		"grpc":          {connect.WithGRPC()},
		"grpc json":     {connect.WithGRPC(), connect.WithProtoJSON()},
		"grpc gzip":     {connect.WithGRPC(), connect.WithSendGzip()},
	}
}

// eachFlavour runs a test for every protocol over every version of HTTP that can carry it.
func eachFlavour(t *testing.T, test func(t *testing.T, h2 bool, opts []connect.ClientOption)) {
	t.Helper()
	for name, opts := range flavours() {
		for _, h2 := range []bool{false, true} {
			version := "/h1"
			if h2 {
				version = "/h2c"
			}
			if !h2 && strings.HasPrefix(name, "grpc") && !strings.HasPrefix(name, "grpc-web") {
				continue // gRPC needs HTTP/2
			}
			t.Run(name+version, func(t *testing.T) { test(t, h2, opts) })
		}
	}
}

// All protocols make the same command, and return the reply with its token.
func TestTranscodedCalls(t *testing.T) {
	fake := &dispatcher{}
	w := newWorld(t, fake, nil)
	reply := w.reply("Cart", `{"cartId":"42","totalCents":"7"}`)
	reply.Token, reply.Owner = "tok", "b.example:9000"
	w.always(reply)
	eachFlavour(t, func(t *testing.T, h2 bool, opts []connect.ClientOption) {
		request := connect.NewRequest(w.message("AddItemRequest", `{"cartId":"42","quantity":"2","text":"t"}`))
		request.Header().Set("Millrace-Command-Id", "id")
		got, err := w.rpcClient(h2, "/shop.v1.CartService/AddItem", opts...).CallUnary(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		if text := asJSON(t, got.Msg); text != `{"cartId":"42","totalCents":"7"}` ||
			got.Header().Get("Millrace-Token") != "tok" || got.Header().Get("Millrace-Owner") != "b.example:9000" {
			t.Errorf("%s %v", text, got.Header())
		}
		cmd := fake.last()
		if cmd.ID != "id" || cmd.Key.ID != "42" ||
			asJSON(t, w.decoded("AddItemRequest", cmd.Payload.Value)) != `{"cartId":"42","text":"t","quantity":"2"}` {
			t.Errorf("%+v", cmd)
		}
	})
}

// A failure has the same code, message and outcome in every protocol.
func TestTranscodedFailures(t *testing.T) {
	fake := &dispatcher{unary: func(context.Context, *entities.Command) (*entities.Reply, error) {
		return nil, entities.Errorf(entities.Overloaded, entities.NotApplied, "too much")
	}}
	w := newWorld(t, fake, nil)
	eachFlavour(t, func(t *testing.T, h2 bool, opts []connect.ClientOption) {
		_, err := w.rpcClient(h2, "/shop.v1.CartService/Plain", opts...).CallUnary(t.Context(),
			connect.NewRequest(w.message("CartRequest", `{"cartId":"1"}`)))
		failure, ok := errors.AsType[*connect.Error](err)
		if !ok || failure.Code() != connect.CodeResourceExhausted || failure.Message() != "too much" ||
			failure.Meta().Get("millrace-outcome") != "not_applied" {
			t.Errorf("%v %v", err, failure.Meta())
		}
		_, err = w.rpcClient(h2, "/shop.v1.CartService/Plain", opts...).CallUnary(t.Context(),
			connect.NewRequest(w.message("CartRequest", `{}`)))
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("no key: %v", err)
		}
	})
}

// A reply without a message must not look like an empty message.
func TestTranscodedNoPayload(t *testing.T) {
	w := newWorld(t, &dispatcher{}, nil)
	w.always(&entities.Reply{NoPayload: true})
	eachFlavour(t, func(t *testing.T, h2 bool, opts []connect.ClientOption) {
		_, err := w.rpcClient(h2, "/shop.v1.CartService/Plain", opts...).CallUnary(t.Context(),
			connect.NewRequest(w.message("CartRequest", `{"cartId":"1"}`)))
		if err == nil {
			t.Error("it looked like an empty message")
		}
	})
}

func TestTranscodedStreams(t *testing.T) {
	w := newWorld(t, &dispatcher{stream: echoStream}, nil)
	eachFlavour(t, func(t *testing.T, h2 bool, opts []connect.ClientOption) {
		out, err := w.rpcClient(h2, "/shop.v1.StreamService/Out", opts...).CallServerStream(t.Context(),
			connect.NewRequest(w.message("Line", `{"text":"a"}`)))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for out.Receive() {
			n++
		}
		if err := out.Err(); err != nil || n != 3 || out.ResponseTrailer().Get("Millrace-Token") != "t2" {
			t.Errorf("out: %d %v %v", n, out.ResponseTrailer(), err)
		}
		_ = out.Close()

		in := w.rpcClient(h2, "/shop.v1.StreamService/In", opts...).CallClientStream(t.Context())
		for _, text := range []string{"a", "b"} {
			if err := in.Send(w.message("Line", `{"text":"`+text+`"}`)); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := in.CloseAndReceive(); err != nil || asJSON(t, got.Msg) != `{"text":"b"}` {
			t.Errorf("in: %v %v", got, err)
		}
		if !h2 {
			return // both ways at once needs HTTP/2
		}
		both := w.rpcClient(h2, "/shop.v1.StreamService/Both", opts...).CallBidiStream(t.Context())
		for _, text := range []string{"a", "b"} {
			if err := both.Send(w.message("Line", `{"text":"`+text+`"}`)); err != nil {
				t.Fatal(err)
			}
			if got, err := both.Receive(); err != nil || asJSON(t, got) != `{"text":"`+text+`"}` {
				t.Errorf("both: %v %v", got, err)
			}
		}
		_ = both.CloseRequest()
		if _, err := both.Receive(); !errors.Is(err, io.EOF) {
			t.Errorf("both: %v", err)
		}
		_ = both.CloseResponse()
	})
}

// Invalid JSON in the middle of a stream ends it with an error, and must not look like the end of
// the stream.
func TestBrokenJSONIsNoEndOfStream(t *testing.T) {
	seen := make(chan error, 1)
	fake := &dispatcher{stream: func(ctx context.Context, s *entities.Stream) error {
		for {
			if _, err := s.Recv(ctx); err != nil {
				seen <- err
				return err
			}
		}
	}}
	w := newWorld(t, fake, nil)
	body := envelope(`{"text":"a"}`) + envelope(`{"text":`)
	got := w.http("POST", "/shop.v1.StreamService/In", body, jsonType, "application/connect+json")
	if err := <-seen; entities.AsError(err).Reason != entities.InvalidCommand {
		t.Errorf("the function saw %v", err)
	}
	if !strings.Contains(got.body, "invalid_argument") {
		t.Errorf("%d %q", got.status, got.body)
	}
}

// envelope frames a message as in Connect streams and gRPC-Web.
func envelope(message string) string {
	return string([]byte{0, 0, 0, 0, byte(len(message))}) + message
}

// A message that is too large when decompressed is refused in every protocol.
func TestTranscodedLimits(t *testing.T) {
	fake := &dispatcher{}
	w := newWorld(t, fake, func(o *gateway.Options) { o.MaxRequest = 1 << 10 })
	eachFlavour(t, func(t *testing.T, h2 bool, opts []connect.ClientOption) {
		for _, size := range []int{3 << 10, 1 << 20} {
			request := connect.NewRequest(w.message("CartRequest", `{"cartId":"`+strings.Repeat("x", size)+`"}`))
			_, err := w.rpcClient(h2, "/shop.v1.CartService/Plain", opts...).CallUnary(t.Context(), request)
			if code := connect.CodeOf(err); code != connect.CodeResourceExhausted {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
	})
	if fake.count() != 0 {
		t.Errorf("%d commands ran", fake.count())
	}
}

func TestTranscodedUnknownMethod(t *testing.T) {
	w := newWorld(t, &dispatcher{}, nil)
	eachFlavour(t, func(t *testing.T, h2 bool, opts []connect.ClientOption) {
		client := connect.NewClient[emptypb.Empty, emptypb.Empty](webClient(t, h2),
			"http://"+w.addr+"/shop.v1.CartService/Nope", opts...)
		_, err := client.CallUnary(t.Context(), connect.NewRequest(&emptypb.Empty{}))
		failure, ok := errors.AsType[*connect.Error](err)
		if !ok || failure.Code() != connect.CodeUnimplemented ||
			!strings.Contains(failure.Message(), "/shop.v1.CartService/Nope") ||
			failure.Meta().Get("millrace-outcome") != "not_applied" {
			t.Errorf("%v", err)
		}
	})
}

// One HTTP/2 connection of net/http carries every protocol.
func TestMixedProtocolsOnOneConnection(t *testing.T) {
	w := newWorld(t, &dispatcher{}, nil)
	w.always(w.reply("Cart", `{"cartId":"1"}`))
	client := webClient(t, true)
	for _, opts := range [][]connect.ClientOption{
		nil, {connect.WithGRPC()}, {connect.WithGRPCWeb()}, {connect.WithGRPC()},
	} {
		call := connect.NewClient[dynamicpb.Message, dynamicpb.Message](client, "http://"+w.addr+"/shop.v1.CartService/Plain",
			append(opts, connect.WithSchema(w.catalog.Method("/shop.v1.CartService/Plain").Descriptor),
				connect.WithResponseInitializer(func(_ connect.Spec, message any) error {
					dynamic, _ := message.(*dynamicpb.Message)
					*dynamic = *dynamicpb.NewMessage(w.messageType("Cart"))
					return nil
				}))...)
		if _, err := call.CallUnary(t.Context(), connect.NewRequest(w.message("CartRequest", `{"cartId":"1"}`))); err != nil {
			t.Error(err)
		}
	}
	if stats := w.server.Stats(); stats.HTTPConnections != 1 || stats.NativeConnections != 0 {
		t.Errorf("%d and %d connections", stats.HTTPConnections, stats.NativeConnections)
	}
}

// A call that ends before the caller has sent everything is answered at once, even if the caller is
// silent.
func TestEarlyEndReachesASilentCaller(t *testing.T) {
	w := newWorld(t, &dispatcher{stream: func(ctx context.Context, s *entities.Stream) error {
		if _, err := s.Recv(ctx); err != nil {
			return err
		}
		return entities.Errorf(entities.FunctionRefused, entities.Refused, "no")
	}}, nil)
	eachFlavour(t, func(t *testing.T, h2 bool, opts []connect.ClientOption) {
		if !h2 {
			return // one way after the other
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		both := w.rpcClient(h2, "/shop.v1.StreamService/Both", opts...).CallBidiStream(ctx)
		if err := both.Send(w.message("Line", `{"text":"a"}`)); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		_, err := both.Receive()
		if failure, ok := errors.AsType[*connect.Error](err); !ok || failure.Message() != "no" {
			t.Errorf("%v", err)
		}
		_ = both.CloseRequest()
		_ = both.CloseResponse()
	})
}

// A stream that is much longer than its window arrives whole.
func TestLongStreams(t *testing.T) {
	taken := 0
	fake := &dispatcher{stream: func(ctx context.Context, s *entities.Stream) error {
		for {
			p, err := s.Recv(ctx)
			if errors.Is(err, io.EOF) {
				return s.Send(&entities.Reply{})
			}
			if err != nil {
				return err
			}
			taken += len(p.Value)
		}
	}}
	w := newWorld(t, fake, func(o *gateway.Options) { o.MaxRequest = 1 << 10 })
	const count, size = 1000, 200
	message := envelope(strings.Repeat("\x0a\x00", size/2))
	got := w.http("POST", "/shop.v1.StreamService/In", strings.Repeat(message, count), jsonType,
		"application/connect+proto")
	if got.status != 200 || taken != count*size {
		t.Errorf("%d: took %d bytes: %q", got.status, taken, got.body)
	}
}
