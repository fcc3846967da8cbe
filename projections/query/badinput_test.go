package query

import (
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/entities"
)

// refusal is what a test wants to know of an error.
func refusal(err error) string {
	if err == nil {
		return "no error"
	}
	e := entities.AsError(err)
	kind := map[entities.Reason]string{
		entities.InvalidCommand: "INVALID_ARGUMENT", entities.Unavailable: "UNAVAILABLE", entities.Overloaded: "RESOURCE_EXHAUSTED",
		entities.Deadline: "DEADLINE_EXCEEDED", entities.Cancelled: "CANCELLED", entities.UnknownMethod: "UNIMPLEMENTED",
		entities.Internal: "INTERNAL", entities.NotSupported: "UNIMPLEMENTED",
	}[e.Reason]
	if e.Reason == entities.FunctionRefused {
		kind = map[codes.Code]string{
			codes.NotFound: "NOT_FOUND", codes.FailedPrecondition: "FAILED_PRECONDITION", codes.OutOfRange: "OUT_OF_RANGE",
			codes.ResourceExhausted: "RESOURCE_EXHAUSTED", codes.PermissionDenied: "PERMISSION_DENIED",
		}[codes.Code(e.Code)]
	}
	return kind + ": " + e.Message
}

func wantRefusal(t *testing.T, name string, err error, want string) {
	t.Helper()
	if got := refusal(err); got != want {
		t.Errorf("%s:\n\t%s\nwant\n\t%s", name, got, want)
	}
}

