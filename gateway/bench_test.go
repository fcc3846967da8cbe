package gateway_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/gateway"
)

// BenchmarkUnary compares a native call through the gateway, whose dispatcher does nothing, with
// one to a bare grpc-go server that echoes bytes. Both run over loopback, with 64 calls at once on
// two connections, and one at a time.
func BenchmarkUnary(b *testing.B) {
	bare := newBareEcho(b)
	nothing := &noop{}
	w := start(b, gateway.Options{Dispatcher: nothing})
	if err := w.server.SetCatalog(w.catalog); err != nil {
		b.Fatal(err)
	}
	nothing.reply = w.reply("Cart", `{"cartId":"42"}`)
	request := w.encoded("CartRequest", `{"cartId":"42"}`)
	for _, target := range []struct{ name, addr string }{{"bare", bare}, {"gateway", w.addr}} {
		b.Run(target.name+"/serial", func(b *testing.B) { benchmarkCalls(b, target.addr, request, 1) })
		b.Run(target.name+"/parallel", func(b *testing.B) { benchmarkCalls(b, target.addr, request, 64) })
	}
}

func benchmarkCalls(b *testing.B, addr string, request []byte, inFlight int) {
	b.Helper()
	var channels [2]*grpc.ClientConn
	for i := range channels {
		cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(bytesCodec{})))
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = cc.Close() }()
		channels[i] = cc
	}
	call := func(cc *grpc.ClientConn) {
		var reply []byte
		if err := cc.Invoke(b.Context(), plainPath, &request, &reply); err != nil {
			b.Error(err)
		}
	}
	call(channels[0])
	call(channels[1])
	b.ReportAllocs()
	b.ResetTimer()
	if inFlight == 1 {
		for range b.N {
			call(channels[0])
		}
		return
	}
	work := make(chan struct{}, inFlight)
	done := make(chan struct{})
	for i := range inFlight { // they end when work is closed, and are waited for
		go func() {
			for range work {
				call(channels[i%len(channels)])
			}
			done <- struct{}{}
		}()
	}
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	for range inFlight {
		<-done
	}
}

// newBareEcho starts an ordinary grpc-go server, with a unary handler and a codec that copies
// bytes.
func newBareEcho(b *testing.B) string {
	b.Helper()
	server := grpc.NewServer(grpc.ForceServerCodecV2(bytesCodec{}))
	server.RegisterService(&grpc.ServiceDesc{ServiceName: cartService, Methods: []grpc.MethodDesc{{
		MethodName: "Plain",
		Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var message []byte
			err := decode(&message)
			return &message, err
		},
	}}}, nil)
	lis, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(lis) }() // Stop ends it, the cleanup waits for it
	b.Cleanup(func() {
		server.Stop()
		<-served
	})
	return lis.Addr().String()
}

// noop answers everything with one reply.
type noop struct{ reply *entities.Reply }

func (n *noop) Dispatch(context.Context, *entities.Command) (*entities.Reply, error) {
	return n.reply, nil
}
func (n *noop) DispatchStream(context.Context, *entities.Stream) error { return nil }

// BenchmarkJSON is a POST by a google.api.http rule over loopback, with a variable in the path and
// a whole body, to a dispatcher that does nothing: 64 at once, and one at a time.
func BenchmarkJSON(b *testing.B) {
	nothing := &noop{}
	w := start(b, gateway.Options{Dispatcher: nothing})
	if err := w.server.SetCatalog(w.catalog); err != nil {
		b.Fatal(err)
	}
	nothing.reply = w.reply("Cart", `{"cartId":"42","items":[{"itemId":"a","quantity":"2"}]}`)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	post := func() {
		request, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "http://"+w.addr+"/v1/carts/42/items",
			strings.NewReader(`{"itemId":"a","quantity":2}`))
		if err != nil {
			b.Error(err)
			return
		}
		request.Header.Set(jsonType, jsonValue)
		response, err := client.Do(request)
		if err != nil {
			b.Error(err)
			return
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
			b.Error(response.Status, err)
		}
		_ = response.Body.Close()
	}
	b.Run("serial", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			post()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(64)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				post()
			}
		})
	})
}

// BenchmarkPlain is the gateway's own part of an HTTP/JSON call, without net/http: by a rule with a
// variable in the path and a whole body, for messages that are compiled in and for dynamic ones.
func BenchmarkPlain(b *testing.B) {
	w := newTwins(b, func(*descriptorpb.FileDescriptorProto) {})
	reply := &entities.Reply{Payload: entities.Payload{Value: []byte("\x0a\x01s\x3a\x01b")}, Token: "AgEAAAAAAAAAAAECAwQ"}
	w.fake.unary = func(context.Context, *entities.Command) (*entities.Reply, error) { return reply, nil }
	handler := w.server.Handler()
	for _, kind := range []string{"compiled", "dynamic"} {
		b.Run(kind, func(b *testing.B) {
			request := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/"+kind+"/s", nil)
			request.Header.Set(jsonType, jsonValue)
			request.Header.Set("User-Agent", "Go-http-client/1.1")
			request.Header.Set("Accept-Encoding", "gzip")
			body := strings.NewReader("")
			response := &discard{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				w.fake.commands = w.fake.commands[:0]
				body.Reset(`{"body":"b"}`)
				request.Body, request.ContentLength = io.NopCloser(body), int64(body.Len())
				clear(response.header)
				handler.ServeHTTP(response, request)
				if response.status != http.StatusOK {
					b.Fatal(response.status)
				}
			}
		})
	}
}

// discard is a response that is thrown away.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header             { return d.header }
func (d *discard) WriteHeader(status int)          { d.status = status }
func (d *discard) SetReadDeadline(time.Time) error { return nil }
func (d *discard) Write(p []byte) (int, error) {
	d.status = http.StatusOK
	return len(p), nil
}
