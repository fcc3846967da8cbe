package simlog

import (
	"context"
	"fmt"
	"slices"
	"strings"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// group is one consumer group: who is in it and who has which partition.
type group struct {
	members []*member
	// owner says who has a partition, from the assignment until the revocation is done.
	owner map[int32]*member
}

// member is one running call of Assignments. World.mu guards it.
type member struct {
	broker.Membership
	// events waits to be given out, in a world with manual assignments.
	events []broker.AssignmentEvent
}

// Assignments joins a group. The partitions are spread evenly over its members, sorted by name; what has to move is revoked first
// and assigned when Done was called. With Options.ManualAssignments only Assign gives out anything.
func (c *Client) Assignments(ctx context.Context, m broker.Membership, on func(broker.AssignmentEvent)) error {
	me, err := c.join(m)
	if err != nil {
		return err
	}
	defer c.leave(me)
	for {
		event, changed, err := c.nextEvent(me)
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		if event == nil {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		on(*event)
		if event.Err != nil {
			return event.Err
		}
	}
}

func (c *Client) join(m broker.Membership) (*member, error) {
	w := c.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.closed {
		return nil, c.closedError("join group " + m.Group)
	}
	if w.topics[m.Topic] == nil {
		return nil, fmt.Errorf("join group %s: topic %s: %w", m.Group, m.Topic, broker.ErrUnknownTopic)
	}
	g := w.groups[m.Group]
	if g == nil {
		g = &group{owner: map[int32]*member{}}
		w.groups[m.Group] = g
	}
	me := &member{Membership: m}
	g.members = append(g.members, me)
	slices.SortStableFunc(g.members, func(a, b *member) int { return strings.Compare(a.Worker, b.Worker) })
	w.wake()
	return me, nil
}

func (c *Client) leave(me *member) {
	w := c.world
	w.mu.Lock()
	defer w.mu.Unlock()
	g := w.groups[me.Group]
	g.members = slices.DeleteFunc(g.members, func(m *member) bool { return m == me })
	for id, owner := range g.owner {
		if owner == me {
			delete(g.owner, id)
		}
	}
	w.wake()
}

// nextEvent finds what to tell a member now: nil when nothing.
func (c *Client) nextEvent(me *member) (*broker.AssignmentEvent, <-chan struct{}, error) {
	w := c.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.closed {
		return nil, nil, c.closedError("member of group " + me.Group)
	}
	if w.opts.ManualAssignments {
		if len(me.events) == 0 {
			return nil, w.changed, nil
		}
		event := me.events[0]
		me.events = me.events[1:]
		return &event, nil, nil
	}
	return w.rebalance(w.groups[me.Group], me), w.changed, nil
}

// rebalance compares what a member has with its even share. The lock is held.
func (w *World) rebalance(g *group, me *member) *broker.AssignmentEvent {
	var assigned, revoked []int32
	index := slices.Index(g.members, me)
	for id := range w.topics[me.Topic].spec.Partitions {
		mine := int(id)%len(g.members) == index
		switch owner := g.owner[id]; {
		case mine && owner == nil:
			assigned = append(assigned, id)
		case !mine && owner == me:
			revoked = append(revoked, id)
		}
	}
	if len(revoked) > 0 {
		return &broker.AssignmentEvent{Revoked: revoked, Done: w.revocation(g, me, revoked)}
	}
	if len(assigned) == 0 {
		return nil
	}
	for _, id := range assigned {
		g.owner[id] = me
	}
	return &broker.AssignmentEvent{Assigned: assigned}
}

// revocation marks the partitions as nobody's for the member, and returns what frees them for the next. The lock is held.
func (w *World) revocation(g *group, me *member, ids []int32) func() {
	leaving := &member{Membership: me.Membership}
	for _, id := range ids {
		g.owner[id] = leaving
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, id := range ids {
			if g.owner[id] == leaving {
				delete(g.owner, id)
			}
		}
		w.wake()
	}
}

// Assign gives an event to every member of a group with this worker name, in a world with manual assignments. It does not wait.
func (w *World) Assign(groupName, worker string, event broker.AssignmentEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	found := false
	if g := w.groups[groupName]; g != nil {
		for _, m := range g.members {
			if m.Worker == worker {
				m.events = append(m.events, event)
				found = true
			}
		}
	}
	if !found {
		panic(fmt.Sprintf("simlog: assign to worker %s of group %s: no such member", worker, groupName))
	}
	w.wake()
}

// AwaitMember waits until a worker has joined a group.
func (w *World) AwaitMember(ctx context.Context, groupName, worker string) error {
	for {
		w.mu.Lock()
		changed := w.changed
		g := w.groups[groupName]
		joined := g != nil && slices.ContainsFunc(g.members, func(m *member) bool { return m.Worker == worker })
		w.mu.Unlock()
		if joined {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("worker %s did not join group %s: %w", worker, groupName, ctx.Err())
		}
	}
}
