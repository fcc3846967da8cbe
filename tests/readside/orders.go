package readside

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/entities/record"
	ordersv1 "github.com/millrace-io/millrace/examples/orders/orders/v1"
)

// Rows are the rows of the projections of examples/orders, by entity id. The name of an order's
// customer is not in them: it is looked up when the row is read.
type Rows struct {
	Orders    map[string]*ordersv1.OrderRow
	Customers map[string]*ordersv1.CustomerRow
}

// Fold computes the rows of some records, which are those of one partition or of several.
func Fold(records ...[]Record) (*Rows, error) {
	rows := &Rows{Orders: map[string]*ordersv1.OrderRow{}, Customers: map[string]*ordersv1.CustomerRow{}}
	for _, list := range records {
		for i := range list {
			if err := rows.add(&list[i]); err != nil {
				return nil, fmt.Errorf("%s at offset %d: %w", list[i].Entity, list[i].Offset, err)
			}
		}
	}
	return rows, nil
}

// FoldAll computes the rows of all partitions.
func FoldAll(partitions []Partition) (*Rows, error) {
	var lists [][]Record
	for i := range partitions {
		lists = append(lists, partitions[i].Records)
	}
	return Fold(lists...)
}

func (r *Rows) add(rec *Record) error {
	switch rec.Entity.Type {
	case "order":
		if rec.Kind == record.Event {
			return r.order(rec)
		}
	case "customer":
		switch rec.Kind {
		case record.State:
			return r.customer(rec)
		case record.Delete:
			delete(r.Customers, rec.Entity.ID)
		default:
		}
	}
	return nil
}

// order does what definitions/orders.yaml says.
func (r *Rows) order(rec *Record) error {
	id := rec.Entity.ID
	switch rec.Type {
	case "orders.v1.OrderPlaced":
		var e ordersv1.OrderPlaced
		if err := proto.Unmarshal(rec.Value, &e); err != nil {
			return err
		}
		row := r.Orders[id]
		if row == nil {
			row = &ordersv1.OrderRow{OrderId: id}
			r.Orders[id] = row
		}
		row.CustomerId, row.Status = e.GetCustomerId(), ordersv1.Status_STATUS_OPEN
		row.PlacedAt = timestamppb.New(rec.Time)
		row.TotalCents, row.Pieces = 0, 0
		for _, line := range e.GetLines() {
			row.TotalCents += line.GetCents() * int64(line.GetQuantity())
			row.Pieces += int64(line.GetQuantity())
		}
	case "orders.v1.OrderShipped":
		var e ordersv1.OrderShipped
		if err := proto.Unmarshal(rec.Value, &e); err != nil {
			return err
		}
		if row := r.Orders[id]; row != nil {
			row.Status, row.Carrier = ordersv1.Status_STATUS_SHIPPED, e.GetCarrier()
		}
	case "orders.v1.OrderCancelled":
		if row := r.Orders[id]; row != nil {
			row.Status = ordersv1.Status_STATUS_CANCELLED
		}
	case "orders.v1.OrderDeleted":
		delete(r.Orders, id)
	case "orders.v1.OrderNoted":
	default:
		return fmt.Errorf("%s is no event of an order", rec.Type)
	}
	return nil
}

// customer does what definitions/customers.yaml says.
func (r *Rows) customer(rec *Record) error {
	if rec.Type != "orders.v1.Customer" {
		return fmt.Errorf("%s is no state of a customer", rec.Type)
	}
	var state ordersv1.Customer
	if err := proto.Unmarshal(rec.Value, &state); err != nil {
		return err
	}
	r.Customers[rec.Entity.ID] = &ordersv1.CustomerRow{
		CustomerId: rec.Entity.ID, Name: state.GetName(), City: state.GetCity(),
	}
	return nil
}
