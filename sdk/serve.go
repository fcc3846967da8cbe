package sdk

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
)

const (
	// defaultHost and defaultPort are where Cloudstate proxies look for a function beside them.
	defaultHost = "127.0.0.1"
	defaultPort = "8080"
	// drainTime is how long commands that run when Serve is told to stop may take to be answered.
	drainTime = 10 * time.Second
	// maxMessageBytes bounds a message from the proxy: a request or a state of 4 MiB with its
	// wrapping, and room to grow.
	maxMessageBytes = 16 << 20
	// The windows that a proxy may fill before what it sent is read, as large as those that it
	// gives to a function. Fixed ones spare the pings by which gRPC looks for good ones.
	streamWindowBytes     = 1 << 20
	connectionWindowBytes = 16 << 20
)

// Serve runs services as a remote user function: it listens on addr, host:port, for a worker or any
// other Cloudstate proxy, until ctx ends. Then it answers the commands that run, ends all streams,
// and returns nil. An empty addr stands for the environment variables HOST and PORT, and for
// 127.0.0.1:8080 without them.
//
// The listener is plaintext and trusts its clients: it belongs on the loopback interface, or inside
// the pod.
func Serve(ctx context.Context, addr string, services ...*Service) error {
	server, err := NewServer(services...)
	if err != nil {
		return err
	}
	addr = address(addr)
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("sdk: listen on %s: %w; choose another address, or set HOST and PORT", addr, err)
	}
	slog.InfoContext(ctx, "function is ready", "address", listener.Addr().String(), "services", len(services))
	return server.serve(ctx, listener)
}

// address fills an empty address in.
func address(addr string) string {
	if addr != "" {
		return addr
	}
	return net.JoinHostPort(cmp.Or(os.Getenv("HOST"), defaultHost), cmp.Or(os.Getenv("PORT"), defaultPort))
}

// serve accepts connections until ctx ends, and leaves no goroutine behind.
func (s *Server) serve(ctx context.Context, listener net.Listener) error {
	rpc := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessageBytes), grpc.WaitForHandlers(true),
		grpc.StaticStreamWindowSize(streamWindowBytes), grpc.StaticConnWindowSize(connectionWindowBytes))
	s.Register(rpc)
	failed := make(chan error, 1)
	var accepting sync.WaitGroup
	accepting.Go(func() { failed <- rpc.Serve(listener) }) // ends when rpc stops; waited for below
	defer accepting.Wait()

	var err error
	select {
	case err = <-failed:
		err = fmt.Errorf("sdk: serve on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	// Handlers that do not end in time find their contexts cancelled.
	late := time.AfterFunc(drainTime, rpc.Stop)
	defer late.Stop()
	s.Close()
	rpc.GracefulStop()
	return err
}
