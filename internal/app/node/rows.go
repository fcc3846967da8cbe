package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/replica"
	"github.com/millrace-io/millrace/projections/query"
	"github.com/millrace-io/millrace/projections/query/remote"
)

// everywhere reads rows where they are: on this worker if it has an image of the partition, else on
// the partition's owner, or on one of its followers.
type everywhere struct {
	query.Executor // the rows of this worker

	readSide *readSide
}

// Open returns the rows of the first replica that has them.
func (e everywhere) Open(ctx context.Context, scan *query.Scan) (query.Rows, error) {
	return first(ctx, e, scan.Partition,
		func() (query.Rows, error) { return e.Executor.Open(ctx, scan) },
		func(conn grpc.ClientConnInterface) (query.Rows, error) { return remote.Open(ctx, conn, scan) })
}

// Changes returns what has changed of rows, from the first replica that knows.
func (e everywhere) Changes(
	ctx context.Context, scan *query.Scan, from int64, wait time.Duration,
) (*query.Changes, error) {
	return first(ctx, e, scan.Partition,
		func() (*query.Changes, error) { return e.Executor.Changes(ctx, scan, from, wait) },
		func(conn grpc.ClientConnInterface) (*query.Changes, error) {
			return remote.Changes(ctx, conn, scan, from, wait)
		})
}

// first asks this worker if it has an image of a partition, and then the others that have one,
// until one has what is asked for.
func first[T any](ctx context.Context, e everywhere, partition int32, here func() (T, error),
	there func(grpc.ClientConnInterface) (T, error),
) (none T, err error) {
	missing := &query.NotHereError{
		Partition: partition, State: "ABSENT", Progress: "no worker is known that has the partition",
	}
	var gap *query.GapError
	n := e.readSide.node
	if n.manager.Partitions()[partition].Replica().Role() != materializer.NoRole {
		found, err := here()
		if err == nil || !errors.As(err, &missing) && !errors.As(err, &gap) {
			return found, err
		}
	}
	for _, m := range n.replicasElsewhere(partition) {
		conn, err := n.cluster.client.Conn(ctx, m.Address)
		if err == nil {
			var found T
			if found, err = there(conn); err == nil || ctx.Err() != nil {
				return found, err
			}
		}
		if !errors.As(err, &missing) && !errors.As(err, &gap) {
			missing = &query.NotHereError{
				Partition: partition, State: "UNREACHABLE", Progress: "worker " + m.Name + " does not answer: " + err.Error(),
			}
		}
	}
	if gap != nil { // one that answers does not reach back
		return none, gap
	}
	return none, missing
}

// openAt returns the rows of one worker.
func (r *readSide) openAt(ctx context.Context, m broker.Member, scan *query.Scan) (query.Rows, error) {
	if m.Name == r.node.identity.Worker {
		return r.rows.Open(ctx, scan)
	}
	conn, err := r.node.cluster.client.Conn(ctx, m.Address)
	if err != nil {
		return nil, err
	}
	return remote.Open(ctx, conn, scan)
}

// replicasElsewhere are the other workers that have an image of a partition, its owner first.
func (n *Node) replicasElsewhere(partition int32) (workers []broker.Member) {
	table := n.routes.Current()
	if n.cluster == nil || table == nil {
		return nil
	}
	if owner, owned := table.Owner(partition); owned && owner.Name != n.identity.Worker {
		workers = append(workers, owner)
	}
	if int(partition) < len(table.Standbys) {
		for _, i := range table.Standbys[partition] {
			if m := table.Members[i]; m.Name != n.identity.Worker {
				workers = append(workers, m)
			}
		}
	}
	return workers
}

// known returns the newest end of a partition's log that this worker knows of, and how long ago
// rows at a position had everything that was committed.
func (r *readSide) known(partition int32, position int64) (end int64, age time.Duration) {
	p := r.node.manager.Partitions()[partition].Replica()
	end = max(p.HeardEnd(), position)
	if at := p.Position(); at != nil {
		image := replica.Position{Next: position, End: at.End}
		if position >= at.Next {
			image.At = at.At
		}
		return end, p.Age(&image, entities.Eventual)
	}
	return end, r.ages[partition].at(r.node.clock.Now(), position, end)
}

// rowAge tells how old the rows of an owned partition are, by the ends of the partition at the
// times when it was asked.
type rowAge struct {
	mu sync.Mutex
	// The rows had everything of the time current. At the time asked the end was seen.
	current, asked time.Time
	seen           int64
}

// at returns the age of rows at a position.
func (a *rowAge) at(now time.Time, position, end int64) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if position >= a.seen {
		a.current, a.asked, a.seen = a.asked, now, end
	}
	if position >= end {
		a.current = now
	}
	return max(now.Sub(a.current), 0)
}
