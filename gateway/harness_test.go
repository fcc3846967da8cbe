package gateway_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/gateway"
	"github.com/millrace-io/millrace/internal/leaktest"
	"github.com/millrace-io/millrace/internal/settings"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patience is how long a test waits for a condition.
const patience = 20 * time.Second

const (
	cartService   = "shop.v1.CartService"
	streamService = "shop.v1.StreamService"
)

// shopFile is the user function of the tests: a value entity with all kinds of rules, and an action
// that streams.
const shopFile = `
name: "shop.proto" package: "shop.v1" syntax: "proto3"
dependency: "google/api/annotations.proto" dependency: "google/api/httpbody.proto" dependency: "cloudstate/entity_key.proto"
message_type { name: "Item"
  field { name: "item_id" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "quantity" number: 2 type: TYPE_INT64 label: LABEL_OPTIONAL } }
message_type { name: "AddItemRequest"
  field { name: "cart_id" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL options { [cloudstate.entity_key]: true } }
  field { name: "text" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL oneof_index: 0 }
  field { name: "item_id" number: 3 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "quantity" number: 4 type: TYPE_INT64 label: LABEL_OPTIONAL }
  field { name: "item" number: 5 type: TYPE_MESSAGE type_name: ".shop.v1.Item" label: LABEL_OPTIONAL }
  oneof_decl { name: "extra" } }
message_type { name: "CartRequest"
  field { name: "cart_id" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL options { [cloudstate.entity_key]: true } }
  field { name: "item_id" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "limit" number: 3 type: TYPE_INT32 label: LABEL_OPTIONAL } }
message_type { name: "Cart"
  field { name: "cart_id" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "items" number: 2 type: TYPE_MESSAGE type_name: ".shop.v1.Item" label: LABEL_REPEATED }
  field { name: "total_cents" number: 3 type: TYPE_INT64 label: LABEL_OPTIONAL }
  field { name: "last" number: 4 type: TYPE_MESSAGE type_name: ".shop.v1.Item" label: LABEL_OPTIONAL } }
message_type { name: "Line" field { name: "text" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL } }
service { name: "CartService"
  method { name: "AddItem" input_type: ".shop.v1.AddItemRequest" output_type: ".shop.v1.Cart"
    options { [google.api.http] { post: "/v1/carts/{cart_id}/items" body: "*" } } }
  method { name: "PutItem" input_type: ".shop.v1.AddItemRequest" output_type: ".shop.v1.Cart"
    options { [google.api.http] { put: "/v1/carts/{cart_id}/item" body: "item" } } }
  method { name: "RemoveItem" input_type: ".shop.v1.CartRequest" output_type: ".shop.v1.Cart"
    options { [google.api.http] { delete: "/v1/carts/{cart_id}/items/{item_id}" } } }
  method { name: "GetCart" input_type: ".shop.v1.CartRequest" output_type: ".shop.v1.Cart"
    options { [google.api.http] { get: "/v1/carts/{cart_id}"
      additional_bindings { get: "/v1/carts/{cart_id}/items" response_body: "items" } } } }
  method { name: "Checkout" input_type: ".shop.v1.CartRequest" output_type: ".shop.v1.Cart"
    options { [google.api.http] { post: "/v1/carts/{cart_id}:checkout" body: "*" } } }
  method { name: "Plain" input_type: ".shop.v1.CartRequest" output_type: ".shop.v1.Cart" }
  method { name: "Look" input_type: ".shop.v1.CartRequest" output_type: ".shop.v1.Cart"
    options { idempotency_level: NO_SIDE_EFFECTS } }
  method { name: "Receipt" input_type: ".shop.v1.CartRequest" output_type: ".google.api.HttpBody"
    options { [google.api.http] { get: "/v1/carts/{cart_id}/receipt" } } } }
service { name: "StreamService"
  method { name: "Echo" input_type: ".shop.v1.Line" output_type: ".shop.v1.Line"
    options { [google.api.http] { post: "/v1/echo" body: "*" } } }
  method { name: "In" input_type: ".shop.v1.Line" output_type: ".shop.v1.Line" client_streaming: true
    options { [google.api.http] { post: "/v1/in" body: "*" } } }
  method { name: "Out" input_type: ".shop.v1.Line" output_type: ".shop.v1.Line" server_streaming: true
    options { [google.api.http] { get: "/v1/out/{text}" } } }
  method { name: "Both" input_type: ".shop.v1.Line" output_type: ".shop.v1.Line" client_streaming: true server_streaming: true }
  method { name: "Blob" input_type: ".shop.v1.Line" output_type: ".google.api.HttpBody" server_streaming: true
    options { [google.api.http] { get: "/v1/blob" } } } }
`

func newCatalog(t testing.TB, file string) *discovery.Catalog {
	t.Helper()
	return catalogOf(t, file, discovery.Options{})
}

