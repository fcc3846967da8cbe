package simlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// group is one group of workers, of which the World is the coordinator. World.mu guards it.
type group struct {
	// members are in the order of their names, dead ones among them.
	members []*member
	// table is the last one sent to members.
	table *broker.Table
	// due: who is in the group, or an image, has changed since the last rebalance began.
	due bool
	// rebalancing: one of the members is asking all of them for their images.
	rebalancing bool
	calls       int
}

// member is one running call of Assignments, or a crashed one. World.mu guards it.
type member struct {
	broker.Membership
	// events are waiting for the member. busy: the member is handling one.
	events []broker.AssignmentEvent
	busy   bool
	// claims are the partitions that the member owns, assigned those that it was last assigned.
	claims, assigned []int32
	// generation is that of the last table.
	generation int32
	// revoking: it has not yet released the revoked partitions.
	revoking bool
	// fresh: it has not been in a table yet.
	fresh bool
	// dead: its client has crashed, which the group does not know.
	dead bool
}

// Assignments joins a group. The World rebalances it by broker.Plan when a worker joins, leaves, is
// evicted or requests it, and when partitions that are to move were released. A worker that joins
// again replaces its earlier process. With Options.ManualAssignments only Assign sends events.
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
		c.world.handled(me)
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
		g = &group{}
		w.groups[m.Group] = g
	}
	me := &member{Membership: m, generation: -1, fresh: true}
	if earlier := g.find(m.Worker); earlier != nil {
		me.claims, me.generation = earlier.claims, earlier.generation
		earlier.events, earlier.claims = []broker.AssignmentEvent{{Err: fmt.Errorf("worker %s of group %s: %w", m.Worker,
			m.Group, errReplaced)}}, nil
		g.remove(earlier)
	}
	g.add(me)
	c.memberships = append(c.memberships, me)
	w.wake()
	return me, nil
}

var errReplaced = errors.New("another process with the same worker name took over")

func (g *group) find(worker string) *member {
	if i := slices.IndexFunc(g.members, func(m *member) bool { return m.Worker == worker }); i >= 0 {
		return g.members[i]
	}
	return nil
}

func (g *group) add(me *member) {
	g.members = append(g.members, me)
	slices.SortFunc(g.members, func(a, b *member) int { return strings.Compare(a.Worker, b.Worker) })
	g.due = true
}

func (g *group) remove(me *member) {
	i := slices.Index(g.members, me)
	if i < 0 {
		return // evicted or replaced before
	}
	g.members = slices.Delete(g.members, i, i+1)
	g.due = true
	if len(g.members) == 0 {
		g.table = nil
	}
}

// leave ends a membership. One whose client has crashed stays in the group.
func (c *Client) leave(me *member) {
	w := c.world
	w.mu.Lock()
	defer w.mu.Unlock()
	g := w.groups[me.Group]
	if !me.dead {
		g.remove(me)
	}
	c.memberships = slices.DeleteFunc(c.memberships, func(m *member) bool { return m == me })
	w.wake()
}

// handled notes that a member has handled an event.
func (w *World) handled(me *member) {
	w.mu.Lock()
	defer w.mu.Unlock()
	me.busy = false
	w.wake()
}

// nextEvent returns the next event for a member, nil if there is none.
func (c *Client) nextEvent(me *member) (*broker.AssignmentEvent, <-chan struct{}, error) {
	w := c.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.closed {
		return nil, nil, c.closedError("member of group " + me.Group)
	}
	if !w.opts.ManualAssignments {
		w.balance(w.groups[me.Group], me)
	}
	if len(me.events) == 0 {
		return nil, w.changed, nil
	}
	event := me.events[0]
	me.events, me.busy = me.events[1:], true
	return &event, nil, nil
}

