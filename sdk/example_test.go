package sdk_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	pricingv1 "github.com/millrace-io/millrace/examples/pricing/pricing/v1"
	shopv1 "github.com/millrace-io/millrace/examples/shoppingcart/shop/v1"
	"github.com/millrace-io/millrace/sdk"
)

// A counter: the smallest service with a state.
func ExampleValue() {
	service := sdk.Value("counter",
		sdk.HandleValue(counterv1.CounterService_Increment_FullMethodName,
			func(cmd *sdk.ValueCommand[*counterv1.State], in *counterv1.IncrementRequest) (*counterv1.Counter, error) {
				next := &counterv1.State{Value: cmd.State().GetValue() + in.GetBy()}
				cmd.Update(next)
				return &counterv1.Counter{Value: next.GetValue()}, nil
			}),
		sdk.HandleValue(counterv1.CounterService_Get_FullMethodName,
			func(cmd *sdk.ValueCommand[*counterv1.State], _ *counterv1.GetRequest) (*counterv1.Counter, error) {
				return &counterv1.Counter{Value: cmd.State().GetValue()}, nil
			}),
	)
	hits := entity(service, "hits")
	command(hits, "Increment", &counterv1.IncrementRequest{CounterId: "hits", By: 2})
	command(hits, "Increment", &counterv1.IncrementRequest{CounterId: "hits", By: 3})
	command(hits, "Get", &counterv1.GetRequest{CounterId: "hits"})
	// Output:
	// Increment: stores State{"value":"2"}, replies Counter{"value":"2"}
	// Increment: stores State{"value":"5"}, replies Counter{"value":"5"}
	// Get: replies Counter{"value":"5"}
}

// basket is the state of the examples of event-sourced services: which items are in.
type basket struct {
	id    string
	items []*shopv1.Item
	done  bool
}

func newBasket(id string) *basket { return &basket{id: id} }

func (b *basket) add(cmd *sdk.Command, in *shopv1.AddItemRequest) (*shopv1.Cart, error) {
	if b.done {
		return nil, sdk.Refuse(codes.FailedPrecondition, "cart %s is checked out", b.id)
	}
	cmd.Emit(&shopv1.ItemAdded{Item: &shopv1.Item{ItemId: in.GetItemId(), Quantity: in.GetQuantity()}})
	return b.view(), nil // the event is applied already
}

// remove leaves the answer to another method.
func (b *basket) remove(cmd *sdk.Command, in *shopv1.RemoveItemRequest) (*shopv1.Cart, error) {
	cmd.Emit(&shopv1.ItemRemoved{ItemId: in.GetItemId()})
	return sdk.Forward[*shopv1.Cart](shopv1.CartService_GetCart_FullMethodName, &shopv1.GetCartRequest{CartId: b.id})
}

func (b *basket) get(*sdk.Command, *shopv1.GetCartRequest) (*shopv1.Cart, error) {
	return b.view(), nil
}

// checkout counts the carts that were checked out; the caller waits until they are counted.
func (b *basket) checkout(cmd *sdk.Command, _ *shopv1.CheckoutRequest) (*shopv1.Cart, error) {
	cmd.Emit(&shopv1.CheckedOut{})
	cmd.Effect(counterv1.CounterService_Increment_FullMethodName, &counterv1.IncrementRequest{CounterId: "checkouts"},
		sdk.Synchronous())
	return b.view(), nil
}

func (b *basket) itemAdded(e *shopv1.ItemAdded) { b.items = append(b.items, e.GetItem()) }

func (b *basket) itemRemoved(e *shopv1.ItemRemoved) {
	kept := b.items[:0]
	for _, item := range b.items {
		if item.GetItemId() != e.GetItemId() {
			kept = append(kept, item)
		}
	}
	b.items = kept
}

func (b *basket) checkedOut(*shopv1.CheckedOut) { b.done = true }

func (b *basket) view() *shopv1.Cart {
	return &shopv1.Cart{CartId: b.id, Items: b.items, CheckedOut: b.done}
}

func (b *basket) snapshot() *shopv1.CartSnapshot {
	return &shopv1.CartSnapshot{Items: b.items, CheckedOut: b.done}
}

