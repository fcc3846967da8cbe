package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// adminService answers the command line and the console.
type adminService struct {
	adminv1.UnimplementedAdminServiceServer
	node *Node
}

// Status returns the status page.
func (a *adminService) Status(ctx context.Context, _ *adminv1.StatusRequest) (*adminv1.StatusResponse, error) {
	return a.node.Status(ctx), nil
}

// Descriptors returns what the present function serves.
func (a *adminService) Descriptors(context.Context, *adminv1.DescriptorsRequest) (*adminv1.DescriptorsResponse, error) {
	catalog := a.node.host.Catalog()
	if catalog == nil {
		return nil, status.Error(codes.Unavailable, a.node.NotReady().Error())
	}
	set, err := proto.Marshal(catalog.FileDescriptorSet())
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &adminv1.DescriptorsResponse{FileDescriptorSet: set}, nil
}

// view returns the rows of an entity's partition.
func (a *adminService) view(id string) (materializer.Partition, int32) {
	partition := entities.Partition(id, int(a.node.topic.Partitions))
	return materializer.Partition{Rows: a.node.store, Address: materializer.Address{Generation: 1, Partition: uint16(partition)}}, partition //nolint:gosec // at most 4096
}

// GetEntity shows what the store holds of an entity.
func (a *adminService) GetEntity(ctx context.Context, r *adminv1.GetEntityRequest) (*adminv1.GetEntityResponse, error) {
	key := entities.Key{Type: r.GetType(), ID: r.GetId()}
	if err := a.known(key); err != nil {
		return nil, err
	}
	snapshot := a.node.store.Snapshot()
	defer snapshot.Close() //nolint:errcheck // only read
	view, partition := a.view(key.ID)
	view.Rows = snapshot
	meta, _, err := view.Meta()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	head, exists, err := view.Head(key)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	res := &adminv1.GetEntityResponse{Type: key.Type, Id: key.ID, Partition: partition, AsOfOffset: meta.Next, Exists: exists && !head.Deleted}
	if !exists {
		return nil, status.Errorf(codes.NotFound, "%s has no records in partition %d up to offset %d", key, partition, meta.Next)
	}
	res.Kind, res.Sequence = head.Kind.String(), head.Sequence
	loaded, err := view.Load(key)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return res, a.fill(ctx, res, loaded, head)
}

// fill puts an entity's state into an answer, and says what it is.
func (a *adminService) fill(_ context.Context, res *adminv1.GetEntityResponse, loaded entities.Loaded, head materializer.Head) error {
	if head.Kind == entities.Value {
		res.Note = "the value as last stored"
		if loaded.Value == nil {
			res.Note = "the value was deleted"
			return nil
		}
		res.State = a.content(*loaded.Value)
		return nil
	}
	res.Note = "the function's last snapshot, and the events since: the engine does not know more of an event-sourced entity"
	if loaded.Snapshot == nil {
		res.Note = "all events: the function has offered no snapshot yet"
	} else {
		res.State, res.StateSequence = a.content(loaded.Snapshot.State), loaded.Snapshot.Sequence
	}
	if loaded.Events == nil {
		return nil
	}
	return loaded.Events(func(e entities.Event) error {
		payload := entities.Payload{TypeURL: e.Payload.TypeURL, Value: append([]byte(nil), e.Payload.Value...)}
		res.Events = append(res.Events, &adminv1.HistoryResponse{Kind: "event", Sequence: e.Sequence, Partition: res.GetPartition(), Offset: -1, Content: a.content(payload)})
		return nil
	})
}

// known refuses an entity type that nobody serves, and names those that are.
func (a *adminService) known(key entities.Key) error {
	catalog := a.node.host.Catalog()
	if catalog == nil || catalog.EntityType(key.Type) != nil {
		return nil
	}
	var names []string
	for _, t := range catalog.EntityTypes() {
		names = append(names, t.Name)
	}
	return status.Errorf(codes.NotFound, "no entity type %q is served here; there are: %s", key.Type, strings.Join(names, ", "))
}

