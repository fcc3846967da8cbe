package simlog

import (
	"context"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

var _ broker.Group = (*Client)(nil)

// Watch tells of every table that is handed out. A watcher that is slow misses some, never the last.
func (c *Client) Watch(ctx context.Context, group, _ string, on func(*broker.Table), _ func(error)) error {
	w := c.world
	var last *broker.Table
	none := &broker.Table{}
	for ctx.Err() == nil {
		w.mu.Lock()
		changed, closed := w.changed, c.closed
		g, table := w.groups[group], none
		if g != nil && len(g.members) > 0 {
			table = g.table
		}
		w.mu.Unlock()
		if closed {
			return c.closedError("watch group " + group)
		}
		if table != nil && table != last { // nil: the first balancing is under way
			last = table
			on(table)
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

// Look does nothing: Watch here hears of everything at once.
func (c *Client) Look() {}

// Evict takes a member out of its group. One that lives hears that it lost its partitions, and joins again. In a world with manual
// assignments only the dead are taken out, and the test decides what the others are told.
func (c *Client) Evict(_ context.Context, group string, dead broker.Member) (bool, error) {
	w := c.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.closed {
		return false, c.closedError("evict worker " + dead.Name)
	}
	g := w.groups[group]
	if g == nil {
		return false, nil
	}
	m := g.find(dead.Name)
	if m == nil || m.Incarnation != dead.Incarnation {
		return false, nil
	}
	if m.dead || !w.opts.ManualAssignments {
		g.remove(m)
		w.wake()
	}
	return true, nil
}

// Rebalance lets the World balance the groups of this client's members; in a world with manual assignments the wish is counted.
func (c *Client) Rebalance() {
	w := c.world
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range c.memberships {
		if g := w.groups[m.Group]; g.find(m.Worker) == m {
			g.due = true
			g.wishes++
			w.wake()
		}
	}
}

// Wishes is how often members of a group have called Rebalance.
func (w *World) Wishes(group string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if g := w.groups[group]; g != nil {
		return g.wishes
	}
	return 0
}
