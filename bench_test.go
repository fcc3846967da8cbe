package millrace

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/millrace-io/millrace/examples/counter/counter"
	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/internal/node"
	"github.com/millrace-io/millrace/sdk"
)

// BenchmarkIncrement is one durable command on an entity in process, through the whole house: gRPC in, synced log, gRPC out,
// with 64 callers on 4 connections. For profiles; `make bench` has the figures that count.
func BenchmarkIncrement(b *testing.B) {
	local, err := newFunction([]*sdk.Service{counter.Service})
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
	address := n.Status(b.Context()).GetPublicAddress()
	var clients []counterv1.CounterServiceClient
	for range 4 {
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // the end of the benchmark
		clients = append(clients, counterv1.NewCounterServiceClient(conn))
	}
	var next atomic.Int64
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		mine := clients[next.Add(1)%4]
		for pb.Next() {
			id := "c" + strconv.FormatInt(next.Add(1)%10_000, 10)
			if _, err := mine.Increment(context.Background(), &counterv1.IncrementRequest{CounterId: id, By: 1}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	n.Stop()
	if err := n.Wait(); err != nil {
		b.Error(err)
	}
}
