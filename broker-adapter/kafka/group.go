package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/kafka/balance"
)

var _ broker.Group = (*Log)(nil)

const (
	// watchQuiet is the pause between two polls at a stable group. A poll costs the coordinator one
	// small request. A router with an old table learns of it from the worker that it calls, so this
	// bounds only how long calls take a detour.
	watchQuiet = time.Second
	// watchBusy is the pause while the group changes: a rebalance takes about a heartbeat, 250 ms
	// by default.
	watchBusy = 250 * time.Millisecond
	// watchLeast is the shortest pause between two polls.
	watchLeast = 50 * time.Millisecond
	// busyFor is how long after a change watchBusy applies: a rebalance is often followed by
	// others.
	busyFor = 3 * time.Second
	// lookUpTimeout bounds the search for a table that is not part of the assignment. Without it
	// the next rebalance brings one.
	lookUpTimeout = 2 * time.Second
)

// Watch polls the coordinator of a group. It needs READ or DESCRIBE on the group.
func (l *Log) Watch(ctx context.Context, group, topic string, on func(*broker.Table), failed func(error)) error {
	what := fmt.Sprintf("watch group %s of topic %s", group, topic)
	if !l.enter(&l.tasks) {
		return closedError(what)
	}
	defer l.tasks.Done()
	ctx, cancel := l.within(ctx)
	defer cancel()
	var last []byte
	var changed time.Time
	for {
		g, err := l.describeGroup(ctx, group)
		switch {
		case l.ctx.Err() != nil:
			return closedError(what)
		case ctx.Err() != nil:
			return nil
		case err != nil:
			failed(requestError(what, err))
		case g.Notice != nil:
			l.remember(group, *g.Notice)
			if now := g.Notice.Encode(); !bytes.Equal(now, last) {
				last, changed = now, time.Now()
				on(g.Notice.Table)
			}
		}
		next := watchQuiet
		if err == nil && (!g.Stable || time.Since(changed) < busyFor) {
			next = watchBusy
		}
		l.awaitPoll(ctx, next)
	}
}

// awaitPoll waits until the next poll is due or Refresh is called, at least watchLeast.
func (l *Log) awaitPoll(ctx context.Context, next time.Duration) {
	if !pause(ctx, watchLeast) {
		return
	}
	t := time.NewTimer(next - watchLeast)
	defer t.Stop()
	select {
	case <-l.refresh:
	case <-t.C:
	case <-ctx.Done():
	}
}

// Refresh makes one running Watch poll at once.
func (l *Log) Refresh() {
	select {
	case l.refresh <- struct{}{}:
	default: // already requested
	}
}

// lookUp finds the table of a rebalance that came without one. It returns nil if the group has
// rebalanced since, or cannot be asked: then the next rebalance brings a table.
func (l *Log) lookUp(ctx context.Context, group string, generation int32) *balance.Notice {
	ctx, cancel := context.WithTimeout(ctx, lookUpTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		g, err := l.describeGroup(ctx, group)
		if err == nil {
			if g.Notice == nil || g.Notice.Generation < generation {
				return nil
			}
			return g.Notice
		}
		if !pause(ctx, retry.Pause(attempt)) {
			return nil
		}
	}
}

// memberIDs are the ids in the group of the workers of the last table.
type memberIDs map[broker.Member]string

// identity returns what identifies a process, without its addresses.
func identity(m broker.Member) broker.Member {
	return broker.Member{Name: m.Name, Incarnation: m.Incarnation}
}

// remember keeps the ids of a group's members: a group that rebalances does not show which id
// belongs to which process, and it does so when two workers die at once.
func (l *Log) remember(group string, n balance.Notice) {
	ids := memberIDs{}
	for i, m := range n.Table.Members {
		ids[identity(m)] = n.IDs[i]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.members[group] = ids
}

// known returns how many members a group had by its last table.
func (l *Log) known(group string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.members[group])
}

// joinNow makes this process's members of a group join at once, unless they have joined since.
func (l *Log) joinNow(group string, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.memberships {
		if s.m.Group == group && s.balancer.JoinedBefore(since) {
			s.client.ForceRebalance()
		}
	}
}

// memberID returns the id with which a process has joined: from the last table, else from the
// group.
func (l *Log) memberID(ctx context.Context, group string, m broker.Member) (string, error) {
	l.mu.Lock()
	id := l.members[group][identity(m)]
	l.mu.Unlock()
	if id != "" {
		return id, nil
	}
	g, err := l.describeGroup(ctx, group)
	if err != nil {
		return "", err
	}
	for i, found := range g.Members {
		switch {
		case found.Name != m.Name:
		case !g.Stable:
			return "", errBalancing
		case found.Incarnation == m.Incarnation:
			return g.IDs[i], nil
		}
	}
	return "", nil
}

var errBalancing = errors.New(
	"the group is rebalancing and does not show which process of the worker is its member; try again")

// Evict removes a worker from its group by a request that names the join of that process, so that
// another process with the same name stays. It needs READ on the group. After an error the outcome
// is unknown; trying again is harmless.
//
// The group then waits for all its members, which learn of it with their next heartbeat. Those of
// this process join at once.
func (l *Log) Evict(ctx context.Context, group string, dead broker.Member) (bool, error) {
	what := fmt.Sprintf("evict worker %s (incarnation %x) from group %s", dead.Name, dead.Incarnation, group)
	ctx, cancel := l.within(ctx)
	defer cancel()
	began := time.Now()
	id, err := l.memberID(ctx, group, dead)
	if err != nil {
		return false, l.requestError(what, err)
	}
	if id == "" {
		return false, nil
	}
	resp, err := request(ctx, l, l.admin,
		leaveRequest(group, dead.Name, id, "a peer reports that its process is dead").RequestWith)
	if err == nil {
		err = leaveError(resp)
	}
	switch {
	case err == nil:
		l.counters.evictions.Add(1)
		l.joinNow(group, began)
		return true, nil
	case errors.Is(err, kerr.UnknownMemberID): // evicted by another worker
		l.joinNow(group, began)
		return false, nil
	case errors.Is(err, kerr.FencedInstanceID), errors.Is(err, kerr.GroupIDNotFound):
		return false, nil
	}
	return false, l.requestError(what, err)
}

// leaveRequest removes one member from a group. It names both ids, so a successor with the same
// worker name stays.
func leaveRequest(group, worker, id, reason string) *kmsg.LeaveGroupRequest {
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = group
	member := kmsg.NewLeaveGroupRequestMember()
	member.MemberID, member.InstanceID, member.Reason = id, kmsg.StringPtr(worker), kmsg.StringPtr(reason)
	req.Members = append(req.Members, member)
	return req
}

func leaveError(resp *kmsg.LeaveGroupResponse) error {
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return err
	}
	for i := range resp.Members {
		if err := kerr.ErrorForCode(resp.Members[i].ErrorCode); err != nil {
			return err
		}
	}
	return nil
}

// Rebalance requests a rebalance of the groups that this Log is a member of: at once, or
// rebalancePause after the last one. Requests until then are merged.
func (l *Log) Rebalance() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.memberships {
		select {
		case s.requests <- s.balancer.Now():
		default: // already requested
		}
	}
}
