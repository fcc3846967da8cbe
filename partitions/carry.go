package partitions

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/internal/tracing"
	"github.com/millrace-io/millrace/partitions/core"
)

// Peers carries calls to other workers. Errors are *entities.Error: the other worker's own, or Moved where it is known that
// nothing arrived, or LostOutcome where the connection broke in between.
type Peers interface {
	// Dispatch runs a command on the worker at address. That one does not forward it again.
	Dispatch(ctx context.Context, address string, cmd *entities.Command, hops int) (*entities.Reply, error)
	// DispatchStream runs a streamed action on the worker at address.
	DispatchStream(ctx context.Context, address string, s *entities.Stream) error
	// Position asks the worker at address, which owns the partition, what Partition.Position says.
	Position(ctx context.Context, address string, partition int32) (int64, error)
}

// movePause is the pause before a command is tried again that met a partition on the move; another table ends it.
var movePause = backoff.Policy{First: 10 * time.Millisecond, Max: 500 * time.Millisecond, Jitter: 0.5} //nolint:gochecknoglobals // a constant

// carrier brings commands to the owners of their partitions, here or on another worker, and tries again while it is known that
// nothing was applied, or that applying it again does no harm.
type carrier struct {
	// worker is this process in the table, "" for a gateway.
	worker string
	layout entities.Layout
	routes *Routes
	// peers is nil where there are no other workers.
	peers Peers
	// slots counts, for each partition, the commands that wait for its owner.
	slots  []atomic.Int64
	limits core.Limits
	clock  clock.Clock
	random func() uint64
	// ids makes command ids that no other process makes: a random prefix and a count.
	prefix string
	ids    atomic.Uint64
	stats  carrierStats
	tracer *tracing.Tracer
}

type carrierStats struct{ forwarded, again atomic.Uint64 }

// CarrierCounts say how commands reached their owners.
type CarrierCounts struct {
	// Forwarded were sent to another worker, Retried are attempts that followed on one that had not reached the owner.
	Forwarded, Retried uint64
}

func (s *carrierStats) counts() CarrierCounts {
	return CarrierCounts{Forwarded: s.forwarded.Load(), Retried: s.again.Load()}
}

func newCarrier(worker string, layout entities.Layout, routes *Routes, peers Peers, limits core.Limits, c clock.Clock, random func() uint64, tracer *tracing.Tracer) *carrier {
	if random == nil {
		random = rand.Uint64
	}
	routes.Expect(layout)
	return &carrier{
		worker: worker, layout: layout, routes: routes, peers: peers, slots: make([]atomic.Int64, layout.Partitions), limits: limits,
		clock: c, random: random, tracer: tracer, prefix: entities.RoutedPrefix + strconv.FormatUint(random(), 36) + "-",
	}
}

// partition is the number of a command's partition.
func (c *carrier) partition(cmd *entities.Command) int32 {
	return entities.Partition(cmd.Key.ID, len(c.slots))
}

// accepts refuses a command that this version does not serve, or whose token names places which the journal does not have.
func (c *carrier) accepts(cmd *entities.Command) error {
	if err := supported(cmd); err != nil {
		return err
	}
	for _, p := range cmd.After {
		if !c.layout.Has(p.Partition) || p.Next < 0 {
			return entities.Errorf(entities.InvalidCommand, entities.NotApplied,
				"the token names offset %d of partition %d, and the journal has %d partitions: send the token of an earlier answer of this app", p.Next, p.Partition, c.layout.Partitions)
		}
	}
	return nil
}

// hereFunc runs a command on this worker. decided: the error is not about the command itself, which has its outcome.
type hereFunc func(partition int32, cmd *entities.Command) (reply *entities.Reply, decided bool, err error)

