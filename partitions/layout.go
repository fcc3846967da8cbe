package partitions

import (
	"fmt"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
)

// This file compares the layout of the journal with what the log and the group say of it (ADR 18).

// CheckPartitions compares a topic's number of partitions with the layout. more: the topic may have more than the layout, because the
// operator has said so. The error names both numbers and the remedy.
func CheckPartitions(l entities.Layout, info broker.TopicInfo, more bool) error {
	switch {
	case info.Partitions == l.Partitions, more && info.Partitions > l.Partitions:
		return nil
	case info.Partitions > l.Partitions:
		return fmt.Errorf("%w: topic %s has %d partitions, and its data is of %d: partitions were added, and by %d entities would be looked for where they are not. "+
			"Nothing is lost. Start every worker and gateway with --partitions %d, which leaves the added ones alone",
			entities.ErrLayout, info.Name, info.Partitions, l.Partitions, info.Partitions, l.Partitions)
	default:
		return fmt.Errorf("%w: topic %s has %d partitions, and its data is of %d: it is not the journal that this process began with; "+
			"bring that one back, or see `millrace repair` after the next start", entities.ErrLayout, info.Name, info.Partitions, l.Partitions)
	}
}

// refit notes whether what the group says is of this journal's layout, and leaves out of an event what is not. While it is not, the
// partitions are given up; the function returned waits for that.
func (m *Manager) refit(e *broker.AssignmentEvent) (givenUp func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.misfit
	if e.Table != nil {
		m.misfit = m.options.Routes.Err()
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

// known returns those of some partitions that the journal has. The lock is held.
func (m *Manager) known(ids []int32) []int32 {
	var known []int32
	for _, id := range ids {
		if m.options.Layout.Has(id) {
			known = append(known, id)
			continue
		}
		m.misfit = fmt.Errorf("%w: the group of workers speaks of partition %d, and the journal's data is of %d: "+
			"some worker uses another number of partitions, see `millrace cluster status`", entities.ErrLayout, id, m.options.Layout.Partitions)
	}
	return known
}
