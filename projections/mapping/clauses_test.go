package mapping_test

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/millrace-io/millrace/projections/mapping"
)

// TestEntries: entries of indexes and groups are what the definition says of a row.
func TestEntries(t *testing.T) {
	s := shop(t)
	p := shopProjection(t, `row: shop.v1.OrderRow
key: [order_id]
visible: has(row.placed_at)
from: [{entity: order, events: {OrderPlaced: {set: {customer_id: '${event.customer_id}', placed_at: '${event.due}',
  items: '${uint(event.total_cents)}', total_cents: '${event.total_cents}', status: '${event.status}', note: '${event.note}'}}}}]
indexes:
  - {name: by_customer, fields: [customer_id, placed_at desc]}
  - {name: open_only, fields: [placed_at], where: row.status == Status.OPEN}
  - {name: fails, fields: [status], where: 10 / row.total_cents > 0}
aggregates: [{name: by_status, groupBy: [status, note], count: orders, sum: {cents: total_cents, items: items}}]`)
	f := compiled(t, p)
	d := f.Folder()
	row := func(text string) []byte {
		t.Helper()
		rows := newMemory(f)
		if _, err := d.Apply(event(t, s, "o", "shop.v1.OrderPlaced", text), rows); err != nil {
			t.Fatal(err)
		}
		return rows.rows[string(f.EntityKey(nil, "o"))]
	}
	text := strings.Repeat("n", 600)
	open := row(`customer_id: "c" total_cents: 7 status: OPEN due { seconds: 5 nanos: 6 } note: "` + text + `"`)
	shipped := row(`customer_id: "d" status: SHIPPED note: "x"`)
	for _, test := range []struct {
		row     []byte
		visible bool
		in      []bool
		tuples  []mapping.Value
	}{
		{open, true, []bool{true, true, true}, []mapping.Value{mapping.OfText("c"), mapping.OfTime(5, 6)}},
		{shipped, false, []bool{true, false, false}, []mapping.Value{mapping.OfText("d"), {}}},
	} {
		isVisible, err := d.Visible(test.row)
		if isVisible != test.visible || err != nil {
			t.Errorf("visible %t (%v), want %t", isVisible, err, test.visible)
		}
		for i, want := range test.in {
			tuple, in, err := d.IndexEntry([]byte("header"), i, test.row)
			if in != want || err != nil {
				t.Errorf("index %d: %t (%v), want %t", i, in, err, want)
			}
			if i == 0 && !bytes.Equal(tuple, f.IndexShape(0).Append([]byte("header"), test.tuples...)) {
				t.Errorf("index 0: tuple %x", tuple)
			}
		}
	}
	group, sums, err := d.Group(nil, 0, open, nil)
	want := f.GroupShape(0).Append(nil, mapping.OfInt(1), mapping.OfText(text))
	if err != nil || !bytes.Equal(group, want) || !slices.Equal(sums, []int64{7, 7}) {
		t.Errorf("group %x, sums %d (%v), want %x", group, sums, err, want)
	}
	if f.SumUnsigned(0, 0) || !f.SumUnsigned(0, 1) {
		t.Error("items is the unsigned sum")
	}
	if _, err := d.Visible([]byte{0x0a, 9}); err == nil {
		t.Error("a damaged row has no error")
	}
	if _, _, err := d.IndexEntry(nil, 0, []byte{0x0a, 9}); err == nil {
		t.Error("a damaged row has no error in an index")
	}
}

