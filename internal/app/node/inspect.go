package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/peer"
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
	layout := a.node.layout
	partition := entities.Partition(id, int(layout.Partitions))
	return materializer.Partition{Rows: a.node.store, Address: materializer.Address{Generation: layout.Generation, Partition: uint16(partition)}}, partition //nolint:gosec // at most 4096
}

// GetEntity shows what the store of a worker that has the entity holds of it: this one, or its owner.
func (a *adminService) GetEntity(ctx context.Context, r *adminv1.GetEntityRequest) (*adminv1.GetEntityResponse, error) {
	key, err := a.entity(r.GetType(), r.GetId())
	if err != nil {
		return nil, err
	}
	owner, err := a.elsewhere(ctx, key)
	if err != nil {
		return nil, err
	}
	if owner != nil {
		return owner.GetEntity(ctx, r)
	}
	return a.getEntity(key)
}

// elsewhere returns the owner of an entity of which this worker has no image; nil: it has one.
func (a *adminService) elsewhere(ctx context.Context, key entities.Key) (adminv1.AdminServiceClient, error) {
	partition := a.partition(key)
	if a.node.hasImage(partition) {
		return nil, nil //nolint:nilnil // nobody else is needed
	}
	return ownerOf(ctx, a.node.cluster.client, a.node.routes.Table(), key, partition)
}

func (a *adminService) getEntity(key entities.Key) (*adminv1.GetEntityResponse, error) {
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
	return res, a.fill(res, loaded, head)
}

// fill puts an entity's state into an answer, and says what it is.
func (a *adminService) fill(res *adminv1.GetEntityResponse, loaded entities.Loaded, head materializer.Head) error {
	res.Note = head.Note(&loaded)
	if loaded.State != nil {
		res.State, res.StateSequence = a.content(*loaded.State), loaded.StateSequence
	}
	if loaded.Events == nil {
		return nil
	}
	return loaded.Events(func(e entities.Event) error {
		payload := entities.Payload{TypeURL: e.Payload.TypeURL, Value: append([]byte(nil), e.Payload.Value...)}
		res.Events = append(res.Events, &adminv1.HistoryResponse{Kind: "event", Sequence: e.Sequence, Partition: res.GetPartition(), Content: a.content(payload)})
		return nil
	})
}

// entity returns the key of an entity. A type that nobody serves is refused, with those that are.
func (a *adminService) entity(typ, id string) (entities.Key, error) {
	key := entities.Key{Type: typ, ID: id}
	catalog := a.node.host.Catalog()
	if catalog == nil || catalog.EntityType(typ) != nil {
		return key, nil
	}
	var names []string
	for _, t := range catalog.EntityTypes() {
		names = append(names, t.Name)
	}
	if len(names) == 0 {
		return key, status.Errorf(codes.NotFound, "no entity type %q is served here, only actions are", typ)
	}
	return key, status.Errorf(codes.NotFound, "no entity type %q is served here; there are: %s", typ, strings.Join(names, ", "))
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
		c.Json = compactJSON(b)
	}
	return c
}

// compactJSON takes the white space out of JSON that protojson wrote: there it is random on purpose.
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

func (r resolver) FindExtensionByNumber(m protoreflect.FullName, n protoreflect.FieldNumber) (protoreflect.ExtensionType, error) {
	return r.types.FindExtensionByNumber(m, n)
}

// partition is that of an entity.
func (a *adminService) partition(key entities.Key) int32 {
	return entities.Partition(key.ID, int(a.node.layout.Partitions))
}

// hasImage says whether this worker owns or follows a partition. What the store holds of another may be of long ago.
func (n *Node) hasImage(partition int32) bool {
	if n.cluster == nil {
		return true
	}
	owner, owned := n.routes.Table().Owner(partition)
	return owned && owner.Name == n.identity.Worker || n.manager.Partitions()[partition].Status().Followed
}

// ownerOf returns the pages of the worker that owns an entity.
func ownerOf(ctx context.Context, client *peer.Client, table *broker.Table, key entities.Key, partition int32) (adminv1.AdminServiceClient, error) {
	owner, owned := table.Owner(partition)
	if !owned {
		return nil, status.Errorf(codes.Unavailable, "%s is in partition %d, which nobody owns at the moment: try again, or look at `millrace partitions`", key, partition)
	}
	conn, err := client.Conn(ctx, owner.Address)
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "%s is in partition %d, whose owner, worker %s at %s, cannot be asked: %s", key, partition, owner.Name, owner.Address, err)
	}
	return adminv1.NewAdminServiceClient(conn), nil
}

// relayHistory passes on what a worker says of an entity.
func relayHistory(owner adminv1.AdminServiceClient, r *adminv1.HistoryRequest, out adminv1.AdminService_HistoryServer) error {
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

// neighbours is what other processes of the app may ask about this worker's entities. It does not ask further.
type neighbours struct {
	adminv1.UnimplementedAdminServiceServer
	admin *adminService
}

// GetEntity shows what the store holds of an entity.
func (s *neighbours) GetEntity(_ context.Context, r *adminv1.GetEntityRequest) (*adminv1.GetEntityResponse, error) {
	key, err := s.entity(r.GetType(), r.GetId())
	if err != nil {
		return nil, err
	}
	return s.admin.getEntity(key)
}

// History streams an entity's records from the log, oldest first.
func (s *neighbours) History(r *adminv1.HistoryRequest, out adminv1.AdminService_HistoryServer) error {
	key, err := s.entity(r.GetType(), r.GetId())
	if err != nil {
		return err
	}
	return s.admin.history(key, r.GetLimit(), out)
}

func (s *neighbours) entity(typ, id string) (entities.Key, error) {
	key, err := s.admin.entity(typ, id)
	if partition := s.admin.partition(key); err == nil && !s.admin.node.hasImage(partition) {
		err = status.Errorf(codes.Unavailable, "%s is in partition %d, which has just moved: try again", key, partition)
	}
	return key, err
}
