package admin

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// Tail streams records of the journal, partition after partition, or as they are appended.
func (s *Service) Tail(r *adminv1.TailRequest, out adminv1.AdminService_TailServer) error {
	w, err := s.worker()
	if err != nil {
		return err
	}
	t := &tail{service: s, worker: w, request: r, out: out, left: unlessZero(r.GetLimit())}
	first, last := int32(0), w.Topic.Partitions-1
	if r.Partition != nil {
		if first = r.GetPartition(); first < 0 || first > last {
			return status.Errorf(codes.InvalidArgument, "partition %d: the journal has 0 to %d", first, last)
		}
		last = first
	}
	if r.GetEntity() != "" {
		key, err := entities.ParseKey(r.GetEntity())
		if err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		first = s.partition(key.ID)
		last = first
	}
	if r.GetFollow() {
		return t.follow(first, last)
	}
	for p := first; p <= last; p++ {
		if err := t.read(out.Context(), p, t.send); err != nil {
			return unlessEnough(err)
		}
	}
	return t.found()
}

// tail is one call of Tail. Only the goroutine of the call sends.
type tail struct {
	service *Service
	worker  *Worker
	request *adminv1.TailRequest
	out     adminv1.AdminService_TailServer
	left    int64
	// sent says that there was a record to send, types are those of the entities that were read, up to
	// maxTypes. Neither is used when following.
	sent  bool
	types []string
}

// maxTypes bounds the types that an error names.
const maxTypes = 32

// found returns an error if the records from the start to the end have none of the entity or type
// that was asked for.
func (t *tail) found() error {
	r := t.request
	switch {
	case t.sent || r.GetFromEnd() || r.GetEntity() == "" && r.GetType() == "":
		return nil
	case r.GetEntity() != "":
		return status.Errorf(codes.NotFound, "%s has no records", r.GetEntity())
	}
	where := "in the journal"
	if r.Partition != nil {
		where = fmt.Sprintf("in partition %d", r.GetPartition())
	}
	if len(t.types) == 0 {
		return status.Errorf(codes.NotFound, "no records of entity type %q %s: it has none of any type", r.GetType(), where)
	}
	slices.Sort(t.types)
	return status.Errorf(codes.NotFound, "no records of entity type %q %s; it has records of: %s", r.GetType(), where,
		strings.Join(t.types, ", "))
}

// note keeps the type of a record.
func (t *tail) note(res *adminv1.TailResponse) {
	if typ, _, isEntity := strings.Cut(res.GetEntity(), "/"); isEntity && len(t.types) < maxTypes &&
		!slices.Contains(t.types, typ) {
		t.types = append(t.types, typ)
	}
}

// read hands the records of one partition to emit, up to the end, or forever when following.
func (t *tail) read(ctx context.Context, partition int32, emit func(*adminv1.TailResponse) error) error {
	where := broker.Partition{Topic: t.worker.Topic.Name, ID: partition}
	end, err := t.worker.Log.End(ctx, where)
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	from := int64(0)
	if t.request.GetFromEnd() {
		from = end
	}
	reader, err := t.worker.Log.Read(where, from)
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	defer reader.Close() //nolint:errcheck // only read

	address := materializer.Address{Generation: entities.Generation, Partition: uint16(partition)} //nolint:gosec // at most 4096
	if t.request.GetFollow() {
		end = math.MaxInt64
	}
	for r, err := range materializer.Browse(reader, address, from).Until(ctx, end) {
		switch {
		case r == nil && ctx.Err() != nil:
			return nil
		case r == nil:
			return status.Error(codes.Unavailable, err.Error())
		}
		res := t.describe(partition, r)
		if !t.request.GetFollow() {
			t.note(res)
		}
		if t.wanted(res) {
			if err := emit(res); err != nil {
				return err
			}
		}
	}
	return nil
}

// errEnough ends a tail at its limit.
var errEnough = errors.New("limit reached")

func unlessEnough(err error) error {
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// send sends one record, and says when it was the last one that is wanted.
func (t *tail) send(res *adminv1.TailResponse) error {
	t.left--
	t.sent = true
	if err := t.out.Send(res); err != nil || t.left > 0 {
		return err
	}
	return errEnough
}

// follow reads several partitions at once and sends their records, one at a time.
func (t *tail) follow(first, last int32) error {
	ctx, cancel := context.WithCancelCause(t.out.Context())
	defer cancel(nil)
	records := make(chan *adminv1.TailResponse)
	ended := make(chan error)
	for p := first; p <= last; p++ {
		go func() { // ends with ctx; received below
			ended <- t.read(ctx, p, func(res *adminv1.TailResponse) error {
				select {
				case records <- res:
					return nil
				case <-ctx.Done():
					return nil
				}
			})
		}()
	}
	var result error
	for running := last - first + 1; running > 0; {
		var err error
		select {
		case res := <-records:
			if result == nil {
				err = t.send(res)
			}
		case err = <-ended:
			running--
		}
		if result == nil && err != nil {
			result = err
			cancel(err)
		}
	}
	return unlessEnough(result)
}

func (t *tail) wanted(res *adminv1.TailResponse) bool {
	r := t.request
	if r.GetEntity() != "" && res.GetEntity() != r.GetEntity() {
		return false
	}
	return r.GetType() == "" || strings.HasPrefix(res.GetEntity(), r.GetType()+"/")
}

// describe returns one record, and what the reader rule says about it.
func (t *tail) describe(partition int32, r *materializer.Read) *adminv1.TailResponse {
	res := &adminv1.TailResponse{
		Partition: partition, Offset: r.Offset, Entity: string(r.Key), Time: timestamppb.New(r.Record.Time),
	}
	if r.Foreign != nil {
		res.Kind, res.Note = "foreign", r.Foreign.Error()
		return res
	}
	env := &r.Envelope
	res.Kind, res.Epoch, res.Nonce = kindName(env.Kind), env.Epoch, fmt.Sprintf("%016x", env.Nonce)
	res.Sequence, res.CommandId = env.Sequence, env.CommandID
	res.Void = r.Verdict == record.Void
	if r.Dropped {
		res.Note = "an incomplete group before this record was dropped"
	}
	if env.Claim != nil {
		res.Note = fmt.Sprintf("claimed by %s, which had read up to offset %d", env.Claim.Worker, env.Claim.ReadTo)
		if env.Epoch == 0 {
			res.Note = fmt.Sprintf("no claim: worker %s declares the layout of the journal: %s", env.Claim.Worker,
				env.Claim.Layout)
		}
	}
	if env.Kind == record.Refused {
		res.Note = refusalNote(env)
	}
	d := detailsOf(env, r.Value)
	res.Target, res.Timer, res.Settled, res.Outcome = d.target, d.timer, d.settled, d.outcome
	if env.TypeURL != "" {
		res.Content = t.service.content(entities.Payload{TypeURL: env.TypeURL, Value: append([]byte(nil), r.Value...)})
	}
	return res
}
