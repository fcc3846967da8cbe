package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/internal/definitions"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/projections/query"
	definitionsv1 "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
)

// This file says when the rows of a version are complete enough for queries, on all workers of the
// app, and where this worker learns what is defined.

const (
	// readyLag is how many records the rows of a replica may be behind.
	readyLag = 1000
	// readyTimeout bounds the questions to one replica.
	readyTimeout = 2 * time.Second
)

// ready reports whether for each partition the owner has the rows of a version, with all indexes
// and aggregates, and a follower too if there is one. Otherwise progress says what is missing.
func (r *readSide) ready(ctx context.Context, v *definitions.View) (ready bool, progress string) {
	for partition := range r.node.layout.Partitions {
		owner, followers, known := r.node.replicas(partition)
		if !known {
			return false, fmt.Sprintf("partition %d has no owner now", partition)
		}
		if why := r.lacks(ctx, owner, partition, v); why != nil {
			return false, fmt.Sprintf("partition %d, worker %s: %s", partition, owner.Name, why)
		}
		var lacking error
		for _, m := range followers {
			if lacking = r.lacks(ctx, m, partition, v); lacking == nil {
				break
			}
			lacking = fmt.Errorf("partition %d, worker %s: %w", partition, m.Name, lacking)
		}
		if lacking != nil {
			return false, lacking.Error()
		}
	}
	return true, ""
}

// replicas are the owner of a partition and the workers that follow it.
func (n *Node) replicas(partition int32) (owner broker.Member, followers []broker.Member, known bool) {
	table := n.routes.Current()
	if n.cluster == nil {
		owned := n.manager.Partitions()[partition].Replica().Role() == materializer.Owning
		return broker.Member{Name: n.identity.Worker}, nil, owned
	}
	if owner, known = table.Owner(partition); !known {
		return owner, nil, false
	}
	if int(partition) < len(table.Standbys) {
		for _, i := range table.Standbys[partition] {
			followers = append(followers, table.Members[i])
		}
	}
	return owner, followers, true
}

// lacks says what a worker lacks of the rows of a version in a partition, nil for nothing.
func (r *readSide) lacks(ctx context.Context, m broker.Member, partition int32, v *definitions.View) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	scans := []*query.Scan{{Table: query.ByKey}}
	for _, number := range v.Indexes {
		scans = append(scans, &query.Scan{Table: query.ByIndex, Number: number})
	}
	for _, number := range v.Aggregates {
		scans = append(scans, &query.Scan{Table: query.Groups, Number: number})
	}
	for _, scan := range scans {
		scan.Dataset, scan.Partition = v.Dataset, partition
		rows, err := r.openAt(ctx, m, scan)
		if gone, not := errors.AsType[*query.NotHereError](err); not {
			return fmt.Errorf("%s, %s", gone.State, gone.Progress)
		}
		if err != nil {
			return err
		}
		at := rows.At()
		rows.Close()
		if at.End-at.Position > readyLag {
			return fmt.Errorf("it is at offset %d of %d", at.Position, at.End)
		}
	}
	return nil
}

// revisions is the image of the partition of the definitions.
type revisions struct{ node *Node }

// Feed is that of the partition.
func (i revisions) Feed() *materializer.Feed {
	return i.node.manager.Partition(definitions.EntityID).Replica().Feed()
}

// View reads the rows of the image.
func (i revisions) View() materializer.Partition {
	n := i.node
	return materializer.Partition{Rows: n.store, Address: n.address(n.definitionsPartition())}
}

// elsewhere follows the definitions at another worker; without one it waits until this worker has
// an image of their partition, or there is another worker.
type elsewhere struct {
	node  *Node
	peers definitions.Source
}

// Next returns the state that another worker tells, nil if that is to be asked for again.
func (e elsewhere) Next(ctx context.Context, known int64) (*definitionsv1.State, error) {
	n := e.node
	_, changed := n.routes.Watch()
	moved := revisions{n}.Feed().Moved()
	if len(n.replicasElsewhere(n.definitionsPartition())) > 0 {
		return e.peers.Next(ctx, known)
	}
	select {
	case <-moved:
	case <-changed:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return nil, nil //nolint:nilnil // the caller looks again
}

// dialDefinitions returns the connection to a worker with an image of the definitions.
func (n *Node) dialDefinitions(ctx context.Context) (grpc.ClientConnInterface, error) {
	err := errNoWorkers
	for _, m := range n.replicasElsewhere(n.definitionsPartition()) {
		var conn grpc.ClientConnInterface
		if conn, err = n.cluster.client.Conn(ctx, m.Address); err == nil {
			return conn, nil
		}
	}
	return nil, err
}