// TestSnapshots: a snapshot is all that its source has to say, and may say that the entity is gone.
func TestSnapshots(t *testing.T) {
	s := shop(t)
	p := shopProjection(t, `row: shop.v1.OrderRow
key: [order_id]
from:
  - entity: order
    events: {OrderPlaced: {set: {note: '${event.note}', total_cents: '${event.total_cents}'}}}
    snapshot: {deleted: state.deleted, set: {total_cents: '${state.total_cents}'}}
  - entity: payment
    state: {set: {paid_cents: '${state.paid_cents}'}}`)
	f := compiled(t, p)
	rows := newMemory(f)
	paid := event(t, s, "o", "shop.v1.Payment", "paid_cents: 3")
	paid.Source, paid.Kind = 1, mapping.OfState
	snapshot := event(t, s, "o", "shop.v1.OrderState", "total_cents: 9")
	snapshot.Kind = mapping.OfSnapshot
	apply(t, f, rows, mapping.Applied, event(t, s, "o", "shop.v1.OrderPlaced", `note: "n" total_cents: 1`), paid, snapshot)
	if got, want := rows.text(t, p.Row), "order_id: \"o\" total_cents: 9 paid_cents: 3\n"; got != want {
		t.Errorf("rows %swant %s", got, want)
	}
	other := event(t, s, "o", "shop.v1.Payment", "")
	other.Kind = mapping.OfSnapshot
	apply(t, f, rows, mapping.Unmapped, other)
	gone := event(t, s, "o", "shop.v1.OrderState", "deleted: true")
	gone.Kind = mapping.OfSnapshot
	apply(t, f, rows, mapping.Applied, gone)
	if len(rows.rows) > 0 {
		t.Errorf("rows %v of a deleted entity", rows.rows)
	}
}

// TestSnapshotsOfLines: the items of a snapshot are all rows that the entity has.
func TestSnapshotsOfLines(t *testing.T) {
	s := shop(t)
	p := shopProjection(t, `row: {order_id: string, sku: string, quantity: int64}
key: [order_id, sku]
from:
  - entity: order
    events: {OrderPlaced: {forEach: {in: '${event.lines}', as: line}, set: {sku: '${line.sku}', quantity: '${line.quantity}'}}}
    snapshot:
      type: OrderPlaced
      forEach: {in: '${state.lines}', as: line}
      set: {sku: '${line.sku}', quantity: '${line.quantity}'}`)
	f := compiled(t, p)
	rows := newMemory(f)
	snapshot := event(t, s, "o", "shop.v1.OrderPlaced",
		`lines { sku: "b" quantity: 2 } lines { sku: "c" quantity: 4 } lines { sku: "d" }`)
	snapshot.Kind = mapping.OfSnapshot
	apply(t, f, rows, mapping.Applied, event(t, s, "o", "shop.v1.OrderPlaced",
		`lines { sku: "a" quantity: 1 } lines { sku: "b" quantity: 2 } lines { sku: "c" quantity: 3 }`),
		event(t, s, "o2", "shop.v1.OrderPlaced", `lines { sku: "a" quantity: 9 }`), snapshot)
	want := "order_id: \"o\" sku: \"b\" quantity: 2\norder_id: \"o\" sku: \"c\" quantity: 4\n" +
		"order_id: \"o\" sku: \"d\"\n" +
		"order_id: \"o2\" sku: \"a\" quantity: 9\n"
	if got := rows.text(t, p.Row); got != want {
		t.Errorf("rows\n%swant\n%s", got, want)
	}
}

// TestReads: rows are not read for the first record of an entity, and errors of rows are handed on.
func TestReads(t *testing.T) {
	s := shop(t)
	p := shopProjection(t, `row: shop.v1.OrderRow
key: [order_id]
from: [{entity: order, events: {OrderPlaced: {set: {note: x}}, OrderShipped: {all: {update: {note: q}}}, OrderDeleted: {delete: true}}}]`)
	f := compiled(t, p)
	rows := newMemory(f)
	for _, name := range []string{"OrderShipped", "OrderDeleted", "OrderPlaced"} {
		r := event(t, s, "o", protoreflect.FullName("shop.v1."+name), "")
		r.First = true
		apply(t, f, rows, mapping.Applied, r)
	}
	if rows.gets != 0 || len(rows.rows) != 1 {
		t.Errorf("%d reads, %d rows", rows.gets, len(rows.rows))
	}
	rows.fail = errors.New("the disk is gone")
	for _, name := range []string{"OrderShipped", "OrderPlaced"} {
		_, err := f.Folder().Apply(event(t, s, "o", protoreflect.FullName("shop.v1."+name), ""), rows)
		if err == nil || isFoldError(err) {
			t.Errorf("%s: %v, want the error of the rows", name, err)
		}
	}
	if _, err := f.Folder().Apply(&mapping.Record{Source: 1}, rows); err == nil {
		t.Error("no error for a source that is not there")
	}
}

