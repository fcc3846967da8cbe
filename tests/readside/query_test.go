package readside_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/entities"
	ordersv1 "github.com/millrace-io/millrace/examples/orders/orders/v1"
	"github.com/millrace-io/millrace/projections/query"
	"github.com/millrace-io/millrace/tests/readside"
)

// memory is an executor whose rows are what plain code makes of the log. Everything is sorted when
// it is asked for. It returns everything between the bounds, and so more than a scan's limit.
type memory struct {
	// datasets have orders under 1 and customers under 2, by partition.
	datasets map[uint32][]*readside.Dataset
}

func (m *memory) Partitions() int32 { return int32(len(m.datasets[1])) }

func (m *memory) PartitionOf(entity string) int32 { return partitionOf(entity, len(m.datasets[1])) }

// partitionOf spreads the few ids of these tests.
func partitionOf(entity string, partitions int) int32 {
	sum := 0
	for _, b := range []byte(entity) {
		sum += int(b)
	}
	return int32(sum % partitions)
}

// Confirm and Confirmed say that everything is there.
func (m *memory) Confirm(context.Context, int32) (int64, error) { return position, nil }

func (m *memory) Confirmed(int32) (int64, time.Time, bool) { return position, time.Now(), true }

// position is how far the rows of each partition are.
const position = 9

// Changes are none: nothing is watched here.
func (m *memory) Changes(ctx context.Context, _ *query.Scan, _ int64, _ time.Duration) (*query.Changes, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (m *memory) Open(_ context.Context, s *query.Scan) (query.Rows, error) {
	d, found := m.datasets[s.Dataset][s.Partition], map[string]*query.Entry{}
	switch s.Table {
	case query.ByKey:
		for key, row := range d.Rows {
			found[key] = &query.Entry{Row: row}
		}
	case query.ByIndex:
		for tuple, e := range d.Indexes[s.Number-1] {
			found[tuple] = &query.Entry{Row: d.Rows[e.Key]}
		}
	case query.Groups:
		for tuple, g := range d.Aggregates[s.Number-1] {
			found[tuple] = &query.Entry{Count: g.Orders, Sums: []query.Sum{{High: g.Cents >> 63, Low: uint64(g.Cents)}}}
		}
	}
	e := &entries{}
	for _, tuple := range slices.Sorted(maps.Keys(found)) {
		if tuple >= string(s.Lower) && (s.Upper == nil || tuple < string(s.Upper)) {
			found[tuple].Tuple = []byte(tuple)
			e.list = append(e.list, found[tuple])
		}
	}
	if s.Reverse {
		slices.Reverse(e.list)
	}
	return e, nil
}

// entries are what a scan returns.
type entries struct{ list []*query.Entry }

func (e *entries) At() query.At { return query.At{Position: position, End: position} }
func (e *entries) Close()       {}

func (e *entries) Next(context.Context) (*query.Entry, error) {
	if len(e.list) == 0 {
		return nil, nil //nolint:nilnil // behind the last one
	}
	next := e.list[0]
	e.list = e.list[1:]
	return next, nil
}

// asked is a request in wire form, and what the parts of an answer are.
type asked struct {
	t       *rapid.T
	service *query.Service
}

// field is a field of a request: text or number.
type field struct {
	number protowire.Number
	text   string
	value  uint64
}

func (a *asked) call(method string, fields ...field) map[protowire.Number][][]byte {
	var in []byte
	for _, f := range fields {
		if f.text != "" {
			in = protowire.AppendString(protowire.AppendTag(in, f.number, protowire.BytesType), f.text)
		} else if f.value > 0 {
			in = protowire.AppendVarint(protowire.AppendTag(in, f.number, protowire.VarintType), f.value)
		}
	}
	reply, err := a.service.Handle(a.t.Context(), &entities.Command{
		Service: "millrace.query.orders.OrdersQuery", Method: method, Payload: entities.Payload{Value: in},
	})
	if err != nil {
		a.t.Fatalf("%s %v: %v", method, fields, err)
	}
	return parts(a.t, reply.Payload.Value)
}

// parts takes a message apart; numbers are in their wire form.
func parts(t *rapid.T, message []byte) map[protowire.Number][][]byte {
	all := map[protowire.Number][][]byte{}
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		size := protowire.ConsumeFieldValue(number, kind, message[n:])
		if size < 0 {
			t.Fatal(protowire.ParseError(size))
		}
		value := message[n : n+size]
		if kind == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(value)
		}
		all[number], message = append(all[number], value), message[n+size:]
	}
	return all
}

