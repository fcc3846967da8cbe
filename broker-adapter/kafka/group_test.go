package kafka

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/kafka/balance"
	"github.com/millrace-io/millrace/internal/settings"
)

// testMember is one running membership.
type testMember struct {
	log   *Log
	leave context.CancelFunc
	ended chan error
	m     broker.Membership

	mu    sync.Mutex
	owned map[int32]bool
	table *broker.Table
	// changed gets a token after each event.
	changed chan struct{}
	err     error
}

func join(t *testing.T, l *Log, m broker.Membership) *testMember {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	w := &testMember{
		log: l, leave: leave, ended: make(chan error, 1), owned: map[int32]bool{}, changed: make(chan struct{}, 1),
	}
	if m.Images == nil {
		m.Images = func() map[int32]int64 { // all that it follows is warm
			lags := map[int32]int64{}
			for _, p := range slices.Concat(w.partitions(), w.lastTable().Followed(m.Worker)) {
				lags[p] = 0
			}
			return lags
		}
	}
	w.m = m
	go func() { w.ended <- l.Assignments(ctx, m, w.on) }() // ends with ctx or the Log, which waits for it
	t.Cleanup(leave)
	return w
}

func (w *testMember) on(e broker.AssignmentEvent) {
	w.mu.Lock()
	if e.Table != nil {
		w.table = e.Table
	}
	for _, id := range e.Assigned {
		w.owned[id] = true
	}
	for _, id := range slices.Concat(e.Revoked, e.Lost) {
		delete(w.owned, id)
	}
	if e.Err != nil {
		w.err = e.Err
	}
	w.mu.Unlock()
	if e.Table != nil && e.Table.Due(w.m) {
		w.log.Rebalance()
	}
	if e.Done != nil {
		e.Done()
	}
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *testMember) partitions() []int32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.owned))
}

func (w *testMember) lastTable() *broker.Table {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.table
}

// until waits for a condition that changes with events, or soon after one.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for ctx := deadline(t); !ok(); {
		if !pause(ctx, 5*time.Millisecond) {
			t.Fatalf("within %v never: %s", patience, what)
		}
	}
}

func (w *testMember) owns(n int) func() bool {
	return func() bool { return len(w.partitions()) == n }
}

func (w *testMember) end(t *testing.T) {
	t.Helper()
	w.leave()
	if err := wait(t, "end of a membership", w.ended); err != nil {
		t.Errorf("leaving in order: %v", err)
	}
}

// routes reports whether the worker's table sends every partition to one of these addresses.
func (w *testMember) routes(partitions int, addresses ...string) func() bool {
	return func() bool {
		table := w.lastTable()
		if table == nil || len(table.Owners) != partitions {
			return false
		}
		for p := range int32(partitions) {
			if m, ok := table.Owner(p); !ok || !slices.Contains(addresses, m.Address) {
				return false
			}
		}
		return true
	}
}

