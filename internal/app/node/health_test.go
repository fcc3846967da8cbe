package node

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	"github.com/millrace-io/millrace/sdk"
)

// health is the state that a process reports to callers and watchers.
type health struct {
	t       *testing.T
	n       *Node
	watched healthpb.Health_WatchClient
}

func watchHealth(t *testing.T, n *Node) *health {
	t.Helper()
	watched, err := healthpb.NewHealthClient(dial(t, n.PublicAddress())).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return &health{t: t, n: n, watched: watched}
}

// becomes waits until a watcher of gRPC health gets the state, and compares it with the pages.
// Reason is a part of what /readyz says.
func (h *health) becomes(want healthpb.HealthCheckResponse_ServingStatus, reason string) {
	h.t.Helper()
	for got := healthpb.HealthCheckResponse_UNKNOWN; got != want; {
		res, err := h.watched.Recv()
		if err != nil {
			h.t.Fatalf("waiting for %v: %v", want, err)
		}
		got = res.GetStatus()
	}
	wantCode, wantState := http.StatusOK, "1"
	if want != healthpb.HealthCheckResponse_SERVING {
		wantCode, wantState = http.StatusServiceUnavailable, "0"
	}
	if code, body := page(h.t, h.n, "/readyz"); code != wantCode || !strings.Contains(body, reason) {
		h.t.Errorf("/readyz: %d %q, want %d and %q", code, body, wantCode, reason)
	}
	if _, body := page(h.t, h.n, "/metrics"); !strings.Contains(body, "\nmillrace_node_ready_state "+wantState+"\n") {
		h.t.Errorf("the metric does not say %s", wantState)
	}
	for _, service := range []string{"", "counter.v1.CounterService"} {
		res, err := healthpb.NewHealthClient(dial(h.t, h.n.PublicAddress())).Check(h.t.Context(),
			&healthpb.HealthCheckRequest{Service: service})
		if err != nil || res.GetStatus() != want {
			h.t.Errorf("health of %q: %v, %v, want %v", service, res.GetStatus(), err, want)
		}
	}
}

// TestReadyKnowsTheFunction: a worker whose remote function is down reports it everywhere, and
// recovers when it is back.
func TestReadyKnowsTheFunction(t *testing.T) {
	c := testConfig(t)
	c.Function = freeAddress(t)
	serve := func() (stop func()) {
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		ended := make(chan error, 1)
		go func() { ended <- sdk.Serve(ctx, c.Function, services("counter")...) }() // ends with ctx; received below
		return func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	n := launch(t, Options{Config: c})
	stop := serve()
	awaitReady(t, n)
	health := watchHealth(t, n)
	health.becomes(healthpb.HealthCheckResponse_SERVING, "ready")
	stop()
	health.becomes(healthpb.HealthCheckResponse_NOT_SERVING, "the user function at "+c.Function+" is unreachable")
	defer serve()()
	health.becomes(healthpb.HealthCheckResponse_SERVING, "ready")
	if got := increment(t, n, "a"); got != 1 {
		t.Errorf("the counter stands at %d", got)
	}
}

// TestADrainedWorkerSaysWhatIsTrue to callers, pages and status; and the last one is drained only
// when that is meant.
func TestADrainedWorkerSaysWhatIsTrue(t *testing.T) {
	a := newApp(t, 2)
	first, second := a.workers[0], a.workers[1]
	health := watchHealth(t, first)
	health.becomes(healthpb.HealthCheckResponse_SERVING, "ready")
	if s := first.service.ClusterStatus(); s.GetDraining() || s.GetDrained() {
		t.Errorf("before: %v", s)
	}
	admin := adminv1.NewAdminServiceClient(dial(t, second.AdminAddress()))
	if _, err := admin.Drain(t.Context(), &adminv1.DrainRequest{Worker: "w0"}); err != nil {
		t.Fatal(err)
	}
	health.becomes(healthpb.HealthCheckResponse_NOT_SERVING, drained)
	if s := first.service.ClusterStatus(); !s.GetDraining() || !s.GetDrained() {
		t.Errorf("after: %v", s)
	}

	eventually(t, "the other worker to own everything", func() bool {
		owned, _ := second.manager.Owned()
		return len(owned) == 4 && second.NotReady() == nil && len(second.routes.Current().Members) == 1
	})
	for _, worker := range []string{"", "w1"} {
		_, err := admin.Drain(t.Context(), &adminv1.DrainRequest{Worker: worker})
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(fmt.Sprint(err), "w1 is the last worker of app millrace") {
			t.Errorf("drain %q, the last worker: %v", worker, err)
		}
	}
	if second.manager.Draining() {
		t.Fatal("it is drained although that was refused")
	}
	if _, err := admin.Drain(t.Context(), &adminv1.DrainRequest{Last: true}); err != nil {
		t.Errorf("drain the last worker all the same: %v", err)
	}
}
