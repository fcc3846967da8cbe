package simlog

import (
	"context"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

var _ broker.Group = (*Client)(nil)

// Watch calls on with every new table. A slow watcher misses some, never the last.
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
		if table != nil && table != last { // nil: the first rebalance is under way
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

// Refresh does nothing: Watch sees every change at once.
func (c *Client) Refresh() {}

// Evict removes a member from its group. A live one gets its partitions as lost, and joins again.
// In a world with manual assignments only dead members are removed, and the test sends the events
// of the others.
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

// Rebalance makes the World rebalance the groups of this client's members; in a world with manual
// assignments the call is only counted.
func (c *Client) Rebalance() {
	w := c.world
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range c.memberships {
		if g := w.groups[m.Group]; g.find(m.Worker) == m {
			g.due = true
			g.calls++
			w.wake()
		}
	}
}

// RebalanceCalls returns how often members of a group have called Rebalance.
func (w *World) RebalanceCalls(group string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if g := w.groups[group]; g != nil {
		return g.calls
	}
	return 0
}
