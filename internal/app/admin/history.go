package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/partitions"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// History streams an entity's records from the log, oldest first. The store of a worker that has
// the entity knows where they are: this one's, or the owner's.
func (s *Service) History(r *adminv1.HistoryRequest, out adminv1.AdminService_HistoryServer) error {
	key, err := s.entity(r.GetType(), r.GetId())
	if err != nil {
		return err
	}
	owner, err := s.elsewhere(out.Context(), key)
	if err != nil {
		return err
	}
	if owner != nil {
		return relayHistory(owner, r, out)
	}
	return s.history(key, r.GetLimit(), out)
}

// relayHistory passes on an entity's history from its owner.
func relayHistory(owner adminv1.AdminServiceClient, r *adminv1.HistoryRequest,
	out adminv1.AdminService_HistoryServer,
) error {
	ctx, stop := context.WithCancel(out.Context())
	defer stop()
	in, err := owner.History(ctx, r)
	for err == nil {
		var record *adminv1.HistoryResponse
		if record, err = in.Recv(); err == nil {
			err = out.Send(record)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (s *Service) history(key entities.Key, most int64, out adminv1.AdminService_HistoryServer) error {
	w, partition := s.process.Worker(), s.partition(key.ID)
	reader := newPointReader(w.Log, broker.Partition{Topic: w.Topic.Name, ID: partition})
	defer reader.close()
	sent, limit := int64(0), unlessZero(most)
	var failure error
	err := s.view(partition, w.Store).History(key, func(offset int64) bool {
		failure = s.sendRecord(out, reader, partition, offset)
		sent++
		return failure == nil && sent < limit
	})
	switch {
	case err != nil:
		return status.Error(codes.Internal, err.Error())
	case failure == nil && sent == 0:
		return status.Errorf(codes.NotFound, "%s has no records", key)
	}
	return failure
}

// sendRecord reads one record and sends it.
func (s *Service) sendRecord(out adminv1.AdminService_HistoryServer, reader *pointReader, partition int32,
	offset int64,
) error {
	rec, env, err := reader.read(out.Context(), offset)
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	note := ""
	if env.Kind == record.Refused {
		note = refusalNote(env)
	}
	d := detailsOf(env, rec.Value)
	return out.Send(&adminv1.HistoryResponse{
		Target: d.target, Timer: d.timer, Outcome: d.outcome,
		Note: note, Partition: partition, Offset: &offset, Kind: kindName(env.Kind), Sequence: env.Sequence,
		Time:    timestamppb.New(time.Unix(0, env.LogTime)),
		Content: s.content(entities.Payload{TypeURL: env.TypeURL, Value: rec.Value}), CommandId: env.CommandID,
		Principal: env.Principal,
	})
}

// refusalNote says which target refused an effect, and with which text.
func refusalNote(env *record.Envelope) string {
	service, method := record.TargetOf(env.Target)
	return fmt.Sprintf("%s/%s %s (effect of offset %d)", service, method, partitions.Refusal(env.Answer), env.Refuses)
}

// unlessZero is a limit of which 0 means none.
func unlessZero(limit int64) int64 {
	if limit <= 0 {
		return math.MaxInt64
	}
	return limit
}

// kindName is a kind as shown to people: event, state, claim.
func kindName(k record.Kind) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(k.String(), "KIND_")), "_", "-")
}

// pointReader reads single records of a partition at ascending offsets. Near ones are read through,
// far ones jumped to.
type pointReader struct {
	log       broker.Log
	partition broker.Partition
	reader    broker.Reader
	batch     broker.Batch
	parser    record.Parser
	env       record.Envelope
}

// jump is the distance from which a new reader is cheaper than reading on.
const jump = 2_000

func newPointReader(log broker.Log, p broker.Partition) *pointReader {
	return &pointReader{log: log, partition: p}
}

func (p *pointReader) close() {
	if p.reader != nil {
		_ = p.reader.Close()
	}
}

func (p *pointReader) read(ctx context.Context, offset int64) (*broker.Record, *record.Envelope, error) {
	if p.reader == nil || offset-p.batch.Next > jump {
		p.close()
		var err error
		if p.reader, err = p.log.Read(p.partition, offset); err != nil {
			return nil, nil, err
		}
		p.batch = broker.Batch{Next: offset}
	}
	for {
		for i := range p.batch.Records {
			r := &p.batch.Records[i]
			if r.Offset != offset {
				continue
			}
			err := p.parser.Parse(r.Header(record.HeaderKey), &p.env)
			return r, &p.env, err
		}
		if p.batch.Next > offset {
			return nil, nil, fmt.Errorf("the log has no record at %s/%d offset %d", p.partition.Topic, p.partition.ID, offset)
		}
		batch, err := p.reader.Next(ctx)
		if err != nil {
			return nil, nil, err
		}
		p.batch = batch
	}
}
