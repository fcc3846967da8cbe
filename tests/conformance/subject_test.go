package conformance_test

import (
	"fmt"
	"maps"
	"net/http"
	"testing"

	"google.golang.org/grpc"

	"github.com/millrace-io/millrace/internal/app/node"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/sdk"
	"github.com/millrace-io/millrace/tests/conformance/byhand"
	"github.com/millrace-io/millrace/tests/conformance/bysdk"
	"github.com/millrace-io/millrace/tests/conformance/interceptor"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

// function is a user function for the cases.
type function struct {
	name string
	// restarts: a command that is refused after it has emitted events asks for a restart.
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

// host runs millrace for the function at an address and returns the address of its public port.
// Settings are flags.
type host struct {
	name string
	run  func(t *testing.T, function string, settings map[string]string) (public string)
}

var (
	inProcess = host{"in process", func(t *testing.T, function string, settings map[string]string) string {
		n := startNode(t, function, settings)
		harness.AwaitReady(t, n)
		return n.Status(t.Context()).GetPublicAddress()
	}}
	asBinary = host{"as a binary", func(t *testing.T, function string, settings map[string]string) string {
		o := harness.Options{Command: "run", Ephemeral: true, Args: []string{"--function", function}}
		for name, value := range settings {
			o.Args = append(o.Args, "--"+name+"="+value)
		}
		return harness.Start(t, o).Public()
	}}
)

// startNode starts an ephemeral node for the function at an address.
func startNode(t *testing.T, function string, settings map[string]string) *node.Node {
	t.Helper()
	all := map[string]string{"function": function}
	maps.Copy(all, settings)
	return harness.StartNode(t, all)
}

// subject is one millrace with one function, with a client on one side and an interceptor on the
// other.
type subject struct {
	function
	trace  *interceptor.Interceptor
	public string
	conn   *grpc.ClientConn
	web    *http.Client
	// info and spec are the two messages of discovery.
	info *cloudstate.ProxyInfo
	spec *cloudstate.EntitySpec
	last int
	// watched: no call may be left at the end; silenced are the exchanges in which millrace must
	// not send more.
	watched  bool
	silenced []*exchange
}

// newSubject starts the parts in the order of Cloudstate's own tests: the function, the
// interceptor, the proxy. It ends with the test.
func newSubject(t *testing.T, f function, h host, settings map[string]string) *subject {
	t.Helper()
	s := &subject{function: f}
	s.intercept(t, "127.0.0.1:0")
	all := map[string]string{"shared-stream": "false"} // the interceptor distinguishes entities by their streams
	maps.Copy(all, settings)
	s.public = h.run(t, s.trace.Addr(), all)
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
	s.conn = kit.Dial(t, s.public)
	transport := &http.Transport{}
	s.web = &http.Client{Transport: transport, Timeout: kit.Patience}
	t.Cleanup(transport.CloseIdleConnections)
}

// entity returns an id that no other case has.
func (s *subject) entity() string {
	s.last++
	return fmt.Sprintf("entity-%d", s.last)
}

// serveFunction serves a user function until the test ends and returns its address.
func serveFunction(t *testing.T, f function) string {
	t.Helper()
	return harness.ServeFunction(t, func(s *grpc.Server) { f.register(t, s) }).Address()
}

// intercept serves the function behind an interceptor at an address until the test ends.
func (s *subject) intercept(t *testing.T, address string) {
	t.Helper()
	i, err := interceptor.New(serveFunction(t, s.function))
	if err != nil {
		t.Fatal(err)
	}
	s.trace = i
	i.Serve(kit.Listen(t, address))
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Errorf("close the interceptor: %v", err)
		}
		s.ended(t)
	})
}