// content shows a stored message, as JSON too when its type is known.
func (a *adminService) content(p entities.Payload) *adminv1.Content {
	c := &adminv1.Content{TypeUrl: p.TypeURL, Value: p.Value}
	catalog := a.node.host.Catalog()
	if catalog == nil {
		return c
	}
	mt, err := catalog.Types().FindMessageByURL(p.TypeURL)
	if err != nil {
		return c
	}
	msg := mt.New().Interface()
	if proto.Unmarshal(p.Value, msg) != nil {
		return c
	}
	if b, err := (protojson.MarshalOptions{Resolver: resolver{catalog.Types()}}).Marshal(msg); err == nil {
		var compact bytes.Buffer
		if json.Compact(&compact, b) == nil {
			c.Json = compact.String()
		}
	}
	return c
}

// resolver is what protojson wants of a catalog's types.
type resolver struct {
	types interface {
		FindMessageByName(protoreflect.FullName) (protoreflect.MessageType, error)
		FindMessageByURL(string) (protoreflect.MessageType, error)
		FindExtensionByName(protoreflect.FullName) (protoreflect.ExtensionType, error)
		FindExtensionByNumber(protoreflect.FullName, protoreflect.FieldNumber) (protoreflect.ExtensionType, error)
	}
}

func (r resolver) FindMessageByName(n protoreflect.FullName) (protoreflect.MessageType, error) {
	return r.types.FindMessageByName(n)
}

func (r resolver) FindMessageByURL(u string) (protoreflect.MessageType, error) {
	return r.types.FindMessageByURL(u)
}

func (r resolver) FindExtensionByName(n protoreflect.FullName) (protoreflect.ExtensionType, error) {
	return r.types.FindExtensionByName(n)
}

func (r resolver) FindExtensionByNumber(m protoreflect.FullName, n protoreflect.FieldNumber) (protoreflect.ExtensionType, error) {
	return r.types.FindExtensionByNumber(m, n)
}

// History streams an entity's records from the log, oldest first.
func (a *adminService) History(r *adminv1.HistoryRequest, out adminv1.AdminService_HistoryServer) error {
	key := entities.Key{Type: r.GetType(), ID: r.GetId()}
	if err := a.known(key); err != nil {
		return err
	}
	view, partition := a.view(key.ID)
	limit := r.GetLimit()
	if limit <= 0 {
		limit = math.MaxInt64
	}
	var offsets []int64
	if err := view.History(key, func(offset int64) bool {
		offsets = append(offsets, offset)
		return int64(len(offsets)) < limit
	}); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	if len(offsets) == 0 {
		return status.Errorf(codes.NotFound, "%s has no records", key)
	}
	reader := newPointReader(a.node.log, broker.Partition{Topic: a.node.topic.Name, ID: partition})
	defer reader.close()
	for _, offset := range offsets {
		rec, env, err := reader.read(out.Context(), offset)
		if err != nil {
			return status.Error(codes.Internal, err.Error())
		}
		if err := out.Send(&adminv1.HistoryResponse{
			Partition: partition, Offset: offset, Kind: kindName(env.Kind), Sequence: env.Sequence, Time: timestamppb.New(time.Unix(0, env.LogTime)),
			Content: a.content(entities.Payload{TypeURL: env.TypeURL, Value: rec.Value}), CommandId: env.CommandID, Principal: env.Principal,
		}); err != nil {
			return err
		}
	}
	return nil
}

// kindName is a kind as shown to people: event, state, claim.
func kindName(k record.Kind) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(k.String(), "KIND_")), "_", "-")
}

// pointReader reads single records of a partition at ascending offsets. Near ones are read through, far ones jumped to.
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

// Tail streams records of the journal, partition after partition, or as they come.
func (a *adminService) Tail(r *adminv1.TailRequest, out adminv1.AdminService_TailServer) error {
	t := &tail{service: a, request: r, out: out, left: r.GetLimit()}
	if t.left <= 0 {
		t.left = math.MaxInt64
	}
	first, last := int32(0), a.node.topic.Partitions-1
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
		first = entities.Partition(key.ID, int(a.node.topic.Partitions))
		last = first
	}
	if r.GetFollow() {
		return t.follow(first, last)
	}
	for p := first; p <= last && t.left > 0; p++ {
		if err := t.read(out.Context(), p, t.send); err != nil {
			return err
		}
	}
	return nil
}