// number reads a whole number, 0 if it is not there.
func number(list [][]byte) int64 {
	if len(list) == 0 {
		return 0
	}
	n, _ := protowire.ConsumeVarint(list[0])
	return int64(n)
}

// list reads all pages of a list.
func (a *asked) list(all *readside.Rows, method string, size uint64, fields ...field) (ids []string) {
	for token, first := "", true; first || token != ""; first = false {
		paged := append(slices.Clip(fields), field{number: 101, value: size}, field{number: 102, text: token})
		page := a.call(method, paged...)
		for _, encoded := range page[1] {
			var row ordersv1.OrderRow
			if err := proto.Unmarshal(encoded, &row); err != nil {
				a.t.Fatal(err)
			}
			a.compare(encoded, all.Order(row.GetOrderId()))
			ids = append(ids, row.GetOrderId())
		}
		if n := len(page[1]); n > int(size) {
			a.t.Fatalf("a page of %d has %d rows", size, n)
		}
		token = ""
		if len(page[2]) > 0 {
			token = string(page[2][0])
		}
	}
	return ids
}

// compare compares a row in wire form, with what is looked up, with the plain one.
func (a *asked) compare(encoded []byte, want *ordersv1.OrderRow) {
	var got ordersv1.OrderRow
	if err := proto.Unmarshal(encoded, &got); err != nil || !proto.Equal(&got, want) {
		a.t.Errorf("the order is %v (%v), want %v", &got, err, want)
	}
}

// condition is a part of a filter, and what it means.
type condition struct {
	text  string
	holds func(row) bool
}

type row = *ordersv1.OrderRow

// conditions draws a filter of orders.ListByCustomer.
func conditions(t *rapid.T) condition {
	a := oneCondition(t)
	switch rapid.IntRange(0, 3).Draw(t, "more") {
	case 0:
		b := oneCondition(t)
		return condition{a.text + " AND " + b.text, func(r row) bool { return a.holds(r) && b.holds(r) }}
	case 1:
		b := oneCondition(t)
		return condition{"(" + a.text + ") OR (" + b.text + ")", func(r row) bool { return a.holds(r) || b.holds(r) }}
	default:
		return a
	}
}

func oneCondition(t *rapid.T) condition {
	s := ordersv1.Status(rapid.Int32Range(1, 3).Draw(t, "status"))
	n := rapid.Int64Range(-3, 2_000).Draw(t, "cents")
	at := time.Unix(1_700_000_000+rapid.Int64Range(0, 40).Draw(t, "seconds"), 0).UTC()
	clock := at.Format(time.RFC3339)
	return rapid.SampledFrom([]condition{
		{"status = " + s.String(), func(r row) bool { return r.GetStatus() == s }},
		{"NOT status = " + s.String(), func(r row) bool { return r.GetStatus() != s }},
		{fmt.Sprintf("total_cents > %d", n), func(r row) bool { return r.GetTotalCents() > n }},
		{fmt.Sprintf("total_cents <= %d", n), func(r row) bool { return r.GetTotalCents() <= n }},
		{"placed_at >= " + clock, func(r row) bool { return !r.GetPlacedAt().AsTime().Before(at) }},
		{"placed_at < " + clock, func(r row) bool { return r.GetPlacedAt().AsTime().Before(at) }},
	}).Draw(t, "condition")
}

