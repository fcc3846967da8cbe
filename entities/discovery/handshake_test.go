package discovery_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/internal/clock/clocktest"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// fakeDiscovery answers with the next of its errors, and when they are used up with its spec.
type fakeDiscovery struct {
	cloudstate.UnimplementedEntityDiscoveryServer
	spec   *cloudstate.EntitySpec
	errors []error
	asked  []*cloudstate.ProxyInfo
	told   []string
}

func (f *fakeDiscovery) Discover(_ context.Context, info *cloudstate.ProxyInfo) (*cloudstate.EntitySpec, error) {
	f.asked = append(f.asked, info)
	if len(f.errors) > 0 {
		err := f.errors[0]
		f.errors = f.errors[1:]
		return nil, err
	}
	return f.spec, nil
}

func (f *fakeDiscovery) ReportError(_ context.Context, e *cloudstate.UserFunctionError) (*emptypb.Empty, error) {
	f.told = append(f.told, e.GetMessage())
	return &emptypb.Empty{}, nil
}

// serve puts a function on an in-memory network; the channel is closed before the server.
func serve(t *testing.T, f *fakeDiscovery) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	cloudstate.RegisterEntityDiscoveryServer(server, f)
	done := make(chan error, 1)
	// Ends with the server's stop, which the clean-up waits for.
	go func() { done <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///function", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		<-done
	})
	return conn
}

func TestHandshake(t *testing.T) {
	f := &fakeDiscovery{spec: cartSpec(t)}
	c, err := discovery.Handshake(t.Context(), serve(t, f), discovery.NewProxyInfo("millrace", "1"), discovery.Policy{},
		discovery.Options{})
	if err != nil || c.Service("shop.Carts") == nil {
		t.Fatalf("catalog %v, error %v", c, err)
	}
	want := &cloudstate.ProxyInfo{
		ProtocolMinorVersion: 2, ProxyName: "millrace", ProxyVersion: "1",
		SupportedEntityTypes: []string{
			"cloudstate.action.ActionProtocol", "cloudstate.crdt.Crdt", "cloudstate.eventsourced.EventSourced", "cloudstate.valueentity.ValueEntity",
		},
	}
	if len(f.asked) != 1 || !proto.Equal(f.asked[0], want) || len(f.told) != 0 {
		t.Errorf("asked %v, told %q", f.asked, f.told)
	}
}

// A function that is not up yet is asked again after a pause, and never again after its answer.
func TestDiscoverRetriesUntilTheFirstAnswer(t *testing.T) {
	down := status.Error(codes.Unavailable, "not yet")
	f := &fakeDiscovery{spec: cartSpec(t), errors: []error{down, down, down}}
	manual := clocktest.NewManual(time.Unix(0, 0))
	var pauses []time.Duration
	policy := discovery.Policy{
		Backoff: backoff.Policy{First: 200 * time.Millisecond, Max: 500 * time.Millisecond},
		Clock:   advancing{manual},
		OnRetry: func(attempt int, err error, pause time.Duration) {
			if attempt != len(pauses)+1 || status.Code(err) != codes.Unavailable {
				t.Errorf("attempt %d: %v", attempt, err)
			}
			pauses = append(pauses, pause)
		},
	}
	if _, err := discovery.Discover(t.Context(), serve(t, f), discovery.NewProxyInfo("p", ""), policy); err != nil {
		t.Fatal(err)
	}
	if len(f.asked) != 4 || len(pauses) != 3 || pauses[0] != 200*time.Millisecond || pauses[2] != 500*time.Millisecond {
		t.Errorf("asked %d times, pauses %v", len(f.asked), pauses)
	}
}

// advancing is a manual clock that advances by itself when a caller waits.
type advancing struct{ *clocktest.Manual }

func (a advancing) After(d time.Duration) (<-chan time.Time, func()) {
	ch, stop := a.Manual.After(d)
	a.Advance(d)
	return ch, stop
}

func TestDiscoverEndsWithItsContext(t *testing.T) {
	f := &fakeDiscovery{errors: []error{status.Error(codes.Unavailable, "not yet")}}
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("we were asked to stop")
	policy := discovery.Policy{
		Clock:   clocktest.NewManual(time.Unix(0, 0)),
		OnRetry: func(int, error, time.Duration) { cancel(stopped) },
	}
	_, err := discovery.Discover(ctx, serve(t, f), discovery.NewProxyInfo("p", ""), policy)
	if !errors.Is(err, stopped) || status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want the cause and the last attempt", err)
	}
}

// What cannot be served is reported to the function, which is not asked again.
func TestRejectionIsReported(t *testing.T) {
	spec := cartSpec(t)
	spec.ServiceInfo.ProtocolMinorVersion = 1
	spec.Entities[0].ServiceName = "shop.Shops"
	f := &fakeDiscovery{spec: spec}
	_, err := discovery.Handshake(t.Context(), serve(t, f), discovery.NewProxyInfo("p", ""), discovery.Policy{},
		discovery.Options{Settings: discovery.Settings{ProtocolCheck: true}})
	rejected, ok := errors.AsType[*discovery.RejectedError](err)
	if !ok || len(rejected.Problems) != 2 || !strings.Contains(err.Error(), "protocol 0.1") ||
		!strings.Contains(err.Error(), "shop.Shops") {
		t.Fatalf("got %v", err)
	}
	if len(f.asked) != 1 || len(f.told) != 1 || f.told[0] != strings.Join(rejected.Problems, "\n") {
		t.Errorf("asked %d times, told %q", len(f.asked), f.told)
	}
}
