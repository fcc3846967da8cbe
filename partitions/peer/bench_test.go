//go:build unix

package peer_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/partitions/peer"
	peerv1 "github.com/millrace-io/millrace/proto/gen/millrace/peer/v1"
)

// BenchmarkDispatch is one command over loopback, both sides in this process, with a worker that
// answers at once; beside it the same message as a bare unary gRPC call. cpu-µs/op is the CPU time
// of both sides together.
func BenchmarkDispatch(b *testing.B) {
	for _, callers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("echo/%d", callers), func(b *testing.B) {
			call := startEcho(b)
			loop(b, callers, call)
		})
		b.Run(fmt.Sprintf("link/%d", callers), func(b *testing.B) {
			w := &worker{}
			address := serve(b, w, peer.ServerOptions{})
			c := client(b, peer.ClientOptions{})
			cmd := command("42")
			loop(b, callers, func(ctx context.Context) error {
				_, err := c.Dispatch(ctx, address, cmd, 0)
				return err
			})
		})
	}
}

// loop runs b.N calls and reports what one costs.
func loop(b *testing.B, callers int, call func(context.Context) error) {
	b.Helper()
	if err := call(b.Context()); err != nil {
		b.Fatal(err)
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu(b)
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				if err := call(b.Context()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-µs/op")
}

func cpu(b *testing.B) int64 {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return (used.Utime.Nano() + used.Stime.Nano()) / 1000
}

// startEcho serves unary calls whose request is a command in the form of peer.proto.
func startEcho(b *testing.B) func(context.Context) error {
	b.Helper()
	const path = "/echo.Echo/Echo"
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "echo.Echo", Methods: []grpc.MethodDesc{{
		MethodName: "Echo",
		Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := &peerv1.Call{}
			err := decode(in)
			return &peerv1.Answer{Id: in.GetId(), Payload: in.GetPayload(), TypeUrl: in.GetTypeUrl()}, err
		},
	}}}, nil)
	l := listen(b)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }() // Stop ends it, the cleanup waits for it
	conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		<-served
	})
	cmd := command("42")
	return func(ctx context.Context) error {
		in := &peerv1.Call{
			Service: cmd.Service, Method: cmd.Method, EntityType: cmd.Key.Type, EntityId: cmd.Key.ID,
			TypeUrl: cmd.Payload.TypeURL, Payload: cmd.Payload.Value, CommandId: cmd.ID,
		}
		return conn.Invoke(ctx, path, in, &peerv1.Answer{})
	}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func command(id string) *entities.Command {
	return &entities.Command{
		Service: "shop.v1.CartService", Method: "AddItem", Type: &entities.EntityType{Service: "shop.v1.CartService", Name: "cart"},
		Key: entities.Key{Type: "cart", ID: id}, ID: "3f0c6a52-7f0e-4f0c-9a55-0b5a3a9d8c11",
		Payload: entities.Payload{TypeURL: "type.googleapis.com/shop.v1.AddItemRequest", Value: []byte("a small item of about forty bytes, no more")},
	}
}
