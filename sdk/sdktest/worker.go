package sdktest

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/internal/app/inprocess"
	"github.com/millrace-io/millrace/internal/app/node"
	"github.com/millrace-io/millrace/internal/clock/clocktest"
	"github.com/millrace-io/millrace/sdk"
)

// WorkerT is what a worker needs of a test; *testing.T is one.
type WorkerT interface {
	T
	Cleanup(func())
	Errorf(format string, args ...any)
}

// RunningWorker is a whole worker in the test's process, as [Worker] returns it. Its methods may be
// called from many goroutines.
type RunningWorker struct {
	t    WorkerT
	node *node.Node
	// clock is the time of entities: log times, idle entities, the window of command ids.
	clock *clocktest.Manual
	conn  *grpc.ClientConn
}

const (
	// anyPort lets the system choose a port that is free.
	anyPort = "127.0.0.1:0"
	// partitions is small: each has a goroutine, and a test has few entities.
	partitions = 4
	// ackTimeout is longer than any test advances the clock, so that an append under way does not time
	// out.
	ackTimeout = 100 * 365 * 24 * time.Hour
)

// epoch is when the clock of a worker begins: a test sees the same times whenever it runs.
var epoch = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC) //nolint:gochecknoglobals // a constant

// Worker starts a whole worker that hosts the services, for tests of what happens between them:
// effects, forwards, timers, several callers, HTTP. It is ready when Worker returns and ends with
// the test. Log and store are in memory, and the clock of the entities moves only by
// [RunningWorker.Advance].
//
//	w := sdktest.Worker(t, cart.Service)
//	carts := shopv1.NewCartServiceClient(w.Conn())
//	reply, err := carts.AddItem(t.Context(), &shopv1.AddItemRequest{…})
func Worker(t WorkerT, services ...*sdk.Service) *RunningWorker {
	t.Helper()
	w := startWorker(t, services)
	conn, err := grpc.NewClient("passthrough:///"+w.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy())
	if err != nil {
		t.Fatalf("connect to the worker: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // there is nothing to lose
	w.conn = conn
	return w
}

// startWorker starts a worker, and waits until it is ready.
func startWorker(t WorkerT, services []*sdk.Service) *RunningWorker {
	t.Helper()
	function, err := inprocess.New(services...)
	if err != nil {
		t.Fatalf("the services cannot be run:\n%v", err)
	}
	clk := clocktest.NewManual(epoch)
	config := node.Defaults()
	config.AckTimeout = ackTimeout
	config.Listen, config.Admin, config.Ephemeral, config.Partitions = anyPort, anyPort, true, partitions
	world := simlog.New(simlog.Options{SingleProcess: true, Clock: clk})
	n, err := node.Start(context.WithoutCancel(t.Context()), node.Options{
		Config: config, Local: function, Log: world.Client("worker"), Clock: clk,
	})
	if err != nil {
		t.Fatalf("start a worker: %v", err)
	}
	t.Cleanup(func() {
		n.Stop()
		if err := n.Wait(); err != nil {
			t.Errorf("end the worker: %v", err)
		}
	})
	select {
	case <-n.Ready():
	case <-n.Done():
		t.Fatalf("the worker ended before it was ready: %v", n.Wait())
	case <-t.Context().Done():
		t.Fatalf("the test ended before the worker was ready: %v", n.NotReady())
	}
	return &RunningWorker{t: t, node: n, clock: clk}
}

// Conn returns a connection to the worker for generated clients. It is closed with the test.
func (w *RunningWorker) Conn() *grpc.ClientConn { return w.conn }

// Address returns host:port of the worker, for HTTP and for connections with options of their own.
func (w *RunningWorker) Address() string { return w.node.PublicAddress() }

// Now returns the time of the entities, as cmd.Time returns it.
func (w *RunningWorker) Now() time.Time { return w.clock.Now() }

// Advance moves the clock of the entities forward. Timers that are due by then fire; AwaitQuiet
// waits for them.
func (w *RunningWorker) Advance(d time.Duration) { w.clock.Advance(d) }

// AwaitQuiet returns when the side effects of all calls that were answered before have been carried
// out, and theirs too, and when the timers that are due have fired.
func (w *RunningWorker) AwaitQuiet() {
	w.t.Helper()
	if err := w.node.AwaitQuiet(w.t.Context()); err != nil {
		w.t.Fatalf("sdktest: the effects are still in flight: %v", err)
	}
}
