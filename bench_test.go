package millrace

import (
	"context"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/millrace-io/millrace/examples/counter/counter"
	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/internal/app/inprocess"
	"github.com/millrace-io/millrace/internal/app/node"
	"github.com/millrace-io/millrace/sdk"
)

// BenchmarkIncrement is one durable command on an entity in process, through all layers: gRPC in,
// synced log, gRPC out, with 64 callers on 4 connections in the same process. For profiles, beside
// BenchmarkEcho; `make bench` has the figures that count.
func BenchmarkIncrement(b *testing.B) { inProcess(b, 0) }

// BenchmarkDeadline is the same with callers that have a deadline, and may leave while the function
// works.
func BenchmarkDeadline(b *testing.B) { inProcess(b, time.Minute) }

func inProcess(b *testing.B, timeout time.Duration) {
	b.Helper()
	local, err := inprocess.New(counter.Service)
	if err != nil {
		b.Fatal(err)
	}
	c, _, err := node.Load(node.Sources{
		Flags: map[string]string{"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "data": b.TempDir()},
		Env:   func(string) (string, bool) { return "", false },
	})
	if err != nil {
		b.Fatal(err)
	}
	n, err := node.Start(b.Context(), node.Options{Config: c, Local: local})
	if err != nil {
		b.Fatal(err)
	}
	<-n.Ready()
	increments(b, n.Status(b.Context()).GetPublicAddress(), timeout)
	n.Stop()
	if err := n.Wait(); err != nil {
		b.Error(err)
	}
}

// BenchmarkRemote is the same with the function behind the protocol, in this process too.
func BenchmarkRemote(b *testing.B) {
	l, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil { // for the function, which listens itself
		b.Fatal(err)
	}
	serving, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- sdk.Serve(serving, address, counter.Service) }() // ended by stop
	c, _, err := node.Load(node.Sources{
		Flags: map[string]string{"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "data": b.TempDir(), "function": address},
		Env:   func(string) (string, bool) { return "", false },
	})
	if err != nil {
		b.Fatal(err)
	}
	n, err := node.Start(b.Context(), node.Options{Config: c})
	if err != nil {
		b.Fatal(err)
	}
	<-n.Ready()
	increments(b, n.Status(b.Context()).GetPublicAddress(), 0)
	n.Stop()
	if err := n.Wait(); err != nil {
		b.Error(err)
	}
	stop()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}

// BenchmarkEcho is the same call answered by bare gRPC.
func BenchmarkEcho(b *testing.B) {
	l, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := grpc.NewServer()
	counterv1.RegisterCounterServiceServer(s, echo{})
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }() // ended by Stop
	increments(b, l.Addr().String(), 0)
	s.Stop()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}

type echo struct {
	counterv1.UnimplementedCounterServiceServer
}

// Increment answers at once.
func (echo) Increment(_ context.Context, in *counterv1.IncrementRequest) (*counterv1.Counter, error) {
	return &counterv1.Counter{Value: in.GetBy()}, nil
}

// increments runs b.N calls and reports the CPU time of one, client and server together. The calls
// have a deadline, unless timeout is 0.
func increments(b *testing.B, address string, timeout time.Duration) {
	b.Helper()
	var clients []counterv1.CounterServiceClient
	for range 4 {
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		clients = append(clients, counterv1.NewCounterServiceClient(conn))
	}
	var next atomic.Int64
	b.SetParallelism(32)
	b.ReportAllocs()
	before := cpu()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		mine := clients[next.Add(1)%4]
		for pb.Next() {
			id := "c" + strconv.FormatInt(next.Add(1)%10_000, 10)
			ctx, cancel := context.Background(), func() {}
			if timeout > 0 {
				ctx, cancel = context.WithTimeout(ctx, timeout)
			}
			_, err := mine.Increment(ctx, &counterv1.IncrementRequest{CounterId: id, By: 1})
			cancel()
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(cpu()-before)/float64(b.N)/1e3, "cpu-µs/op")
}

// cpu is the time that this process has had, in nanoseconds.
func cpu() int64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
