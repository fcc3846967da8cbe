package simlog_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
)

// membership runs Assignments and hands every event to the test.
type membership struct {
	events chan broker.AssignmentEvent
	ended  chan error
	leave  context.CancelFunc
}

func startMember(t *testing.T, c *simlog.Client, worker string, images ...int32) *membership {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	m := &membership{events: make(chan broker.AssignmentEvent), ended: make(chan error, 1), leave: cancel}
	warm := map[int32]int64{}
	for _, p := range images {
		warm[p] = 0
	}
	membership := broker.Membership{
		Group: "g", Worker: worker, Topic: part.Topic, Images: func() map[int32]int64 { return warm },
	}
	var running sync.WaitGroup
	running.Go(func() { // ends with ctx; waited for at the end of the test
		m.ended <- c.Assignments(ctx, membership, func(e broker.AssignmentEvent) {
			select {
			case m.events <- e:
			case <-ctx.Done():
			}
		})
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		_ = c.Close()
	})
	return m
}

// next returns the next event that is not only a table.
func (m *membership) next() broker.AssignmentEvent {
	for e := range m.events {
		if e.Table == nil {
			return e
		}
	}
	panic("not reached")
}

func wantIDs(t *testing.T, what string, got []int32, want ...int32) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// TestPartitionsMoveInOrder: a second worker, which is warm, joins and leaves: a partition moves to
// it in the rebalance that takes it from the first, one at a time.
func TestPartitionsMoveInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := simlog.New(simlog.Options{})
		first := world.Client("first")
		if err := first.Create(t.Context(), broker.TopicSpec{Name: part.Topic, Partitions: 4}); err != nil {
			t.Fatal(err)
		}
		m1 := startMember(t, first, "w1")
		wantIDs(t, "alone", m1.next().Assigned, 0, 1, 2, 3)
		m2 := startMember(t, world.Client("second"), "w2", 1, 3)
		for _, p := range []int32{1, 3} {
			table := (<-m2.events).Table
			if table == nil {
				t.Fatal("an event came before the table")
			}
			if owner, _ := table.Owner(p); owner.Name != "w2" {
				t.Errorf("partition %d goes to %q", p, owner.Name)
			}
			wantIDs(t, "handed over", table.HandedOver, p)
			wantIDs(t, "moved", (<-m2.events).Assigned, p)
			revoked := m1.next()
			wantIDs(t, "revoked", revoked.Revoked, p)
			synctest.Wait()
			select {
			case e := <-m2.events:
				t.Errorf("an event came before the revocation was done: %+v", e)
			default:
			}
			revoked.Done()
		}
		if e := <-m2.events; e.Table == nil || len(e.Table.HandedOver) != 0 {
			t.Errorf("event %+v after everything has moved", e)
		}
		m2.leave()
		if err := <-m2.ended; err != nil {
			t.Error(err)
		}
		wantIDs(t, "back", m1.next().Assigned, 1, 3)
	})
}

// TestWorkerIsReplaced: a second process of the same name replaces the first, which gets an error.
func TestWorkerIsReplaced(t *testing.T) {
	world := simlog.New(simlog.Options{})
	first := world.Client("first")
	if err := first.Create(t.Context(), broker.TopicSpec{Name: part.Topic, Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	old := startMember(t, first, "w")
	wantIDs(t, "old", old.next().Assigned, 0, 1)
	again := startMember(t, world.Client("second"), "w")
	if err := old.next().Err; err == nil {
		t.Error("the old process got no event")
	}
	if err := <-old.ended; err == nil {
		t.Error("the old process got no error")
	}
	wantIDs(t, "again", again.next().Assigned, 0, 1)
}

// TestManualGroup: the test is the coordinator. Watch shows the assigned table, calls of Rebalance
// are counted, and only dead members can be evicted.
func TestManualGroup(t *testing.T) {
	world := simlog.New(simlog.Options{ManualAssignments: true})
	c := world.Client("first")
	if err := c.Create(t.Context(), broker.TopicSpec{Name: part.Topic, Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	m := startMember(t, c, "w")
	if err := world.AwaitMember(t.Context(), "g", "w"); err != nil {
		t.Fatal(err)
	}
	table := &broker.Table{
		Generation: 9, Members: []broker.Member{{Name: "w"}}, Owners: []int32{0}, Standbys: make([][]int32, 1),
	}
	world.Assign("g", "w", broker.AssignmentEvent{Table: table, Assigned: []int32{0}})
	if e := <-m.events; e.Table != table {
		t.Errorf("event %+v", e)
	}
	ctx, stop := context.WithCancel(t.Context())
	watcher := world.Client("watcher")
	defer func() { _ = watcher.Close() }()
	err := watcher.Watch(ctx, "g", part.Topic, func(shown *broker.Table) {
		if shown != table {
			t.Errorf("watch shows %+v", shown)
		}
		stop()
	}, nil)
	if err != nil {
		t.Error(err)
	}
	c.Rebalance()
	watcher.Rebalance() // is no member
	if n := world.RebalanceCalls("g"); n != 1 {
		t.Errorf("%d calls of Rebalance", n)
	}
	for range 2 {
		if was, err := watcher.Evict(t.Context(), "g", broker.Member{Name: "w"}); err != nil || !was {
			t.Errorf("evict: %v, %v", was, err)
		}
		c.Crash()
	}
	if was, err := watcher.Evict(t.Context(), "g", broker.Member{Name: "w"}); err != nil || was {
		t.Errorf("evict an evicted worker: %v, %v", was, err)
	}
}

func TestManualAssignments(t *testing.T) {
	world := simlog.New(simlog.Options{ManualAssignments: true, SingleProcess: true})
	c := world.Client("first")
	if !c.SingleProcess() {
		t.Error("SingleProcess is not what Options says")
	}
	if err := c.Create(t.Context(), broker.TopicSpec{Name: part.Topic, Partitions: 4}); err != nil {
		t.Fatal(err)
	}
	m := startMember(t, c, "w1")
	if err := world.AwaitMember(t.Context(), "g", "w1"); err != nil {
		t.Fatal(err)
	}
	world.Assign("g", "w1", broker.AssignmentEvent{Assigned: []int32{2}})
	world.Assign("g", "w1", broker.AssignmentEvent{Lost: []int32{2}})
	wantIDs(t, "assigned", (<-m.events).Assigned, 2)
	wantIDs(t, "lost", (<-m.events).Lost, 2)
	world.Assign("g", "w1", broker.AssignmentEvent{Err: errGone})
	<-m.events
	if err := <-m.ended; !errors.Is(err, errGone) {
		t.Errorf("a membership that was ended returned %v", err)
	}
}
