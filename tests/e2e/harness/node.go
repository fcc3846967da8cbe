package harness

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/millrace-io/millrace/internal/app/node"
)

// Patience is how long a test waits for what must happen, on a busy machine with the race detector.
const Patience = 20 * time.Second

// lookPause lies between two looks at something that can only be looked at.
const lookPause = 10 * time.Millisecond

// StartNode starts millrace in the test's own process and does not wait. Settings are flags without their dashes; without
// any it is ephemeral and on free ports. It ends with the test.
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
	n, err := node.Start(context.WithoutCancel(t.Context()), node.Options{Config: config, Local: f, Version: "test", Logger: logger})
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

// testLog shows what a node says with the test that it belongs to.
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
	case <-time.After(Patience):
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
	l := Listen(t, f.address)
	f.address = l.Addr().String()
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	f.register(server)
	f.server = server
	f.serving.Go(func() { _ = server.Serve(l) }) // ends with Stop, which waits for it
	t.Cleanup(f.Stop)
}

// Stop cuts all connections, as if the process had died. It may be called more than once.
func (f *Function) Stop() {
	f.server.Stop()
	f.serving.Wait()
}

// Listen opens a port.
func Listen(t testing.TB, address string) net.Listener {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Dial returns a connection to an address, which ends with the test.
func Dial(t testing.TB, address string) *grpc.ClientConn {
	t.Helper()
	return dial(t, address)
}

// Await looks at a condition again and again until it holds.
func Await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	AwaitWithin(t, Patience, what, holds)
}

// AwaitWithin is Await for what takes longer.
func AwaitWithin(t testing.TB, patience time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(lookPause)
	defer again.Stop()
	for !holds() {
		select {
		case <-again.C:
		case <-deadline.C:
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// Receive waits for a value of a channel, or for its end.
func Receive[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	select {
	case v := <-from:
		return v
	case <-deadline.C:
		t.Fatalf("nothing came within %v", Patience)
		panic("unreachable")
	}
}
