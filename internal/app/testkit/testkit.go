package testkit

import (
	"context"
	"time"

	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/internal/app/inprocess"
	"github.com/millrace-io/millrace/internal/app/node"
	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/sdk"
)

// T is what a worker needs of a test; *testing.T is one.
type T interface {
	Helper()
	Context() context.Context
	Cleanup(func())
	Errorf(format string, args ...any)
	// Fatalf reports a failure and ends the test.
	Fatalf(format string, args ...any)
}

const (
	// anyPort makes the system choose a free port.
	anyPort = "127.0.0.1:0"
	// partitions is small: each has a goroutine, and a test has few entities.
	partitions = 4
	// ackTimeout is longer than any advance of the clock in a test, so that appends in progress do
	// not time out.
	ackTimeout = 100 * 365 * 24 * time.Hour
)

// start is the initial time of a worker's clock, the same in every run.
var start = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC) //nolint:gochecknoglobals // a constant

// Worker is a whole worker in this process. It is ready when Start returns, and ends with the test.
type Worker struct {
	Node *node.Node
	// Clock is the time of entities: log times, idle entities, the window of command ids. Only the
	// test advances it.
	Clock *clock.Manual
}

// Start starts a worker that hosts the services, with log and store in memory.
func Start(t T, services ...*sdk.Service) *Worker {
	t.Helper()
	function, err := inprocess.New(services...)
	if err != nil {
		t.Fatalf("the services cannot be run:\n%v", err)
	}
	clk := clock.NewManual(start)
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
	return &Worker{Node: n, Clock: clk}
}
