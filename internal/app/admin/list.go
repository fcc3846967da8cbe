package admin

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// This file lists what the stores of the app hold, partition after partition: those that this
// process has an image of from its own store, each other one from its owner. A page is read under
// one snapshot, which is closed before the page is sent: a slow reader holds nothing back.

const (
	// pageRows and pageBytes bound a page. It may be larger by its last row.
	pageRows  = 500
	pageBytes = 1 << 20
	// firstRows is the size of the first page, so that it is there at once.
	firstRows = 50
)

// place is where a page begins: behind a row of a partition. The zero value is the beginning.
type place struct {
	partition int32
	// after is the row; empty: the beginning of the partition.
	after string
}

// token is a place as clients get it: for them it means nothing.
func (p place) token() string {
	return fmt.Sprintf("%d.%s", p.partition, base64.RawURLEncoding.EncodeToString([]byte(p.after)))
}

func placeOf(token string) (p place, err error) {
	if token == "" {
		return p, nil
	}
	partition, after, found := strings.Cut(token, ".")
	n, err := strconv.ParseInt(partition, 10, 32)
	b, err2 := base64.RawURLEncoding.DecodeString(after)
	if !found || err != nil || err2 != nil || n < 0 {
		return p, status.Errorf(codes.InvalidArgument, "page token %q is not valid: start without one", token)
	}
	return place{int32(n), string(b)}, nil
}

// partitions calls list for the partitions from a place on, or for one, until it returns false or
// an error. Its worker is nil where this process has an image of the partition, else its owner.
func (s *Service) partitions(ctx context.Context, from place, only *int32,
	list func(at place, owner adminv1.AdminServiceClient) (bool, error),
) error {
	last := s.process.App().Layout.Partitions - 1
	if only != nil {
		if *only < 0 || *only > last {
			return status.Errorf(codes.InvalidArgument, "partition %d: there are 0 to %d", *only, last)
		}
		if last = *only; from.partition != last {
			from = place{partition: last}
		}
	}
	for at := from; at.partition <= last; at = (place{partition: at.partition + 1}) {
		owner, err := s.ownerOf(ctx, at.partition, fmt.Sprintf("partition %d", at.partition))
		if err != nil {
			return err
		}
		if more, err := list(at, owner); err != nil || !more {
			return err
		}
	}
	return nil
}

// listing is one call that lists rows in pages.
type listing[Row, Page any] struct {
	service *Service
	left    int64
	sent    int64
	// only is a single partition of the request; last is the last one.
	only *int32
	last int32
	size func(Row) int
	// read yields the rows of a partition behind one; where is by what a row is found again.
	read func(view materializer.Partition, after string, yield func(row Row, where string) bool) error
	// ask asks another worker for the rows of one partition.
	ask func(owner adminv1.AdminServiceClient, at place, limit int64) (func() (Page, error), error)
	// rows and next are those of a page, and page makes one.
	rows func(Page) []Row
	next func(Page) string
	page func(rows []Row, next string) Page
	send func(Page) error
}

// run lists until the end, or the limit.
func (l *listing[Row, Page]) run(ctx context.Context, token string) error {
	from, err := placeOf(token)
	if err != nil {
		return err
	}
	if l.last = l.service.process.App().Layout.Partitions - 1; l.only != nil {
		l.last = *l.only
	}
	want := firstRows
	return l.service.partitions(ctx, from, l.only, func(at place, owner adminv1.AdminServiceClient) (bool, error) {
		if owner != nil {
			return l.relay(at, owner)
		}
		for {
			more, next, err := l.ownPage(ctx, at, want)
			if err != nil || next.partition != at.partition || !more {
				return more, err
			}
			at, want = next, pageRows
		}
	})
}

