package sdktest

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/millrace-io/millrace/internal/app/testkit"
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
	kit  *testkit.Worker
	conn *grpc.ClientConn
}

// Worker starts a whole worker that hosts the services, for tests of what goes on between them:
// effects, forwards, timers, several callers, HTTP. It is ready when Worker returns and ends with
// the test. Log and store are in memory, and the clock of the entities stands still until
// [RunningWorker.Advance] turns it.
//
//	w := sdktest.Worker(t, cart.Service)
//	carts := shopv1.NewCartServiceClient(w.Conn())
//	reply, err := carts.AddItem(t.Context(), &shopv1.AddItemRequest{…})
func Worker(t WorkerT, services ...*sdk.Service) *RunningWorker {
	t.Helper()
	w := &RunningWorker{t: t, kit: testkit.Start(t, services...)}
	conn, err := grpc.NewClient("passthrough:///"+w.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		t.Fatalf("connect to the worker: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // there is nothing to lose
	w.conn = conn
	return w
}

// Conn returns a connection to the worker for generated clients. It is closed with the test.
func (w *RunningWorker) Conn() *grpc.ClientConn { return w.conn }

// Address returns host:port of the worker, for HTTP and for connections with options of their own.
func (w *RunningWorker) Address() string { return w.kit.Node.PublicAddress() }

// Now returns the time of the entities, as cmd.Time tells it.
func (w *RunningWorker) Now() time.Time { return w.kit.Clock.Now() }

// Advance turns the clock of the entities on. Timers that are due by then fire; Settle waits for
// them.
func (w *RunningWorker) Advance(d time.Duration) { w.kit.Clock.Advance(d) }

// Settle returns when the side effects of all calls that were answered before have been carried
// out, and theirs too, and when the timers that are due have fired.
func (w *RunningWorker) Settle() {
	w.t.Helper()
	if err := w.kit.Node.Settle(w.t.Context()); err != nil {
		w.t.Fatalf("sdktest: the effects are still under way: %v", err)
	}
}
