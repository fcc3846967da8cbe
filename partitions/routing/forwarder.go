package routing

import (
	"context"
	"errors"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
)

// Forwarder sends every call to a worker: commands to the owner of their partition, actions to any.
// A gateway without a function serves with it. Safe for concurrent use.
type Forwarder struct{ sender *sender }

// NewForwarder returns a forwarder. o.Peers must not be nil.
func NewForwarder(o Options) *Forwarder { return &Forwarder{sender: newSender(o)} }

// Counts returns how commands reached their owners.
func (f *Forwarder) Counts() Counts { return f.sender.counts() }

// Dispatch runs one command on a worker and returns its answer. Errors are *entities.Error; their
// outcome is that of the command, including earlier attempts under its id.
func (f *Forwarder) Dispatch(ctx context.Context, cmd *entities.Command) (*entities.Reply, error) {
	reply, err := f.dispatch(ctx, cmd)
	return reply, forCaller(cmd, err)
}

func (f *Forwarder) dispatch(ctx context.Context, cmd *entities.Command) (*entities.Reply, error) {
	if err := f.sender.accepts(cmd); err != nil {
		return nil, err
	}
	if cmd.Type != nil {
		if cmd.Consistency.Relaxed() {
			if reply, err := f.toFollower(ctx, cmd); err == nil || entities.AsError(err).Reason != entities.Moved {
				return reply, err
			}
		}
		return f.sender.toOwner(ctx, cmd, 0)
	}
	var reply *entities.Reply
	err := f.toAny(func(worker broker.Member) (err error) {
		reply, err = f.sender.toWorker(ctx, worker, cmd, 0)
		return err
	})
	return reply, err
}

// toFollower sends a read to a worker that has the partition: its owner and its followers in turn.
func (f *Forwarder) toFollower(ctx context.Context, cmd *entities.Command) (*entities.Reply, error) {
	table := f.sender.Table.Current()
	partition := f.sender.partition(cmd)
	if table == nil || int(partition) >= len(table.Standbys) {
		return nil, entities.PartitionMoved(partition, "no follower is known")
	}
	have := table.Standbys[partition]
	i := int(f.sender.Random() % uint64(len(have)+1)) //nolint:gosec // a small number
	if i < len(have) {
		return f.sender.toWorker(ctx, table.Members[have[i]], cmd, 0)
	}
	return nil, entities.PartitionMoved(partition, "its owner answers")
}

// DispatchStream runs a streamed call of an action on a worker.
func (f *Forwarder) DispatchStream(ctx context.Context, s *entities.Stream) error {
	if err := supported(s.Command); err != nil {
		return err
	}
	return f.toAny(func(worker broker.Member) error { return f.sender.Peers.DispatchStream(ctx, worker.Address, s) })
}

// toAny calls do for one worker after the other, until it has reached one.
func (f *Forwarder) toAny(do func(worker broker.Member) error) error {
	table := f.sender.Table.Current()
	workers := table.Staying()
	if len(workers) == 0 {
		return entities.Errorf(entities.Unavailable, entities.NotApplied,
			"no worker of the app is known: start one with `millrace run`, or look at `millrace cluster status`")
	}
	first := int(f.sender.Random() % uint64(len(workers))) //nolint:gosec // a small number
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
