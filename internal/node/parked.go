package node

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/partitions"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// maxParked bounds one list of parked effects.
const maxParked = 1000

// ListParked lists the effects that wait for an operator.
func (a *adminService) ListParked(_ context.Context, r *adminv1.ListParkedRequest) (*adminv1.ListParkedResponse, error) {
	limit := int(r.GetLimit())
	if limit <= 0 || limit > maxParked {
		limit = maxParked
	}
	found, err := a.node.manager.Parked(limit)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	res := &adminv1.ListParkedResponse{}
	for i := range found {
		p := &found[i]
		res.Effects = append(res.Effects, &adminv1.ParkedEffect{
			Partition: p.Partition, Offset: p.Offset, From: p.From, Service: p.Service, Method: p.Method,
			Payload: a.content(p.Payload), Attempts: p.Attempts, Error: p.Effect.Parked,
		})
	}
	return res, nil
}

// ResolveParked has a parked effect sent again, or drops it.
func (a *adminService) ResolveParked(ctx context.Context, r *adminv1.ResolveParkedRequest) (*adminv1.ResolveParkedResponse, error) {
	err := a.node.manager.Resolve(ctx, r.GetPartition(), r.GetOffset(), r.GetDrop())
	switch {
	case errors.Is(err, partitions.ErrNotParked):
		return nil, status.Error(codes.NotFound, err.Error())
	case err != nil:
		return nil, status.Error(codes.Unavailable, err.Error())
	default:
		return &adminv1.ResolveParkedResponse{}, nil
	}
}