// TestStaticMembership: on a real broker, a worker joins, restarts under the same name at another
// address, and leaves.
func TestStaticMembership(t *testing.T) {
	const partitions = 6
	addrs := brokers(t)
	first, second := open(t, Options{Brokers: addrs}), open(t, Options{Brokers: addrs})
	topic := newTestTopic(t, first, partitions).Topic
	m := broker.Membership{Group: unique("group"), Worker: "worker-1", Address: "10.0.0.1:7000", Topic: topic}

	w := join(t, first, m)
	until(t, "all partitions assigned", w.owns(partitions))
	until(t, "everything routed to the first address", w.routes(partitions, m.Address))
	members, err := second.Members(deadline(t), m.Group) // from outside
	if err != nil || len(members) != 1 || members[0].Name != m.Worker || members[0].Address != m.Address {
		t.Fatalf("members %+v, %v", members, err)
	}

	moved := m
	moved.Address = "10.0.0.2:7000"
	began := time.Now()
	restarted := join(t, second, moved)
	until(t, "taken over by the process of the same name", restarted.owns(partitions))
	t.Logf("taken over after %v", time.Since(began).Round(time.Millisecond))
	if err := wait(t, "end of the first process", w.ended); !errors.Is(err, kerr.FencedInstanceID) ||
		!strings.Contains(err.Error(), "same worker name") {
		t.Errorf("the first process ended with %v", err)
	}
	if w.err == nil {
		t.Error("the first process got no event")
	}
	until(t, "everything routed to the new address", restarted.routes(partitions, moved.Address))

	began = time.Now()
	restarted.end(t)
	members, err = first.Members(deadline(t), m.Group)
	if err != nil || len(members) != 0 {
		t.Errorf("members after a clean leave: %+v, %v", members, err)
	}
	if took := time.Since(began); took > settings.Defaults[Settings]().SessionTimeout/2 {
		t.Errorf("a clean leave took %v", took)
	}
	if s := second.Stats(); s.RecordsRead != 0 || s.Rebalances == 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestTwoWorkers: a second worker joins and leaves, partitions move, and both know the whole table;
// also when it is part of one assignment only, as in large groups.
func TestTwoWorkers(t *testing.T) {
	t.Run("table for each", func(t *testing.T) { testTwoWorkers(t, balance.TablesBudget) })
	t.Run("table looked up", func(t *testing.T) { testTwoWorkers(t, 0) })
}

func testTwoWorkers(t *testing.T, budget int) {
	t.Helper()
	const partitions = 6
	addrs := brokers(t)
	a, b := open(t, Options{Brokers: addrs}), open(t, Options{Brokers: addrs})
	a.budget, b.budget = budget, budget
	m := broker.Membership{
		Group: unique("group"), Worker: "a", Address: "a:7000", Topic: newTestTopic(t, a, partitions).Topic,
	}
	other := m
	other.Worker, other.Address = "b", "b:7000"

	first := join(t, a, m)
	until(t, "the first worker has everything", first.owns(partitions))
	second := join(t, b, other)
	until(t, "both have half", func() bool { return first.owns(partitions/2)() && second.owns(partitions/2)() })
	for _, w := range []*testMember{first, second} {
		until(t, "a complete table", w.routes(partitions, m.Address, other.Address))
	}
	for _, p := range second.partitions() {
		if m, _ := first.lastTable().Owner(p); m.Name != "b" || m.Address != other.Address {
			t.Errorf("partition %d of b is routed to %s at %s", p, m.Name, m.Address)
		}
	}
	second.end(t)
	until(t, "the first worker has everything again", first.owns(partitions))
	first.end(t)
}

// TestRebalanceDoesNotStorm: however often a worker requests it, the group rebalances about once in
// rebalancePause; and a request takes effect.
func TestRebalanceDoesNotStorm(t *testing.T) {
	l := openFake(t, fake(t, 1))
	l.Rebalance() // without a membership it does nothing
	m := broker.Membership{Group: unique("group"), Worker: "w", Address: "w:1", Topic: newTestTopic(t, l, 2).Topic}
	w := join(t, l, m)
	until(t, "assigned", w.owns(2))
	began, before := time.Now(), l.Stats().Rebalances
	until(t, "two more rebalances", func() bool {
		l.Rebalance()
		return l.Stats().Rebalances >= before+2
	})
	if took := time.Since(began); took < rebalancePause {
		t.Errorf("two rebalances within %v", took)
	}
	w.end(t)
}

// TestWatchGoesOn: Watch reports errors, goes on after them, and ends with the Log.
func TestWatchGoesOn(t *testing.T) {
	cluster := fake(t, 1)
	l := openFake(t, cluster)
	topic := newTestTopic(t, l, 1).Topic
	group := unique("group")
	// the first only
	cluster.ControlKey(int16(kmsg.DescribeGroups), func(request kmsg.Request) (kmsg.Response, error, bool) {
		answer := request.ResponseKind().(*kmsg.DescribeGroupsResponse)
		refused := kmsg.NewDescribeGroupsResponseGroup()
		refused.Group, refused.ErrorCode = group, kerr.GroupAuthorizationFailed.Code
		answer.Groups = append(answer.Groups, refused)
		return answer, nil, true
	})
	tables, failed, ended := make(chan *broker.Table, 1), make(chan error, 1), make(chan error, 1)
	go func() { // ends with the Log
		ended <- l.Watch(t.Context(), group, topic, func(table *broker.Table) { tables <- table },
			func(err error) { failed <- err })
	}()
	if err := wait(t, "error", failed); !errors.Is(err, kerr.GroupAuthorizationFailed) {
		t.Errorf("failed with %v", err)
	}
	if table := wait(t, "table", tables); len(table.Members) != 0 {
		t.Errorf("the table of no group is %+v", table)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := wait(t, "end", ended); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("watching a closed log ended with %v", err)
	}
	if err := l.Watch(t.Context(), group, topic, nil, nil); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("watch with a closed log: %v", err)
	}
	if _, err := l.Evict(t.Context(), group, broker.Member{Name: "w"}); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("evict with a closed log: %v", err)
	}
}