func (b *basket) restore(s *shopv1.CartSnapshot) { b.items, b.done = s.GetItems(), s.GetCheckedOut() }

func basketOptions() []sdk.Option[basket] {
	return []sdk.Option[basket]{
		sdk.Handle(shopv1.CartService_AddItem_FullMethodName, (*basket).add),
		sdk.Handle(shopv1.CartService_RemoveItem_FullMethodName, (*basket).remove),
		sdk.Handle(shopv1.CartService_GetCart_FullMethodName, (*basket).get),
		sdk.Handle(shopv1.CartService_Checkout_FullMethodName, (*basket).checkout),
		sdk.On((*basket).itemAdded),
		sdk.On((*basket).itemRemoved),
		sdk.On((*basket).checkedOut),
	}
}

// Handlers decide and emit; events change the state.
func ExampleEventSourced() {
	service := sdk.EventSourced("cart", newBasket,
		sdk.Handle(shopv1.CartService_AddItem_FullMethodName, (*basket).add),
		sdk.Handle(shopv1.CartService_RemoveItem_FullMethodName, (*basket).remove),
		sdk.Handle(shopv1.CartService_GetCart_FullMethodName, (*basket).get),
		sdk.Handle(shopv1.CartService_Checkout_FullMethodName, (*basket).checkout),
		sdk.On((*basket).itemAdded),
		sdk.On((*basket).itemRemoved),
		sdk.On((*basket).checkedOut),
	)
	command(entity(service, "42"), "AddItem", &shopv1.AddItemRequest{CartId: "42", ItemId: "apple", Quantity: 2})
	// Output:
	// AddItem: stores ItemAdded{"item":{"itemId":"apple","quantity":2}}, replies Cart{"cartId":"42","items":[{"itemId":"apple","quantity":2}]}
}

// A snapshot is stored with the events that make it due.
func ExampleSnapshotEvery() {
	service := sdk.EventSourced("cart", newBasket,
		append(basketOptions(), sdk.SnapshotEvery(2, (*basket).snapshot, (*basket).restore))...)
	cart := entity(service, "42")
	command(cart, "AddItem", &shopv1.AddItemRequest{ItemId: "apple"})
	command(cart, "AddItem", &shopv1.AddItemRequest{ItemId: "bread"})
	// Output:
	// AddItem: stores ItemAdded{"item":{"itemId":"apple"}}, replies Cart{"cartId":"42","items":[{"itemId":"apple"}]}
	// AddItem: stores ItemAdded{"item":{"itemId":"bread"}}, snapshot CartSnapshot{"items":[{"itemId":"apple"},{"itemId":"bread"}]}, replies Cart{"cartId":"42","items":[{"itemId":"apple"},{"itemId":"bread"}]}
}

// An effect is sent when the command is durable.
func ExampleSynchronous() {
	cart := entity(sdk.EventSourced("cart", newBasket, basketOptions()...), "42")
	command(cart, "Checkout", &shopv1.CheckoutRequest{CartId: "42"})
	// Output:
	// Checkout: stores CheckedOut{}, replies Cart{"cartId":"42","checkedOut":true}, then sends Increment IncrementRequest{"counterId":"checkouts"} and waits
}

// A refusal writes nothing.
func ExampleRefuse() {
	cart := entity(sdk.EventSourced("cart", newBasket, basketOptions()...), "42")
	command(cart, "Checkout", &shopv1.CheckoutRequest{CartId: "42"})
	command(cart, "AddItem", &shopv1.AddItemRequest{CartId: "42", ItemId: "apple", Quantity: 2})
	// Output:
	// Checkout: stores CheckedOut{}, replies Cart{"cartId":"42","checkedOut":true}, then sends Increment IncrementRequest{"counterId":"checkouts"} and waits
	// AddItem: refused with FailedPrecondition: cart 42 is checked out
}

