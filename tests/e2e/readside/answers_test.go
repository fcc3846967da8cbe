package readside

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"

	ordersv1 "github.com/millrace-io/millrace/examples/orders/orders/v1"
	"github.com/millrace-io/millrace/tests/readside"
)

// decode reads the JSON of an answer that is no error.
func (a answer) decode(into any) error {
	if a.err != nil || a.code != http.StatusOK {
		return fmt.Errorf("the answer is %s", a)
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		return fmt.Errorf("decode %s: %w", a.body, err)
	}
	return nil
}

// decodeOrders reads a page of orders and the token of the next one.
func decodeOrders(a answer) (rows []*ordersv1.OrderRow, next string, err error) {
	var page struct {
		Orders        []rawOrder
		NextPageToken string
	}
	if err := a.decode(&page); err != nil {
		return nil, "", err
	}
	for _, raw := range page.Orders {
		rows = append(rows, raw.row)
	}
	return rows, page.NextPageToken, nil
}

// all reads all pages of a list. It is slow on purpose: with pages of one size after the other.
func (w *world) all(rng *rand.Rand, token, base string, pairs ...string) ([]*ordersv1.OrderRow, error) {
	var all []*ordersv1.OrderRow
	next := ""
	for size := 1; ; size = size*2%97 + 1 {
		query := append([]string{"page_size", fmt.Sprint(size), "page_token", next}, pairs...)
		a := w.do(rng, call{path: path(base, query...), token: token})
		rows, after, err := decodeOrders(a)
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", base, query, err)
		}
		if len(rows) > size {
			return nil, fmt.Errorf("%s %q: a page of %d has %d rows", base, query, size, len(rows))
		}
		all = append(all, rows...)
		if next = after; next == "" {
			return all, nil
		}
	}
}

// group is a row of CountByStatus.
type group struct {
	Status        string
	Orders, Cents int64 `json:",string"`
}

// countByStatus reads the groups.
func (w *world) countByStatus(rng *rand.Rand, token string) (map[ordersv1.Status]readside.Group, error) {
	var res struct{ Groups []group }
	if err := w.do(rng, call{path: "/v1/orders:countByStatus", token: token}).decode(&res); err != nil {
		return nil, err
	}
	groups := map[ordersv1.Status]readside.Group{}
	for _, g := range res.Groups {
		groups[ordersv1.Status(ordersv1.Status_value[g.Status])] = readside.Group{Orders: g.Orders, Cents: g.Cents}
	}
	return groups, nil
}
