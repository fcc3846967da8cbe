package projections_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/projections"
	"github.com/millrace-io/millrace/projections/definition"
	"github.com/millrace-io/millrace/projections/query"
	"github.com/millrace-io/millrace/projections/query/local"
)

// queriesYAML are the queries of the orders of these tests.
const queriesYAML = `  queries:
    ListByCustomer:
      params: {customer_id: string}
      where: row.customer_id == params.customer_id
      filterable: [status, total_cents]
      orderable: [[placed_at desc], [placed_at]]
      page: {default: 2, max: 10}
      count: true
    ListOpen: {where: row.status == Status.OPEN, index: open_only}
    Statuses: {aggregate: by_status}
`

// queries is a service of queries over a fixture's engine.
type queries struct {
	*fixture

	service *query.Service
}

// owner answers for the world's owner.
type owner struct{ *fixture }

func (o owner) Confirm(ctx context.Context, _ int32) (int64, error) { return o.end(), ctx.Err() }
func (o owner) Confirmed(int32) (int64, time.Time, bool)            { return 0, time.Time{}, false }

// newQueries returns a service for views, of which the first is promoted.
func newQueries(f *fixture, views ...*projections.View) *queries {
	f.t.Helper()
	q := &queries{fixture: f, service: query.New(query.Options{
		App: "shop", Executor: &local.Executor{Engine: f.engine, Count: 1}, Freshness: owner{f},
	})}
	q.define(views...)
	return q
}

// define replaces the views, of which the first is promoted.
func (q *queries) define(views ...*projections.View) {
	q.t.Helper()
	var all []*query.View
	for i, v := range views {
		all = append(all, &query.View{
			Projection: v.Projection, Version: "1", Dataset: v.Dataset, Indexes: v.Indexes, Aggregates: v.Aggregates,
			Promoted: i == 0 || v.Live && v.Projection.Head().Name != views[0].Projection.Head().Name,
		})
	}
	if err := q.service.Define(all, []byte(strings.Repeat("k", query.KeySize))); err != nil {
		q.t.Fatal(err)
	}
}

// call calls a method; request is in the text form, the reply in JSON without its token.
func (q *queries) call(method, request string) (reply, token string) {
	q.t.Helper()
	m := q.service.Catalog().Service("millrace.query.orders.OrdersQuery").Method(method)
	in, out := dynamicpb.NewMessage(m.Input), dynamicpb.NewMessage(m.Output)
	read := prototext.UnmarshalOptions{Resolver: q.service.Catalog().Types()}
	if err := read.Unmarshal([]byte(request), in); err != nil {
		q.t.Fatal(err)
	}
	payload, err := proto.Marshal(in)
	if err != nil {
		q.t.Fatal(err)
	}
	cmd, err := m.Command(payload, nil)
	if err != nil {
		q.t.Fatal(err)
	}
	cmd.Consistency = entities.Eventual
	if strings.Contains(request, "freshness") {
		cmd.Consistency = entities.Strong
	}
	answer, err := q.service.Handle(q.t.Context(), cmd)
	if err != nil {
		return err.Error(), ""
	}
	if err := proto.Unmarshal(answer.Payload.Value, out); err != nil {
		q.t.Fatal(err)
	}
	out.Clear(m.Output.Fields().ByName("token"))
	encoded, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(out)
	if err != nil {
		q.t.Fatal(err)
	}
	return strings.ReplaceAll(string(encoded), ", ", ","), answer.Token
}

// ordersWithQueries is the view of orders with all parts and queries.
func (w *world) ordersWithQueries() *projections.View {
	w.t.Helper()
	v := w.ordersView("park-key", 1, 2, 3, 4)
	text := fmt.Sprintf(ordersYAML, "park-key", orderParts[1]+", "+orderParts[2], orderParts[3]+", "+orderParts[4])
	v.Projection = projection(w.t, text+queriesYAML)
	return v
}

