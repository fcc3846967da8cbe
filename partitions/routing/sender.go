package routing

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
	"github.com/millrace-io/millrace/internal/plural"
	"github.com/millrace-io/millrace/internal/tracing"
)

// Peers carries calls to other workers. Errors are *entities.Error: the other worker's own, or
// Moved if it is known that nothing arrived, or LostOutcome if the connection broke in between.
type Peers interface {
	// Dispatch runs a command on the worker at address, which does not send it on.
	Dispatch(ctx context.Context, address string, cmd *entities.Command, hops int) (*entities.Reply, error)
	// DispatchStream runs a streamed action on the worker at address.
	DispatchStream(ctx context.Context, address string, s *entities.Stream) error
	// Position asks the worker at address, which owns the partition, for its Partitions.Position.
	Position(ctx context.Context, address string, partition int32) (int64, error)
}

// Options are the parameters of both a Router and a RemoteRouter.
type Options struct {
	// Layout is that of the journal.
	Layout entities.Layout
	// Table is the routing table. NewRouter and NewRemoteRouter make it expect Layout.
	Table *Table
	// Peers is nil if there are no other workers.
	Peers Peers
	// MaxWaiting is how many commands may wait for the owner of one partition, Patience how long each
	// may wait.
	MaxWaiting int
	Patience   time.Duration
	Clock      clock.Clock
	// Random spreads pauses and picks workers; nil means Go's generator. It may be called from many
	// goroutines.
	Random func() uint64
	// Tracer begins the spans of commands; nil if there are none.
	Tracer *tracing.Tracer
}

// Counts are numbers of commands, by how they reached their owners.
type Counts struct {
	// SentOn were sent to another worker, Retried are attempts after one that had not reached the
	// owner.
	SentOn, Retried uint64
}

// retryPause is the pause before a command is tried again whose partition had no owner; a new table
// ends it.
//
//nolint:gochecknoglobals // a constant
var retryPause = backoff.Policy{First: 10 * time.Millisecond, Max: 500 * time.Millisecond, Jitter: 0.5}

// sender brings commands to the owners of their partitions, on this worker or another one, and
// tries again while it is known that nothing was applied, or that applying it again does no harm.
type sender struct {
	Options

	// worker is the name of this process in the table, and here runs a command on a partition of it;
	// empty and nil for a gateway. decided: the command has its outcome, and the error does not
	// concern it.
	worker string
	here   func(
		ctx context.Context, partition int32, cmd *entities.Command, hops int,
	) (reply *entities.Reply, decided bool, err error)
	// waiting counts, for each partition, the commands that wait for its owner.
	waiting []atomic.Int64
	// ids makes command ids that no other process makes: a random prefix and a count.
	prefix string
	ids    atomic.Uint64

	sentOn, retried atomic.Uint64
}

func newSender(o Options) *sender {
	if o.Random == nil {
		o.Random = rand.Uint64
	}
	o.Table.Expect(o.Layout)
	return &sender{
		Options: o, waiting: make([]atomic.Int64, o.Layout.Partitions),
		prefix: entities.RoutedPrefix + strconv.FormatUint(o.Random(), 36) + "-",
	}
}

func (s *sender) counts() Counts {
	return Counts{SentOn: s.sentOn.Load(), Retried: s.retried.Load()}
}

// partition returns the number of a command's partition.
func (s *sender) partition(cmd *entities.Command) int32 {
	return entities.Partition(cmd.Key.ID, len(s.waiting))
}

// accepts refuses a command that this version does not serve, or whose token names places that the
// journal does not have.
func (s *sender) accepts(cmd *entities.Command) error {
	if err := supported(cmd); err != nil {
		return err
	}
	for _, p := range cmd.After {
		if !s.Layout.Has(p.Partition) || p.Next < 0 {
			return entities.Errorf(entities.InvalidCommand, entities.NotApplied,
				"the token names offset %d of partition %d, and the journal has %s: "+
					"send the token of an earlier answer of this app",
				p.Next, p.Partition, plural.Of(s.Layout.Partitions, "partition"))
		}
	}
	return nil
}

// supported refuses kinds that this version announces and does not serve, and an id on an action.
func supported(cmd *entities.Command) error {
	if cmd.Type == nil && cmd.ID != "" {
		return entities.Errorf(entities.InvalidCommand, entities.NotApplied,
			"%s/%s is an action and came with command id %q: an action keeps nothing, so an id cannot make it happen once; "+
				"leave the id out, or call the entity with it: nothing was applied", cmd.Service, cmd.Method, cmd.ID)
	}
	if cmd.Type != nil && !cmd.Type.Kind.Spec().Served() {
		return entities.Errorf(entities.NotSupported, entities.NotApplied,
			"%s: %s entities are not supported yet by this version", cmd.Service, cmd.Type.Kind)
	}
	return nil
}

