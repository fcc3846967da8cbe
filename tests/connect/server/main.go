// Command server is what ConnectRPC's conformance runner tests: it reads a ServerCompatRequest from
// its standard input, starts a worker with an ephemeral log whose user function is
// ConformanceService, and writes where its public port is. It ends by SIGTERM. run owns the one
// goroutine, which serves the function, and stops it.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/internal/app/node"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/action"
	conformancev1 "github.com/millrace-io/millrace/tests/connect/proto/connectrpc/conformance/v1"
)

const host = "127.0.0.1"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1) //nolint:gocritic // the signal handler ends with the process
	}
}

// run serves until the context ends.
func run(ctx context.Context, in io.Reader, out io.Writer) error {
	request := &conformancev1.ServerCompatRequest{}
	if err := read(in, request); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	functions, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	cloudstate.RegisterEntityDiscoveryServer(server, function{})
	action.RegisterActionProtocolServer(server, function{})
	go func() { _ = server.Serve(functions) }() // ends with Stop
	defer server.Stop()

	worker, err := start(ctx, functions.Addr().String(), request.GetMessageReceiveLimit())
	if err != nil {
		return err
	}
	select {
	case <-worker.Ready():
		if err := announce(out, worker.Status(ctx).GetPublicAddress()); err != nil {
			return fmt.Errorf("write the response: %w", err)
		}
		<-ctx.Done()
	case <-worker.Done():
	case <-ctx.Done():
	}
	worker.Stop()
	return worker.Wait()
}

// start starts a worker for the function at an address.
func start(ctx context.Context, function string, limit uint32) (*node.Node, error) {
	flags := map[string]string{
		"listen": net.JoinHostPort(host, "0"), "admin": net.JoinHostPort(host, "0"), "ephemeral": "true", "function": function,
	}
	if limit > 0 {
		flags["max-request"] = strconv.FormatUint(uint64(limit), 10)
	}
	noEnvironment := func(string) (string, bool) { return "", false }
	config, _, err := node.Load(node.Sources{Flags: flags, Env: noEnvironment})
	if err != nil {
		return nil, err
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return node.Start(context.WithoutCancel(ctx), node.Options{Config: config, Version: "test", Logger: logger})
}

// announce writes where the public port is.
func announce(out io.Writer, address string) error {
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return err
	}
	return write(out, &conformancev1.ServerCompatResponse{Host: host, Port: uint32(port)})
}

// read reads a message after its length.
func read(in io.Reader, m proto.Message) error {
	var size uint32
	if err := binary.Read(in, binary.BigEndian, &size); err != nil {
		return err
	}
	const most = 1 << 20
	if size > most {
		return fmt.Errorf("a message of %d bytes, and %d are allowed", size, most)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(in, data); err != nil {
		return err
	}
	return proto.Unmarshal(data, m)
}

// write writes a message after its length.
func write(out io.Writer, m proto.Message) error {
	data, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	_, err = out.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)) //nolint:gosec // a short message
	return err
}
