package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/kafka/balance"
)

const (
	// releaseTimeout is how long revoked partitions may take to be released. Safety does not depend
	// on it.
	releaseTimeout = 10 * time.Second
	// handOverTimeout is how long a leaving worker waits for the rebalance that names its
	// successors. That takes a heartbeat of the others; after the timeout they wait for the
	// partitions instead.
	handOverTimeout = 2 * time.Second
	// leaveTimeout bounds the end of a membership, beyond the release of its partitions, when
	// brokers do not answer.
	leaveTimeout = 5 * time.Second
	// rebalancePause is the least time between two requested rebalances. One takes about a
	// heartbeat and involves all workers, so a group has at most about one a second, however many
	// workers request it.
	rebalancePause = time.Second
)

// membership is one Assignments call.
type membership struct {
	log      *Log
	m        broker.Membership
	on       func(broker.AssignmentEvent)
	balancer *balance.Balancer
	// notice came with an assignment and was not announced yet.
	notice atomic.Pointer[balance.Notice]
	// replaced is set when the table names another process for this worker than its own.
	replaced atomic.Bool
	// requests gets the times of requests for a rebalance.
	requests chan time.Duration
	// ended gets the error that ends the membership, if it does not end with its context.
	ended chan error
	// client is set before the group's goroutine can call back.
	client *kgo.Client
	ready  chan struct{}
}

// Assignments keeps this worker in the group until ctx ends. The client of the group fetches no
// records.
func (l *Log) Assignments(ctx context.Context, m broker.Membership, on func(broker.AssignmentEvent)) error {
	what := fmt.Sprintf("membership of worker %s in group %s", m.Worker, m.Group)
	if !l.enter(&l.tasks) {
		return closedError(what)
	}
	defer l.tasks.Done()
	if m.Group == "" || m.Worker == "" || m.Topic == "" {
		return fmt.Errorf("%s: group, worker and topic must be named", what)
	}
	if err := l.groupTopic(ctx, m.Topic); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	s := &membership{
		log: l, m: m, on: on, requests: make(chan time.Duration, 1), ended: make(chan error, 1), ready: make(chan struct{}),
	}
	s.balancer = balance.New(m, l.budget, s.publish)
	clientCtx, abandon := context.WithCancel(context.Background()) // outlives ctx, for leaving the group
	defer abandon()
	client, err := kgo.NewClient(append(s.options(), kgo.WithContext(clientCtx))...)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	s.client = client
	close(s.ready)
	l.mu.Lock()
	l.memberships[s] = struct{}{}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.memberships, s)
		l.mu.Unlock()
	}()
	return s.serve(ctx, what, abandon)
}

func (l *Log) groupTopic(ctx context.Context, topic string) error {
	ctx, cancel := l.within(ctx)
	defer cancel()
	_, err := l.topics.lookUp(ctx, topic)
	return err
}

// serve requests rebalances until the membership ends, and leaves the group.
func (s *membership) serve(ctx context.Context, what string, abandon func()) error {
	err := s.untilEnd(ctx, what)
	if err == nil {
		err = s.handOver(what)
	}
	id, _ := s.client.GroupMetadata()
	giveUp := time.AfterFunc(releaseTimeout+leaveTimeout, abandon)
	s.client.Close() // releases what is assigned, by calling revoked
	giveUp.Stop()
	if err == nil || errors.Is(err, broker.ErrClosed) {
		s.leave(id) // by member id: another process that took over stays
	} else {
		s.on(broker.AssignmentEvent{Err: err})
	}
	return err
}

// untilEnd waits for the end of the membership and requests rebalances meanwhile.
func (s *membership) untilEnd(ctx context.Context, what string) error {
	var asked time.Duration
	due := time.NewTimer(0)
	due.Stop()
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.log.ctx.Done():
			return closedError(what)
		case cause := <-s.ended:
			return fmt.Errorf("%s: %w", what, cause)
		case asked = <-s.requests:
			due.Reset(s.balancer.JoinedAt() + rebalancePause - s.balancer.Now())
		case <-due.C:
			if s.balancer.JoinedAt() < asked { // otherwise a rebalance came after the request
				s.rebalance()
			}
		}
	}
}

// handOver makes the group assign this worker's partitions to others while it still serves them. It
// returns when they are being revoked, or when that cannot happen.
func (s *membership) handOver(what string) error {
	if s.log.known(s.m.Group) < 2 {
		return nil // there is no other member
	}
	s.balancer.Leave()
	s.rebalance()
	patience := time.NewTimer(handOverTimeout)
	defer patience.Stop()
	select {
	case <-s.balancer.Replanned():
	case <-patience.C:
	case <-s.log.ctx.Done():
		return closedError(what)
	case cause := <-s.ended:
		return fmt.Errorf("%s: %w", what, cause)
	}
	return nil
}

// rebalance makes this worker join again with changed join data: only that makes a group rebalance.
func (s *membership) rebalance() {
	s.balancer.Ask()
	s.client.ForceRebalance()
}

