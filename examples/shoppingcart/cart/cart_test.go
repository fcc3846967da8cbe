package cart_test

import (
	"fmt"
	"math"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/examples/shoppingcart/cart"
	shopv1 "github.com/millrace-io/millrace/examples/shoppingcart/shop/v1"
	"github.com/millrace-io/millrace/sdk/sdktest"
)

const (
	addItem    = shopv1.CartService_AddItem_FullMethodName
	removeItem = shopv1.CartService_RemoveItem_FullMethodName
	getCart    = shopv1.CartService_GetCart_FullMethodName
	checkout   = shopv1.CartService_Checkout_FullMethodName
)

func item(id, name string, quantity int32) *shopv1.Item {
	return &shopv1.Item{ItemId: id, Name: name, Quantity: quantity}
}

func added(id, name string, quantity int32) *shopv1.ItemAdded {
	return &shopv1.ItemAdded{Item: item(id, name, quantity)}
}

func content(items ...*shopv1.Item) *shopv1.Cart { return &shopv1.Cart{CartId: "42", Items: items} }

func TestAddItemPutsItIn(t *testing.T) {
	sdktest.New(t, cart.Service, "42").
		When(addItem, &shopv1.AddItemRequest{CartId: "42", ItemId: "apple", Name: "Apple", Quantity: 2}).
		ThenEvents(added("apple", "Apple", 2)).
		ThenReply(content(item("apple", "Apple", 2)))
}

func TestAddItemAgainAddsToItsQuantity(t *testing.T) {
	sdktest.New(t, cart.Service, "42").
		Given(added("apple", "Apple", 2)).
		When(addItem, &shopv1.AddItemRequest{CartId: "42", ItemId: "apple", Name: "Apple", Quantity: 3}).
		ThenEvents(added("apple", "Apple", 3)).
		ThenReply(content(item("apple", "Apple", 5)))
}

func TestAddItemNeedsAnItemAndASensibleQuantity(t *testing.T) {
	s := sdktest.New(t, cart.Service, "42").Given(added("apple", "Apple", math.MaxInt32))
	s.When(addItem, &shopv1.AddItemRequest{CartId: "42", ItemId: "apple"}).
		ThenRefused(codes.InvalidArgument, "quantity of apple is 0: it must be at least 1")
	s.When(addItem, &shopv1.AddItemRequest{CartId: "42", ItemId: "apple", Quantity: -1}).
		ThenRefused(codes.InvalidArgument, "at least 1")
	s.When(addItem, &shopv1.AddItemRequest{CartId: "42", ItemId: "apple", Quantity: 1}).
		ThenRefused(codes.InvalidArgument, "would grow beyond")
	s.When(addItem, &shopv1.AddItemRequest{CartId: "42", Quantity: 1}).
		ThenRefused(codes.InvalidArgument, "item_id is missing")
	s.When(getCart, &shopv1.GetCartRequest{CartId: "42"}).
		ThenReply(content(item("apple", "Apple", math.MaxInt32)))
}

func TestRemoveItem(t *testing.T) {
	s := sdktest.New(t, cart.Service, "42").Given(added("apple", "Apple", 2), added("bread", "Bread", 1))
	s.When(removeItem, &shopv1.RemoveItemRequest{CartId: "42", ItemId: "apple"}).
		ThenEvents(&shopv1.ItemRemoved{ItemId: "apple"}).
		ThenReply(content(item("bread", "Bread", 1)))
	s.When(removeItem, &shopv1.RemoveItemRequest{CartId: "42", ItemId: "apple"}).
		ThenRefused(codes.NotFound, `item "apple" is not in cart 42`).
		ThenEvents()
}

func TestGetCartShowsItemsInTheOrderOfTheirIds(t *testing.T) {
	s := sdktest.New(t, cart.Service, "42")
	s.When(getCart, &shopv1.GetCartRequest{CartId: "42"}).ThenEvents().ThenReply(content())
	s.Given(added("c", "C", 1), added("a", "A", 1), added("b", "B", 1)).
		When(getCart, &shopv1.GetCartRequest{CartId: "42"}).
		ThenReply(content(item("a", "A", 1), item("b", "B", 1), item("c", "C", 1)))
}

func TestACheckedOutCartDoesNotChange(t *testing.T) {
	s := sdktest.New(t, cart.Service, "42").Given(added("apple", "Apple", 2))
	closed := &shopv1.Cart{CartId: "42", Items: []*shopv1.Item{item("apple", "Apple", 2)}, CheckedOut: true}
	s.When(checkout, &shopv1.CheckoutRequest{CartId: "42"}).ThenEvents(&shopv1.CheckedOut{}).ThenReply(closed)

	for method, in := range map[string]proto.Message{
		addItem:    &shopv1.AddItemRequest{CartId: "42", ItemId: "bread", Quantity: 1},
		removeItem: &shopv1.RemoveItemRequest{CartId: "42", ItemId: "apple"},
		checkout:   &shopv1.CheckoutRequest{CartId: "42"},
	} {
		s.When(method, in).ThenRefused(codes.FailedPrecondition, "cart 42 is checked out").ThenEvents()
	}
	s.When(getCart, &shopv1.GetCartRequest{CartId: "42"}).ThenReply(closed)
	s.ThenState(&shopv1.CartSnapshot{Items: closed.GetItems(), CheckedOut: true})
}

// A long history crosses two snapshots; the test kit compares the image with its snapshots after
// each step.
func TestALongHistory(t *testing.T) {
	s := sdktest.New(t, cart.Service, "42")
	for i := range 205 {
		id := fmt.Sprintf("item-%d", i%7)
		s.When(addItem, &shopv1.AddItemRequest{CartId: "42", ItemId: id, Quantity: 1})
		if i%11 == 0 {
			s.When(removeItem, &shopv1.RemoveItemRequest{CartId: "42", ItemId: id})
		}
	}
}
