package partitions

import (
	"context"

	"github.com/millrace-io/millrace/entities"
)

// numbered implements routing.Partitions over a manager's partitions.
type numbered struct{ m *Manager }

// Submit implements routing.Partitions.
func (n numbered) Submit(ctx context.Context, partition int32, cmd *entities.Command) (entities.Committed, error) {
	return n.m.partitions[partition].Submit(ctx, cmd)
}

// Conclude implements routing.Partitions.
func (n numbered) Conclude(
	ctx context.Context, partition int32, cmd *entities.Command, forward int64, outcome *entities.Outcome,
) (entities.Committed, error) {
	return n.m.partitions[partition].Conclude(ctx, cmd, forward, outcome)
}

// Delivered implements routing.Partitions.
func (n numbered) Delivered(source entities.Source, reply *entities.Reply, err error) {
	n.m.partitions[source.Partition].Delivered(source, reply, err)
}

// Unheld implements routing.Partitions.
func (n numbered) Unheld(partition int32, from, until int64) {
	n.m.partitions[partition].post(inUnheld{offset: from, next: until})
}

// Position implements routing.Partitions.
func (n numbered) Position(ctx context.Context, partition int32) (int64, error) {
	return n.m.partitions[partition].Position(ctx)
}

// Read implements routing.Partitions.
func (n numbered) Read(
	ctx context.Context, partition int32, cmd *entities.Command,
) (read entities.Committed, served bool, err error) {
	return n.m.partitions[partition].Read(ctx, cmd)
}
