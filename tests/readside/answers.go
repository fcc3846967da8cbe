package readside

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	ordersv1 "github.com/millrace-io/millrace/examples/orders/orders/v1"
)

// Order returns what a query returns of an order: the row, with the name of its customer; nil if
// there is none.
func (r *Rows) Order(id string) *ordersv1.OrderRow {
	row := r.Orders[id]
	if row == nil {
		return nil
	}
	row, _ = proto.Clone(row).(*ordersv1.OrderRow)
	row.CustomerName = r.Customers[row.GetCustomerId()].GetName()
	return row
}

// ListByCustomer returns the orders of a customer, the latest first.
func (r *Rows) ListByCustomer(customer string) []*ordersv1.OrderRow {
	list := r.orders(func(row *ordersv1.OrderRow) bool { return row.GetCustomerId() == customer })
	slices.SortFunc(list, func(a, b *ordersv1.OrderRow) int {
		return cmp.Or(-byTime(a, b), strings.Compare(a.GetOrderId(), b.GetOrderId()))
	})
	return list
}

// ListOpen returns the open orders, the oldest first.
func (r *Rows) ListOpen() []*ordersv1.OrderRow {
	list := r.orders(func(row *ordersv1.OrderRow) bool { return row.GetStatus() == ordersv1.Status_STATUS_OPEN })
	slices.SortFunc(list, func(a, b *ordersv1.OrderRow) int {
		return cmp.Or(byTime(a, b), strings.Compare(a.GetOrderId(), b.GetOrderId()))
	})
	return list
}

func (r *Rows) orders(chosen func(*ordersv1.OrderRow) bool) []*ordersv1.OrderRow {
	var list []*ordersv1.OrderRow
	for id, row := range r.Orders {
		if chosen(row) {
			list = append(list, r.Order(id))
		}
	}
	return list
}

func byTime(a, b *ordersv1.OrderRow) int {
	return a.GetPlacedAt().AsTime().Compare(b.GetPlacedAt().AsTime())
}

// Group is a group of the aggregate by_status.
type Group struct{ Orders, Cents int64 }

// CountByStatus returns the groups. One whose orders are all gone is not there.
func (r *Rows) CountByStatus() map[ordersv1.Status]Group {
	groups := map[ordersv1.Status]Group{}
	for _, row := range r.Orders {
		g := groups[row.GetStatus()]
		groups[row.GetStatus()] = Group{g.Orders + 1, g.Cents + row.GetTotalCents()}
	}
	return groups
}

// ListByCity returns the customers of a city by name.
func (r *Rows) ListByCity(city string) []*ordersv1.CustomerRow {
	var list []*ordersv1.CustomerRow
	for _, row := range r.Customers {
		if row.GetCity() == city {
			list = append(list, row)
		}
	}
	slices.SortFunc(list, func(a, b *ordersv1.CustomerRow) int {
		return cmp.Or(strings.Compare(a.GetName(), b.GetName()), strings.Compare(a.GetCustomerId(), b.GetCustomerId()))
	})
	return list
}

// CustomersOfOrders lists the ids that orders name, sorted.
func (r *Rows) CustomersOfOrders() []string {
	ids := map[string]bool{}
	for _, row := range r.Orders {
		ids[row.GetCustomerId()] = true
	}
	return slices.Sorted(maps.Keys(ids))
}