// The answer of another method is the answer.
func ExampleForward() {
	cart := entity(sdk.EventSourced("cart", newBasket, basketOptions()...), "42")
	command(cart, "RemoveItem", &shopv1.RemoveItemRequest{CartId: "42", ItemId: "apple"})
	// Output:
	// RemoveItem: stores ItemRemoved{"itemId":"apple"}, forwards to GetCart GetCartRequest{"cartId":"42"}
}

// holdItems is the part of a basket that gives back items that are not bought within a day.
func holdItems() []sdk.Option[basket] {
	name := func(itemID string) string { return "hold/" + itemID }
	return []sdk.Option[basket]{
		sdk.Handle(shopv1.CartService_AddItem_FullMethodName,
			func(b *basket, cmd *sdk.Command, in *shopv1.AddItemRequest) (*shopv1.Cart, error) {
				cmd.After(24*time.Hour, name(in.GetItemId()), shopv1.CartService_RemoveItem_FullMethodName,
					&shopv1.RemoveItemRequest{CartId: cmd.EntityID(), ItemId: in.GetItemId()})
				return b.add(cmd, in)
			}),
		sdk.Handle(shopv1.CartService_RemoveItem_FullMethodName, (*basket).remove),
		sdk.Handle(shopv1.CartService_Checkout_FullMethodName,
			func(b *basket, cmd *sdk.Command, in *shopv1.CheckoutRequest) (*shopv1.Cart, error) {
				for _, item := range b.items {
					cmd.Cancel(name(item.GetItemId()))
				}
				return b.checkout(cmd, in)
			}),
		sdk.Handle(shopv1.CartService_GetCart_FullMethodName, (*basket).get),
		sdk.On((*basket).itemAdded),
		sdk.On((*basket).itemRemoved),
		sdk.On((*basket).checkedOut),
	}
}

// An item that is not bought within a day is given back: the timer sends the cart the same command
// as a customer would. Adding it again sets the timer anew, and a checkout takes it away.
func ExampleCommand_After() {
	cart := entity(sdk.EventSourced("cart", newBasket, holdItems()...), "42")
	command(cart, "AddItem", &shopv1.AddItemRequest{CartId: "42", ItemId: "apple", Quantity: 2})
	command(cart, "Checkout", &shopv1.CheckoutRequest{CartId: "42"})
	// Output:
	// AddItem: stores ItemAdded{"item":{"itemId":"apple","quantity":2}}, replies Cart{"cartId":"42","items":[{"itemId":"apple","quantity":2}]}, timer hold/apple after 24h0m0s: RemoveItem RemoveItemRequest{"cartId":"42","itemId":"apple"}
	// Checkout: stores CheckedOut{}, replies Cart{"cartId":"42","items":[{"itemId":"apple","quantity":2}],"checkedOut":true}, then sends Increment IncrementRequest{"counterId":"checkouts"} and waits, cancels timer hold/apple
}

// A counter that goes up by one every morning at six, UTC, after its first increment.
func ExampleValueCommand_Every() {
	service := sdk.Value("counter",
		sdk.HandleValue(counterv1.CounterService_Increment_FullMethodName,
			func(cmd *sdk.ValueCommand[*counterv1.State], in *counterv1.IncrementRequest) (*counterv1.Counter, error) {
				if cmd.State() == nil {
					cmd.Every("0 6 * * *", "morning", counterv1.CounterService_Increment_FullMethodName,
						&counterv1.IncrementRequest{CounterId: cmd.EntityID(), By: 1})
				}
				next := &counterv1.State{Value: cmd.State().GetValue() + in.GetBy()}
				cmd.Update(next)
				return &counterv1.Counter{Value: next.GetValue()}, nil
			}),
		sdk.HandleValue(counterv1.CounterService_Get_FullMethodName,
			func(cmd *sdk.ValueCommand[*counterv1.State], _ *counterv1.GetRequest) (*counterv1.Counter, error) {
				return &counterv1.Counter{Value: cmd.State().GetValue()}, nil
			}),
	)
	hits := entity(service, "hits")
	command(hits, "Increment", &counterv1.IncrementRequest{CounterId: "hits", By: 5})
	command(hits, "Increment", &counterv1.IncrementRequest{CounterId: "hits", By: 1})
	// Output:
	// Increment: stores State{"value":"5"}, replies Counter{"value":"5"}, timer morning every "0 6 * * *": Increment IncrementRequest{"counterId":"hits","by":"1"}
	// Increment: stores State{"value":"6"}, replies Counter{"value":"6"}
}

