package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// Descriptors returns what is served.
func (s *Service) Descriptors(context.Context, *adminv1.DescriptorsRequest) (*adminv1.DescriptorsResponse, error) {
	catalog := s.catalog()
	if catalog == nil {
		why := s.process.NotReady()
		if why == nil { // it has just been attached
			why = errors.New("what is served is not known yet: try again")
		}
		return nil, status.Error(codes.Unavailable, why.Error())
	}
	set, err := proto.Marshal(catalog.FileDescriptorSet())
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &adminv1.DescriptorsResponse{FileDescriptorSet: set}, nil
}

// GetEntity shows what the store of a worker that has the entity holds of it: this one, or its
// owner.
func (s *Service) GetEntity(ctx context.Context, r *adminv1.GetEntityRequest) (*adminv1.GetEntityResponse, error) {
	key, err := s.entity(r.GetType(), r.GetId())
	if err != nil {
		return nil, err
	}
	owner, err := s.elsewhere(ctx, key)
	if err != nil {
		return nil, err
	}
	if owner != nil {
		return owner.GetEntity(ctx, r)
	}
	return s.getEntity(key)
}

// elsewhere returns the owner of an entity of which this process has no image; nil: it has one.
func (s *Service) elsewhere(ctx context.Context, key entities.Key) (adminv1.AdminServiceClient, error) {
	partition := s.partition(key.ID)
	return s.ownerOf(ctx, partition, fmt.Sprintf("%s is in partition %d, which", key, partition))
}

// ownerOf returns the owner of a partition of which this process has no image; nil: it has one.
// what begins the sentence about an owner that cannot be asked.
func (s *Service) ownerOf(ctx context.Context, partition int32, what string) (adminv1.AdminServiceClient, error) {
	if s.hasImage(partition) {
		return nil, nil //nolint:nilnil // no other process is needed
	}
	app := s.process.App()
	owner, owned := app.table().Owner(partition)
	if !owned {
		return nil, status.Errorf(codes.Unavailable,
			"%s has no owner at the moment: try again, or look at `millrace partitions`", what)
	}
	conn, err := app.Client.Conn(ctx, owner.Address)
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "%s is owned by worker %s at %s, which cannot be asked: %s", what,
			owner.Name, owner.Address, err)
	}
	return adminv1.NewAdminServiceClient(conn), nil
}

// hasImage reports whether this process owns or follows a partition. What its store holds of
// another may be of long ago.
func (s *Service) hasImage(partition int32) bool {
	app, w := s.process.App(), s.process.Worker()
	switch {
	case w == nil:
		return false
	case app.Client == nil:
		return true
	}
	owner, owned := app.table().Owner(partition)
	return owned && owner.Name == w.Name || w.Partitions.Partitions()[partition].Status().Followed
}

// view returns a partition's rows in a store, or in a snapshot of it.
func (s *Service) view(partition int32, rows materializer.Reader) materializer.Partition {
	app := s.process.App()
	address := materializer.Address{Generation: app.Layout.Generation, Partition: uint16(partition)} //nolint:gosec // at most 4096
	return materializer.Partition{Rows: rows, Address: address}
}

func (s *Service) getEntity(key entities.Key) (*adminv1.GetEntityResponse, error) {
	snapshot := s.process.Worker().Store.Snapshot()
	defer snapshot.Close() //nolint:errcheck // only read
	partition := s.partition(key.ID)
	view := s.view(partition, snapshot)
	meta, _, err := view.Meta()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	head, exists, err := view.Head(key)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	res := &adminv1.GetEntityResponse{
		Type: key.Type, Id: key.ID, Partition: partition, AsOfOffset: meta.Next, Exists: exists && !head.Deleted,
	}
	if !exists {
		return nil, status.Errorf(codes.NotFound,
			"%s has no records in partition %d up to offset %d", key, partition, meta.Next)
	}
	res.Kind, res.Sequence = head.Kind.String(), head.Sequence
	loaded, err := view.Load(key)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return res, s.fill(res, loaded, head)
}

// fill puts an entity's state into an answer, and says what it is.
func (s *Service) fill(res *adminv1.GetEntityResponse, loaded entities.Loaded, head materializer.Head) error {
	res.Note = head.Note(&loaded)
	if loaded.State != nil {
		res.State, res.StateSequence = s.content(*loaded.State), loaded.StateSequence
	}
	if loaded.Events == nil {
		return nil
	}
	return loaded.Events(func(e entities.Event) error {
		payload := entities.Payload{TypeURL: e.Payload.TypeURL, Value: append([]byte(nil), e.Payload.Value...)}
		res.Events = append(res.Events, &adminv1.HistoryResponse{
			Kind: "event", Sequence: e.Sequence, Partition: res.GetPartition(), Content: s.content(payload),
		})
		return nil
	})
}

// entity returns the key of an entity. A type that is not served is refused, with those that are. A
// gateway leaves that to the owner: while the workers serve different versions, one may have a type
// that the gateway does not know yet.
func (s *Service) entity(typ, id string) (entities.Key, error) {
	key := entities.Key{Type: typ, ID: id}
	catalog := s.catalog()
	if s.process.Worker() == nil || catalog == nil || catalog.EntityType(typ) != nil {
		return key, nil
	}
	var names []string
	for _, t := range catalog.User().EntityTypes() {
		names = append(names, t.Name)
	}
	if len(names) == 0 {
		return key, status.Errorf(codes.NotFound, "no entity type %q is served here, only actions are", typ)
	}
	return key, status.Errorf(codes.NotFound,
		"no entity type %q is served here; there are: %s", typ, strings.Join(names, ", "))
}

// content shows a stored message, as JSON too when its type is known.
func (s *Service) content(p entities.Payload) *adminv1.Content {
	c := &adminv1.Content{TypeUrl: p.TypeURL, Value: p.Value}
	catalog := s.catalog()
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
		c.Json = compactJSON(b)
	}
	return c
}

// compactJSON takes the white space out of JSON that protojson wrote: there it is random on
// purpose.
func compactJSON(b []byte) string {
	var compact bytes.Buffer
	_ = json.Compact(&compact, b) // it is JSON
	return compact.String()
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

func (r resolver) FindExtensionByNumber(m protoreflect.FullName,
	n protoreflect.FieldNumber,
) (protoreflect.ExtensionType, error) {
	return r.types.FindExtensionByNumber(m, n)
}

// ForPeers returns what other processes of the app may ask about this worker's entities. It does
// not ask further.
func (s *Service) ForPeers() adminv1.AdminServiceServer { return &forPeers{service: s} }

type forPeers struct {
	adminv1.UnimplementedAdminServiceServer
	service *Service
}

// GetEntity shows what the store holds of an entity.
func (p *forPeers) GetEntity(_ context.Context, r *adminv1.GetEntityRequest) (*adminv1.GetEntityResponse, error) {
	key, err := p.entity(r.GetType(), r.GetId())
	if err != nil {
		return nil, err
	}
	return p.service.getEntity(key)
}

// History streams an entity's records from the log, oldest first.
func (p *forPeers) History(r *adminv1.HistoryRequest, out adminv1.AdminService_HistoryServer) error {
	key, err := p.entity(r.GetType(), r.GetId())
	if err != nil {
		return err
	}
	return p.service.history(key, r.GetLimit(), out)
}

func (p *forPeers) entity(typ, id string) (entities.Key, error) {
	key, err := p.service.entity(typ, id)
	if partition := p.service.partition(id); err == nil && !p.service.hasImage(partition) {
		err = status.Errorf(codes.Unavailable, "%s is in partition %d, which has just moved: try again", key, partition)
	}
	return key, err
}
