package e2e_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that avro uses under another name
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/millrace-io/millrace/examples/counter/counter"
	"github.com/millrace-io/millrace/examples/shoppingcart/cart"
	shopv1 "github.com/millrace-io/millrace/examples/shoppingcart/shop/v1"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

// startShop runs millrace in this process before the example services, and returns the address of
// its public port.
func startShop(t *testing.T) string {
	t.Helper()
	f := harness.ServeFunction(t, func(s *grpc.Server) { registerSDK(t, s, counter.Service, cart.Service) })
	n := harness.StartNode(t, map[string]string{"function": f.Address()})
	harness.AwaitReady(t, n)
	return n.Status(t.Context()).GetPublicAddress()
}

// Sizes around the defaults: an entity id of 1 KiB, a request of 4 MiB, 900 KiB stored by one
// command.
var (
	longKey    = strings.Repeat("k", 1<<10+1)
	longName   = strings.Repeat("n", 5<<20)
	unstorable = strings.Repeat("n", 901<<10)
	badUTF8    = string([]byte{'4', 0xff, '2'})
)

// TestMistakeInHTTPRequestIsNamed sends what no service can take over plain HTTP.
func TestMistakeInHTTPRequestIsNamed(t *testing.T) {
	address := startShop(t)
	account := newAccount(kit.Dial(t, address))
	const json = "application/json"
	for _, tc := range []struct {
		name, method, path, contentType, body string
		status                                int
		words                                 []string
	}{
		{"unknown path", "POST", "/no/such/thing", json, "{}", 404, []string{"POST /no/such/thing", "google.api.http"}},
		{"unknown service", "POST", "/shop.v1.NoService/AddItem", json, "{}", 404, []string{"/shop.v1.NoService/AddItem"}},
		{"unknown method", "POST", "/shop.v1.CartService/Drop", json, "{}", 404, []string{"/shop.v1.CartService/Drop"}},
		{"wrong HTTP method", "PUT", "/v1/carts/42", json, "", 405, []string{"PUT /v1/carts/42", "use"}},
		{"broken JSON", "POST", "/v1/carts/42/items", json, `{"itemId":`, 400, []string{"/v1/carts/42/items", "JSON"}},
		{"JSON of another shape", "POST", "/v1/carts/42/items", json, `[1]`, 400, []string{"JSON", "line 1:1"}},
		{"unknown JSON field", "POST", "/v1/carts/42/items", json, `{"item":"a"}`, 400, []string{`unknown field \"item\"`, "line 1:2"}},
		{"wrong JSON value", "POST", "/v1/carts/42/items", json, `{"itemId":"a","quantity":"many"}`, 400, []string{"quantity", `\"many\"`}},
		{"missing JSON field", "POST", "/v1/carts/42/items", json, `{"itemId":"a"}`, 400, []string{"quantity"}},
		{"missing entity key", "POST", "/shop.v1.CartService/GetCart", json, "{}", 400, []string{"entity key cart_id", "empty"}},
		{"missing entity key in the path", "POST", "/v1/carts//items", json, `{"itemId":"a","quantity":1}`, 404, []string{"POST /v1/carts//items"}},
		{"key too large", "GET", "/v1/carts/" + longKey, json, "", 413, []string{"cart_id", "1025", "1024"}},
		{"request too large", "POST", "/v1/carts/42/items", json, `{"itemId":"a","quantity":1,"name":"` + longName + `"}`, 413, []string{"4194304"}},
		{"stored too large", "POST", "/v1/carts/42/items", json, `{"itemId":"a","quantity":1,"name":"` + unstorable + `"}`, 413, []string{"cart/42", "921600", "nothing was applied"}},
		{"invalid UTF-8 in JSON", "POST", "/shop.v1.CartService/GetCart", json, `{"cartId":"` + badUTF8 + `"}`, 400, []string{"UTF-8"}},
		{"invalid UTF-8 in the path", "GET", "/v1/carts/4%ff2", json, "", 400, []string{"UTF-8"}},
		{"wrong content type", "POST", "/v1/carts/42/items", "text/plain", "{}", 415, []string{"text/plain", json}},
		{"wrong content type of a call", "POST", "/shop.v1.CartService/GetCart", "application/xml", "<a/>", 415, []string{"application/xml", json}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := request(t, tc.method, "http://"+address+tc.path, tc.contentType, tc.body)
			if got.status != tc.status {
				t.Errorf("status %d, want %d: %.300s", got.status, tc.status, got.body)
			}
			contains(t, got.body, tc.words...)
			account.add(t)
		})
	}
}

