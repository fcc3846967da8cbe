package main

import (
	"context"
	"net"

	"google.golang.org/grpc"

	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
)

// echo is the limit: the counter's messages over bare gRPC, without any state.
type echo struct {
	counterv1.UnimplementedCounterServiceServer
}

// Increment answers at once.
func (echo) Increment(_ context.Context, in *counterv1.IncrementRequest) (*counterv1.Counter, error) {
	return &counterv1.Counter{Value: in.GetBy()}, nil
}

// Get answers at once.
func (echo) Get(context.Context, *counterv1.GetRequest) (*counterv1.Counter, error) {
	return &counterv1.Counter{Value: 1}, nil
}

func serveEcho(address string) error {
	l, err := net.Listen("tcp", address) //nolint:noctx // serves until it is killed
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	counterv1.RegisterCounterServiceServer(s, echo{})
	return s.Serve(l)
}
