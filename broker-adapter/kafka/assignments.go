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
	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

const (
	// drainTimeout is how long revoked partitions may take to be released. Safety does not depend on it.
	drainTimeout = 10 * time.Second
	// leaveTimeout bounds the end of a membership, beyond the release of its partitions, when brokers do not answer.
	leaveTimeout = 5 * time.Second
)

// membership is one Assignments call.
type membership struct {
	log *Log
	m   broker.Membership
	on  func(broker.AssignmentEvent)
	// stale is set when the table names another address for this worker than its own.
	stale atomic.Bool
	// ended gets the one error that ends the membership from inside.
	ended chan error
	// client is set before the group's goroutine can call back.
	client *kgo.Client
	ready  chan struct{}
}

// Assignments keeps this worker in the group until ctx ends. The client of the group fetches no records.
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
	s := &membership{log: l, m: m, on: on, ended: make(chan error, 1), ready: make(chan struct{})}
	clientCtx, abandon := context.WithCancel(context.Background()) // outlives ctx: leaving in order needs it
	defer abandon()
	client, err := kgo.NewClient(append(s.options(), kgo.WithContext(clientCtx))...)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	s.client = client
	close(s.ready)
	return s.serve(ctx, what, abandon)
}

func (l *Log) groupTopic(ctx context.Context, topic string) error {
	ctx, cancel := l.within(ctx)
	defer cancel()
	_, err := l.topics.lookUp(ctx, topic)
	return err
}

// serve waits for the end of the membership and leaves.
func (s *membership) serve(ctx context.Context, what string, abandon func()) error {
	var err error
	select {
	case <-ctx.Done():
	case <-s.log.ctx.Done():
		err = closedError(what)
	case cause := <-s.ended:
		err = fmt.Errorf("%s: %w", what, cause)
	}
	id, _ := s.client.GroupMetadata()
	giveUp := time.AfterFunc(drainTimeout+leaveTimeout, abandon)
	s.client.Close() // hands back what is assigned, through revoked
	giveUp.Stop()
	if err == nil || errors.Is(err, broker.ErrClosed) {
		s.leave(id) // when another process took this one's place, the group must keep it
	} else {
		s.on(broker.AssignmentEvent{Err: err})
	}
	return err
}

func (s *membership) options() []kgo.Opt {
	o := s.log.opts
	return o.clientOptions(
		kgo.ConsumerGroup(s.m.Group),
		kgo.InstanceID(s.m.Worker),
		kgo.ConsumeTopics(s.m.Topic),
		kgo.Balancers(newBalancer(s.m.Topic, s.m.Address, s.publish)),
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

// publish takes a table that came with an assignment.
func (s *membership) publish(t *RoutingTable) {
	s.log.table.Store(t)
	address, known := t.Address(s.m.Worker)
	s.stale.Store(known && address != s.m.Address)
}

func (s *membership) assigned(_ context.Context, client *kgo.Client, assigned map[string][]int32) {
	s.log.counters.rebalances.Add(1)
	if s.stale.Swap(false) {
		// The group took this worker back without balancing, so everyone still has the address of its former process.
		client.ForceRebalance()
	}
	if ids := s.partitions(assigned); len(ids) > 0 {
		s.on(broker.AssignmentEvent{Assigned: ids})
	}
}

// revoked hands partitions back, and waits until they are released.
func (s *membership) revoked(ctx context.Context, _ *kgo.Client, revoked map[string][]int32) {
	ids := s.partitions(revoked)
	if len(ids) == 0 {
		return
	}
	released := make(chan struct{})
	var once sync.Once
	s.on(broker.AssignmentEvent{Revoked: ids, Done: func() { once.Do(func() { close(released) }) }})
	patience := time.NewTimer(drainTimeout)
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

// OnGroupManageError is called by the client when a group session ended with an error. Most are mended by joining again,
// which the client does.
func (s *membership) OnGroupManageError(err error) {
	why := fatalGroupError(err)
	if why == "" {
		return
	}
	<-s.ready
	s.client.LeaveGroupContext(nil) //nolint:staticcheck,errcheck // nil: begin, do not wait. It keeps the client from joining again
	select {
	case s.ended <- fmt.Errorf("%s: %w", why, err):
	default: // has ended already
	}
}

// fatalGroupError says what an error that joining again cannot mend means, "" for all others.
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

// leave takes this very member out of the group: for static members the client does not, and the others would wait for the
// session to time out. With both ids a successor of the same name is not touched.
func (s *membership) leave(id string) {
	if id == "" {
		return // never joined
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = s.m.Group
	member := kmsg.NewLeaveGroupRequestMember()
	member.MemberID, member.InstanceID = id, kmsg.StringPtr(s.m.Worker)
	member.Reason = kmsg.StringPtr("worker ends")
	req.Members = append(req.Members, member)
	// An error costs time, never safety: then the session times out.
	_, _ = req.RequestWith(ctx, s.log.admin)
}