// TestQueries: what was folded is returned by key, by index, by pages, counted and added.
func TestQueries(t *testing.T) {
	if _, err := schema(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1, 1<<20)
		defer f.stop()
		view := f.ordersWithQueries()
		f.start(view)
		f.catchUp()
		q := newQueries(f, view)
		for i := range 5 {
			f.event(fmt.Sprintf("order/o%d", i), "OrderPlaced", placed(fmt.Sprintf("c%d", i%2), int64(i+1)))
		}
		f.event("order/o2", "OrderShipped", nil)
		f.event("order/o4", "OrderPlaced", placed("c0", 0)) // a division by zero: it is parked
		f.catchUp()
		synctest.Wait()
		got, token := q.call("Get", `order_id: "o2" read_mask: {paths: ["order_id", "customer_id", "status", "total_cents"]}`)
		if want := `{"orders":{"order_id":"o2","customer_id":"c0","total_cents":"333","status":"SHIPPED"}}`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		want := entities.Token{App: "shop", Generation: entities.Generation, Positions: []entities.Position{{Partition: 0, Next: f.end()}}}
		if token != want.Encode() {
			t.Errorf("token %s, want %s", token, want.Encode())
		}
		const mask = ` read_mask: {paths: "order_id"}`
		for _, c := range []struct{ method, request, want string }{
			{"Get", `order_id: "o9"`, `orders.Get: there is no row with order_id "o9"`},
			{"ListByCustomer", `customer_id: "c1"` + mask, `{"orders":[{"order_id":"o3"},{"order_id":"o1"}]}`},
			{"ListByCustomer", `customer_id: "c0" order_by: "placed_at" page_size: 9` + mask, `{"orders":[{"order_id":"o0"},{"order_id":"o2"},{"order_id":"o4"}],"stale":true}`},
			{"ListByCustomer", `customer_id: "c0" filter: "status = OPEN AND total_cents > 500"` + mask, `{"orders":[{"order_id":"o0"}]}`},
			{"ListOpen", mask, `{"orders":[{"order_id":"o0"},{"order_id":"o1"},{"order_id":"o3"},{"order_id":"o4"}],"stale":true}`},
			{"CountByCustomer", `customer_id: "c0"`, `{"count":"3"}`},
			{"Statuses", ``, `{"groups":[{"status":"OPEN","orders":"4","cents":"1950"},{"status":"SHIPPED","orders":"1","cents":"333"}]}`},
		} {
			if got, _ := q.call(c.method, c.request); got != c.want {
				t.Errorf("%s {%s}: %s, want %s", c.method, c.request, got, c.want)
			}
		}
	})
}

// TestLookups: fields are filled from the rows of another projection, as fresh as the rows
// themselves; a row that is not there leaves them unset.
func TestLookups(t *testing.T) {
	s, err := schema()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1, 1<<20)
		defer f.stop()
		text := fmt.Sprintf(ordersYAML, "park-key", orderParts[1], "") +
			"  lookup: [{projection: customers, by: customer_id, fields: {customer_name: name}}]\n" +
			"  queries: {ListByCustomer: {params: {customer_id: string}, where: row.customer_id == params.customer_id}}\n" +
			`---
apiVersion: millrace/v1
kind: Projection
metadata: {name: customers, version: 1}
spec:
  row: shop.v1.CustomerRow
  key: [customer_id]
  from: [{entity: customer, events: {CustomerNamed: {set: {name: '${event.name}'}}}}]
`
		set := definition.Check([]definition.Source{{Name: "x.yaml", Text: []byte(text)}}, definition.Options{Schema: s})
		if err := set.Report.Err(); err != nil {
			t.Fatal(err)
		}
		orders := &projections.View{
			Projection: set.Definitions[0].(*definition.Projection), Dataset: 7, Indexes: []uint16{1}, Live: true,
		}
		customers := &projections.View{Projection: set.Definitions[1].(*definition.Projection), Dataset: 9, Live: true}
		f.start(orders, customers)
		f.event("order/o1", "OrderPlaced", placed("c1", 1))
		f.event("order/o2", "OrderPlaced", placed("c2", 1))
		named := func(name string) {
			f.event("customer/c1", "CustomerNamed", append([]byte{0x0a, byte(len(name))}, name...))
		}
		named("Ada")
		f.catchUp()
		synctest.Wait()
		q := newQueries(f, orders, customers)
		const mask = `read_mask: {paths: ["order_id", "customer_name"]}`
		check := func(method, request, want string) {
			t.Helper()
			if got, _ := q.call(method, request); got != want {
				t.Errorf("%s {%s}: %s, want %s", method, request, got, want)
			}
		}
		check("Get", `order_id: "o1" `+mask, `{"orders":{"order_id":"o1","customer_name":"Ada"}}`)
		check("Get", `order_id: "o2" `+mask, `{"orders":{"order_id":"o2"}}`)
		check("Get", `order_id: "o1" read_mask: {paths: "order_id"}`, `{"orders":{"order_id":"o1"}}`)
		check("ListByCustomer", `customer_id: "c1" `+mask, `{"orders":[{"order_id":"o1","customer_name":"Ada"}]}`)
		named("Grace")
		answer := make(chan string, 1)
		go func() {
			got, _ := q.call("Get", `order_id: "o1" freshness: {strong: {}} `+mask)
			answer <- got
		}()
		synctest.Wait()
		f.catchUp()
		if got, want := <-answer, `{"orders":{"order_id":"o1","customer_name":"Grace"}}`; got != want {
			t.Errorf("strong: %s, want %s", got, want)
		}
		q = newQueries(f, orders)
		check("Get", `order_id: "o1"`, "orders.Get: fields are looked up in the projection customers, and it is not promoted yet: try again later")
		check("Get", `order_id: "o1" read_mask: {paths: "order_id"}`, `{"orders":{"order_id":"o1"}}`)
	})
}