// ownPage sends one page from the store of this process, and returns where the next one begins.
// more is false at the limit.
func (l *listing[Row, Page]) ownPage(ctx context.Context, at place, want int) (more bool, next place, err error) {
	if err := ctx.Err(); err != nil {
		return false, next, status.FromContextError(err).Err()
	}
	snapshot := l.service.process.Worker().Store.Snapshot()
	var rows []Row
	size, whole := 0, true
	err = l.read(l.service.view(at.partition, snapshot), at.after, func(row Row, where string) bool {
		rows, size, next.after = append(rows, row), size+l.size(row), where
		whole = len(rows) < want && size < pageBytes && int64(len(rows)) < l.left
		return whole && ctx.Err() == nil
	})
	if err := errors.Join(err, snapshot.Close()); err != nil {
		return false, next, status.Error(codes.Internal, err.Error())
	}
	if err := ctx.Err(); err != nil {
		return false, next, status.FromContextError(err).Err()
	}
	if next.partition = at.partition; whole {
		next = place{partition: at.partition + 1}
	}
	return l.deliver(rows, next)
}

// deliver sends a page that is followed by what is at next. Empty ones only at the end.
func (l *listing[Row, Page]) deliver(rows []Row, next place) (more bool, _ place, err error) {
	l.left, l.sent = l.left-int64(len(rows)), l.sent+int64(len(rows))
	token := ""
	if next.partition <= l.last {
		token = next.token()
	}
	if len(rows) > 0 || token == "" {
		err = l.send(l.page(rows, token))
	}
	return l.left > 0 && token != "", next, err
}

// relay passes on the rows of a partition from its owner.
func (l *listing[Row, Page]) relay(at place, owner adminv1.AdminServiceClient) (more bool, err error) {
	limit := l.left
	if limit == unlessZero(0) {
		limit = 0
	}
	receive, err := l.ask(owner, at, limit)
	for err == nil {
		var page Page
		if page, err = receive(); err != nil {
			break
		}
		next := place{partition: at.partition + 1}
		if token := l.next(page); token != "" {
			if next, err = placeOf(token); err != nil {
				return false, err
			}
		}
		if _, _, err = l.deliver(l.rows(page), next); err != nil || l.left <= 0 {
			return false, err
		}
	}
	if errors.Is(err, io.EOF) {
		return at.partition < l.last, nil
	}
	return false, err
}

// ListEntities streams the entities of a type. One that is neither served nor stored is refused.
func (s *Service) ListEntities(r *adminv1.ListEntitiesRequest, out adminv1.AdminService_ListEntitiesServer) error {
	sent, err := s.listEntities(r, out)
	if err == nil && sent == 0 && r.GetPageToken() == "" && r.GetPrefix() == "" {
		_, err = s.entity(r.GetType(), "")
	}
	return err
}

func (s *Service) listEntities(r *adminv1.ListEntitiesRequest,
	out adminv1.AdminService_ListEntitiesServer,
) (sent int64, err error) {
	ctx, stop := context.WithCancel(out.Context()) // ends the streams of other workers
	defer stop()
	l := listing[*adminv1.StoredEntity, *adminv1.ListEntitiesResponse]{
		service: s, left: unlessZero(r.GetLimit()), only: r.Partition,
		size: func(e *adminv1.StoredEntity) int {
			return len(e.GetId()) + len(e.GetValue().GetValue()) + len(e.GetValue().GetJson())
		},
		read: func(view materializer.Partition, after string, yield func(*adminv1.StoredEntity, string) bool) error {
			return view.Entities(r.GetType(), r.GetPrefix(), after, func(e materializer.Listed) bool {
				row := &adminv1.StoredEntity{
					Type: e.Key.Type, Id: e.Key.ID, Partition: int32(view.Address.Partition), Kind: e.Head.Kind.String(),
					Sequence: e.Head.Sequence, Offset: e.Head.Offset,
				}
				if e.Value != nil {
					row.Value = s.content(entities.Payload{TypeURL: e.Value.TypeURL, Value: append([]byte(nil), e.Value.Value...)})
				}
				return yield(row, e.Key.ID)
			})
		},
		ask: func(
			owner adminv1.AdminServiceClient, at place, limit int64,
		) (func() (*adminv1.ListEntitiesResponse, error), error) {
			stream, err := owner.ListEntities(ctx, &adminv1.ListEntitiesRequest{
				Type: r.GetType(), Prefix: r.GetPrefix(), Limit: limit, PageToken: at.token(), Partition: &at.partition,
			})
			if err != nil {
				return nil, err
			}
			return stream.Recv, nil
		},
		rows: (*adminv1.ListEntitiesResponse).GetEntities, next: (*adminv1.ListEntitiesResponse).GetNextPageToken,
		page: func(rows []*adminv1.StoredEntity, next string) *adminv1.ListEntitiesResponse {
			return &adminv1.ListEntitiesResponse{Entities: rows, NextPageToken: next}
		},
		send: out.Send,
	}
	err = l.run(ctx, r.GetPageToken())
	return l.sent, err
}

