package partitions

import (
	"fmt"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
)

// This file compares the layout of the journal with that of the group (ADR 18).

// refit notes whether the group's layout is that of this journal, and removes from an event what
// does not fit. While it does not fit, the partitions are given up; givenUp waits for that.
func (m *Manager) refit(e *broker.AssignmentEvent) (givenUp func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.misfit
	if e.Table != nil {
		m.misfit = m.options.Table.Err()
	}
	e.Assigned, e.Revoked, e.Lost = m.known(e.Assigned), m.known(e.Revoked), m.known(e.Lost)
	switch {
	case m.contract != nil: // they are given up already
	case was == nil && m.misfit != nil:
		return m.release(m.all(), m.misfit)
	case was != nil && m.misfit == nil:
		m.takeAgain()
	}
	return func() {}
}

// known returns those of the ids that the journal has. The lock is held.
func (m *Manager) known(ids []int32) []int32 {
	var known []int32
	for _, id := range ids {
		if m.options.Layout.Has(id) {
			known = append(known, id)
			continue
		}
		m.misfit = fmt.Errorf("%w: the routing table has partition %d, and the journal has %d: "+
			"some worker uses another number of partitions, see `millrace cluster status`",
			entities.ErrLayout, id, m.options.Layout.Partitions)
	}
	return known
}
