package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/pebblestore"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// maxFindings bounds what is shown of one partition; the others are counted.
const maxFindings = 100

// Verify reads the journal.
func (a *adminService) Verify(r *adminv1.VerifyRequest, out adminv1.AdminService_VerifyServer) error {
	return a.node.verify(out.Context(), r, out.Send)
}

// VerifyOffline reads the journal that the configuration names while no worker runs. It takes the lock of a data directory; it
// creates nothing.
func VerifyOffline(ctx context.Context, c *Config, r *adminv1.VerifyRequest, send func(*adminv1.VerifyResponse) error) (err error) {
	n, err := openOffline(ctx, c, r.GetStore())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	return n.verify(ctx, r, send)
}

// verify reads partition after partition: what cannot be read is said of each.
func (n *Node) verify(ctx context.Context, r *adminv1.VerifyRequest, send func(*adminv1.VerifyResponse) error) error {
	first, last := int32(0), n.topic.Partitions-1
	if r.Partition != nil {
		if first = r.GetPartition(); first < 0 || first > last {
			return status.Errorf(codes.InvalidArgument, "partition %d: the journal has 0 to %d", first, last)
		}
		last = first
	}
	n.verifying.Lock() // what is folded beside the store has one place
	defer n.verifying.Unlock()
	var layout entities.Layout // of the first partition that has one: the others must have the same
	for p := first; p <= last; p++ {
		if err := n.verifyPartition(ctx, p, r.GetStore(), &layout, send); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) verifyPartition(ctx context.Context, p int32, store bool, layout *entities.Layout, send func(*adminv1.VerifyResponse) error) error {
	var sent error
	shown, told := 0, time.Now()
	v := materializer.Verification{
		Log: n.log, Partition: broker.Partition{Topic: n.topic.Name, ID: p}, TopicID: n.topic.ID, Layout: *layout,
		Address: materializer.Address{Generation: entities.Generation, Partition: uint16(p)}, //nolint:gosec // at most 4096
		Progress: func(next, end int64) {
			if time.Since(told) > repairTold && sent == nil {
				told = time.Now()
				sent = send(&adminv1.VerifyResponse{Partition: p, What: &adminv1.VerifyResponse_Progress{Progress: &adminv1.VerifyProgress{NextOffset: next, EndOffset: end}}})
			}
		},
		Found: func(f materializer.Finding) error {
			if shown++; shown > maxFindings || sent != nil {
				return sent
			}
			return send(&adminv1.VerifyResponse{Partition: p, What: &adminv1.VerifyResponse_Finding{Finding: &adminv1.VerifyFinding{Offset: f.Offset, What: f.What}}})
		},
	}
	if store {
		v.Store = n.store
	}
	found, err := v.Run(ctx)
	switch {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case sent != nil:
		return sent
	}
	*layout = found.Layout
	s := &adminv1.VerifySummary{
		StartOffset: found.Start, NextOffset: found.Next, Claims: found.Claims, Repairs: found.Repairs, Records: found.Records, Events: found.Events,
		VoidRecords: found.Void, ForeignRecords: found.Foreign, CutGroups: found.Cut, Entities: found.Entities, Jumps: found.Jumps,
		ComparedOffset: found.Compared, Findings: found.Findings,
	}
	if err != nil {
		s.Unreadable = err.Error()
	}
	return send(&adminv1.VerifyResponse{Partition: p, What: &adminv1.VerifyResponse_Summary{Summary: s}})
}

// openOffline opens log and journal of a configuration, and the store if it is wanted, and starts nothing.
func openOffline(ctx context.Context, c *Config, store bool) (*Node, error) {
	n := &Node{config: c, clock: clock.Wall{}, logger: slog.New(slog.DiscardHandler)}
	n.troubles.clock = n.clock
	err := n.openForReading(ctx, store)
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

func (n *Node) openForReading(ctx context.Context, store bool) (err error) {
	if len(n.config.Brokers) == 0 || store {
		for _, dir := range []string{filepath.Join(n.config.Data, identityFile), n.storeDirectory()} { // opening would make them
			if _, err := os.Stat(dir); err != nil {
				return fmt.Errorf("there is nothing to verify in %s: %w; name the data directory with --data", n.config.Data, err)
			}
		}
		if n.identity, err = openDirectory(n.config, false); err != nil {
			return err
		}
	}
	if err := n.openLog(); err != nil {
		return err
	}
	if n.topic, err = n.log.Describe(ctx, n.journal()); err != nil {
		return fmt.Errorf("describe topic %s: %w", n.journal(), err)
	}
	if !store {
		return nil
	}
	opened, err := pebblestore.Open(pebblestore.Options{Dir: n.storeDirectory(), BlockCache: n.config.BlockCache})
	if err != nil {
		return n.inUse(err)
	}
	n.store = opened
	return nil
}