func (s *membership) options() []kgo.Opt {
	o := s.log.opts
	return o.clientOptions(
		kgo.ConsumerGroup(s.m.Group),
		kgo.InstanceID(s.m.Worker),
		kgo.ConsumeTopics(s.m.Topic),
		kgo.Balancers(s.balancer),
		kgo.SessionTimeout(o.SessionTimeout),
		kgo.HeartbeatInterval(o.HeartbeatInterval),
		kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(s.assigned),
		kgo.OnPartitionsRevoked(s.revoked),
		kgo.OnPartitionsLost(s.lost),
		kgo.AdjustFetchOffsetsFn(fetchNothing),
		kgo.WithHooks(s),
	)
}

// fetchNothing leaves the group's client without positions, so that it has nothing to fetch.
func fetchNothing(context.Context, map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	return map[string]map[int32]kgo.Offset{}, nil
}

// publish keeps the notice that came with an assignment, before the client handles the assignment.
func (s *membership) publish(n balance.Notice) { s.notice.Store(&n) }

// announce passes on the table of the last rebalance, once. If may is true, a table that is not
// part of the assignment is looked up.
func (s *membership) announce(ctx context.Context, may bool) {
	n := s.notice.Load()
	if n == nil || n.Table == nil && !may {
		return
	}
	s.notice.Store(nil)
	if n.Table == nil {
		if n = s.log.lookUp(ctx, s.m.Group, n.Generation); n == nil {
			return
		}
	}
	s.log.remember(s.m.Group, *n)
	s.on(broker.AssignmentEvent{Table: s.corrected(n.Table)})
}

// corrected replaces an earlier process of this worker in the table, which the group has readmitted
// without a rebalance, and notes that the others must learn of it.
func (s *membership) corrected(t *broker.Table) *broker.Table {
	self := s.m.Member()
	i := slices.IndexFunc(t.Members, func(m broker.Member) bool { return m.Name == self.Name })
	if i < 0 {
		return t
	}
	listed := t.Members[i]
	self.New = listed.New
	if listed == self {
		return t
	}
	listed.Public = self.Public // a leader of an earlier release leaves it out
	if listed != self {
		s.replaced.Store(true)
	}
	own := *t
	own.Members = slices.Clone(t.Members)
	own.Members[i] = self
	return &own
}

func (s *membership) assigned(ctx context.Context, _ *kgo.Client, assigned map[string][]int32) {
	s.log.counters.rebalances.Add(1)
	s.announce(ctx, true)
	if s.replaced.Swap(false) {
		s.rebalance()
	}
	if ids := s.partitions(assigned); len(ids) > 0 {
		s.on(broker.AssignmentEvent{Assigned: ids})
	}
}

// revoked asks for the release of partitions and waits for it.
func (s *membership) revoked(ctx context.Context, _ *kgo.Client, revoked map[string][]int32) {
	ids := s.partitions(revoked)
	if len(ids) == 0 {
		return
	}
	s.announce(ctx, false) // looking up a table would delay the release
	released := make(chan struct{})
	var once sync.Once
	s.on(broker.AssignmentEvent{Revoked: ids, Done: func() { once.Do(func() { close(released) }) }})
	patience := time.NewTimer(releaseTimeout)
	defer patience.Stop()
	select {
	case <-released:
	case <-patience.C:
	case <-ctx.Done():
	}
}

func (s *membership) lost(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	s.log.counters.membershipsLost.Add(1)
	if ids := s.partitions(lost); len(ids) > 0 {
		s.on(broker.AssignmentEvent{Lost: ids})
	}
}

func (s *membership) partitions(of map[string][]int32) []int32 {
	ids := of[s.m.Topic]
	slices.Sort(ids)
	return ids
}

// OnGroupManageError is called by the client when a group session ended with an error. After most
// the client joins again.
func (s *membership) OnGroupManageError(err error) {
	why := fatalGroupError(err)
	if why == "" {
		return
	}
	<-s.ready
	s.client.LeaveGroupContext(nil) //nolint:staticcheck,errcheck // no wait; keeps the client from joining again
	select {
	case s.ended <- fmt.Errorf("%s: %w", why, err):
	default: // has ended already
	}
}

// fatalGroupError explains an error after which joining again is of no use; "" for all others.
func fatalGroupError(err error) string {
	switch {
	case errors.Is(err, kerr.FencedInstanceID):
		return "another process with the same worker name took over; give each worker a name of its own"
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return "this user needs READ on the group"
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return "this user needs READ on the topic"
	case errors.Is(err, kerr.InconsistentGroupProtocol):
		return "the group is used by something other than millrace workers; choose another app name or group"
	case errors.Is(err, kerr.InvalidSessionTimeout):
		return "the broker does not take this session timeout (group.min.session.timeout.ms, group.max.session.timeout.ms)"
	case errors.Is(err, kerr.InvalidGroupID):
		return "the broker does not take this group name"
	case errors.Is(err, kerr.GroupMaxSizeReached):
		return "the group is full (group.max.size)"
	}
	return ""
}

// leave removes this member from the group: for static members the client does not, and the others
// would wait for the session to time out. The request names both ids, so a successor of the same
// name stays.
func (s *membership) leave(id string) {
	if id == "" {
		return // never joined
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	// After an error the session times out, which only takes longer.
	_, _ = leaveRequest(s.m.Group, s.m.Worker, id, "worker ends").RequestWith(ctx, s.log.admin)
}
