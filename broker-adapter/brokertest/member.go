package brokertest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// worker is a membership that obeys its assignments. It checks every event against the port's
// contract.
type worker struct {
	f   *fixture
	log broker.Log
	broker.Membership
	leave context.CancelFunc
	ended chan error

	// turn is locked while an event is handled.
	turn  sync.Mutex
	mu    sync.Mutex
	table *broker.Table
	// tables are all tables received, in order.
	tables []*broker.Table
	owned  map[int32]bool
	lost   int
	// leaving: its context has ended. killed: later events are ignored.
	leaving, killed bool
	// cold: its images of followed partitions are not warm yet.
	cold bool
}

// membership describes a worker of a new group.
func (f *fixture) membership(partitions int32, standbys int) broker.Membership {
	return broker.Membership{Group: unique("group"), Topic: f.topic(partitions), Standbys: standbys}
}

// second opens another client of the log; it is closed with the test.
func (f *fixture) second() broker.Log {
	f.Helper()
	log := f.opts.Join(f.T, f.log)
	f.Cleanup(func() {
		if err := log.Close(); err != nil && !errors.Is(err, broker.ErrClosed) {
			f.Errorf("close a second log: %v", err)
		}
	})
	return log
}

func groupOf(f *fixture, log broker.Log) broker.Group {
	f.Helper()
	g, ok := log.(broker.Group)
	if !ok {
		f.Fatalf("a log that several processes share (Options.Join) must be a broker.Group; %T is none", log)
	}
	return g
}

// join starts a worker; the end of the test ends it.
func (f *fixture) join(log broker.Log, m broker.Membership, name string, incarnation uint64, cold bool) *worker {
	f.Helper()
	m.Worker, m.Address, m.Public, m.Incarnation = name, name+":7000", name+":9000", incarnation
	ctx, leave := context.WithCancel(context.WithoutCancel(f.Context())) // leave, not the end of the test, ends it
	w := &worker{
		f: f, log: log, Membership: m, leave: leave, ended: make(chan error, 1), owned: map[int32]bool{}, cold: cold,
	}
	w.Images = w.images
	var running sync.WaitGroup
	// ends with ctx; waited for at the end of the test
	running.Go(func() { w.ended <- log.Assignments(ctx, w.Membership, w.on) })
	f.Cleanup(func() {
		w.stop()
		running.Wait()
	})
	return w
}

// stop ends the worker's context.
func (w *worker) stop() {
	w.mu.Lock()
	w.leaving = true
	w.mu.Unlock()
	w.leave()
}

// end leaves the group and waits for the end of the membership.
func (w *worker) end() {
	w.f.Helper()
	w.stop()
	select {
	case err := <-w.ended:
		if err != nil {
			w.f.Errorf("worker %s leaves in order: %v", w.Worker, err)
		}
	case <-w.f.context().Done():
		w.f.Fatalf("Assignments of worker %s did not return within %v of the end of its context", w.Worker, w.f.opts.Timeout)
	}
}

// kill simulates the death of the worker's process.
func (w *worker) kill() {
	w.f.Helper()
	w.mu.Lock()
	w.killed = true
	w.mu.Unlock()
	w.f.opts.Kill(w.f.T, w.log)
	select {
	case err := <-w.ended:
		w.f.Logf("worker %s was killed: %v", w.Worker, err)
	case <-w.f.context().Done():
		w.f.Fatalf("Assignments of worker %s goes on %v after it was killed", w.Worker, w.f.opts.Timeout)
	}
}

// coldLag is far above broker.Warm.
const coldLag = 1 << 20

func (w *worker) images() map[int32]int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	lags := map[int32]int64{}
	for _, p := range w.table.Followed(w.Worker) {
		lags[p] = 0
		if w.cold {
			lags[p] = coldLag
		}
	}
	for p := range w.owned {
		lags[p] = 0
	}
	return lags
}

// on is the callback given to Assignments.
func (w *worker) on(e broker.AssignmentEvent) {
	if !w.turn.TryLock() {
		w.f.Error("two assignment events at a time")
		return
	}
	defer w.turn.Unlock()
	if table := w.take(e); table != nil && table.Due(w.Membership) {
		groupOf(w.f, w.log).Rebalance()
	}
	if e.Done != nil {
		e.Done()
	}
}

// take checks and records an event. It returns the event's table.
func (w *worker) take(e broker.AssignmentEvent) *broker.Table {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.killed {
		return nil
	}
	if e.Table != nil {
		if w.table != nil && e.Table.Generation <= w.table.Generation {
			w.f.Errorf("worker %s: table %d comes after table %d", w.Worker, e.Table.Generation, w.table.Generation)
		}
		if me, ok := e.Table.Member(w.Worker); !ok || me.Address != w.Address || me.Public != w.Public ||
			me.Incarnation != w.Incarnation {
			w.f.Errorf("worker %s: the table has %+v in its place", w.Worker, me)
		}
		w.table, w.tables = e.Table, append(w.tables, e.Table)
	}
	for _, p := range e.Assigned {
		if owner, _ := w.table.Owner(p); owner.Name != w.Worker {
			w.f.Errorf("worker %s was assigned partition %d; the table before it names %q", w.Worker, p, owner.Name)
		}
		w.owned[p] = true
	}
	for _, p := range e.Revoked {
		if owner, _ := w.table.Owner(p); owner.Name == w.Worker && !w.leaving {
			w.f.Errorf("worker %s must release partition %d, which the table before assigns to it", w.Worker, p)
		}
	}
	for _, p := range slices.Concat(e.Revoked, e.Lost) {
		delete(w.owned, p)
	}
	w.lost += len(e.Lost)
	return e.Table
}

func (w *worker) partitions() []int32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.owned))
}

func (w *worker) lastTable() *broker.Table {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.table
}

// received returns all tables so far.
func (w *worker) received() []*broker.Table {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.tables)
}

func (w *worker) owns(n int) func() bool { return func() bool { return len(w.partitions()) == n } }

// until waits for a condition that an event brings about.
func (f *fixture) until(what string, ok func() bool) {
	f.Helper()
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for ctx := f.context(); !ok(); {
		select {
		case <-again.C:
		case <-ctx.Done():
			f.Fatalf("within %v never: %s", f.opts.Timeout, what)
		}
	}
}

// warm makes the worker's images warm and requests a rebalance.
func (w *worker) warm() {
	w.mu.Lock()
	w.cold = false
	w.mu.Unlock()
	groupOf(w.f, w.log).Rebalance()
}
