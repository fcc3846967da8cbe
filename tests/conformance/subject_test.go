package conformance_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/millrace-io/millrace/internal/node"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/sdk"
	"github.com/millrace-io/millrace/tests/conformance/byhand"
	"github.com/millrace-io/millrace/tests/conformance/bysdk"
	"github.com/millrace-io/millrace/tests/conformance/interceptor"
	"github.com/millrace-io/millrace/tests/e2e/harness"
)

// patience is how long a test waits for what must happen, on a busy machine with the race detector.
const patience = 20 * time.Second

// function is a user function under the cases.
type function struct {
	name string
	// restarts: a command that is refused after it emitted asks for a restart.
	restarts bool
	// replicated: the function declares replicated entities.
	replicated bool
	register   func(testing.TB, *grpc.Server)
}

// functions are the user functions that every case is run with.
func functions() []function {
	return []function{
		{name: "by hand", restarts: true, replicated: true, register: func(_ testing.TB, s *grpc.Server) { byhand.Register(s, byhand.Options{}) }},
		{name: "by hand, applying late", replicated: true, register: func(_ testing.TB, s *grpc.Server) {
			byhand.Register(s, byhand.Options{AppliesLate: true})
		}},
		{name: "by sdk", restarts: true, register: func(t testing.TB, s *grpc.Server) {
			server, err := sdk.NewServer(bysdk.Services()...)
			if err != nil {
				t.Fatal(err)
			}
			server.Register(s)
			t.Cleanup(server.Close)
		}},
	}
}

// host runs millrace before the function at an address and returns the address of its public port. Settings are flags.
type host struct {
	name string
	run  func(t *testing.T, function string, settings map[string]string) (public string)
}

var (
	inProcess = host{"in process", func(t *testing.T, function string, settings map[string]string) string { //nolint:gochecknoglobals // a constant
		n := startNode(t, function, settings)
		awaitReady(t, n)
		return n.Status(t.Context()).GetPublicAddress()
	}}
	asBinary = host{"as a binary", func(t *testing.T, function string, settings map[string]string) string { //nolint:gochecknoglobals // a constant
		o := harness.Options{Command: "run", Ephemeral: true, Args: []string{"--function", function}}
		for name, value := range settings {
			o.Args = append(o.Args, "--"+name, value)
		}
		return harness.Start(t, o).Public()
	}}
)

// startNode starts an ephemeral node in this process, which ends with the test.
func startNode(t *testing.T, function string, settings map[string]string) *node.Node {
	t.Helper()
	flags := map[string]string{"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "ephemeral": "true", "function": function}
	for name, value := range settings {
		flags[name] = value
	}
	noEnvironment := func(string) (string, bool) { return "", false }
	config, _, err := node.Load(node.Sources{Flags: flags, Env: noEnvironment})
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.Start(context.WithoutCancel(t.Context()), node.Options{Config: config, Version: "test"})
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

func awaitReady(t *testing.T, n *node.Node) {
	t.Helper()
	select {
	case <-n.Ready():
	case <-n.Done():
		t.Fatal("the node ended before it was ready")
	case <-time.After(patience):
		t.Fatalf("the node is not ready: %v", n.NotReady())
	}
}

// subject is one millrace before one function, with a client on one side and an interceptor on the other.
type subject struct {
	function
	trace  *interceptor.Interceptor
	public string
	conn   *grpc.ClientConn
	web    *http.Client
	// info and spec are what the two said at discovery.
	info *cloudstate.ProxyInfo
	spec *cloudstate.EntitySpec
	last int
}

// newSubject wires everything as Cloudstate's own tests do: the function first, then the interceptor, then the proxy. It
// ends with the test.
func newSubject(t *testing.T, f function, h host, settings map[string]string) *subject {
	t.Helper()
	s := &subject{function: f, trace: intercept(t, serveFunction(t, f.register))}
	s.public = h.run(t, s.trace.Addr(), settings)
	s.connect(t)
	discover := s.next(t, cloudstate.EntityDiscovery_Discover_FullMethodName)
	s.info, _ = discover.message(t, &discover.In).(*cloudstate.ProxyInfo)
	s.spec, _ = discover.message(t, &discover.Out).(*cloudstate.EntitySpec)
	discover.ends(t)
	return s
}

// connect makes the two clients of the public port.
func (s *subject) connect(t *testing.T) {
	t.Helper()
	conn, err := grpc.NewClient(s.public, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	s.conn = conn
	transport := &http.Transport{}
	s.web = &http.Client{Transport: transport, Timeout: patience}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := conn.Close(); err != nil {
			t.Errorf("close the client: %v", err)
		}
	})
}

// entity returns an id that no other case has.
func (s *subject) entity() string {
	s.last++
	return fmt.Sprintf("entity-%d", s.last)
}

// serveFunction serves a user function until the test ends and returns its address.
func serveFunction(t *testing.T, register func(testing.TB, *grpc.Server)) string {
	t.Helper()
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	register(t, server)
	l := listen(t, "127.0.0.1:0")
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) }) // ends with Stop; waited for below
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	return l.Addr().String()
}

// intercept puts an interceptor before the function at an address, until the test ends.
func intercept(t *testing.T, function string) *interceptor.Interceptor {
	t.Helper()
	return interceptAt(t, function, listen(t, "127.0.0.1:0"))
}

func interceptAt(t *testing.T, function string, l net.Listener) *interceptor.Interceptor {
	t.Helper()
	i, err := interceptor.New(function)
	if err != nil {
		t.Fatal(err)
	}
	i.Serve(l)
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Errorf("close the interceptor: %v", err)
		}
	})
	return i
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