func catalogOf(t testing.TB, file string, options discovery.Options) *discovery.Catalog {
	t.Helper()
	fd := &descriptorpb.FileDescriptorProto{}
	if err := prototext.Unmarshal([]byte(file), fd); err != nil {
		t.Fatal(err)
	}
	set, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{fd}})
	if err != nil {
		t.Fatal(err)
	}
	spec := &cloudstate.EntitySpec{
		Proto:       set,
		ServiceInfo: &cloudstate.ServiceInfo{ProtocolMajorVersion: 0, ProtocolMinorVersion: 2},
	}
	for _, service := range fd.GetService() {
		kind := entities.Value
		if service.GetName() != "CartService" {
			kind = entities.Action
		}
		spec.Entities = append(spec.Entities, &cloudstate.Entity{
			EntityType:  kind.Spec().Protocol,
			ServiceName: fd.GetPackage() + "." + service.GetName(), PersistenceId: service.GetName(),
		})
	}
	catalog, err := discovery.NewCatalog(spec, options)
	if err != nil {
		t.Fatal(err)
	}
	return catalog
}

// dispatcher is a fake whose behaviour the test sets.
type dispatcher struct {
	unary  func(context.Context, *entities.Command) (*entities.Reply, error)
	stream func(context.Context, *entities.Stream) error

	mu       sync.Mutex
	commands []*entities.Command
}

func (d *dispatcher) Dispatch(ctx context.Context, cmd *entities.Command) (*entities.Reply, error) {
	d.note(cmd)
	if d.unary == nil {
		return nil, errors.New("the test expects no unary call")
	}
	return d.unary(ctx, cmd)
}

func (d *dispatcher) DispatchStream(ctx context.Context, s *entities.Stream) error {
	d.note(s.Command)
	if d.stream == nil {
		return errors.New("the test expects no stream")
	}
	return d.stream(ctx, s)
}

func (d *dispatcher) note(cmd *entities.Command) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.commands = append(d.commands, cmd)
}

// last returns the newest command, nil when there was none.
func (d *dispatcher) last() *entities.Command {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.commands) == 0 {
		return nil
	}
	return d.commands[len(d.commands)-1]
}

func (d *dispatcher) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.commands)
}

// world is a running gateway.
type world struct {
	t       testing.TB
	catalog *discovery.Catalog
	fake    *dispatcher
	server  *gateway.Server
	addr    string
}

// newWorld starts a gateway with the shop's catalog. opts may be nil.
func newWorld(t testing.TB, fake *dispatcher, opts func(*gateway.Options)) *world {
	t.Helper()
	w := newEmptyWorld(t, fake, opts)
	if err := w.server.SetCatalog(w.catalog); err != nil {
		t.Fatal(err)
	}
	return w
}

const (
	// testApp is the app of every test.
	testApp = "test"
	// functionWait is how long calls wait for a catalog.
	functionWait = 10 * time.Second
)

// newEmptyWorld starts a gateway that has no catalog yet.
func newEmptyWorld(t testing.TB, fake *dispatcher, opts func(*gateway.Options)) *world {
	t.Helper()
	o := gateway.Options{
		Settings: settings.Defaults[gateway.Settings](), Dispatcher: fake, App: testApp, FunctionWait: functionWait,
	}
	if opts != nil {
		opts(&o)
	}
	w := start(t, o)
	w.fake = fake
	return w
}

// start starts a gateway, and stops it when the test is over.
func start(t testing.TB, o gateway.Options) *world {
	t.Helper()
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, catalog: newCatalog(t, shopFile), server: gateway.New(o), addr: lis.Addr().String()}
	served := make(chan error, 1)
	go func() { served <- w.server.Serve(lis) }() // Shutdown stops it, the cleanup waits for it
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if err := w.server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; !errors.Is(err, gateway.ErrClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return w
}

// message builds a message of the shop from JSON.
func (w *world) message(name, json string) *dynamicpb.Message {
	w.t.Helper()
	msg := dynamicpb.NewMessage(w.messageType(name))
	if err := protojson.Unmarshal([]byte(json), msg); err != nil {
		w.t.Fatal(err)
	}
	return msg
}

func (w *world) messageType(name string) protoreflect.MessageDescriptor {
	w.t.Helper()
	d, err := w.catalog.Files().FindDescriptorByName(protoreflect.FullName("shop.v1." + name))
	if err != nil {
		w.t.Fatal(err)
	}
	return d.(protoreflect.MessageDescriptor) //nolint:forcetypeassert // a message by name
}

// encoded is a message of the shop as bytes.
func (w *world) encoded(name, json string) []byte {
	w.t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(w.message(name, json))
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// reply is an answer of the shop.
func (w *world) reply(name, json string) *entities.Reply {
	return &entities.Reply{Payload: entities.Payload{
		TypeURL: "type.googleapis.com/shop.v1." + name,
		Value:   w.encoded(name, json),
	}}
}

// always answers every unary call with one reply.
func (w *world) always(reply *entities.Reply) {
	w.fake.unary = func(context.Context, *entities.Command) (*entities.Reply, error) { return reply, nil }
}

// dial opens a native gRPC channel.
func (w *world) dial(opts ...grpc.DialOption) *grpc.ClientConn {
	w.t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+w.addr, append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
	}, opts...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain until %s", patience, what)
		}
		<-time.After(time.Millisecond)
	}
}

func asJSON(t testing.TB, msg proto.Message) string {
	t.Helper()
	b, err := protojson.Marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	return compact(t, b)
}

// decoded is a message of the shop from bytes.
func (w *world) decoded(name string, b []byte) *dynamicpb.Message {
	w.t.Helper()
	msg := dynamicpb.NewMessage(w.messageType(name))
	if err := proto.Unmarshal(b, msg); err != nil {
		w.t.Fatal(err)
	}
	return msg
}