// An action takes calls in all four shapes of gRPC.
func ExampleAction() {
	service := sdk.Action(
		sdk.Unary(pricingv1.PricingService_Quote_FullMethodName,
			func(_ *sdk.ActionCommand, in *pricingv1.QuoteRequest) (*pricingv1.QuoteResponse, error) {
				return &pricingv1.QuoteResponse{Price: &pricingv1.Price{Cents: 40 * int64(in.GetQuantity())}}, nil
			}),
		sdk.ServerStream(pricingv1.PricingService_QuoteTiers_FullMethodName,
			func(_ *sdk.StreamCommand, _ *pricingv1.QuoteTiersRequest, send func(*pricingv1.QuoteTiersResponse) error) error {
				for _, quantity := range []int64{1, 10} {
					if err := send(&pricingv1.QuoteTiersResponse{Price: &pricingv1.Price{Cents: 40 * quantity}}); err != nil {
						return err
					}
				}
				return nil
			}),
		sdk.ClientStream(pricingv1.PricingService_Sum_FullMethodName,
			func(_ *sdk.ActionCommand, requests iter.Seq2[*pricingv1.SumRequest, error]) (*pricingv1.SumResponse, error) {
				total := &pricingv1.SumResponse{}
				for in, err := range requests {
					if err != nil {
						return nil, err
					}
					total.Cents += 40 * int64(in.GetItem().GetQuantity())
				}
				return total, nil
			}),
		sdk.Bidi(pricingv1.PricingService_RunningTotal_FullMethodName,
			func(_ *sdk.StreamCommand, requests iter.Seq2[*pricingv1.RunningTotalRequest, error],
				send func(*pricingv1.RunningTotalResponse) error,
			) error {
				var total int64
				for in, err := range requests {
					if err != nil {
						return err
					}
					total += 40 * int64(in.GetItem().GetQuantity())
					if err := send(&pricingv1.RunningTotalResponse{Cents: total}); err != nil {
						return err
					}
				}
				return nil
			}),
	)
	apples := func(quantity int32) *pricingv1.Item { return &pricingv1.Item{ItemId: "apple", Quantity: quantity} }
	call(service, "Quote", &pricingv1.QuoteRequest{ItemId: "apple", Quantity: 3})
	call(service, "QuoteTiers", &pricingv1.QuoteTiersRequest{ItemId: "apple"})
	call(service, "Sum", &pricingv1.SumRequest{Item: apples(1)}, &pricingv1.SumRequest{Item: apples(2)})
	call(service, "RunningTotal", &pricingv1.RunningTotalRequest{Item: apples(1)},
		&pricingv1.RunningTotalRequest{Item: apples(2)})
	// Output:
	// Quote: replies QuoteResponse{"price":{"cents":"120"}}
	// QuoteTiers: replies QuoteTiersResponse{"price":{"cents":"40"}}
	// QuoteTiers: replies QuoteTiersResponse{"price":{"cents":"400"}}
	// Sum: replies SumResponse{"cents":"120"}
	// RunningTotal: replies RunningTotalResponse{"cents":"40"}
	// RunningTotal: replies RunningTotalResponse{"cents":"120"}
}

// Check says everything that is wrong, and what to do.
func ExampleCheck() {
	service := sdk.EventSourced("cart", newBasket,
		sdk.Handle(shopv1.CartService_AddItem_FullMethodName, (*basket).add),
		sdk.Handle(shopv1.CartService_GetCart_FullMethodName, (*basket).checkout),
		sdk.Handle(shopv1.CartService_RemoveItem_FullMethodName, (*basket).remove),
	)
	fmt.Println(sdk.Check(service))
	// Output:
	// sdk: event-sourced service "cart" (shop.v1.CartService): sdk.Handle("/shop.v1.CartService/GetCart"): the handler takes shop.v1.CheckoutRequest, but the method takes shop.v1.GetCartRequest: change the handler's parameter
	// sdk: event-sourced service "cart" (shop.v1.CartService): method Checkout has no handler: add sdk.Handle(CartService_Checkout_FullMethodName, …)
}

