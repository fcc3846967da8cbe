package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/gateway"
	"github.com/millrace-io/millrace/internal/definitions"
	"github.com/millrace-io/millrace/projections"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// This file has what an operator does with the rows of projections.

// RebuildProjection builds the rows of a version again.
func (s *Service) RebuildProjection(ctx context.Context,
	r *adminv1.RebuildProjectionRequest,
) (*adminv1.RebuildProjectionResponse, error) {
	d, err := s.definitions()
	if err != nil {
		return nil, err
	}
	version, unchanged, err := d.Rebuild(ctx, definitions.ID{Name: r.GetName(), Version: r.GetVersion()})
	if err != nil {
		return nil, gateway.Status(err).Err()
	}
	return &adminv1.RebuildProjectionResponse{Version: version, Unchanged: unchanged}, nil
}

// PauseProjection has nothing folded into the rows of a version.
func (s *Service) PauseProjection(ctx context.Context,
	r *adminv1.PauseProjectionRequest,
) (*adminv1.PauseProjectionResponse, error) {
	d, err := s.definitions()
	if err != nil {
		return nil, err
	}
	version, unchanged, err := d.Pause(ctx, definitions.ID{Name: r.GetName(), Version: r.GetVersion()})
	if err != nil {
		return nil, gateway.Status(err).Err()
	}
	return &adminv1.PauseProjectionResponse{Version: version, Unchanged: unchanged}, nil
}

// ResumeProjection ends a pause.
func (s *Service) ResumeProjection(ctx context.Context,
	r *adminv1.ResumeProjectionRequest,
) (*adminv1.ResumeProjectionResponse, error) {
	d, err := s.definitions()
	if err != nil {
		return nil, err
	}
	version, unchanged, err := d.Resume(ctx, definitions.ID{Name: r.GetName(), Version: r.GetVersion()})
	if err != nil {
		return nil, gateway.Status(err).Err()
	}
	return &adminv1.ResumeProjectionResponse{Version: version, Unchanged: unchanged}, nil
}

// ListParkedEntities lists the parked entities of a projection, as this worker has them.
func (s *Service) ListParkedEntities(ctx context.Context,
	r *adminv1.ListParkedEntitiesRequest,
) (*adminv1.ListParkedEntitiesResponse, error) {
	v, readSide, err := s.rowsOf(ctx, r.GetName(), r.GetVersion())
	if err != nil {
		return nil, err
	}
	limit := int(r.GetLimit())
	if limit <= 0 || limit > maxParked {
		limit = maxParked
	}
	partition, after, err := parkedEntityPlace(r.GetPageToken())
	if err != nil {
		return nil, err
	}
	res := &adminv1.ListParkedEntitiesResponse{Version: v.Version}
	for ; partition < readSide.Partitions; partition, after = partition+1, "" {
		found, err := readSide.Parked.Parked(v.Dataset, partition, after, limit-len(res.GetEntities()))
		if _, missing := errors.AsType[*projections.NotHereError](err); missing {
			res.MissingPartitions = append(res.MissingPartitions, partition)
			continue
		}
		if err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		for i := range found {
			res.Entities = append(res.Entities, parkedEntity(partition, &found[i]))
		}
		if last := len(res.GetEntities()) - 1; last+1 >= limit {
			if !res.GetEntities()[last].GetStopped() || len(found) > 1 {
				_, after, _ = strings.Cut(res.GetEntities()[last].GetEntity(), "/")
			}
			res.NextPageToken = fmt.Sprintf("%d:%s", partition, after)
			return res, nil
		}
	}
	return res, nil
}

func parkedEntity(partition int32, p *projections.Parked) *adminv1.ParkedEntity {
	return &adminv1.ParkedEntity{
		Partition: partition, Offset: p.Offset, Entity: p.Entity, Error: p.Text, Behind: p.Behind, Stopped: p.Stopped,
	}
}

// parkedEntityPlace reads where a page ends: a partition, and the id of an entity.
func parkedEntityPlace(token string) (partition int32, after string, err error) {
	if token == "" {
		return 0, "", nil
	}
	number, after, _ := strings.Cut(token, ":")
	if _, err := fmt.Sscanf(number, "%d", &partition); err != nil || partition < 0 {
		return 0, "", status.Errorf(codes.InvalidArgument, "page token %q is not valid: start without one", token)
	}
	return partition, after, nil
}

// rowsOf returns a version of a projection, and the rows of this worker.
func (s *Service) rowsOf(ctx context.Context, name, version string) (*definitions.View, *ReadSide, error) {
	d, err := s.definitions()
	if err != nil {
		return nil, nil, err
	}
	readSide := s.process.ReadSide()
	if readSide.Parked == nil {
		return nil, nil, status.Error(codes.Unimplemented,
			"this process has no rows: ask a worker, with --admin and its admin address")
	}
	v, err := d.Rows(ctx, definitions.ID{Name: name, Version: version})
	if err != nil {
		return nil, nil, gateway.Status(err).Err()
	}
	return v, readSide, nil
}

// SkipRecord leaves a record out of the rows. It must be one that this worker could not fold.
func (s *Service) SkipRecord(ctx context.Context, r *adminv1.SkipRecordRequest) (*adminv1.SkipRecordResponse, error) {
	v, readSide, err := s.rowsOf(ctx, r.GetName(), r.GetVersion())
	if err != nil {
		return nil, err
	}
	for _, skip := range v.Skips { // the worker may have gone past it already
		if skip.GetPartition() == r.GetPartition() && skip.GetOffset() == r.GetOffset() {
			return &adminv1.SkipRecordResponse{Version: v.Version, Entity: skip.GetEntity(), Unchanged: true}, nil
		}
	}
	parked, err := readSide.Parked.ParkedAt(v.Dataset, r.GetPartition(), r.GetOffset())
	if missing, is := errors.AsType[*projections.NotHereError](err); is {
		return nil, status.Errorf(codes.FailedPrecondition,
			"this worker has no rows of partition %d: %s: ask one that has, see `millrace projection status %s`",
			r.GetPartition(), missing.Progress, r.GetName())
	}
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if parked == nil {
		return nil, status.Errorf(codes.NotFound,
			"the record at %d:%d has parked nothing of %s version %s: it may be left out or folded by now; see `millrace parked list --scope projection/%s`",
			r.GetPartition(), r.GetOffset(), r.GetName(), v.Version, r.GetName())
	}
	id := definitions.ID{Name: r.GetName(), Version: v.Version}
	version, unchanged, err := readSide.Definitions.LeaveOut(ctx, id, v.Dataset, r.GetPartition(), r.GetOffset(),
		parked.Entity)
	if err != nil {
		return nil, gateway.Status(err).Err()
	}
	return &adminv1.SkipRecordResponse{Version: version, Entity: parked.Entity, Unchanged: unchanged}, nil
}
