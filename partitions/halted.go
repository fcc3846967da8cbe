package partitions

import (
	"context"
	"fmt"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/core"
	"github.com/millrace-io/millrace/partitions/repair"
)

// This file serves the operator of halted partitions, and inspects logs that may have lost
// something.

// Halted returns the evidence for every partition that has halted on this worker.
func (m *Manager) Halted(ctx context.Context) ([]repair.Evidence, error) {
	var all []repair.Evidence
	for _, p := range m.partitions {
		s := p.Status()
		if s.State != core.Halted {
			continue
		}
		e, err := p.repair.Evidence(ctx, s.Halted)
		if err != nil {
			return nil, fmt.Errorf("partition %d: %w", p.id, err)
		}
		all = append(all, e)
	}
	return all, nil
}

// Repair repairs a halted partition by choice. It returns when the partition is no longer halted,
// and will be owned again. restored is what was written again or, with Preview, would be. An error
// states why the partition is still halted; the log has lost nothing by it, and Repair may be
// called again. The repair goes on when ctx ends.
func (m *Manager) Repair(
	ctx context.Context, partition int32, choice materializer.Choice,
) (materializer.Restored, error) {
	if partition < 0 || int(partition) >= len(m.partitions) {
		return materializer.Restored{}, fmt.Errorf("partition %d: %w: the journal has 0 to %d",
			partition, core.ErrNotHalted, len(m.partitions)-1)
	}
	ended := make(chan *core.Repair, 1)
	r := &core.Repair{Choice: choice, Done: func(r *core.Repair) { ended <- r }}
	if !m.partitions[partition].post(inRepair{r}) {
		return materializer.Restored{}, entities.PartitionMoved(partition, "the worker is stopping")
	}
	select {
	case r := <-ended:
		if r.Err != nil {
			return r.Restored, fmt.Errorf("repair of partition %d by %s: %w", partition, choice, r.Err)
		}
		return r.Restored, nil
	case <-ctx.Done():
		return materializer.Restored{}, context.Cause(ctx)
	}
}

// suspectLogs marks the logs of all partitions: they are to be inspected once the topic is as it
// must be again.
func (m *Manager) suspectLogs() {
	inspectors := make([]*repair.Inspector, len(m.partitions))
	for i, p := range m.partitions {
		inspectors[i] = p.inspector
	}
	if err := repair.MarkSuspected(m.options.Store, inspectors); err != nil {
		m.partitions[0].post(inAlarm{fail: err})
	}
}

// inspectSuspected asks for an inspection of the logs that are suspected. It does not wait.
func (m *Manager) inspectSuspected() {
	select {
	case m.toInspect <- struct{}{}:
	default: // one is asked for already
	}
}

// inspectLogs reads the logs that are suspected, one after the other, whenever that is asked for,
// until ctx ends. Partitions are owned and followed at the same time: what they fold themselves,
// they check themselves.
func (m *Manager) inspectLogs(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.toInspect:
		}
		failed := false
		for _, p := range m.partitions {
			if !p.inspector.Suspected() {
				continue
			}
			found, err := p.inspector.Inspect(ctx)
			if err != nil {
				failed = true
				continue
			}
			p.post(inInspected{finding: found})
		}
		if !failed {
			continue
		}
		again, stop := m.options.Clock.After(m.options.Limits.ContractCheck)
		select {
		case <-ctx.Done():
			stop()
			return
		case <-again:
			m.inspectSuspected()
		}
	}
}