// carry runs a command where its partition is owned; here is nil on a gateway.
func (c *carrier) carry(ctx context.Context, cmd *entities.Command, hops int, here hereFunc) (*entities.Reply, error) {
	partition := c.partition(cmd)
	var (
		doubt        error
		until, began time.Time
	)
	for attempt := 1; ; attempt++ {
		table, changed := c.routes.Look()
		owner, owned := table.Owner(partition)
		var (
			reply   *entities.Reply
			decided bool
			err     error
		)
		switch {
		case here != nil && (c.peers == nil || owner.Name == c.worker || cmd.Timer != nil):
			reply, decided, err = here(partition, cmd)
		case !owned:
			err = entities.PartitionMoved(partition, c.routes.unowned())
		default:
			if began.IsZero() {
				began = c.clock.Now()
			}
			cmd = c.named(cmd)
			c.stats.forwarded.Add(1)
			if reply, err = c.send(ctx, owner, cmd, hops); err == nil {
				reply.Owner = owner.Public
			}
		}
		e, failed := errors.AsType[*entities.Error](err)
		if !failed {
			return reply, err
		}
		if e.Outcome == entities.Unknown {
			doubt = err
		}
		if decided || !c.again(cmd, e, began) || ctx.Err() != nil {
			return nil, mixed(table, resolveOutcome(doubt, e))
		}
		if until.IsZero() {
			until = c.clock.Now().Add(c.limits.MovePatience)
		}
		c.routes.doubt()
		if !c.pause(ctx, changed, partition, attempt, until) {
			return nil, resolveOutcome(doubt, e)
		}
		c.stats.again.Add(1)
	}
}

// send runs a command on another worker, once.
func (c *carrier) send(ctx context.Context, to broker.Member, cmd *entities.Command, hops int) (*entities.Reply, error) {
	ctx, span := c.tracer.Begin(ctx, tracing.Client, "forward", cmd.TraceParent)
	if span == nil {
		return c.peers.Dispatch(ctx, to.Address, cmd, hops)
	}
	span.Set("millrace.to_worker", to.Name)
	reply, err := c.peers.Dispatch(ctx, to.Address, cmd.WithTraceParent(span.Parent()), hops)
	span.End(err)
	return reply, err
}

// named gives a command that leaves this worker an id, so that it can be sent again when its answer is lost.
func (c *carrier) named(cmd *entities.Command) *entities.Command {
	if cmd.ID != "" || cmd.Source != nil {
		return cmd
	}
	named := *cmd
	named.ID = c.prefix + strconv.FormatUint(c.ids.Add(1), 36)
	return &named
}

// resolveOutcome returns what is known after several attempts: an error that leaves open whether the command took effect stays, unless a later
// attempt was checked by an owner, who knows what there was before.
func resolveOutcome(doubt error, last *entities.Error) error {
	if doubt != nil && last.Outcome == entities.NotApplied && !last.Checked && !mutation.On(mutation.Doubt) {
		return doubt
	}
	return last
}

// told is an error as the caller of a command hears it. Within the engine errors speak of attempts.
func told(cmd *entities.Command, err error) error {
	if err == nil || mutation.On(mutation.Verdict) {
		return err
	}
	return entities.AsError(err).ForCommand(cmd.ID)
}

// again says whether a command may be tried once more. What has taken effect under its id is not applied again: for an id of a
// router that is sure for as long as the owner remembers it, which counts from the first attempt at the earliest.
func (c *carrier) again(cmd *entities.Command, e *entities.Error, began time.Time) bool {
	switch e.Reason {
	case entities.Moved:
		return e.Outcome == entities.NotApplied
	case entities.LostOutcome:
		return c.peers != nil && cmd.ID != "" && (!entities.IsRouted(cmd.ID) || c.clock.Now().Sub(began) < entities.RoutedWindow/2)
	default:
		return false
	}
}

// pause waits until there is another table, or for a moment. It returns false when that is no use.
func (c *carrier) pause(ctx context.Context, changed <-chan struct{}, partition int32, attempt int, until time.Time) bool {
	defer c.slots[partition].Add(-1)
	if c.slots[partition].Add(1) > int64(c.limits.MaxWaiting) || !c.clock.Now().Before(until) {
		return false
	}
	over, stop := c.clock.After(movePause.PauseBy(attempt, c.random()))
	defer stop()
	select {
	case <-changed:
		return true
	case <-over:
		return true
	case <-ctx.Done():
		return false
	}
}
