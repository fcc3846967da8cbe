// Package cart is a shopping cart: an event-sourced entity. The events of a cart are stored; its
// content is computed from them.
package cart

import (
	"maps"
	"math"
	"slices"

	"google.golang.org/grpc/codes"

	shopv1 "github.com/millrace-io/millrace/examples/shoppingcart/shop/v1"
	"github.com/millrace-io/millrace/sdk"
)

// Service is the cart service, ready to be run.
var Service = sdk.EventSourced("cart", newCart,
	sdk.Handle(shopv1.CartService_AddItem_FullMethodName, (*Cart).AddItem),
	sdk.Handle(shopv1.CartService_RemoveItem_FullMethodName, (*Cart).RemoveItem),
	sdk.Handle(shopv1.CartService_GetCart_FullMethodName, (*Cart).GetCart),
	sdk.Handle(shopv1.CartService_Checkout_FullMethodName, (*Cart).Checkout),
	sdk.On((*Cart).itemAdded),
	sdk.On((*Cart).itemRemoved),
	sdk.On((*Cart).checkedOut),
	sdk.SnapshotEvery(100, (*Cart).snapshot, (*Cart).restore),
)

// Cart is the memory image of one shopping cart.
type Cart struct {
	id    string
	items map[string]*shopv1.Item
	done  bool
}

func newCart(id string) *Cart { return &Cart{id: id, items: map[string]*shopv1.Item{}} }

// AddItem puts an item into the cart, or more of one that is there.
func (c *Cart) AddItem(cmd *sdk.Command, in *shopv1.AddItemRequest) (*shopv1.Cart, error) {
	switch {
	case c.done:
		return nil, c.refuseDone()
	case in.GetItemId() == "":
		return nil, sdk.Refuse(codes.InvalidArgument, "item_id is missing: set it to the item to add")
	case in.GetQuantity() <= 0:
		return nil, sdk.Refuse(codes.InvalidArgument, "quantity of %s is %d: it must be at least 1", in.GetItemId(),
			in.GetQuantity())
	case c.items[in.GetItemId()].GetQuantity()+in.GetQuantity() < 0:
		return nil, sdk.Refuse(codes.InvalidArgument, "quantity of %s would grow beyond %d", in.GetItemId(), math.MaxInt32)
	}
	cmd.Emit(&shopv1.ItemAdded{Item: &shopv1.Item{ItemId: in.GetItemId(), Name: in.GetName(), Quantity: in.GetQuantity()}})
	return c.view(), nil // Emit has applied the event
}

// RemoveItem takes an item out of the cart, whatever its quantity.
func (c *Cart) RemoveItem(cmd *sdk.Command, in *shopv1.RemoveItemRequest) (*shopv1.Cart, error) {
	if c.done {
		return nil, c.refuseDone()
	}
	if _, ok := c.items[in.GetItemId()]; !ok {
		return nil, sdk.Refuse(codes.NotFound, "item %q is not in cart %s", in.GetItemId(), c.id)
	}
	cmd.Emit(&shopv1.ItemRemoved{ItemId: in.GetItemId()})
	return c.view(), nil
}

// GetCart shows the cart.
func (c *Cart) GetCart(*sdk.Command, *shopv1.GetCartRequest) (*shopv1.Cart, error) {
	return c.view(), nil
}

// Checkout closes the cart for good.
func (c *Cart) Checkout(cmd *sdk.Command, _ *shopv1.CheckoutRequest) (*shopv1.Cart, error) {
	if c.done {
		return nil, c.refuseDone()
	}
	cmd.Emit(&shopv1.CheckedOut{})
	return c.view(), nil
}

func (c *Cart) refuseDone() error {
	return sdk.Refuse(codes.FailedPrecondition, "cart %s is checked out: it cannot change any more", c.id)
}

func (c *Cart) itemAdded(e *shopv1.ItemAdded) {
	added := e.GetItem()
	c.items[added.GetItemId()] = &shopv1.Item{
		ItemId:   added.GetItemId(),
		Name:     added.GetName(),
		Quantity: c.items[added.GetItemId()].GetQuantity() + added.GetQuantity(),
	}
}

func (c *Cart) itemRemoved(e *shopv1.ItemRemoved) { delete(c.items, e.GetItemId()) }

func (c *Cart) checkedOut(*shopv1.CheckedOut) { c.done = true }

func (c *Cart) snapshot() *shopv1.CartSnapshot {
	return &shopv1.CartSnapshot{Items: c.sorted(), CheckedOut: c.done}
}

func (c *Cart) restore(s *shopv1.CartSnapshot) {
	for _, item := range s.GetItems() {
		c.items[item.GetItemId()] = item
	}
	c.done = s.GetCheckedOut()
}

func (c *Cart) view() *shopv1.Cart {
	return &shopv1.Cart{CartId: c.id, Items: c.sorted(), CheckedOut: c.done}
}

// sorted returns the items in the order of their ids.
func (c *Cart) sorted() []*shopv1.Item {
	items := make([]*shopv1.Item, 0, len(c.items))
	for _, id := range slices.Sorted(maps.Keys(c.items)) {
		items = append(items, c.items[id])
	}
	return items
}