// balance sends a new table when one is due and all members have handled the last one. The lock is
// held, except while members are asked for their images.
func (w *World) balance(g *group, me *member) {
	if len(me.events) == 0 && !slices.Contains(g.members, me) { // it was evicted, and joins again
		if len(me.assigned) > 0 {
			me.events = append(me.events, broker.AssignmentEvent{Lost: me.assigned})
		}
		me.claims, me.assigned, me.revoking = nil, nil, false
		g.add(me)
		w.wake()
		return
	}
	for g.due && !g.rebalancing && g.quiet() {
		g.due, g.rebalancing = false, true
		members := slices.Clone(g.members)
		w.mu.Unlock()
		said, images := make([]broker.Member, len(members)), make([][]broker.Image, len(members))
		for i, m := range members {
			said[i], images[i] = m.Member(), m.images()
		}
		w.mu.Lock()
		g.rebalancing = false
		w.wake()
		if !g.due { // the group did not change meanwhile
			w.publish(g, said, images)
		}
	}
}

// quiet reports whether all live members have handled the last rebalance.
func (g *group) quiet() bool {
	return !slices.ContainsFunc(g.members, func(m *member) bool {
		return !m.dead &&
			(m.busy || m.revoking || len(m.events) > 0)
	})
}

// images asks a member. No lock is held.
func (m *member) images() []broker.Image {
	if m.Images == nil || m.dead {
		return nil
	}
	var images []broker.Image
	for p, lag := range m.Images() {
		images = append(images, broker.Image{Partition: p, Lag: lag})
	}
	slices.SortFunc(images, func(a, b broker.Image) int { return cmp.Compare(a.Partition, b.Partition) })
	return images
}

// publish makes a table and sends it to all members. The lock is held.
func (w *World) publish(g *group, said []broker.Member, images [][]broker.Image) {
	candidates := make([]broker.Candidate, len(g.members))
	for i, m := range g.members {
		c := broker.Candidate{Member: said[i], Owned: m.claims, Generation: m.generation, Images: images[i]}
		c.New = m.fresh
		m.fresh = false
		candidates[i] = c
	}
	w.generation++
	first := g.members[0]
	partitions := int(w.topics[first.Topic].spec.Partitions)
	if first.Partitions > 0 {
		partitions = int(first.Partitions)
	}
	g.table = broker.Plan(candidates, partitions, first.Standbys, w.generation)
	for _, m := range g.members {
		if !m.dead {
			w.tellMember(g, m)
		}
	}
}

// tellMember sends a member what the table changes for it. The lock is held.
func (w *World) tellMember(g *group, m *member) {
	owned := g.table.Owned(m.Worker)
	assigned := without(owned, m.assigned)
	revoked := without(m.assigned, owned)
	m.generation = g.table.Generation
	m.events = append(m.events, broker.AssignmentEvent{Table: g.table})
	if len(revoked) > 0 {
		m.revoking = true
		m.events = append(m.events, broker.AssignmentEvent{Revoked: revoked, Done: w.released(g, m)})
	}
	if len(assigned) > 0 {
		m.events = append(m.events, broker.AssignmentEvent{Assigned: assigned})
	}
	m.claims, m.assigned = owned, owned
}

func without(a, b []int32) []int32 {
	return slices.DeleteFunc(slices.Clone(a), func(p int32) bool { return slices.Contains(b, p) })
}

// released returns the function that a member calls when it has released partitions: then more may
// move in the next rebalance.
func (w *World) released(g *group, m *member) func() {
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if m.revoking {
			m.revoking, g.due = false, true
			w.wake()
		}
	}
}

// Assign sends an event to the member of a group with this worker name, in a world with manual
// assignments. It does not wait. Watch then shows its table, if it has one.
func (w *World) Assign(groupName, worker string, event broker.AssignmentEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := w.groups[groupName]
	if !g.lives(worker) {
		panic(fmt.Sprintf("simlog: assign to worker %s of group %s: no such member", worker, groupName))
	}
	m := g.find(worker)
	m.events = append(m.events, event)
	if event.Table != nil {
		g.table = event.Table
	}
	w.wake()
}

func (g *group) lives(worker string) bool {
	if g == nil {
		return false
	}
	m := g.find(worker)
	return m != nil && !m.dead
}

// AwaitMember waits until a worker has joined a group.
func (w *World) AwaitMember(ctx context.Context, groupName, worker string) error {
	for {
		w.mu.Lock()
		changed, joined := w.changed, w.groups[groupName].lives(worker)
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
