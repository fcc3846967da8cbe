package peer_test

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/leaktest"
	"github.com/millrace-io/millrace/partitions/peer"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// childEnv makes the test binary a worker in a separate process. Its value is the address on which
// it listens.
const childEnv = "MILLRACE_PEER_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		beChild()
		return
	}
	leaktest.Main(m)
}

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

var (
	callerID = peer.Identity{Layout: entities.LayoutOf("shop", 4), Worker: "a", Incarnation: 11}
	serverID = peer.Identity{Layout: entities.LayoutOf("shop", 4), Worker: "b", Incarnation: 22}
)

// worker is a Worker whose methods a test may replace. It echoes payloads.
type worker struct {
	dispatch func(ctx context.Context, cmd *entities.Command, hops int) (*entities.Reply, error)
	stream   func(ctx context.Context, s *entities.Stream) error
	resolve  func(t entities.Target) (*entities.Command, error)
	drain    func(ctx context.Context) error

	mu      sync.Mutex
	spec    *cloudstate.EntitySpec
	version string
	changed chan struct{}
	drained int
}

func (w *worker) Dispatch(ctx context.Context, cmd *entities.Command, hops int) (*entities.Reply, error) {
	if w.dispatch != nil {
		return w.dispatch(ctx, cmd, hops)
	}
	return &entities.Reply{Payload: cmd.Payload}, nil
}

func (w *worker) DispatchStream(ctx context.Context, s *entities.Stream) error {
	if w.stream != nil {
		return w.stream(ctx, s)
	}
	for {
		p, err := s.Recv(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = s.Send(&entities.Reply{Payload: p})
		}
		if err != nil {
			return err
		}
	}
}

// Resolve knows the one service of command(), whose entity ids stand in no payload: the key is
// always that of command("42").
func (w *worker) Resolve(t entities.Target) (*entities.Command, error) {
	if w.resolve != nil {
		return w.resolve(t)
	}
	cmd := &entities.Command{Service: t.Service, Method: t.Method, Payload: t.Payload, Metadata: t.Metadata}
	if t.Service == "shop.v1.CartService" {
		cmd.Type = &entities.EntityType{Service: t.Service, Name: "cart"}
		cmd.Key = entities.Key{Type: "cart", ID: "42"}
	}
	return cmd, nil
}

func (w *worker) Position(_ context.Context, partition int32) (int64, error) {
	if partition < 0 {
		return 0, entities.Errorf(entities.Moved, entities.NotApplied, "partition %d is not here", partition)
	}
	return int64(partition) * 1000, nil
}

func (w *worker) Spec() (*cloudstate.EntitySpec, string, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	return w.spec, w.version, w.changed
}

func (w *worker) setSpec(name, version string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spec = &cloudstate.EntitySpec{ServiceInfo: &cloudstate.ServiceInfo{ServiceName: name}}
	w.version = version
	if w.changed != nil {
		close(w.changed)
	}
	w.changed = make(chan struct{})
}

func (w *worker) Status(context.Context) (*adminv1.StatusResponse, error) {
	return &adminv1.StatusResponse{Worker: "b", Ready: true}, nil
}

func (w *worker) Drain(ctx context.Context, _ bool) error {
	if w.drain != nil {
		return w.drain(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drained++
	return nil
}

// serve starts a server on a free port and ends it with the test.
func serve(t testing.TB, w peer.Worker, o peer.ServerOptions) string {
	t.Helper()
	_, address := server(t, w, o)
	return address
}

func server(t testing.TB, w peer.Worker, o peer.ServerOptions) (*peer.Server, string) {
	t.Helper()
	if o.Identity == (peer.Identity{}) {
		o.Identity = serverID
	}
	s, l := peer.NewServer(w, o), listen(t)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }() // Shutdown ends it, the cleanup waits for it
	t.Cleanup(func() {
		gone, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		cancel() // cut what is left: tests that end in order do it themselves
		_ = s.Shutdown(gone)
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, l.Addr().String()
}

func client(t testing.TB, o peer.ClientOptions) *peer.Client {
	t.Helper()
	if o.Identity == (peer.Identity{}) {
		o.Identity = callerID
	}
	if o.DialTimeout == 0 {
		o.DialTimeout = patience // a busy machine is no failure
	}
	c := peer.NewClient(o)
	t.Cleanup(func() { _ = c.Close() })
	return c
}