// CountEntities streams how many entities of each type the partitions have. Types of the runtime
// are left out; ListEntities lists those that it is asked for.
func (s *Service) CountEntities(r *adminv1.CountEntitiesRequest, out adminv1.AdminService_CountEntitiesServer) error {
	ctx := out.Context()
	return s.partitions(ctx, place{}, r.Partition, func(at place, owner adminv1.AdminServiceClient) (bool, error) {
		if owner != nil {
			stream, err := owner.CountEntities(ctx,
				&adminv1.CountEntitiesRequest{Partition: &at.partition, Limit: r.GetLimit()})
			for err == nil {
				var counts *adminv1.CountEntitiesResponse
				if counts, err = stream.Recv(); err == nil {
					err = out.Send(counts)
				}
			}
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err == nil, err
		}
		snapshot := s.process.Worker().Store.Snapshot()
		types, err := s.view(at.partition, snapshot).Types(r.GetLimit(), func() bool { return ctx.Err() == nil })
		if err := errors.Join(err, snapshot.Close()); err != nil {
			return false, status.Error(codes.Internal, err.Error())
		}
		if ctx.Err() != nil {
			return false, status.FromContextError(ctx.Err()).Err()
		}
		counts := &adminv1.CountEntitiesResponse{Partition: at.partition}
		for _, t := range types {
			if !discovery.IsReservedType(t.Type) {
				counts.Types = append(counts.Types,
					&adminv1.EntityCount{Type: t.Type, Kind: t.Kind.String(), Entities: t.Count, More: t.More})
			}
		}
		return true, out.Send(counts)
	})
}

// ListTimers streams pending timers. A type that is not served, and has none, is refused.
func (s *Service) ListTimers(r *adminv1.ListTimersRequest, out adminv1.AdminService_ListTimersServer) error {
	if r.GetType() == "" && r.GetId() != "" {
		return status.Error(codes.InvalidArgument, "an id needs the type of the entity")
	}
	sent, err := s.listTimers(r, out)
	if err == nil && sent == 0 && r.GetPageToken() == "" && r.GetType() != "" {
		_, err = s.entity(r.GetType(), r.GetId())
	}
	return err
}

func (s *Service) listTimers(r *adminv1.ListTimersRequest,
	out adminv1.AdminService_ListTimersServer,
) (sent int64, err error) {
	only := r.Partition
	if r.GetId() != "" {
		partition := s.partition(r.GetId())
		only = &partition
	}
	ctx, stop := context.WithCancel(out.Context()) // ends the streams of other workers
	defer stop()
	l := listing[*adminv1.PendingTimer, *adminv1.ListTimersResponse]{
		service: s, left: unlessZero(r.GetLimit()), only: only,
		size: func(t *adminv1.PendingTimer) int {
			return len(t.GetEntity()) + len(t.GetName()) + len(t.GetPayload().GetValue()) + len(t.GetPayload().GetJson())
		},
		read: func(view materializer.Partition, after string, yield func(*adminv1.PendingTimer, string) bool) error {
			return s.timers(view, r, after, yield)
		},
		ask: func(
			owner adminv1.AdminServiceClient, at place, limit int64,
		) (func() (*adminv1.ListTimersResponse, error), error) {
			stream, err := owner.ListTimers(ctx, &adminv1.ListTimersRequest{
				Type: r.GetType(), Id: r.GetId(), Limit: limit, PageToken: at.token(), Partition: &at.partition,
			})
			if err != nil {
				return nil, err
			}
			return stream.Recv, nil
		},
		rows: (*adminv1.ListTimersResponse).GetTimers, next: (*adminv1.ListTimersResponse).GetNextPageToken,
		page: func(rows []*adminv1.PendingTimer, next string) *adminv1.ListTimersResponse {
			return &adminv1.ListTimersResponse{Timers: rows, NextPageToken: next}
		},
		send: out.Send,
	}
	err = l.run(ctx, r.GetPageToken())
	return l.sent, err
}

