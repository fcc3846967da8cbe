package admin

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// maxFindings bounds what is shown of one partition; the others are counted.
const maxFindings = 100

// Verify reads the journal.
func (s *Service) Verify(r *adminv1.VerifyRequest, out adminv1.AdminService_VerifyServer) error {
	w, err := s.worker()
	if err != nil {
		return err
	}
	s.verifying.Lock() // what is folded beside the store has one place
	defer s.verifying.Unlock()
	return w.Verify(out.Context(), r, out.Send)
}

// Verify reads partition after partition of the journal, and says of each what cannot be read. It
// needs Log, Topic and, if the request is for a comparison with the store, Store. One runs at a
// time.
func (w *Worker) Verify(ctx context.Context, r *adminv1.VerifyRequest, send func(*adminv1.VerifyResponse) error) error {
	first, last := int32(0), w.Topic.Partitions-1
	if r.Partition != nil {
		if first = r.GetPartition(); first < 0 || first > last {
			return status.Errorf(codes.InvalidArgument, "partition %d: the journal has 0 to %d", first, last)
		}
		last = first
	}
	var layout entities.Layout // of the first partition that has one: the others must have the same
	for p := first; p <= last; p++ {
		if err := w.verifyPartition(ctx, p, r.GetStore(), &layout, send); err != nil {
			return err
		}
	}
	return nil
}

func (w *Worker) verifyPartition(ctx context.Context, p int32, store bool, layout *entities.Layout,
	send func(*adminv1.VerifyResponse) error,
) error {
	var sent error
	shown, told := 0, time.Now()
	v := materializer.Verification{
		Log: w.Log, Partition: broker.Partition{Topic: w.Topic.Name, ID: p}, TopicID: w.Topic.ID, Layout: *layout,
		Address: materializer.Address{Generation: entities.Generation, Partition: uint16(p)}, //nolint:gosec // at most 4096
		Progress: func(next, end int64) {
			if time.Since(told) > repairTold && sent == nil {
				told = time.Now()
				progress := &adminv1.VerifyProgress{NextOffset: next, EndOffset: end}
				sent = send(&adminv1.VerifyResponse{Partition: p, What: &adminv1.VerifyResponse_Progress{Progress: progress}})
			}
		},
		Found: func(f materializer.Finding) error {
			if shown++; shown > maxFindings || sent != nil {
				return sent
			}
			finding := &adminv1.VerifyFinding{Offset: f.Offset, What: f.What}
			return send(&adminv1.VerifyResponse{Partition: p, What: &adminv1.VerifyResponse_Finding{Finding: finding}})
		},
	}
	if store {
		v.Store = w.Store
	}
	found, err := v.Run(ctx)
	switch {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case sent != nil:
		return sent
	}
	*layout = found.Layout
	summary := &adminv1.VerifySummary{
		StartOffset: found.Start, NextOffset: found.Next, Claims: found.Claims, Repairs: found.Repairs,
		Records: found.Records, Events: found.Events,
		VoidRecords: found.Void, ForeignRecords: found.Foreign, CutGroups: found.Cut, Entities: found.Entities,
		Jumps:          found.Jumps,
		ComparedOffset: found.Compared, Findings: found.Findings,
	}
	if err != nil {
		summary.Unreadable = err.Error()
	}
	return send(&adminv1.VerifyResponse{Partition: p, What: &adminv1.VerifyResponse_Summary{Summary: summary}})
}
