package partitions

import (
	"context"

	"github.com/millrace-io/millrace/entities"
)

// local implements routing.Local over a manager's partitions.
type local struct{ m *Manager }

// Submit implements routing.Local.
func (l local) Submit(ctx context.Context, partition int32, cmd *entities.Command) (entities.Committed, error) {
	return l.m.partitions[partition].Submit(ctx, cmd)
}

// Conclude implements routing.Local.
func (l local) Conclude(
	ctx context.Context, partition int32, cmd *entities.Command, forward int64, outcome *entities.Outcome,
) (entities.Committed, error) {
	return l.m.partitions[partition].Conclude(ctx, cmd, forward, outcome)
}

// Delivered implements routing.Local.
func (l local) Delivered(source entities.Source, reply *entities.Reply, err error) {
	l.m.partitions[source.Partition].Delivered(source, reply, err)
}

// Unheld implements routing.Local.
func (l local) Unheld(partition int32, from, until int64) {
	l.m.partitions[partition].post(inUnheld{offset: from, next: until})
}

// Position implements routing.Local.
func (l local) Position(ctx context.Context, partition int32) (int64, error) {
	return l.m.partitions[partition].Position(ctx)
}

// Read implements routing.Local.
func (l local) Read(
	ctx context.Context, partition int32, cmd *entities.Command,
) (read entities.Committed, served bool, err error) {
	return l.m.partitions[partition].Read(ctx, cmd)
}