// tail is one call of Tail.
type tail struct {
	service *adminService
	request *adminv1.TailRequest
	out     adminv1.AdminService_TailServer
	left    int64
}

// read hands the records of one partition to emit, up to the end, or for ever when following.
func (t *tail) read(ctx context.Context, partition int32, emit func(*adminv1.TailResponse) error) error {
	node := t.service.node
	where := broker.Partition{Topic: node.topic.Name, ID: partition}
	end, err := node.log.End(ctx, where)
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	from := int64(0)
	if t.request.GetFromEnd() {
		from = end
	}
	reader, err := node.log.Read(where, from)
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	defer reader.Close() //nolint:errcheck // only read
	var rule record.Rule
	var parser record.Parser
	for from < end || t.request.GetFollow() {
		batch, err := reader.Next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return status.Error(codes.Unavailable, err.Error())
		}
		for i := range batch.Records {
			res := t.describe(&rule, &parser, partition, &batch.Records[i])
			if !t.wanted(res) {
				continue
			}
			if err := emit(res); err != nil || t.left <= 0 {
				return err
			}
		}
		from = batch.Next
	}
	return nil
}

// errEnough ends a tail at its limit.
var errEnough = errors.New("limit reached")

func (t *tail) send(res *adminv1.TailResponse) error {
	t.left--
	return t.out.Send(res)
}

// follow reads several partitions at once and sends what comes, one at a time.
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
		select {
		case res := <-records:
			if result == nil {
				result = t.send(res)
			}
			if result == nil && t.left <= 0 {
				result = errEnough
			}
			if result != nil {
				cancel(result)
			}
		case err := <-ended:
			running--
			if result == nil && err != nil {
				result = err
				cancel(err)
			}
		}
	}
	if errors.Is(result, errEnough) {
		return nil
	}
	return result
}

func (t *tail) wanted(res *adminv1.TailResponse) bool {
	r := t.request
	if r.GetEntity() != "" && res.GetEntity() != r.GetEntity() {
		return false
	}
	return r.GetType() == "" || strings.HasPrefix(res.GetEntity(), r.GetType()+"/")
}

// describe tells one record, and what the reader rule says about it. The rule is certain from offset 0 on; a tail that
// begins at the end knows a record's owner only after the next claim.
func (t *tail) describe(rule *record.Rule, parser *record.Parser, partition int32, r *broker.Record) *adminv1.TailResponse {
	res := &adminv1.TailResponse{Partition: partition, Offset: r.Offset, Entity: string(r.Key), Time: timestamppb.New(r.Time)}
	var env record.Envelope
	if err := parser.Parse(r.Header(record.HeaderKey), &env); err != nil {
		res.Kind, res.Note = "foreign", err.Error()
		return res
	}
	if rule.Current == (record.Owner{}) && env.Kind != record.Claim {
		*rule = record.Rule{Current: record.Owner{Epoch: env.Epoch, Nonce: env.Nonce}, Ordinal: env.Ordinal - 1}
	}
	verdict, dropped := rule.Step(&env)
	res.Kind, res.Epoch, res.Nonce, res.Sequence, res.CommandId = kindName(env.Kind), env.Epoch, fmt.Sprintf("%016x", env.Nonce), env.Sequence, env.CommandID
	res.Stale = verdict == record.Void
	if dropped {
		res.Note = "an incomplete group before this record was dropped"
	}
	if env.Claim != nil {
		res.Note = fmt.Sprintf("claimed by %s, which had read up to offset %d", env.Claim.Worker, env.Claim.ReadTo)
	}
	if env.TypeURL != "" {
		res.Content = t.service.content(entities.Payload{TypeURL: env.TypeURL, Value: append([]byte(nil), r.Value...)})
	}
	return res
}
