package harness

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/millrace-io/millrace/internal/app/node"
	"github.com/millrace-io/millrace/tests/kit"
)

// StartNode starts millrace in the test's own process and does not wait. Settings are flags without
// their dashes; without any it is ephemeral and on free ports. It ends with the test.
func StartNode(t testing.TB, settings map[string]string) *node.Node {
	t.Helper()
	return StartHosting(t, nil, settings)
}

// StartHosting is StartNode with a function in process; nil: the one at the setting function.
func StartHosting(t testing.TB, f node.Local, settings map[string]string) *node.Node {
	t.Helper()
	flags := map[string]string{"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "ephemeral": "true"}
	maps.Copy(flags, settings)
	noEnvironment := func(string) (string, bool) { return "", false }
	config, _, err := node.Load(node.Sources{Flags: flags, Env: noEnvironment})
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	n, err := node.Start(context.WithoutCancel(t.Context()),
		node.Options{Config: config, Local: f, Version: "test", Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.Stop()
		if err := n.Wait(); err != nil {
			t.Errorf("the node ended with %v", err)
		}
	})
	return n
}

// testLog writes a node's log to the log of its test.
type testLog struct{ testing.TB }

// Write implements io.Writer.
func (l testLog) Write(line []byte) (int, error) {
	l.Logf("%s", line)
	return len(line), nil
}

// AwaitReady waits until a node serves.
func AwaitReady(t testing.TB, n *node.Node) {
	t.Helper()
	select {
	case <-n.Ready():
	case <-n.Done():
		t.Fatal("the node ended before it was ready")
	case <-time.After(kit.Patience):
		t.Fatalf("the node is not ready: %v", n.NotReady())
	}
}

// Function is a user function in the test's own process. Its methods must not overlap.
type Function struct {
	register func(*grpc.Server)
	address  string
	server   *grpc.Server
	serving  sync.WaitGroup
}

// ServeFunction serves a user function until the test ends. register is called for every start.
func ServeFunction(t testing.TB, register func(*grpc.Server)) *Function {
	t.Helper()
	f := NewFunction("127.0.0.1:0", register)
	f.Start(t)
	return f
}

// NewFunction returns a user function that is not served yet.
func NewFunction(address string, register func(*grpc.Server)) *Function {
	return &Function{register: register, address: address}
}

// Address is where the function is, host and port.
func (f *Function) Address() string { return f.address }

// Start serves the function, until Stop or the end of the test.
func (f *Function) Start(t testing.TB) {
	t.Helper()
	l := kit.Listen(t, f.address)
	f.address = l.Addr().String()
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	f.register(server)
	f.server = server
	f.serving.Go(func() { _ = server.Serve(l) }) // ends with Stop, which waits for it
	t.Cleanup(f.Stop)
}

// Stop cuts all connections, as if the process had been killed. It may be called more than once.
func (f *Function) Stop() {
	f.server.Stop()
	f.serving.Wait()
}
