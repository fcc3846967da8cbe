package discovery_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

const shopSource = `syntax = "proto3";
package shop.v1;
import "cloudstate/entity_key.proto";
message Add { string cart = 1 [(cloudstate.entity_key) = true]; Item item = 2; }
message Item { string name = 1; int32 quantity = 2; State state = 3; }
enum State { NEW = 0; PAID = 1; }
message Cart { repeated Item items = 1; map<string, Item> by_name = 2; }
service CartService { rpc AddItem(Add) returns (Cart); }
`

// shopCatalog is what a worker serves whose source is that of the cart with pairs of texts
// replaced.
func shopCatalog(t *testing.T, replaced ...string) *discovery.Catalog {
	t.Helper()
	source := strings.NewReplacer(replaced...).Replace(shopSource)
	spec := &cloudstate.EntitySpec{
		Proto: marshal(t, compile(t, map[string]string{"shop.proto": source})),
		Entities: []*cloudstate.Entity{{
			EntityType:  "cloudstate.eventsourced.EventSourced",
			ServiceName: "shop.v1.CartService", PersistenceId: "cart",
		}},
	}
	c, err := discovery.NewCatalog(spec, discovery.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestHashOfAService: it is stable over releases, knows nothing of comments and order, and of every
// change that matters.
func TestHashOfAService(t *testing.T) {
	hash := func(replaced ...string) uint64 { return shopCatalog(t, replaced...).Offers()[0].Hash }
	const golden = 0x8b923aa029fa2697
	before := hash()
	if before != golden {
		t.Errorf("hash %#x, want %#x: workers of two releases would take each other for different", before, uint64(golden))
	}
	for name, same := range map[string][]string{
		"comments":           {"message Item", "// What is in it.\nmessage Item"},
		"order of messages":  {"enum State { NEW = 0; PAID = 1; }\n", "", "message Add", "enum State { NEW = 0; PAID = 1; }\nmessage Add"},
		"order of fields":    {"string name = 1; int32 quantity = 2;", "int32 quantity = 2; string name = 1;"},
		"messages elsewhere": {"service CartService", "message Other { int32 x = 1; }\nservice CartService"},
	} {
		if got := hash(same...); got != before {
			t.Errorf("%s: hash %#x, before %#x", name, got, before)
		}
	}
	for name, other := range map[string][]string{
		"method":     {"returns (Cart); }", "returns (Cart); rpc Get(Add) returns (Cart); }"},
		"field":      {"int32 quantity = 2;", "int32 quantity = 2; string note = 4;"},
		"type":       {"int32 quantity", "int64 quantity"},
		"number":     {"quantity = 2", "quantity = 9"},
		"enum value": {"PAID = 1;", "PAID = 1; SENT = 2;"},
	} {
		if hash(other...) == before {
			t.Errorf("%s: the hash does not change", name)
		}
	}
}

// TestConflict: what a rolling upgrade may change, and what it may not.
func TestConflict(t *testing.T) {
	for name, c := range map[string]struct {
		replaced []string
		want     string
	}{
		"nothing":        {nil, ""},
		"method added":   {[]string{"returns (Cart); }", "returns (Cart); rpc Get(Add) returns (Cart); }"}, ""},
		"field added":    {[]string{"int32 quantity = 2;", "int32 quantity = 2; string note = 4;"}, ""},
		"field removed":  {[]string{"int32 quantity = 2;", ""}, ""},
		"field renamed":  {[]string{"quantity", "number"}, ""},
		"value added":    {[]string{"PAID = 1;", "PAID = 1; SENT = 2;"}, ""},
		"type changed":   {[]string{"int32 quantity", "string quantity"}, "field 2 of message shop.v1.Item: quantity (optional int32) here, quantity (optional string) there"},
		"number changed": {[]string{"quantity = 2", "quantity = 9"}, "field quantity of message shop.v1.Item: number 2 here, 9 there"},
		"list":           {[]string{"int32 quantity", "repeated int32 quantity"}, "field 2 of message shop.v1.Item"},
		"value changed":  {[]string{"PAID = 1", "PAID = 7"}, "value PAID of enum shop.v1.State: number 1 here, 7 there"},
		"other answer":   {[]string{"returns (Cart)", "returns (Item)"}, "method /shop.v1.CartService/AddItem: (shop.v1.Add) returns (shop.v1.Cart) here, (shop.v1.Add) returns (shop.v1.Item) there"},
	} {
		own, other := shopCatalog(t), shopCatalog(t, c.replaced...)
		err := discovery.Conflict(own, other)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if mirrored := discovery.Conflict(other, own); (mirrored == nil) != (err == nil) {
			t.Errorf("%s: %v, and the other way round %v", name, err, mirrored)
		}
	}
}

func TestBelong(t *testing.T) {
	cart := discovery.Offer{Name: "shop.v1.Cart", Type: "cart", Kind: entities.EventSourced}
	order := discovery.Offer{Name: "shop.v1.Order", Type: "order", Kind: entities.Value}
	counter := discovery.Offer{Name: "counter.v1.Counter", Type: "counter", Kind: entities.Value}
	health, price := discovery.Offer{Name: "health.v1.Health", Kind: entities.Action}, discovery.Offer{Name: "shop.v1.Price", Kind: entities.Action}
	with := func(o discovery.Offer, change func(*discovery.Offer)) discovery.Offer {
		change(&o)
		return o
	}
	type list = []discovery.Offer
	for name, c := range map[string]struct {
		own, others list
		want        string
	}{
		"the same":                  {list{cart}, list{cart}, ""},
		"another version":           {list{cart}, list{with(cart, func(o *discovery.Offer) { o.Hash++ })}, ""},
		"a type added":              {list{cart, order}, list{cart}, ""},
		"a type removed":            {list{cart}, list{cart, order}, ""},
		"another service":           {list{counter}, list{cart}, "no entity type is served by both"},
		"another, a common action":  {list{counter, health}, list{cart, health}, "no entity type is served by both"},
		"actions only":              {list{price}, list{cart, price}, ""},
		"other actions":             {list{price}, list{health}, "no service is served by both"},
		"another kind":              {list{with(cart, func(o *discovery.Offer) { o.Kind = entities.Value })}, list{cart}, "shop.v1.Cart (value cart) is shop.v1.Cart (event sourced cart) there"},
		"another type":              {list{with(cart, func(o *discovery.Offer) { o.Type = "basket" })}, list{cart}, "shop.v1.Cart (event sourced basket) is shop.v1.Cart (event sourced cart) there"},
		"the type of another":       {list{order, with(cart, func(o *discovery.Offer) { o.Name = "shop.v2.Cart" })}, list{cart, order}, "entities of type cart are those of shop.v2.Cart here and of shop.v1.Cart there"},
		"nothing is known of it":    {list{cart}, nil, ""},
		"swapped with one in both":  {list{order, counter}, list{cart, order}, ""},
		"nothing in common of many": {list{order, counter}, list{cart}, "no entity type is served by both"},
	} {
		err := discovery.Belong(c.own, c.others)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if mirrored := discovery.Belong(c.others, c.own); (mirrored == nil) != (err == nil) {
			t.Errorf("%s: %v, and the other way round %v", name, err, mirrored)
		}
	}
}

func TestOffersAreBounded(t *testing.T) {
	var offers []discovery.Offer
	for i := range 100 {
		offers = append(offers,
			discovery.Offer{Name: fmt.Sprintf("shop.v1.Service%d", i), Kind: entities.Action, Hash: uint64(i)})
		encoded := discovery.EncodeOffers(offers)
		got, err := discovery.DecodeOffers(encoded)
		if err != nil || len(encoded) > discovery.MaxOffers || got != nil && !reflect.DeepEqual(got, offers) {
			t.Fatalf("%d offers: %d bytes, read as %v, %v", len(offers), len(encoded), got, err)
		}
		if i == 4 && got == nil || i == 99 && got != nil {
			t.Errorf("%d offers: the list is there: %t", len(offers), got != nil)
		}
		changed := append([]discovery.Offer{}, offers...)
		changed[i].Hash++
		if discovery.EncodeOffers(changed) == encoded {
			t.Errorf("%d offers: another hash is not seen", len(offers))
		}
	}
}

func FuzzOffers(f *testing.F) {
	f.Add([]byte(discovery.EncodeOffers([]discovery.Offer{{Name: "a.B", Type: "b", Kind: entities.Value, Hash: 7}, {Name: "a.C", Kind: entities.Action}})))
	f.Fuzz(func(t *testing.T, b []byte) {
		offers, err := discovery.DecodeOffers(string(b))
		if err != nil || len(b) > discovery.MaxOffers {
			return
		}
		again, err := discovery.DecodeOffers(discovery.EncodeOffers(offers))
		if err != nil || again != nil && !reflect.DeepEqual(again, offers) {
			t.Errorf("%v is read again as %v, %v", offers, again, err)
		}
	})
}