// TestDynamicEvents: JSON and single values are folded without a descriptor.
func TestDynamicEvents(t *testing.T) {
	p := shopProjection(t, `row: shop.v1.OrderRow
key: [order_id]
from:
  - entity: order
    events:
      json.cloudstate.io/Placed:
        set: {note: '${event.name}', total_cents: '${event.cents}', weight: '${event.cents}', items: '${uint(event.lines.size())}',
          tags: '${dyn(event.by_name.map(k, k))}', customer_id: 'c ${event.cents}', small: '${event.absent}'}
      p.cloudstate.io/string: {set: {note: '${event}'}}
      p.cloudstate.io/int64: {set: {total_cents: '${event}'}}`)
	f := compiled(t, p)
	json := `{"name": "n", "cents": 12, "lines": [1, 2], "by_name": {"b": 1, "a": 2, "d": 3, "c": 4}, "absent": null}`
	want := `order_id: "o" customer_id: "c 12" total_cents: 12 note: "n" tags: "a" tags: "b" tags: "c" tags: "d" weight: 12 items: 2` + "\n"
	for name, test := range map[string]struct{ typ, value, want string }{
		"JSON":           {"json.cloudstate.io/Placed", json, want},
		"JSON in bytes":  {"json.cloudstate.io/Placed", "\x0a" + string(rune(len(json))) + json, want},
		"a string":       {"p.cloudstate.io/string", "\x0a\x02ab", "order_id: \"o\" note: \"ab\"\n"},
		"a whole number": {"p.cloudstate.io/int64", "\x08\x05", "order_id: \"o\" total_cents: 5\n"},
	} {
		t.Run(name, func(t *testing.T) {
			rows := newMemory(f)
			r := &mapping.Record{Kind: mapping.OfEvent, Type: test.typ, Value: []byte(test.value), Entity: "o"}
			apply(t, f, rows, mapping.Applied, r)
			if got := rows.text(t, p.Row); got != test.want {
				t.Errorf("rows\n%swant\n%s", got, test.want)
			}
		})
	}
	for name, r := range map[string]*mapping.Record{
		"no JSON":  {Kind: mapping.OfEvent, Type: "json.cloudstate.io/Placed", Value: []byte("{"), Entity: "o"},
		"fraction": {Kind: mapping.OfEvent, Type: "json.cloudstate.io/Placed", Value: []byte(strings.Replace(json, "12", "1.5", 1)), Entity: "o"},
	} {
		if _, err := f.Folder().Apply(r, newMemory(f)); !isFoldError(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOneofs: a field of a oneof takes the place of the others.
func TestOneofs(t *testing.T) {
	s := schema(t, map[string]string{"shop/v1/one.proto": `syntax = "proto3"; package shop.v1;
		message Row { string id = 1; oneof which { string a = 2; string b = 3; int64 c = 4; } }
		message SetA { optional string a = 1; } message SetB { string b = 1; } message Both { string a = 1; string b = 2; }
		message Clear {} message Id { string id = 1; } service Orders { rpc Get(Id) returns (Id); }`})
	p := projection(t, s, "p", "apiVersion: millrace/v1\nkind: Projection\nmetadata: {name: p, version: 1}\nspec:\n"+
		"  row: shop.v1.Row\n  key: [id]\n  from:\n    - entity: order\n      events:\n        SetA: {set: {a: '${event.a}'}}\n"+
		"        SetB: {set: {b: '${event.b}'}}\n        Both: {set: {a: '${event.a}', b: '${event.b}'}}\n        Clear: {set: {a: null}}\n")
	f := compiled(t, p)
	rows := newMemory(f)
	for _, step := range []struct{ event, text, want string }{
		{"SetA", `a: "x"`, `id: "o" a: "x"`},
		{"SetB", `b: "y"`, `id: "o" b: "y"`},
		{"SetA", ``, `id: "o" b: "y"`},
		{"Clear", ``, `id: "o" b: "y"`},
		{"SetA", `a: "z"`, `id: "o" a: "z"`},
		{"Both", `a: "1" b: "2"`, `id: "o" b: "2"`},
		{"SetA", `a: ""`, `id: "o" a: ""`},
		{"Clear", ``, `id: "o"`},
	} {
		apply(t, f, rows, mapping.Applied, event(t, s, "o", protoreflect.FullName("shop.v1."+step.event), step.text))
		if got := strings.TrimSpace(rows.text(t, p.Row)); got != step.want {
			t.Errorf("%s %s: row %s, want %s", step.event, step.text, got, step.want)
		}
	}
}

// TestMapsAreInOrder: expressions go through a map by its sorted keys, even if only the run shows
// that it is one, and so does forEach.
func TestMapsAreInOrder(t *testing.T) {
	s := shop(t)
	p := shopProjection(t, `row: {order_id: string, name: string, all: repeated string}
key: [order_id, name]
from:
  - entity: order
    events:
      OrderPlaced:
        forEach: {in: '${event.counts}', as: name}
        set: {name: '${name}', all: '${dyn(dyn(event.counts).map(k, k))}'}`)
	f := compiled(t, p)
	rows := newMemory(f)
	var counts, want []string
	for _, key := range []string{"g", "c", "l", "a", "f", "k", "b", "e", "j", "d", "i", "h"} {
		counts, want = append(counts, `counts { key: "`+key+`" }`), append(want, key)
	}
	slices.Sort(want)
	r := event(t, s, "o", "shop.v1.OrderPlaced", strings.Join(counts, " "))
	order := &inOrder{Rows: rows}
	apply(t, f, order, mapping.Applied, r)
	list := `all: "` + strings.Join(want, `" all: "`) + `"`
	text := rows.text(t, p.Row)
	if n := strings.Count(text, list); n != len(want) {
		t.Errorf("%d of %d rows have %s:\n%s", n, len(want), list, text)
	}
	if !slices.IsSorted(order.keys) || len(order.keys) != len(want) {
		t.Errorf("rows are written in the order %q", order.keys)
	}
}

// inOrder notes the keys of what is written.
type inOrder struct {
	mapping.Rows
	keys []string
}

func (o *inOrder) Put(key, row []byte) {
	o.keys = append(o.keys, string(key))
	o.Rows.Put(key, row)
}

// TestNothingIsWrittenWithAnError: a record whose last item fails changes no row.
func TestNothingIsWrittenWithAnError(t *testing.T) {
	s := shop(t)
	p := shopProjection(t, `row: {order_id: string, sku: string, part: int64}
key: [order_id, sku]
from:
  - entity: order
    events:
      OrderPlaced:
        forEach: {in: '${event.lines}', as: line, maxItems: 3}
        set: {sku: '${line.sku}', part: '${10 / line.cents}'}`)
	f := compiled(t, p)
	rows := newMemory(f)
	apply(t, f, rows, mapping.Applied, event(t, s, "o", "shop.v1.OrderPlaced", `lines { sku: "a" cents: 1 }`))
	before := rows.text(t, p.Row)
	for name, text := range map[string]string{
		"an item that fails": `lines { sku: "a" cents: 2 } lines { sku: "b" cents: 2 } lines { sku: "c" }`,
		"an item too many": `lines { sku: "a" cents: 2 } lines { sku: "b" cents: 2 } lines { sku: "c" cents: 2 } ` +
			`lines { sku: "d" cents: 2 }`,
	} {
		_, err := f.Folder().Apply(event(t, s, "o", "shop.v1.OrderPlaced", text), rows)
		if !isFoldError(err) {
			t.Errorf("%s: %v", name, err)
		}
		if after := rows.text(t, p.Row); after != before {
			t.Errorf("%s: rows\n%sbefore\n%s", name, after, before)
		}
	}
}

// TestRowsOfARecordAreBounded: one record cannot make rows without end.
func TestRowsOfARecordAreBounded(t *testing.T) {
	s := shop(t)
	p := shopProjection(t, `row: {order_id: string, sku: string, note: string}
key: [order_id, sku]
from:
  - entity: order
    events:
      OrderPlaced:
        forEach: {in: '${event.lines}', as: line}
        set: {sku: '${line.sku}', note: '${event.note}'}`)
	f := compiled(t, p)
	rows := newMemory(f)
	text := strings.Builder{}
	for i := range 100 {
		text.WriteString(`lines { sku: "` + strconv.Itoa(i) + `" } `)
	}
	r := event(t, s, "o", "shop.v1.OrderPlaced", text.String()+`note: "`+strings.Repeat("n", 200<<10)+`"`)
	_, err := f.Folder().Apply(r, rows)
	const want = "the rows of one record would be above 16 MiB"
	if !isFoldError(err) || !strings.Contains(err.Error(), want) || len(rows.rows) > 0 {
		t.Errorf("%v, %d rows", err, len(rows.rows))
	}
}
