package orders_test

import (
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/examples/orders/orders"
	ordersv1 "github.com/millrace-io/millrace/examples/orders/orders/v1"
	"github.com/millrace-io/millrace/sdk/sdktest"
)

const (
	place  = ordersv1.OrderService_PlaceOrder_FullMethodName
	ship   = ordersv1.OrderService_ShipOrder_FullMethodName
	cancel = ordersv1.OrderService_CancelOrder_FullMethodName
	note   = ordersv1.OrderService_NoteOrder_FullMethodName
	remove = ordersv1.OrderService_DeleteOrder_FullMethodName
	get    = ordersv1.OrderService_GetOrder_FullMethodName
)

func lines(list ...*ordersv1.Line) []*ordersv1.Line { return list }

func bolts(quantity int32) *ordersv1.Line {
	return &ordersv1.Line{Sku: "bolt", Quantity: quantity, Cents: 15}
}

func order(status ordersv1.Status, carrier string) *ordersv1.Order {
	return &ordersv1.Order{OrderId: "7", CustomerId: "ada", Lines: lines(bolts(2)), Status: status, Carrier: carrier}
}

func placed() *ordersv1.OrderPlaced {
	return &ordersv1.OrderPlaced{CustomerId: "ada", Lines: lines(bolts(2))}
}

func TestAnOrderIsPlacedShippedAndDeleted(t *testing.T) {
	s := sdktest.New(t, orders.Orders, "7")
	s.When(place, &ordersv1.PlaceOrderRequest{OrderId: "7", CustomerId: "ada", Lines: lines(bolts(2))}).
		ThenEvents(placed()).ThenReply(order(ordersv1.Status_STATUS_OPEN, ""))
	s.When(ship, &ordersv1.ShipOrderRequest{OrderId: "7", Carrier: "rail"}).
		ThenEvents(&ordersv1.OrderShipped{Carrier: "rail"}).
		ThenReply(order(ordersv1.Status_STATUS_SHIPPED, "rail"))
	s.When(remove, &ordersv1.DeleteOrderRequest{OrderId: "7"}).
		ThenEvents(&ordersv1.OrderDeleted{}).ThenReply(&ordersv1.Order{OrderId: "7"})
	s.When(place, &ordersv1.PlaceOrderRequest{OrderId: "7", CustomerId: "ada", Lines: lines(bolts(2))}).
		ThenReply(order(ordersv1.Status_STATUS_OPEN, ""))
}

func TestOnlyAnOpenOrderChanges(t *testing.T) {
	s := sdktest.New(t, orders.Orders, "7").Given(placed())
	s.When(remove, &ordersv1.DeleteOrderRequest{OrderId: "7"}).
		ThenRefused(codes.FailedPrecondition, "order 7 is open: ship or cancel it first")
	s.When(cancel, &ordersv1.CancelOrderRequest{OrderId: "7", Reason: "late"}).
		ThenEvents(&ordersv1.OrderCancelled{Reason: "late"}).ThenReply(order(ordersv1.Status_STATUS_CANCELLED, ""))
	s.When(ship, &ordersv1.ShipOrderRequest{OrderId: "7"}).
		ThenRefused(codes.FailedPrecondition, "order 7 is cancelled: only an open order can be shipped")
	s.When(place, &ordersv1.PlaceOrderRequest{OrderId: "7", CustomerId: "ada", Lines: lines(bolts(2))}).
		ThenRefused(codes.AlreadyExists, "order 7 is cancelled")
}

func TestAnOrderThatIsNotThere(t *testing.T) {
	s := sdktest.New(t, orders.Orders, "7")
	for method, in := range map[string]proto.Message{
		ship:   &ordersv1.ShipOrderRequest{OrderId: "7"},
		cancel: &ordersv1.CancelOrderRequest{OrderId: "7"},
		note:   &ordersv1.NoteOrderRequest{OrderId: "7", Text: "x"},
		remove: &ordersv1.DeleteOrderRequest{OrderId: "7"},
	} {
		s.When(method, in).ThenRefused(codes.NotFound, "there is no order 7: place it first").ThenEvents()
	}
	s.When(get, &ordersv1.GetOrderRequest{OrderId: "7"}).ThenReply(&ordersv1.Order{OrderId: "7"})
}

func TestPlaceOrderSaysWhatIsWrong(t *testing.T) {
	s := sdktest.New(t, orders.Orders, "7")
	for want, in := range map[string]*ordersv1.PlaceOrderRequest{
		"customer_id is missing":                                    {Lines: lines(bolts(1))},
		"number of lines is 0: it must be between 1 and 100":        {CustomerId: "ada"},
		"number of lines is 101":                                    {CustomerId: "ada", Lines: make([]*ordersv1.Line, 101)},
		"line 2 has no sku":                                         {CustomerId: "ada", Lines: lines(bolts(1), &ordersv1.Line{Quantity: 1})},
		"quantity of line 1 is 0: it must be between 1 and 1000000": {CustomerId: "ada", Lines: lines(bolts(0))},
		"cents of line 1 is -1":                                     {CustomerId: "ada", Lines: lines(&ordersv1.Line{Sku: "bolt", Quantity: 1, Cents: -1})},
	} {
		in.OrderId = "7"
		s.When(place, in).ThenRefused(codes.InvalidArgument, want).ThenEvents()
	}
}

func TestNotesAreBounded(t *testing.T) {
	s := sdktest.New(t, orders.Orders, "7").Given(placed())
	s.When(note, &ordersv1.NoteOrderRequest{OrderId: "7"}).ThenRefused(codes.InvalidArgument, "text is missing")
	want := order(ordersv1.Status_STATUS_OPEN, "")
	for i := range 20 {
		text := fmt.Sprintf("call %d", i)
		want.Notes = append(want.Notes, text)
		s.When(note, &ordersv1.NoteOrderRequest{OrderId: "7", Text: text}).
			ThenEvents(&ordersv1.OrderNoted{Text: text}).ThenReply(want)
	}
	s.When(note, &ordersv1.NoteOrderRequest{OrderId: "7", Text: "x"}).
		ThenRefused(codes.ResourceExhausted, "order 7 has as many notes as it may have, 20")
}
