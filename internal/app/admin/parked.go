package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// maxParked bounds one page of parked effects.
const maxParked = 1000

// ListParked lists the effects that wait for an operator: those that could not be delivered, or
// those that their targets refused.
func (s *Service) ListParked(_ context.Context, r *adminv1.ListParkedRequest) (*adminv1.ListParkedResponse, error) {
	w, err := s.worker()
	if err != nil {
		return nil, err
	}
	limit := int(r.GetLimit())
	if limit <= 0 || limit > maxParked {
		limit = maxParked
	}
	from, err := parkedPlace(r.GetPageToken())
	if err != nil {
		return nil, err
	}
	m := w.Partitions
	read, total := m.Parked, m.CountParked
	if r.GetRefused() {
		read, total = m.Refused, m.CountRefused
	}
	found, next, more, err := read(from, parkedFilter(r.GetFilter()), limit)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	res := &adminv1.ListParkedResponse{
		NextPageToken: pageToken(next, more), Total: int64(total()), Refused: int64(m.CountRefused()),
	}
	for i := range found {
		p := &found[i]
		effect := &adminv1.ParkedEffect{
			Partition: p.Partition, Offset: p.Offset, From: p.From, Service: p.Service, Method: p.Method,
			Payload: s.content(p.Payload), Attempts: p.Attempts, Error: p.Effect.Parked, Timer: p.Timer,
		}
		if p.Timer != "" {
			effect.TimerDue = timestamppb.New(time.Unix(0, p.Due))
		}
		res.Effects = append(res.Effects, effect)
	}
	return res, nil
}

// ResolveParked has parked effects sent again, or drops them.
func (s *Service) ResolveParked(ctx context.Context,
	r *adminv1.ResolveParkedRequest,
) (*adminv1.ResolveParkedResponse, error) {
	w, err := s.worker()
	if err != nil {
		return nil, err
	}
	res, err := resolveParked(ctx, w.Partitions, r)
	switch {
	case errors.Is(err, partitions.ErrNotParked):
		return nil, status.Error(codes.NotFound, err.Error())
	case status.Code(err) == codes.InvalidArgument:
		return nil, err
	case err != nil:
		return nil, status.Error(codes.Unavailable, err.Error())
	default:
		return res, nil
	}
}

func resolveParked(ctx context.Context, m *partitions.Manager,
	r *adminv1.ResolveParkedRequest,
) (*adminv1.ResolveParkedResponse, error) {
	switch {
	case r.GetRefused() && r.GetFilter() != nil:
		return nil, status.Error(codes.InvalidArgument,
			"refused effects are resolved one by one: leave the filter out, and name one by partition and offset")
	case r.GetRefused():
		return &adminv1.ResolveParkedResponse{Resolved: 1},
			m.ResolveRefusal(ctx, r.GetPartition(), r.GetOffset(), r.GetDrop())
	case r.GetFilter() == nil:
		return &adminv1.ResolveParkedResponse{Resolved: 1}, m.Resolve(ctx, r.GetPartition(), r.GetOffset(), r.GetDrop())
	}
	from, err := parkedPlace(r.GetPageToken())
	if err != nil {
		return nil, err
	}
	n, next, more, err := m.ResolveSome(ctx, from, parkedFilter(r.GetFilter()), r.GetDrop())
	return &adminv1.ResolveParkedResponse{Resolved: int64(n), NextPageToken: pageToken(next, more)}, err
}

func parkedFilter(f *adminv1.ParkedFilter) materializer.ParkedFilter {
	return materializer.ParkedFilter{Service: f.GetService(), Method: f.GetMethod(), Error: f.GetError()}
}

// pageToken is where a page ends, as clients get it.
func pageToken(next partitions.ParkedPlace, more bool) string {
	if !more {
		return ""
	}
	return fmt.Sprintf("%d:%d", next.Partition, next.Offset)
}

func parkedPlace(token string) (p partitions.ParkedPlace, err error) {
	if token == "" {
		return p, nil
	}
	if _, err := fmt.Sscanf(token, "%d:%d", &p.Partition, &p.Offset); err != nil || p.Partition < 0 || p.Offset < 0 {
		return p, status.Errorf(codes.InvalidArgument,
			"page token %q is not valid on this worker: start without one", token)
	}
	return p, nil
}