// Entities that are used rarely may leave memory sooner.
func ExampleService_PassivateAfter() {
	service := sdk.EventSourced("cart", newBasket, basketOptions()...).PassivateAfter(10 * time.Second)
	fmt.Println(service, service.Spec().PassivateAfter)
	// Output:
	// event-sourced service "cart" (shop.v1.CartService) 10s
}

// Serve runs until its context ends.
func ExampleServe() {
	ctx, stop := context.WithCancel(context.Background())
	stop() // in a program: by signal.NotifyContext
	err := sdk.Serve(ctx, "127.0.0.1:0", sdk.EventSourced("cart", newBasket, basketOptions()...))
	fmt.Println(err)
	// Output:
	// <nil>
}

// entity returns a new entity, as a runtime does.
func entity(service *sdk.Service, id string) sdk.Entity {
	e, err := service.NewEntity(id)
	if err != nil {
		panic(err)
	}
	return e
}

// command sends a command to an entity and prints what it decided.
func command(e sdk.Entity, method string, in proto.Message) {
	decision, err := e.Handle(context.Background(), sdk.Invocation{Method: method, Payload: encoded(in)})
	if err != nil {
		panic(err)
	}
	printDecision(method, decision)
}

// call calls an action and prints each element of its answer.
func call(service *sdk.Service, method string, in ...proto.Message) {
	inv := sdk.Invocation{Method: method, Payload: encoded(in[0])}
	err := service.Call(context.Background(), inv,
		func() (sdk.Payload, error) {
			if len(in) == 0 {
				return sdk.Payload{}, io.EOF
			}
			next := in[0]
			in = in[1:]
			return encoded(next), nil
		},
		func(d sdk.Decision) error {
			printDecision(method, d)
			return nil
		})
	if err != nil {
		panic(err)
	}
}

func printDecision(method string, d sdk.Decision) {
	var said []string
	for _, event := range d.Events {
		said = append(said, "stores "+printed(event))
	}
	if d.Snapshot != nil {
		said = append(said, "snapshot "+printed(*d.Snapshot))
	}
	if d.StateAction == sdk.StateUpdated {
		said = append(said, "stores "+printed(d.State))
	}
	switch {
	case d.Reply != nil:
		said = append(said, "replies "+printed(*d.Reply))
	case d.Forward != nil:
		said = append(said, "forwards to "+d.Forward.Method+" "+printed(d.Forward.Payload))
	case d.Refusal != nil:
		said = append(said, fmt.Sprintf("refused with %v: %s", d.Refusal.Code, d.Refusal.Message))
	}
	for _, effect := range d.Effects {
		text := "then sends " + effect.Method + " " + printed(effect.Payload)
		if effect.Synchronous {
			text += " and waits"
		}
		said = append(said, text)
	}
	for _, timer := range d.Timers {
		said = append(said, printedTimer(timer))
	}
	fmt.Printf("%s: %s\n", method, strings.Join(said, ", "))
}

func printedTimer(t sdk.Timer) string {
	if t.Cancel {
		return "cancels timer " + t.Name
	}
	when := fmt.Sprintf("after %v", t.After)
	if t.Schedule != "" {
		when = fmt.Sprintf("every %q", t.Schedule)
	}
	return fmt.Sprintf("timer %s %s: %s %s", t.Name, when, t.Target.Method, printed(t.Target.Payload))
}

func encoded(m proto.Message) sdk.Payload {
	a, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return sdk.Payload{TypeURL: a.GetTypeUrl(), Value: a.GetValue()}
}

// printed returns a message as its name and JSON without spaces.
func printed(p sdk.Payload) string {
	m, err := (&anypb.Any{TypeUrl: p.TypeURL, Value: p.Value}).UnmarshalNew()
	if err != nil {
		panic(err)
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		panic(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		panic(err)
	}
	return string(m.ProtoReflect().Descriptor().Name()) + compact.String()
}
