package readside

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/millrace-io/millrace/entities"
	ordersv1 "github.com/millrace-io/millrace/examples/orders/orders/v1"
)

// writer sends commands to orders and customers of its own, one after the other, and reads each
// write back. It knows what their rows must be.
type writer struct {
	*world

	number    int
	rng       *rand.Rand
	commands  int
	orders    map[string]*ordersv1.OrderRow
	customers map[string]string // names; "" is deleted
	ids       []string
	// seen covers everything that the writer was answered.
	seen entities.Token
}

// customersOfWriter is how many customers a writer has.
const customersOfWriter = 3

func newWriter(w *world, seed uint64, number int) *writer {
	return &writer{
		world: w, number: number, rng: newRandom(seed, uint64(number)),
		orders: map[string]*ordersv1.OrderRow{}, customers: map[string]string{},
		seen: entities.Token{App: app, Generation: entities.Generation},
	}
}

// run sends so many commands.
func (w *writer) run(commands int) {
	for w.commands < commands && !w.t.Failed() {
		switch n := w.rng.IntN(10); {
		case n == 0:
			w.changeCustomer()
		case n < 5 || len(w.ids) == 0:
			w.place()
		default:
			w.advance(w.ids[w.rng.IntN(len(w.ids))])
		}
	}
}

// command sends a command, which must be accepted.
func (w *writer) command(method, path string, body any) (token string, ok bool) {
	w.commands++
	id := fmt.Sprintf("w%d-%d", w.number, w.commands)
	a := w.do(w.rng, call{method: method, path: path, body: body, id: id})
	if a.code != http.StatusOK {
		w.t.Errorf("%s %s (%s): %s", method, path, id, a)
		return "", false
	}
	if a.token == "" {
		w.t.Errorf("%s %s (%s): the answer has no token", method, path, id)
		return "", false
	}
	token2, err := entities.DecodeToken(app, a.token)
	if err != nil {
		w.t.Errorf("%s %s (%s): %v", method, path, id, err)
		return "", false
	}
	w.seen.Merge(&token2)
	w.acknowledged.Add(1)
	return a.token, true
}

func (w *writer) customer(i int) string { return fmt.Sprintf("c%d-%d", w.number, i) }

func (w *writer) changeCustomer() {
	id := w.customer(w.rng.IntN(customersOfWriter))
	url := "/v1/customers/" + id
	if w.customers[id] != "" && w.rng.IntN(4) == 0 {
		if token, ok := w.command(http.MethodDelete, url, nil); ok {
			w.customers[id] = ""
			w.readCustomer(id, token)
		}
		return
	}
	name := fmt.Sprintf("%s of %d", id, w.commands)
	body := map[string]any{"name": name, "city": "city " + strconv.Itoa(w.number)}
	if token, ok := w.command(http.MethodPut, url, body); ok {
		w.customers[id] = name
		w.readCustomer(id, token)
	}
}

// place places a new order, or one that was deleted.
func (w *writer) place() {
	id := fmt.Sprintf("o%d-%d", w.number, len(w.ids))
	for _, old := range w.ids[max(0, len(w.ids)-5):] {
		if w.orders[old] == nil {
			id = old
		}
	}
	row := &ordersv1.OrderRow{
		OrderId: id, CustomerId: w.customer(w.rng.IntN(customersOfWriter)), Status: ordersv1.Status_STATUS_OPEN,
	}
	var lines []any
	for i := range 1 + w.rng.IntN(4) {
		quantity, cents := 1+w.rng.Int64N(9), w.rng.Int64N(10_000)
		lines = append(lines, map[string]any{"sku": fmt.Sprintf("sku %d", i), "quantity": quantity, "cents": cents})
		row.Pieces += quantity
		row.TotalCents += quantity * cents
	}
	body := map[string]any{"customer_id": row.GetCustomerId(), "lines": lines}
	if token, ok := w.command(http.MethodPost, "/v1/orders/"+id, body); ok {
		if _, known := w.orders[id]; !known {
			w.ids = append(w.ids, id)
		}
		w.orders[id] = row
		w.readBack(id, token)
	}
}