// TestQueriesAreThePlainAnswers asks the generated service for lists with filters, orders and pages
// of any size, for counts and groups, and compares them with what plain code finds among all rows.
func TestQueriesAreThePlainAnswers(t *testing.T) {
	projections := exampleProjections(t)
	rapid.Check(t, func(t *rapid.T) {
		var byPartition [3][]readside.Record
		for _, r := range histories(t) {
			at := partitionOf(r.Entity.ID, len(byPartition))
			byPartition[at] = append(byPartition[at], r)
		}
		m := &memory{datasets: map[uint32][]*readside.Dataset{}}
		for _, records := range byPartition {
			rows, err := readside.Fold(records)
			if err != nil {
				t.Fatal(err)
			}
			orders, err := rows.StoredOrders()
			if err != nil {
				t.Fatal(err)
			}
			customers, err := rows.StoredCustomers()
			if err != nil {
				t.Fatal(err)
			}
			m.datasets[1], m.datasets[2] = append(m.datasets[1], orders), append(m.datasets[2], customers)
		}
		all, err := readside.Fold(byPartition[:]...)
		if err != nil {
			t.Fatal(err)
		}
		s := query.New(query.Options{App: "shop", Executor: m, Freshness: m})
		views := []*query.View{
			{
				Projection: projections["orders"], Version: "1", Dataset: 1, Indexes: []uint16{1, 2},
				Aggregates: []uint16{1}, Promoted: true,
			},
			{Projection: projections["customers"], Version: "1", Dataset: 2, Indexes: []uint16{1}, Promoted: true},
		}
		if err := s.Define(views, make([]byte, query.KeySize)); err != nil {
			t.Fatal(err)
		}
		comparePlain(&asked{t, s}, all)
	})
}

func comparePlain(a *asked, all *readside.Rows) {
	t := a.t
	size := rapid.Uint64Range(1, 5).Draw(t, "size")
	customer := words.Draw(t, "of")
	filter := condition{"", func(row) bool { return true }}
	if rapid.Bool().Draw(t, "filtered") {
		filter = conditions(t)
	}
	of, narrowed := field{number: 1, text: customer}, field{number: 103, text: filter.text}
	var want []string
	for _, row := range all.ListByCustomer(customer) {
		if filter.holds(row) {
			want = append(want, row.GetOrderId())
		}
	}
	equal(t, "latest first, "+filter.text, a.list(all, "ListByCustomer", size, of, narrowed), want)
	slices.Reverse(want)
	reversed := field{number: 104, text: "placed_at"}
	equal(t, "oldest first, "+filter.text, a.list(all, "ListByCustomer", size, of, narrowed, reversed), want)
	if n := number(a.call("CountByCustomer", of, narrowed)[1]); n != int64(len(want)) {
		t.Errorf("count of %q with %q is %d, want %d", customer, filter.text, n, len(want))
	}
	want = nil
	for _, row := range all.ListOpen() {
		want = append(want, row.GetOrderId())
	}
	equal(t, "open", a.list(all, "ListOpen", size), want)
	slices.Reverse(want)
	reversed.text += " desc"
	equal(t, "open, latest first", a.list(all, "ListOpen", size, reversed), want)
	groups := map[ordersv1.Status]readside.Group{}
	for _, encoded := range a.call("CountByStatus")[1] {
		g := parts(t, encoded)
		groups[ordersv1.Status(number(g[1]))] = readside.Group{Orders: number(g[51]), Cents: number(g[52])}
	}
	if counts := all.CountByStatus(); !maps.Equal(groups, counts) {
		t.Errorf("groups %v, want %v", groups, counts)
	}
	for _, id := range slices.Sorted(maps.Keys(all.Orders)) {
		a.compare(a.call("Get", field{number: 1, text: id})[1][0], all.Order(id))
	}
}

func equal(t *rapid.T, what string, got, want []string) {
	if cmp.Compare(strings.Join(got, "|"), strings.Join(want, "|")) != 0 {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}
