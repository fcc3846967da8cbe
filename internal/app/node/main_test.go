package node

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/pprof"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	counting "github.com/millrace-io/millrace/examples/counter/counter"
	"github.com/millrace-io/millrace/examples/pricing/pricing"
	"github.com/millrace-io/millrace/examples/shoppingcart/cart"
	"github.com/millrace-io/millrace/internal/app/inprocess"
	"github.com/millrace-io/millrace/internal/leaktest"
	"github.com/millrace-io/millrace/sdk"
)

// functionVariable makes this test binary a user function: it names a file with the services to
// serve.
const functionVariable = "NODE_TEST_FUNCTION"

func TestMain(m *testing.M) {
	if file := os.Getenv(functionVariable); file != "" {
		os.Exit(serveFunction(file))
	}
	leaktest.Main(m)
}

// serveFunction is the program that supervised functions of these tests run.
func serveFunction(file string) int {
	content, err := os.ReadFile(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM) //nolint:forbidigo // this is a program, no test
	defer stop()
	if err := sdk.Serve(ctx, "", services(string(content))...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// services are the examples with these names.
func services(names string) []*sdk.Service {
	known := map[string]*sdk.Service{"cart": cart.Service, "counter": counting.Service, "pricing": pricing.Service}
	var all []*sdk.Service
	for name := range strings.FieldsSeq(names) {
		all = append(all, known[name])
	}
	return all
}

// local is a function in this process with some of the examples.
func local(t *testing.T, names string) Local {
	t.Helper()
	f, err := inprocess.New(services(names)...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// testConfig is the configuration of a small node on its own.
func testConfig(t *testing.T) *Config {
	t.Helper()
	c := Defaults()
	c.Listen, c.Admin, c.Peer, c.Data, c.Partitions = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", t.TempDir(), 2
	return c
}

// launch starts a node that ends with the test.
func launch(t *testing.T, o Options) *Node {
	t.Helper()
	if o.Config == nil {
		o.Config = testConfig(t)
	}
	n, err := Start(context.WithoutCancel(t.Context()), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, n) })
	return n
}

// started starts a node and waits until it serves.
func started(t *testing.T, o Options) *Node {
	t.Helper()
	n := launch(t, o)
	awaitReady(t, n)
	return n
}

func awaitReady(t *testing.T, n *Node) {
	t.Helper()
	select {
	case <-n.Ready():
	case <-n.Done():
		t.Fatalf("the node ended: %v", n.Wait())
	case <-time.After(patience):
		t.Fatalf("the node is not ready: %v", n.NotReady())
	}
}

// end stops a node in order. It may have ended already. For one that does not end, it prints the
// goroutines.
func end(t *testing.T, n *Node) {
	t.Helper()
	n.Stop()
	ended := make(chan error, 1)
	go func() { ended <- n.Wait() }() // ends with the node; received below
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("end of the node: %v", err)
		}
	case <-time.After(endPatience):
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
		t.Fatalf("the node has not ended %v after its stop", endPatience)
	}
}

// receive waits for a value that must arrive.
func receive[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %v for: %s", patience, what)
		panic("unreachable")
	}
}

const (
	// patience is how long anything may take on a busy machine.
	patience = 30 * time.Second
	// endPatience is how long a node may take to end: longer than it waits for calls.
	endPatience = 2 * time.Minute
	// again is the pause between two checks of a condition.
	again = 5 * time.Millisecond
)

// eventually polls a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ticker := time.NewTicker(again)
	defer ticker.Stop()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("waited %v for: %s", patience, what)
		}
	}
}

// dial connects to an address; the connection ends with the test.
func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// freeAddress is an address at which no process listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// mustContain checks that a text has all words.
func mustContain(t *testing.T, what, text string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			t.Errorf("%s lacks %q:\n%s", what, want, text)
		}
	}
}
