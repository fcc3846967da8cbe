package host_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/internal/settings"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/action"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	sessionv1 "github.com/millrace-io/millrace/proto/gen/millrace/session/v1"
)

// inVirtualTime runs a test with a function on an in-memory network, in a bubble whose clock moves
// when all goroutines wait.
func inVirtualTime(t *testing.T, test func(t *testing.T, f *fakeFunction, h *host.Host)) {
	t.Helper()
	spec := newSpec(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFake(spec)
		listener := bufconn.Listen(1 << 20)
		server := grpc.NewServer()
		cloudstate.RegisterEntityDiscoveryServer(server, f)
		eventsourced.RegisterEventSourcedServer(server, fakeEventSourced{fakeFunction: f})
		action.RegisterActionProtocolServer(server, &f.actions)
		sessionv1.RegisterSessionServiceServer(server, fakeLinks{fakeFunction: f})
		// Ends with the server's stop; the bubble waits for it.
		go func() { _ = server.Serve(listener) }()
		defer server.Stop()
		remote, err := host.Connect(t.Context(), "passthrough:///function",
			host.RemoteOptions{Options: settings.Defaults[host.Options](), DialOptions: []grpc.DialOption{
				grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
			}})
		if err != nil {
			t.Fatal(err)
		}
		h := host.New(host.Settings{})
		set(t, h, remote)
		test(t, f, h)
		if err := remote.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A function that answers too late loses its session; the command was not applied. Idle time is not
// counted.
func TestSlowFunctionEndsTheSession(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, f *fakeFunction, h *host.Host) {
		s, err := h.Open(t.Context(), "t.Carts", cartKey, nothingStored)
		if err != nil {
			t.Fatal(err)
		}
		stream := <-f.streams
		time.Sleep(time.Hour) //nolint:forbidigo // the bubble's clock jumps: no real time passes
		select {
		case <-s.Ended():
			t.Fatal("the session ended while it was idle")
		default:
		}
		began := time.Now()
		_, err = s.Handle(t.Context(), invocation("t.Carts", "Add", cartKey, "x"))
		wantError(t, err, entities.FunctionFailed, entities.NotApplied, "did not answer within 30s")
		if took := time.Since(began); took != settings.Defaults[host.Settings]().FunctionTimeout {
			t.Errorf("it took %v", took)
		}
		<-stream.ctx.Done()
		s.Close(t.Context())
	})
}

// A unary action is timed too. What it did before is not known.
func TestSlowAction(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, f *fakeFunction, h *host.Host) {
		f.actions.unary = func(ctx context.Context, _ *action.ActionCommand) (*action.ActionResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		_, err := h.Act(t.Context(), invocation("t.Acts", "Do", entities.Key{}, "x"))
		wantError(t, err, entities.FunctionFailed, entities.Unknown, "/t.Acts/Do", "did not answer within 30s")
	})
}

// Calls wait, bounded, for the first function.
func TestCallsWaitForTheFirstFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := host.New(host.Settings{})
		began := time.Now()
		_, err := h.Open(t.Context(), "t.Carts", cartKey, nothingStored)
		wantError(t, err, entities.Unavailable, entities.NotApplied, "no user function is connected yet; waited 10s")
		if took := time.Since(began); took != settings.Defaults[host.Settings]().FunctionWait {
			t.Errorf("it took %v", took)
		}
		if _, err = h.Resolve(entities.Target{}); err == nil || h.Catalog() != nil {
			t.Error("there is a catalog without a function")
		}
	})
}
