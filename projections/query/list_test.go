package query

import (
	"fmt"
	"strings"
	"testing"
)

// fill puts orders o00 to o29: of three customers, placed one second after another.
func fill(b *bench) {
	for i := range 30 {
		b.put(fmt.Sprintf(`order_id: "o%02d" customer_id: "c%d" total_cents: %d status: %s placed_at: {seconds: %d} items: %d small: %d`,
			i, i%3, i*100, []string{"OPEN", "SHIPPED"}[i%2], 1_000_000+i, i%5, i))
	}
}

// TestGet: one row by its key.
func TestGet(t *testing.T) {
	b := orders(t, 4)
	fill(b)
	b.put(`order_id: "hidden" items: 99`)
	got, err := b.call("Get", `order_id: "o07"`)
	if want := `{"orders":{"order_id":"o07","customer_id":"c1","total_cents":"700","status":"SHIPPED","placed_at":"1970-01-12T13:46:47Z","items":2,"small":7}}`; err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	if got, err := b.call("Get", `order_id: "o07" read_mask: {paths: "status" paths: "order_id"}`); err != nil ||
		got != `{"orders":{"order_id":"o07","status":"SHIPPED"}}` {
		t.Errorf("masked: %s, %v", got, err)
	}
	for id, want := range map[string]string{
		"o30": `orders.Get: there is no row with order_id "o30"`, "hidden": `orders.Get: there is no row with order_id "hidden"`,
		"": `orders.Get: order_id is missing: it is the id of the entity`,
	} {
		if _, err := b.call("Get", fmt.Sprintf("order_id: %q", id)); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", id, err, want)
		}
	}
	if len(b.scans) != 4 || b.scans[0].Partition != b.PartitionOf("o07") || b.scans[0].Dataset != 7 {
		t.Errorf("scans %+v", b.scans)
	}
}

// TestLists: rows of all partitions in the order of the index, by pages.
func TestLists(t *testing.T) {
	for _, partitions := range []int32{1, 4, 16} {
		b := orders(t, partitions)
		fill(b)
		for request, want := range map[string]string{
			`customer_id: "c1" page_size: 5`:                                    "o28 o25 o22 o19 o16",
			`customer_id: "c1" page_size: 500`:                                  "o28 o25 o22 o19 o16",
			`customer_id: "c1"`:                                                 "o28 o25 o22",
			`customer_id: "c1" order_by: " placed_at asc "`:                     "o01 o04 o07",
			`customer_id: "c1" filter: "status = OPEN"`:                         "o28 o22 o16",
			`customer_id: "c1" filter: "placed_at < 1970-01-12T13:46:47Z"`:      "o04 o01",
			`customer_id: "c1" filter: "placed_at = \"1970-01-12T13:46:47Z\""`:  "o07",
			`customer_id: "c1" filter: "(total_cents > 2700 OR total_cents<5)"`: "o28",
			`customer_id: "c9"`:                                                 "",
		} {
			if got, _ := b.ids("ListByCustomer", request); got != want {
				t.Errorf("%d partitions, %s: %q, want %q", partitions, request, got, want)
			}
		}
		var pages []string
		token := ""
		for range 20 {
			ids, next := b.ids("ListByCustomer", fmt.Sprintf(`customer_id: "c2" page_token: %q`, token))
			pages = append(pages, ids)
			if token = next; token == "" {
				break
			}
		}
		if got := strings.Join(pages, "|"); got != "o29 o26 o23|o20 o17 o14|o11 o08 o05|o02" {
			t.Errorf("%d partitions: pages %s", partitions, got)
		}
	}
}
