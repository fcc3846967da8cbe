package definition

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

const (
	eventSourced = "cloudstate.eventsourced.EventSourced"
	valueEntity  = "cloudstate.valueentity.ValueEntity"
	action       = "cloudstate.action.ActionProtocol"
)

// catalogOf is the catalog of a function that serves the shop's entities, and of what else is
// given.
func catalogOf(t *testing.T, more map[string]string, others ...*cloudstate.Entity) *discovery.Catalog {
	t.Helper()
	texts := map[string]string{
		"cloudstate/entity_key.proto": read(t, "../../proto/cloudstate/entity_key.proto"),
		"shop/v1/services.proto": `syntax = "proto3";
package shop.v1;
import "cloudstate/entity_key.proto";
import "shop/v1/shop.proto";
message Key { string id = 1 [(cloudstate.entity_key) = true]; }
service OrderCommands { rpc Place(Key) returns (OrderState); }
service PaymentCommands { rpc Pay(Key) returns (Payment); }
service CustomerCommands { rpc Name(Key) returns (CustomerNamed); }
service Carts { rpc Merge(Key) returns (Key); }
service Prices { rpc Quote(Key) returns (Key); }
`,
	}
	for _, path := range sortedNames(more) {
		texts[path] = more[path]
	}
	files, err := proto.Marshal(shop(t, texts))
	if err != nil {
		t.Fatal(err)
	}
	c, err := discovery.NewCatalog(&cloudstate.EntitySpec{Proto: files, Entities: append([]*cloudstate.Entity{
		{EntityType: eventSourced, ServiceName: "shop.v1.OrderCommands", PersistenceId: "order"},
		{EntityType: valueEntity, ServiceName: "shop.v1.PaymentCommands", PersistenceId: "payment"},
		{EntityType: eventSourced, ServiceName: "shop.v1.CustomerCommands", PersistenceId: "customer"},
		{EntityType: "cloudstate.crdt.Crdt", ServiceName: "shop.v1.Carts", PersistenceId: "cart"},
		{EntityType: action, ServiceName: "shop.v1.Prices"},
	}, others...)}, discovery.Options{Runtime: true})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSchemaOfCatalog: the example is checked against what a function serves. What has no records
// that could be folded is no source.
func TestSchemaOfCatalog(t *testing.T) {
	schema, err := SchemaOf(catalogOf(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	want := []EntityType{
		{Name: "customer", Events: true, Service: "shop.v1.CustomerCommands"},
		{Name: "order", Events: true, Service: "shop.v1.OrderCommands"},
		{Name: "payment", Service: "shop.v1.PaymentCommands"},
	}
	if !slices.Equal(schema.entities, want) {
		t.Errorf("entity types %v, want %v", schema.entities, want)
	}
	projections(t, Options{Schema: schema}, directory(t, "orders")...)
}

// TestSchemaLeavesTheRuntimeOut: a process that has applied definitions serves what was generated
// for them, and the entity that keeps them. The same definitions are right when they are checked
// against it again.
func TestSchemaLeavesTheRuntimeOut(t *testing.T) {
	more := map[string]string{
		commonFile: read(t, "../../proto/"+commonFile),
		"millrace/definitions/v1/definitions.proto": `syntax = "proto3";
package millrace.definitions.v1;
import "cloudstate/entity_key.proto";
message Key { string id = 1 [(cloudstate.entity_key) = true]; }
service Definitions { rpc Apply(Key) returns (Key); }
`,
	}
	others := []*cloudstate.Entity{
		{EntityType: eventSourced, ServiceName: "millrace.definitions.v1.Definitions", PersistenceId: "_definitions"},
	}
	generated := projections(t, Options{}, directory(t, "orders")...)
	for _, name := range sortedNames(generated) {
		api := generated[name].API()
		more[api.GetName()] = ProtoSource(api)
		others = append(others, &cloudstate.Entity{
			EntityType: action, ServiceName: api.GetPackage() + "." + api.GetService()[0].GetName(),
		})
	}
	schema, err := SchemaOf(catalogOf(t, more, others...))
	if err != nil {
		t.Fatal(err)
	}
	if schema.entity("_definitions") != nil {
		t.Error("the entity of the definitions is a source")
	}
	projections(t, Options{Schema: schema}, directory(t, "orders")...)
	if _, err := schema.FindDescriptorByName("millrace.query.orders.OrderRow"); err != nil {
		t.Errorf("the generated messages are gone: %v", err)
	}
}

func TestFiles(t *testing.T) {
	got := Files([]string{"b.yml", "a.yaml", ".hidden.yaml", "millrace.yaml", "README.md", "yaml", "c.yaml.bak"})
	if want := []string{"a.yaml", "b.yml"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
