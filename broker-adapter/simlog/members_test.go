package simlog_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
)

// membership runs Assignments and hands every event to the test.
type membership struct {
	events chan broker.AssignmentEvent
	ended  chan error
	leave  context.CancelFunc
}

func startMember(t *testing.T, c *simlog.Client, worker string) *membership {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	m := &membership{events: make(chan broker.AssignmentEvent), ended: make(chan error, 1), leave: cancel}
	var running sync.WaitGroup
	running.Go(func() { // ends with ctx; waited for at the end of the test
		m.ended <- c.Assignments(ctx, broker.Membership{Group: "g", Worker: worker, Topic: part.Topic},
			func(e broker.AssignmentEvent) {
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

func wantIDs(t *testing.T, what string, got []int32, want ...int32) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// TestPartitionsMoveInOrder lets a second worker join and leave: what moves is revoked first, and assigned when that is done.
func TestPartitionsMoveInOrder(t *testing.T) {
	world := simlog.New(simlog.Options{})
	first := world.Client("first")
	if err := first.Create(t.Context(), broker.TopicSpec{Name: part.Topic, Partitions: 4}); err != nil {
		t.Fatal(err)
	}
	m1 := startMember(t, first, "w1")
	wantIDs(t, "alone", (<-m1.events).Assigned, 0, 1, 2, 3)
	m2 := startMember(t, world.Client("second"), "w2")
	revoked := <-m1.events
	wantIDs(t, "revoked", revoked.Revoked, 1, 3)
	select {
	case e := <-m2.events:
		t.Errorf("assigned before the revocation was done: %+v", e)
	default:
	}
	revoked.Done()
	wantIDs(t, "moved", (<-m2.events).Assigned, 1, 3)
	m2.leave()
	if err := <-m2.ended; err != nil {
		t.Error(err)
	}
	wantIDs(t, "back", (<-m1.events).Assigned, 1, 3)
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