// TestBadInput has each line about queries of the table of bad input, with its exact text; filters
// are in TestFiltersAreRefused, tokens in TestFreshnessIsRefused.
func TestBadInput(t *testing.T) {
	b := orders(t, 4)
	fill(b)
	_, next := b.ids("ListByCustomer", `customer_id: "c1"`)
	if next == "" {
		t.Fatal("there is one page")
	}
	garbled := func(change func([]byte)) string {
		raw, err := base64.RawURLEncoding.DecodeString(next)
		if err != nil {
			t.Fatal(err)
		}
		change(raw)
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	const notValid = `INVALID_ARGUMENT: orders.ListByCustomer: the page_token is not valid (it was not issued here, or is damaged): send the next_page_token of the page before`
	const others = `INVALID_ARGUMENT: orders.ListByCustomer: the page_token belongs to a list with other arguments: send the same ones for each page, but page_size, freshness and explain`
	for _, c := range []struct{ method, request, want string }{
		{"ListByCustomer", `page_size: -1`, `INVALID_ARGUMENT: orders.ListByCustomer: page_size is -1: use 1 to 5, or leave it out for 3`},
		{"ListByCustomer", `customer_id: "c1" page_token: "x"`, notValid},
		{"ListByCustomer", `customer_id: "c1" page_token: "` + strings.Repeat("x", 40<<10) + `"`, notValid},
		{"ListByCustomer", `customer_id: "c1" page_token: "` + garbled(func(b []byte) { b[20] ^= 1 }) + `"`, notValid},
		{"ListByCustomer", `customer_id: "c1" page_token: "` + garbled(func(b []byte) { b[0] ^= 1 }) + `"`, notValid},
		{"ListByCustomer", `customer_id: "c2" page_token: "` + next + `"`, others},
		{"ListByCustomer", `customer_id: "c1" filter: "status = OPEN" page_token: "` + next + `"`, others},
		{"ListByCustomer", `customer_id: "c1" order_by: "placed_at" page_token: "` + next + `"`, others},
		{"ListAll", `page_token: "` + next + `"`, strings.ReplaceAll(others, "ListByCustomer", "ListAll")},
		{"ListByCustomer", `customer_id: "c1" order_by: "total_cents"`, `INVALID_ARGUMENT: orders.ListByCustomer: order_by "total_cents" is not served: use "placed_at desc" or "placed_at"`},
		{"ListByCustomer", `customer_id: "c1" order_by: "placed_at, order_id desc"`, `INVALID_ARGUMENT: orders.ListByCustomer: order_by "placed_at, order_id desc" is not served: use "placed_at desc" or "placed_at"`},
		{"ListAll", `order_by: "total_cents"`, `INVALID_ARGUMENT: orders.ListAll: order_by "total_cents" is not served: the query has one order, leave order_by out`},
		{"ListAll", `filter: "note = \"x*\""`, `FAILED_PRECONDITION: orders.ListAll: the filter "note = \"x*\"" would examine all rows one by one: compare a field of an index with =, or set allowScan: true for the query ListAll`},
		{"ListAll", `filter: "total_cents = 5"`, `FAILED_PRECONDITION: orders.ListAll: the filter "total_cents = 5" would examine all rows one by one: add the index {name: by_total_cents, fields: [total_cents]} to projection orders, or set allowScan: true for the query ListAll`},
		{"ListByCustomer", `read_mask: {paths: "nothing"}`, `INVALID_ARGUMENT: orders.ListByCustomer: read_mask: the row has no field "nothing": use order_id, customer_id, total_cents, status, placed_at, paid_cents, customer_name, note, tags, counts, address, weight, express, items, raw, patience, ratio, small`},
		{"ListByCustomer", `freshness: {bounded: {}}`, `INVALID_ARGUMENT: orders.ListByCustomer: freshness: bounded needs an age above 0, as in 2s`},
		{"ListByCustomer", `freshness: {max_wait: {seconds: -1}}`, `INVALID_ARGUMENT: orders.ListByCustomer: freshness: max_wait is negative: leave it out, or allow up to 30s`},
	} {
		_, err := b.call(c.method, c.request)
		wantRefusal(t, c.method+" "+c.request, err, c.want)
	}
	if ids, _ := b.ids("ListByCustomer", `customer_id: "c1" page_size: 1 page_token: "`+next+`"`); ids != "o19" {
		t.Errorf("another page size: %s, want o19", ids)
	}
	_, err := b.service.Handle(t.Context(), &entities.Command{Service: "millrace.query.orders.OrdersQuery", Method: "WatchByCustomer"})
	wantRefusal(t, "no method", err, `UNIMPLEMENTED: millrace.query.orders.OrdersQuery/WatchByCustomer is not a query of this app`)
}

// TestPageTokensOfAnotherDataset: a list does not go on in another dataset, nor with another key.
func TestPageTokensOfAnotherDataset(t *testing.T) {
	b := orders(t, 1)
	fill(b)
	_, next := b.ids("ListByCustomer", `customer_id: "c1"`)
	request := fmt.Sprintf(`customer_id: "c1" page_token: %q`, next)
	other := *b.view
	other.Dataset = 8
	if err := b.service.Define([]*View{&other}, testKey); err != nil {
		t.Fatal(err)
	}
	_, err := b.call("ListByCustomer", request)
	wantRefusal(t, "another dataset", err, `FAILED_PRECONDITION: orders.ListByCustomer: the page_token is of an earlier version of the projection: begin again, without page_token`)
	if err := b.service.Define([]*View{b.view}, []byte(strings.Repeat("k", KeySize))); err != nil {
		t.Fatal(err)
	}
	_, err = b.call("ListByCustomer", request)
	wantRefusal(t, "another key", err, `INVALID_ARGUMENT: orders.ListByCustomer: the page_token is not valid (it was not issued here, or is damaged): send the next_page_token of the page before`)
}

// TestListsGoOnWhereTheyBegan: while the rows of the version before are kept, a list goes on in
// them, whatever was promoted; new lists are of the promoted one.
func TestListsGoOnWhereTheyBegan(t *testing.T) {
	b := orders(t, 4)
	fill(b)
	_, next := b.ids("ListByCustomer", `customer_id: "c1"`)
	before := *b.view
	before.Promoted, before.Kept = false, true
	promoted := viewOf(t, fmt.Sprintf(spec, 5))
	promoted.Dataset = 8
	if err := b.service.Define([]*View{promoted, &before}, testKey); err != nil {
		t.Fatal(err)
	}
	request := fmt.Sprintf(`customer_id: "c1" page_token: %q`, next)
	second, third := b.ids("ListByCustomer", request)
	if second != "o19 o16 o13" || third == "" {
		t.Errorf("second page %q, then %q", second, third)
	}
	_, err := b.call("ListByCustomer", fmt.Sprintf(`customer_id: "c2" page_token: %q`, third))
	wantRefusal(t, "other arguments", err, `INVALID_ARGUMENT: orders.ListByCustomer: the page_token belongs to a list with other arguments: send the same ones for each page, but page_size, freshness and explain`)
	b.scans = nil
	if _, err := b.call("ListByCustomer", `customer_id: "c1"`); err == nil || b.scans[0].Dataset != 8 {
		t.Errorf("a new list: %v, %+v", err, b.scans)
	}
	other := viewOf(t, strings.Replace(fmt.Sprintf(spec, 5), "params: {customer_id: string}", "params: {customer_id: {type: string, number: 2}}", 1))
	other.Dataset = 8
	if err := b.service.Define([]*View{other, &before}, testKey); err != nil {
		t.Fatal(err)
	}
	_, err = b.call("ListByCustomer", request)
	wantRefusal(t, "another request", err, `INVALID_ARGUMENT: orders.ListByCustomer: the page_token belongs to a list with other arguments: send the same ones for each page, but page_size, freshness and explain`)
}

// TestNotPromoted: a projection that is being built says how far it is; so do rows that are not
// here.
func TestNotPromoted(t *testing.T) {
	b := orders(t, 1)
	building := *b.view
	building.Promoted, building.Version = false, "5-dev.1"
	building.Progress = func() string { return "partition 0 at offset 40 of 100" }
	if err := b.service.Define([]*View{&building}, testKey); err != nil {
		t.Fatal(err)
	}
	_, err := b.call("Get", `order_id: "x"`)
	wantRefusal(t, "building", err, `UNAVAILABLE: orders.Get: version 5-dev.1 of the projection is not promoted yet (partition 0 at offset 40 of 100): try again later`)
	if e := entities.AsError(err); e.RetryAfter != time.Second {
		t.Errorf("retry after %v", e.RetryAfter)
	}
	if err := b.service.Define([]*View{&building, b.view}, testKey); err != nil {
		t.Fatal(err)
	}
	_, err = b.call("Get", `order_id: "x"`)
	wantRefusal(t, "the promoted one answers", err, `NOT_FOUND: orders.Get: there is no row with order_id "x"`)
	moved := *b.view
	moved.Dataset = 9
	if err := b.service.Define([]*View{&moved}, testKey); err != nil {
		t.Fatal(err)
	}
	_, err = b.call("Get", `order_id: "x"`)
	wantRefusal(t, "not here", err, `UNAVAILABLE: orders.Get: partition 0 of the projection is BUILDING (40 of 100 records): try again later`)
}

// TestAProjectionThatCannotBeServed: the others are.
func TestAProjectionThatCannotBeServed(t *testing.T) {
	b := orders(t, 1)
	wrong := *viewOf(t, strings.ReplaceAll(fmt.Sprintf(spec, 4), "name: orders", "name: others"))
	wrong.Indexes = nil
	if err := b.service.Define([]*View{&wrong, b.view}, testKey); err != nil {
		t.Fatal(err)
	}
	if _, err := b.call("ListAll", ""); err != nil {
		t.Error(err)
	}
	_, err := b.service.Handle(t.Context(), &entities.Command{Service: "millrace.query.others.OthersQuery", Method: "ListAll"})
	wantRefusal(t, "others", err, "UNIMPLEMENTED: others.ListAll: this version of millrace cannot serve version 4 of the projection: not every index and aggregate has a number")
}

// TestTooManyQueries: what has no place is refused with a hint, what waits is answered.
func TestTooManyQueries(t *testing.T) {
	b := orders(t, 1, func(o *Options) { o.Queries, o.Waiting = 1, 1 })
	entered, leave := make(chan struct{}), make(chan struct{})
	b.onOpen = func(*Scan) error {
		entered <- struct{}{}
		<-leave
		return nil
	}
	done := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := b.reply("Get", `order_id: "x"`)
			done <- err
		}()
	}
	<-entered
	for len(b.service.places) < 2 {
		runtime.Gosched() // both have a place soon
	}
	_, err := b.call("Get", `order_id: "x"`)
	wantRefusal(t, "too many", err, `RESOURCE_EXHAUSTED: orders.Get: 1 query run, and 1 more wait: nothing was applied, try again later`)
	if e := entities.AsError(err); e.RetryAfter <= 0 {
		t.Error("there is no hint")
	}
	leave <- struct{}{}
	<-entered
	leave <- struct{}{}
	for range 2 {
		wantRefusal(t, "answered", <-done, `NOT_FOUND: orders.Get: there is no row with order_id "x"`)
	}
}

// TestAllow: a query with a condition on its caller is served in the profile dev only.
func TestAllow(t *testing.T) {
	text := strings.Replace(fmt.Sprintf(spec, 4), "    ListAll:\n", "    ListAll:\n      allow: caller.sub == 'x'\n", 1)
	b := newBench(t, text, 1)
	_, err := b.call("ListAll", "")
	wantRefusal(t, "allow", err, "PERMISSION_DENIED: orders.ListAll has a condition `allow`, and callers cannot be authenticated yet: it is served in the profile dev only")
	b = newBench(t, text, 1, func(o *Options) { o.Dev = true })
	if _, err := b.call("ListAll", ""); err != nil {
		t.Error(err)
	}
}
