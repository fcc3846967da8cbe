package gateway_test

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

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
