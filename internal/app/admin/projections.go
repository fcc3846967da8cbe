package admin

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// projectionStatus shows how the rows of projections stand on this worker.
func projectionStatus(r *ReadSide) []*adminv1.ProjectionStatus {
	if r == nil || r.Projections == nil {
		return nil
	}
	var all []*adminv1.ProjectionStatus
	for _, p := range r.Projections() {
		shown := &adminv1.ProjectionStatus{
			Dataset: p.Dataset, Versions: p.Views, Promoted: p.Promoted, Partition: int32(p.Partition.Partition),
			State: p.State.String(), Position: p.Position, EndOffset: p.End, LagRecords: p.Lag(),
			LagSeconds: p.Behind.Seconds(), Rate: p.Rate, Rows: p.Rows, Parked: p.Parked, Skipped: p.Skipped,
			Unmapped: p.Unmapped, Incomplete: int32(p.Incomplete), LastError: p.LastError, //nolint:gosec // 24 at most
		}
		if !p.LastErrorAt.IsZero() {
			shown.LastErrorTime = timestamppb.New(p.LastErrorAt)
		}
		all = append(all, shown)
	}
	return all
}