// TestMistakeInGRPCCallIsNamed sends what no service can take over gRPC.
func TestMistakeInGRPCCallIsNamed(t *testing.T) {
	address := startShop(t)
	conn := kit.Dial(t, address)
	account := newAccount(conn)
	for _, tc := range []struct {
		name, method string
		request      proto.Message
		code         codes.Code
		words        []string
	}{
		{"unknown service", "/shop.v1.NoService/AddItem", &shopv1.GetCartRequest{CartId: "42"}, codes.Unimplemented, []string{"shop.v1.NoService"}},
		{"unknown method", "/shop.v1.CartService/Drop", &shopv1.GetCartRequest{CartId: "42"}, codes.Unimplemented, []string{"Drop"}},
		{"missing entity key", shopv1.CartService_GetCart_FullMethodName, &shopv1.GetCartRequest{}, codes.InvalidArgument, []string{"entity key cart_id", "empty"}},
		{"key too large", shopv1.CartService_GetCart_FullMethodName, &shopv1.GetCartRequest{CartId: longKey}, codes.ResourceExhausted, []string{"cart_id", "1025", "1024"}},
		{"request too large", shopv1.CartService_AddItem_FullMethodName, item("42", longName), codes.ResourceExhausted, []string{"4194304"}},
		{"stored too large", shopv1.CartService_AddItem_FullMethodName, item("42", unstorable), codes.ResourceExhausted, []string{"cart/42", "921600", "nothing was applied"}},
		{"no protobuf", shopv1.CartService_GetCart_FullMethodName, raw([]byte{0xff, 0xff, 0xff}), codes.InvalidArgument, []string{"shop.v1.GetCartRequest"}},
		{
			"field of another type", shopv1.CartService_GetCart_FullMethodName,
			raw(protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 42)),
			codes.InvalidArgument,
			[]string{"cart_id"},
		},
		{
			"invalid UTF-8", shopv1.CartService_GetCart_FullMethodName,
			raw(protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), badUTF8)),
			codes.InvalidArgument,
			[]string{"UTF-8"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			says(t, conn.Invoke(t.Context(), tc.method, tc.request, &emptypb.Empty{}), tc.code, tc.words...)
			account.add(t)
		})
	}
}

// TestWrongContentTypeOfGRPCIsNamed calls with an encoding that gRPC allows and millrace does not
// have.
func TestWrongContentTypeOfGRPCIsNamed(t *testing.T) {
	conn := kit.Dial(t, startShop(t))
	err := conn.Invoke(t.Context(), shopv1.CartService_GetCart_FullMethodName, &shopv1.GetCartRequest{CartId: "42"},
		&shopv1.Cart{},
		grpc.ForceCodecV2(avro{encoding.GetCodecV2("proto")}))
	says(t, err, codes.InvalidArgument, "application/grpc+avro", "application/grpc+proto")
	newAccount(conn).add(t)
}

// avro is a codec that calls itself so.
type avro struct{ encoding.CodecV2 }

func (avro) Name() string { return "avro" }

// TestCallThatEndsEarlyAppliesNothing gives up before anything was sent, and while the deadline is
// past.
func TestCallThatEndsEarlyAppliesNothing(t *testing.T) {
	conn := kit.Dial(t, startShop(t))
	account := newAccount(conn)
	account.add(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := account.carts.Checkout(ctx, &shopv1.CheckoutRequest{CartId: "account"})
	says(t, err, codes.Canceled)
	account.add(t)
}

func item(cartID, name string) *shopv1.AddItemRequest {
	return &shopv1.AddItemRequest{CartId: cartID, ItemId: "i", Name: name, Quantity: 1}
}

// raw is a message that is encoded as the given bytes.
func raw(encoded []byte) proto.Message {
	m := &emptypb.Empty{}
	m.ProtoReflect().SetUnknown(encoded)
	return m
}
