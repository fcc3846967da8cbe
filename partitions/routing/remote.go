package routing

import (
	"context"
	"errors"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
)

// RemoteRouter is the router of a process without partitions, a gateway: it sends every call to a
// worker, commands to the owner of their partition, actions to any. Safe for concurrent use.
type RemoteRouter struct{ sender *sender }

// NewRemoteRouter returns a router to other workers. o.Peers must not be nil.
func NewRemoteRouter(o Options) *RemoteRouter { return &RemoteRouter{sender: newSender(o)} }

// Counts returns how commands reached their owners.
func (r *RemoteRouter) Counts() Counts { return r.sender.counts() }

// Dispatch runs one command on a worker and returns its answer. Errors are *entities.Error; their
// outcome is that of the command, including earlier attempts under its id.
func (r *RemoteRouter) Dispatch(ctx context.Context, cmd *entities.Command) (*entities.Reply, error) {
	reply, err := r.dispatch(ctx, cmd)
	return reply, forCaller(cmd, err)
}

func (r *RemoteRouter) dispatch(ctx context.Context, cmd *entities.Command) (*entities.Reply, error) {
	if err := r.sender.accepts(cmd); err != nil {
		return nil, err
	}
	if cmd.Type != nil {
		if cmd.Consistency.Relaxed() {
			if reply, err := r.toFollower(ctx, cmd); err == nil || entities.AsError(err).Reason != entities.Moved {
				return reply, err
			}
		}
		return r.sender.toOwner(ctx, cmd, 0)
	}
	var reply *entities.Reply
	err := r.toAny(func(worker broker.Member) (err error) {
		reply, err = r.sender.toWorker(ctx, worker, cmd, 0)
		return err
	})
	return reply, err
}

// toFollower sends a read to a worker that has the partition: its owner and its followers in turn.
func (r *RemoteRouter) toFollower(ctx context.Context, cmd *entities.Command) (*entities.Reply, error) {
	table := r.sender.Table.Current()
	partition := r.sender.partition(cmd)
	if table == nil || int(partition) >= len(table.Standbys) {
		return nil, entities.PartitionMoved(partition, "no follower is known")
	}
	have := table.Standbys[partition]
	i := int(r.sender.Random() % uint64(len(have)+1)) //nolint:gosec // a small number
	if i < len(have) {
		return r.sender.toWorker(ctx, table.Members[have[i]], cmd, 0)
	}
	return nil, entities.PartitionMoved(partition, "its owner answers")
}

// DispatchStream runs a streamed call of an action on a worker.
func (r *RemoteRouter) DispatchStream(ctx context.Context, s *entities.Stream) error {
	if err := supported(s.Command); err != nil {
		return err
	}
	return r.toAny(func(worker broker.Member) error { return r.sender.Peers.DispatchStream(ctx, worker.Address, s) })
}

// toAny calls do for one worker after the other, until it has reached one.
func (r *RemoteRouter) toAny(do func(worker broker.Member) error) error {
	table := r.sender.Table.Current()
	workers := table.Staying()
	if len(workers) == 0 {
		return entities.Errorf(entities.Unavailable, entities.NotApplied,
			"no worker of the app is known: start one with `millrace run`, or look at `millrace cluster status`")
	}
	first := int(r.sender.Random() % uint64(len(workers))) //nolint:gosec // a small number
	upgrading := table.Versions() > 1
	var err error
	for i := range workers {
		err = do(workers[(first+i)%len(workers)])
		e, failed := errors.AsType[*entities.Error](err)
		if !failed || e.Outcome != entities.NotApplied ||
			e.Reason != entities.Moved && !(upgrading && e.Reason == entities.UnknownMethod) {
			return err
		}
	}
	return Mixed(table, err)
}