// advance ships, cancels, notes or deletes an order, as it can.
func (w *writer) advance(id string) {
	row := w.orders[id]
	switch {
	case row == nil:
		w.place()
	case row.GetStatus() != ordersv1.Status_STATUS_OPEN:
		if token, ok := w.command(http.MethodDelete, "/v1/orders/"+id, nil); ok {
			w.orders[id] = nil
			w.readBack(id, token)
		}
	case w.rng.IntN(4) == 0:
		if token, ok := w.command(http.MethodPost, "/v1/orders/"+id+":cancel", map[string]any{"reason": "late"}); ok {
			row.Status = ordersv1.Status_STATUS_CANCELLED
			w.readBack(id, token)
		}
	default:
		carrier := fmt.Sprintf("carrier %d", w.rng.IntN(5))
		if token, ok := w.command(http.MethodPost, "/v1/orders/"+id+":ship", map[string]any{"carrier": carrier}); ok {
			row.Status, row.Carrier = ordersv1.Status_STATUS_SHIPPED, carrier
			w.readBack(id, token)
		}
	}
}

// readBack asks for the row of an order with the token of its last write: by its key, or in the
// list of its customer. At times it asks without a token first, to see how often that is too early.
func (w *writer) readBack(id, token string) {
	want := w.orders[id]
	get := call{path: path("/v1/orders:get", "order_id", id)}
	if w.rng.IntN(4) == 0 {
		w.unmarked.Add(1)
		if a := w.do(w.rng, get); !w.isOrder(a, want) {
			w.behind.Add(1)
		}
	}
	w.pairs.Add(1)
	get.token = token
	a := w.do(w.rng, get)
	if !w.isOrder(a, want) {
		w.miss("order %s with the token of its write: %s; want %v", id, a, want)
		return
	}
	if want == nil || w.rng.IntN(4) > 0 {
		return
	}
	w.pairs.Add(1)
	filter := "status = " + want.GetStatus().String()
	list := call{token: token, path: path("/v1/orders:listByCustomer", "customer_id", want.GetCustomerId(),
		"filter", filter, "page_size", "500")}
	got := w.do(w.rng, list)
	rows, _, err := decodeOrders(got)
	if err != nil {
		w.miss("orders of %s: %v", want.GetCustomerId(), err)
		return
	}
	for _, row := range rows {
		if row.GetOrderId() == id && sameOrder(row, want) {
			return
		}
	}
	w.miss("order %s is not in the list of its customer with the token of its write: %s; want %v", id, got, want)
}

func (w *writer) readCustomer(id, token string) {
	w.pairs.Add(1)
	a := w.do(w.rng, call{path: path("/v1/customers:get", "customer_id", id), token: token})
	var res struct {
		Customers struct{ Name string }
	}
	switch name := w.customers[id]; {
	case name == "" && a.code == http.StatusNotFound:
	case a.decode(&res) == nil && res.Customers.Name == name && name != "":
	default:
		w.miss("customer %s with the token of its write: %s; want %q", id, a, name)
	}
}

// isOrder reports whether an answer to Get has the row, or says that there is none.
func (*writer) isOrder(a answer, want *ordersv1.OrderRow) bool {
	if want == nil {
		return a.code == http.StatusNotFound
	}
	var res struct{ Orders rawOrder }
	return a.decode(&res) == nil && sameOrder(res.Orders.row, want)
}

// sameOrder compares what the writer knows; the log knows the time, and another row the name.
func sameOrder(got, want *ordersv1.OrderRow) bool {
	return got.GetOrderId() == want.GetOrderId() && got.GetCustomerId() == want.GetCustomerId() &&
		got.GetTotalCents() == want.GetTotalCents() && got.GetPieces() == want.GetPieces() &&
		got.GetStatus() == want.GetStatus() && got.GetCarrier() == want.GetCarrier() && got.GetPlacedAt() != nil
}

func (w *writer) miss(format string, args ...any) {
	w.misses.Add(1)
	w.t.Errorf(format, args...)
}

// rawOrder is a row in the JSON of an answer.
type rawOrder struct{ row *ordersv1.OrderRow }

// UnmarshalJSON implements json.Unmarshaler.
func (r *rawOrder) UnmarshalJSON(b []byte) error {
	r.row = &ordersv1.OrderRow{}
	return protojson.Unmarshal(b, r.row)
}