// TestReadYourWrite: a query that brings the token of a write waits until the rows have it.
func TestReadYourWrite(t *testing.T) {
	if _, err := schema(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1, 1<<20)
		defer f.stop()
		view := f.ordersWithQueries()
		f.start(view)
		f.catchUp()
		synctest.Wait()
		q := newQueries(f, view)
		for i := range 20 {
			id := fmt.Sprintf("o%d", i)
			next := f.event("order/"+id, "OrderPlaced", placed("c", 1)) + 1
			written := entities.Token{App: "shop", Generation: entities.Generation, Positions: []entities.Position{{Partition: 0, Next: next}}}
			if got, _ := q.call("Get", fmt.Sprintf("order_id: %q", id)); !strings.Contains(got, "there is no row") {
				t.Fatalf("the row is there before it was folded: %s", got)
			}
			answers := make(chan string, 2)
			for _, level := range []string{fmt.Sprintf("at_least: %q", written.Encode()), "strong: {}"} {
				go func() {
					got, _ := q.call("Get", fmt.Sprintf("order_id: %q freshness: {%s} read_mask: {paths: \"order_id\"}", id, level))
					answers <- got
				}()
			}
			synctest.Wait()
			f.catchUp()
			for range 2 {
				if got := <-answers; got != fmt.Sprintf(`{"orders":{"order_id":%q}}`, id) {
					t.Fatal(got)
				}
			}
		}
	})
}

// TestNoAnswerFromAnotherDataset: the dataset is that of the process that answers the query,
// whatever a worker has beside it.
func TestNoAnswerFromAnotherDataset(t *testing.T) {
	if _, err := schema(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1, 1<<20)
		defer f.stop()
		promoted := f.ordersWithQueries()
		next := f.ordersView("skip", 1, 2, 3, 4)
		next.Dataset = ordersDataset + 2
		text := fmt.Sprintf(ordersYAML, "skip", orderParts[1]+", "+orderParts[2], orderParts[3]+", "+orderParts[4])
		text = strings.Replace(text, "1000 / event.total_cents", "2000 / event.total_cents", 1)
		next.Projection = projection(t, strings.Replace(text, "version: 1", "version: 2", 1)+queriesYAML)
		f.start(promoted, next)
		f.event("order/o1", "OrderPlaced", placed("c", 2))
		f.catchUp()
		synctest.Wait()
		for _, c := range []struct {
			views []*projections.View
			want  string
		}{
			{[]*projections.View{promoted, next}, "500"}, {[]*projections.View{next, promoted}, "1000"},
		} {
			got, _ := newQueries(f, c.views...).call("Get", `order_id: "o1" read_mask: {paths: "total_cents"}`)
			if want := fmt.Sprintf(`{"orders":{"total_cents":%q}}`, c.want); got != want {
				t.Errorf("dataset %d: %s, want %s", c.views[0].Dataset, got, want)
			}
		}
		missing := *promoted
		missing.Dataset = 99
		if got, _ := newQueries(f, &missing).call("Get", `order_id: "o1"`); !strings.Contains(got, "partition 0 of the projection is ABSENT") {
			t.Error(got)
		}
	})
}