// timers yields the timers of a partition in the order in which they are due; those of one entity
// by name.
func (s *Service) timers(view materializer.Partition, r *adminv1.ListTimersRequest, after string,
	yield func(*adminv1.PendingTimer, string) bool,
) error {
	show := func(key entities.Key, name string, t *materializer.Timer, where string) bool {
		service, method := record.TargetOf(t.Target)
		return yield(&adminv1.PendingTimer{
			Entity: key.String(), Name: name, Due: timestamppb.New(time.Unix(0, t.Due)), Schedule: t.Schedule,
			Target: service + "/" + method, Payload: s.content(t.Payload),
			Partition: int32(view.Address.Partition), Offset: t.Offset,
		}, where)
	}
	if r.GetId() != "" {
		key := entities.Key{Type: r.GetType(), ID: r.GetId()}
		return view.TimersOf(key, func(name string, t materializer.Timer) bool {
			return name <= after || show(key, name, &t, name)
		})
	}
	at, offset := int64(0), int64(-1)
	if after != "" {
		if _, err := fmt.Sscanf(after, "%d:%d", &at, &offset); err != nil {
			return fmt.Errorf("page token of a list of timers: %w", err)
		}
	}
	var failed error
	err := view.Due(at, offset, func(due materializer.Due) bool {
		if r.GetType() != "" && due.Key.Type != r.GetType() {
			return true
		}
		t, set, err := view.Timer(due.Key, due.Name)
		if err != nil || !set || t.Offset != due.Offset || t.Due != due.At {
			failed = err
			return err == nil // cancelled, or set anew
		}
		return show(due.Key, due.Name, &t, fmt.Sprintf("%d:%d", due.At, due.Offset))
	})
	return errors.Join(err, failed)
}

// ListEntities lists those of one partition.
func (p *forPeers) ListEntities(r *adminv1.ListEntitiesRequest, out adminv1.AdminService_ListEntitiesServer) error {
	if err := p.has(r.Partition); err != nil {
		return err
	}
	_, err := p.service.listEntities(r, out)
	return err
}

// CountEntities counts those of one partition.
func (p *forPeers) CountEntities(r *adminv1.CountEntitiesRequest, out adminv1.AdminService_CountEntitiesServer) error {
	if err := p.has(r.Partition); err != nil {
		return err
	}
	return p.service.CountEntities(r, out)
}

// ListTimers lists those of one partition.
func (p *forPeers) ListTimers(r *adminv1.ListTimersRequest, out adminv1.AdminService_ListTimersServer) error {
	if err := p.has(r.Partition); err != nil {
		return err
	}
	_, err := p.service.listTimers(r, out)
	return err
}

// has refuses what this worker would have to ask another one for.
func (p *forPeers) has(partition *int32) error {
	switch {
	case partition == nil:
		return status.Error(codes.InvalidArgument, "another worker asks for one partition")
	case !p.service.hasPartition(*partition):
		return status.Errorf(codes.Unavailable, "partition %d has just moved: try again", *partition)
	}
	return nil
}

// hasPartition is hasImage for a number that may be that of no partition.
func (s *Service) hasPartition(partition int32) bool {
	return 0 <= partition && partition < s.process.App().Layout.Partitions && s.hasImage(partition)
}
