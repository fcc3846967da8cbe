package orders

import (
	"google.golang.org/grpc/codes"

	ordersv1 "github.com/millrace-io/millrace/examples/orders/orders/v1"
	"github.com/millrace-io/millrace/sdk"
)

// Orders is the service of orders, ready to be run.
var Orders = sdk.EventSourced("order", newOrder,
	sdk.Handle(ordersv1.OrderService_PlaceOrder_FullMethodName, (*order).place),
	sdk.Handle(ordersv1.OrderService_ShipOrder_FullMethodName, (*order).ship),
	sdk.Handle(ordersv1.OrderService_CancelOrder_FullMethodName, (*order).cancel),
	sdk.Handle(ordersv1.OrderService_NoteOrder_FullMethodName, (*order).note),
	sdk.Handle(ordersv1.OrderService_DeleteOrder_FullMethodName, (*order).remove),
	sdk.Handle(ordersv1.OrderService_GetOrder_FullMethodName, (*order).get),
	sdk.On((*order).placed),
	sdk.On((*order).shipped),
	sdk.On((*order).cancelled),
	sdk.On((*order).noted),
	sdk.On((*order).deleted),
)

// The limits keep every sum within 64 bits.
const (
	maxLines    = 100
	maxQuantity = 1_000_000
	maxCents    = 1_000_000_000
	maxNotes    = 20
)

// order is the memory image of one order. Without a status it is not there.
type order struct {
	id, customer string
	lines        []*ordersv1.Line
	status       ordersv1.Status
	carrier      string
	notes        []string
}

func newOrder(id string) *order { return &order{id: id} }

func (o *order) place(cmd *sdk.Command, in *ordersv1.PlaceOrderRequest) (*ordersv1.Order, error) {
	if o.status != ordersv1.Status_STATUS_UNSPECIFIED {
		return nil, sdk.Refuse(codes.AlreadyExists, "order %s is %s: place another one", o.id, statusText(o.status))
	}
	if in.GetCustomerId() == "" {
		return nil, sdk.Refuse(codes.InvalidArgument, "customer_id is missing: set it to the customer who orders")
	}
	if n := len(in.GetLines()); n < 1 || n > maxLines {
		return nil, sdk.Refuse(codes.InvalidArgument, "number of lines is %d: it must be between 1 and %d", n, maxLines)
	}
	for i, line := range in.GetLines() {
		switch {
		case line.GetSku() == "":
			return nil, sdk.Refuse(codes.InvalidArgument, "line %d has no sku: set it to the article", i+1)
		case line.GetQuantity() < 1 || line.GetQuantity() > maxQuantity:
			return nil, sdk.Refuse(codes.InvalidArgument, "quantity of line %d is %d: it must be between 1 and %d",
				i+1, line.GetQuantity(), maxQuantity)
		case line.GetCents() < 0 || line.GetCents() > maxCents:
			return nil, sdk.Refuse(codes.InvalidArgument, "cents of line %d is %d: it must be between 0 and %d",
				i+1, line.GetCents(), maxCents)
		}
	}
	cmd.Emit(&ordersv1.OrderPlaced{CustomerId: in.GetCustomerId(), Lines: in.GetLines()})
	return o.view(), nil
}

func (o *order) ship(cmd *sdk.Command, in *ordersv1.ShipOrderRequest) (*ordersv1.Order, error) {
	if err := o.mustBeOpen("shipped"); err != nil {
		return nil, err
	}
	cmd.Emit(&ordersv1.OrderShipped{Carrier: in.GetCarrier()})
	return o.view(), nil
}

func (o *order) cancel(cmd *sdk.Command, in *ordersv1.CancelOrderRequest) (*ordersv1.Order, error) {
	if err := o.mustBeOpen("cancelled"); err != nil {
		return nil, err
	}
	cmd.Emit(&ordersv1.OrderCancelled{Reason: in.GetReason()})
	return o.view(), nil
}

func (o *order) note(cmd *sdk.Command, in *ordersv1.NoteOrderRequest) (*ordersv1.Order, error) {
	switch {
	case o.status == ordersv1.Status_STATUS_UNSPECIFIED:
		return nil, o.missing()
	case in.GetText() == "":
		return nil, sdk.Refuse(codes.InvalidArgument, "text is missing: set it to the note")
	case len(o.notes) == maxNotes:
		return nil, sdk.Refuse(codes.ResourceExhausted, "order %s has as many notes as it may have, %d", o.id, maxNotes)
	}
	cmd.Emit(&ordersv1.OrderNoted{Text: in.GetText()})
	return o.view(), nil
}

func (o *order) remove(cmd *sdk.Command, _ *ordersv1.DeleteOrderRequest) (*ordersv1.Order, error) {
	switch o.status {
	case ordersv1.Status_STATUS_UNSPECIFIED:
		return nil, o.missing()
	case ordersv1.Status_STATUS_OPEN:
		return nil, sdk.Refuse(codes.FailedPrecondition, "order %s is open: ship or cancel it first", o.id)
	default:
		cmd.Emit(&ordersv1.OrderDeleted{})
		return o.view(), nil
	}
}

func (o *order) get(*sdk.Command, *ordersv1.GetOrderRequest) (*ordersv1.Order, error) {
	return o.view(), nil
}

func (o *order) mustBeOpen(to string) error {
	switch o.status {
	case ordersv1.Status_STATUS_OPEN:
		return nil
	case ordersv1.Status_STATUS_UNSPECIFIED:
		return o.missing()
	default:
		return sdk.Refuse(codes.FailedPrecondition, "order %s is %s: only an open order can be %s", o.id,
			statusText(o.status), to)
	}
}

func (o *order) missing() error {
	return sdk.Refuse(codes.NotFound, "there is no order %s: place it first", o.id)
}

func (o *order) placed(e *ordersv1.OrderPlaced) {
	o.customer, o.lines, o.status = e.GetCustomerId(), e.GetLines(), ordersv1.Status_STATUS_OPEN
}

func (o *order) shipped(e *ordersv1.OrderShipped) {
	o.status, o.carrier = ordersv1.Status_STATUS_SHIPPED, e.GetCarrier()
}

func (o *order) cancelled(*ordersv1.OrderCancelled) { o.status = ordersv1.Status_STATUS_CANCELLED }

func (o *order) noted(e *ordersv1.OrderNoted) { o.notes = append(o.notes, e.GetText()) }

func (o *order) deleted(*ordersv1.OrderDeleted) { *o = order{id: o.id} }

func (o *order) view() *ordersv1.Order {
	return &ordersv1.Order{
		OrderId: o.id, CustomerId: o.customer, Lines: o.lines, Status: o.status, Carrier: o.carrier, Notes: o.notes,
	}
}

// statusText is a status as people say it.
func statusText(s ordersv1.Status) string {
	switch s {
	case ordersv1.Status_STATUS_OPEN:
		return "open"
	case ordersv1.Status_STATUS_SHIPPED:
		return "shipped"
	case ordersv1.Status_STATUS_CANCELLED:
		return "cancelled"
	default:
		return "not there"
	}
}