// toOwner runs a command on the owner of its partition.
func (s *sender) toOwner(ctx context.Context, cmd *entities.Command, hops int) (*entities.Reply, error) {
	partition := s.partition(cmd)
	var (
		unknown      error // the newest error that leaves open whether the command took effect
		until, began time.Time
	)
	for attempt := 1; ; attempt++ {
		table, changed := s.Table.Watch()
		owner, owned := table.Owner(partition)
		var (
			reply   *entities.Reply
			decided bool
			err     error
		)
		switch {
		case s.here != nil && (s.Peers == nil || owner.Name == s.worker || cmd.Timer != nil):
			reply, decided, err = s.here(ctx, partition, cmd, hops)
		case !owned:
			err = entities.PartitionMoved(partition, s.Table.unowned())
		default:
			if began.IsZero() {
				began = s.Clock.Now()
			}
			cmd = s.withID(cmd)
			s.sentOn.Add(1)
			if reply, err = s.toWorker(ctx, owner, cmd, hops); err == nil {
				reply.Owner = owner.Public
			}
		}
		e, failed := errors.AsType[*entities.Error](err)
		if !failed {
			return reply, err
		}
		if e.Outcome == entities.Unknown {
			unknown = err
		}
		if decided || !s.mayRetry(cmd, e, began) {
			return nil, Mixed(table, inTime(ctx, resolveOutcome(unknown, e)))
		}
		if until.IsZero() {
			until = s.Clock.Now().Add(s.Patience)
		}
		s.Table.askNewer()
		if !s.pause(ctx, changed, partition, attempt, until) {
			return nil, inTime(ctx, resolveOutcome(unknown, e))
		}
		s.retried.Add(1)
	}
}

// toWorker runs a command on another worker, once.
func (s *sender) toWorker(
	ctx context.Context, to broker.Member, cmd *entities.Command, hops int,
) (*entities.Reply, error) {
	ctx, span := s.Tracer.Begin(ctx, tracing.Client, "forward", cmd.TraceParent)
	if span == nil {
		return s.Peers.Dispatch(ctx, to.Address, cmd, hops)
	}
	span.Set("millrace.to_worker", to.Name)
	reply, err := s.Peers.Dispatch(ctx, to.Address, cmd.WithTraceParent(span.Parent()), hops)
	span.End(err)
	return reply, err
}

// withID gives a command that leaves this worker an id, so that it can be sent again if its answer
// is lost.
func (s *sender) withID(cmd *entities.Command) *entities.Command {
	if cmd.ID != "" || cmd.Source != nil {
		return cmd
	}
	named := *cmd
	named.ID = s.prefix + strconv.FormatUint(s.ids.Add(1), 36)
	return &named
}

// resolveOutcome returns the error after several attempts: one that leaves open whether the command
// took effect stays, unless an owner checked a later attempt and so knows the results of the
// earlier ones.
func resolveOutcome(unknown error, last *entities.Error) error {
	if unknown != nil && last.Outcome == entities.NotApplied && !last.Checked && !mutation.On(mutation.Doubt) {
		return unknown
	}
	return last
}

// forCaller returns an error as the caller of the command gets it. Within the engine errors concern
// attempts.
func forCaller(cmd *entities.Command, err error) error {
	if err == nil || mutation.On(mutation.Verdict) {
		return err
	}
	return entities.AsError(err).ForCommand(cmd.ID)
}

// mayRetry reports whether a command may be tried once more. A command that took effect under its
// id is not applied again: for an id of a router that is certain only as long as the owner
// remembers it, which counts from the first attempt at the earliest.
func (s *sender) mayRetry(cmd *entities.Command, e *entities.Error, began time.Time) bool {
	switch e.Reason {
	case entities.Moved:
		return e.Outcome == entities.NotApplied
	case entities.LostOutcome:
		return s.Peers != nil && cmd.ID != "" &&
			(!entities.IsRouted(cmd.ID) || s.Clock.Now().Sub(began) < entities.RoutedWindow/2)
	default:
		return false
	}
}

// pause waits until there is a new table, or for a moment. It returns false if waiting is
// pointless.
func (s *sender) pause(
	ctx context.Context, changed <-chan struct{}, partition int32, attempt int, until time.Time,
) bool {
	defer s.waiting[partition].Add(-1)
	if s.waiting[partition].Add(1) > int64(s.MaxWaiting) || !s.Clock.Now().Before(until) || ctx.Err() != nil {
		return false
	}
	over, stop := s.Clock.After(retryPause.PauseBy(attempt, s.Random()))
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