// TestCloseEndsMembership leaves the group when the Log is closed.
func TestCloseEndsMembership(t *testing.T) {
	addrs := brokers(t)
	l, other := open(t, Options{Brokers: addrs}), open(t, Options{Brokers: addrs})
	m := broker.Membership{Group: unique("group"), Worker: "w", Address: "w:1", Topic: newTestTopic(t, l, 2).Topic}
	w := join(t, l, m)
	until(t, "assigned", w.owns(2))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := wait(t, "end", w.ended); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("membership of a closed log ended with %v", err)
	}
	if members, err := other.Members(deadline(t), m.Group); err != nil || len(members) != 0 {
		t.Errorf("members after Close: %+v, %v", members, err)
	}
}

// TestGroupCodes answers a group request with each code: the worker recovers by itself, or its
// membership ends with an error.
func TestGroupCodes(t *testing.T) {
	for _, c := range []struct {
		request kmsg.Key
		code    *kerr.Error
		fatal   bool
	}{
		{kmsg.Heartbeat, kerr.CoordinatorLoadInProgress, false},
		{kmsg.Heartbeat, kerr.CoordinatorNotAvailable, false},
		{kmsg.Heartbeat, kerr.NotCoordinator, false},
		{kmsg.Heartbeat, kerr.IllegalGeneration, false},
		{kmsg.Heartbeat, kerr.UnknownMemberID, false},
		{kmsg.Heartbeat, kerr.RebalanceInProgress, false},
		{kmsg.Heartbeat, kerr.FencedInstanceID, true},
		{kmsg.JoinGroup, kerr.NotCoordinator, false},
		{kmsg.JoinGroup, kerr.UnknownMemberID, false},
		{kmsg.JoinGroup, kerr.GroupAuthorizationFailed, true},
		{kmsg.JoinGroup, kerr.InconsistentGroupProtocol, true},
		{kmsg.JoinGroup, kerr.InvalidSessionTimeout, true},
		{kmsg.SyncGroup, kerr.RebalanceInProgress, false},
		{kmsg.SyncGroup, kerr.CoordinatorNotAvailable, false},
	} {
		t.Run(c.request.Name()+"/"+c.code.Message, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t, 1)
			l := open(t, Options{Brokers: cluster.ListenAddrs(), HeartbeatInterval: 20 * time.Millisecond})
			m := broker.Membership{Group: unique("group"), Worker: "w", Address: "w:1", Topic: newTestTopic(t, l, 3).Topic}
			fault := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{c.request}, Group: m.Group, TopLevel: true, Err: c.code})
			w := join(t, l, m)
			if c.fatal {
				if err := wait(t, "end of the membership", w.ended); !errors.Is(err, c.code) {
					t.Errorf("ended with %v", err)
				}
				return
			}
			until(t, "the fault was injected and everything is owned", func() bool { return fault.Hits() == 1 && w.owns(3)() })
			w.end(t)
		})
	}
}

func TestAssignmentsRefuses(t *testing.T) {
	l := openFake(t, fake(t, 1))
	refuse := func(broker.AssignmentEvent) { t.Error("an event") }
	if err := l.Assignments(t.Context(), broker.Membership{Group: "g", Topic: "t"}, refuse); err == nil {
		t.Error("a membership without a worker's name was accepted")
	}
	m := broker.Membership{Group: "g", Worker: "w", Topic: unique("missing")}
	if err := l.Assignments(t.Context(), m, refuse); !errors.Is(err, broker.ErrUnknownTopic) {
		t.Errorf("membership on a missing topic: %v", err)
	}
}
