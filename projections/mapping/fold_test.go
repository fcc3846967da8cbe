package mapping_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/projections/definition"
	"github.com/millrace-io/millrace/projections/mapping"
)

// schema compiles proto files, and describes the entity types of the shop.
func schema(t testing.TB, files map[string]string) *definition.Schema {
	t.Helper()
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		Accessor: protocompile.SourceAccessorFromMap(files),
	})}
	compiled, err := compiler.Compile(t.Context(), slices.Sorted(maps.Keys(files))...)
	if err != nil {
		t.Fatal(err)
	}
	set, seen := &descriptorpb.FileDescriptorSet{}, map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	for _, file := range compiled {
		add(file)
	}
	again := &descriptorpb.FileDescriptorSet{}
	encoded, err := proto.Marshal(set)
	if err == nil {
		err = proto.Unmarshal(encoded, again) // as it comes over the wire
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := definition.NewSchema(again, []definition.EntityType{
		{Name: "order", Events: true, Service: "shop.v1.Orders"},
		{Name: "payment", Service: "shop.v1.Payments"},
		{Name: "customer", Events: true, Service: "shop.v1.Customers"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// shop is the schema of the definitions' own tests.
func shop(t testing.TB) *definition.Schema {
	t.Helper()
	content, err := os.ReadFile("../definition/testdata/shop/v1/shop.proto")
	if err != nil {
		t.Fatal(err)
	}
	return schema(t, map[string]string{"shop/v1/shop.proto": string(content)})
}

// projection checks a file and returns one of its projections.
func projection(t testing.TB, s *definition.Schema, name, text string) *definition.Projection {
	t.Helper()
	set := definition.Check([]definition.Source{{Name: "test.yaml", Text: []byte(text)}}, definition.Options{Schema: s})
	if err := set.Report.Err(); err != nil {
		t.Fatal(err)
	}
	for _, d := range set.Definitions {
		if p, ok := d.(*definition.Projection); ok && d.Head().Name == name {
			return p
		}
	}
	t.Fatalf("there is no projection %s", name)
	return nil
}

// shopProjection is a projection with one key field and a spec of its own.
func shopProjection(t testing.TB, spec string) *definition.Projection {
	t.Helper()
	return projection(t, shop(t), "p", "apiVersion: millrace/v1\nkind: Projection\nmetadata: {name: p, version: 1}\nspec:\n"+
		"  "+strings.ReplaceAll(strings.TrimSpace(spec), "\n", "\n  "))
}

func compiled(t testing.TB, p *definition.Projection) *mapping.Fold {
	t.Helper()
	f, err := mapping.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// memory is Rows in memory.
type memory struct {
	fold *mapping.Fold
	rows map[string][]byte
	gets int
	fail error
}

func newMemory(f *mapping.Fold) *memory { return &memory{fold: f, rows: map[string][]byte{}} }

func (m *memory) Get(key []byte) ([]byte, error) {
	m.gets++
	return m.rows[string(key)], m.fail
}

func (m *memory) Of(entity string, yield func(key, row []byte) bool) error {
	prefix := string(m.fold.EntityKey(nil, entity))
	for _, key := range slices.Sorted(maps.Keys(m.rows)) {
		if strings.HasPrefix(key, prefix) && !yield([]byte(key), m.rows[key]) {
			break
		}
	}
	return m.fail
}

func (m *memory) Put(key, row []byte) { m.rows[string(key)] = bytes.Clone(row) }
func (m *memory) Delete(key []byte)   { delete(m.rows, string(key)) }

// text writes all rows, decoded.
func (m *memory) text(t testing.TB, md protoreflect.MessageDescriptor) string {
	t.Helper()
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(m.rows)) {
		fmt.Fprintln(&b, show(t, md, m.rows[key]))
	}
	return b.String()
}

// show writes a message as text, without what prototext varies.
func show(t testing.TB, md protoreflect.MessageDescriptor, row []byte) string {
	t.Helper()
	msg := dynamicpb.NewMessage(md)
	if err := proto.Unmarshal(row, msg); err != nil {
		t.Fatal(err)
	}
	if again := canonical(t, msg); !bytes.Equal(again, row) {
		t.Errorf("row %x is not canonical: %x", row, again)
	}
	return strings.Join(strings.Fields(strings.ReplaceAll(prototext.MarshalOptions{}.Format(msg), ":", ": ")), " ")
}

// canonical is what the library writes for messages without oneofs.
func canonical(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// event makes the record of an event of the shop, of text.
func event(
	t testing.TB, s *definition.Schema, entity string, name protoreflect.FullName, text string,
) *mapping.Record {
	t.Helper()
	found, err := s.Files().FindDescriptorByName(name)
	if err != nil {
		t.Fatal(err)
	}
	msg := dynamicpb.NewMessage(found.(protoreflect.MessageDescriptor)) //nolint:forcetypeassert // the test's own
	if err := prototext.Unmarshal([]byte(text), msg); err != nil {
		t.Fatal(err)
	}
	return &mapping.Record{
		Kind: mapping.OfEvent, Type: "type.googleapis.com/" + string(name), Value: canonical(t, msg), Entity: entity,
		Meta: mapping.Meta{
			Seconds: 1_700_000_000, Nanos: 5, Sequence: 7, Principal: "ann", CommandID: "c-1", CorrelationID: "r-1",
		},
	}
}

// apply applies records and wants an outcome of each.
func apply(t testing.TB, f *mapping.Fold, rows mapping.Rows, want mapping.Outcome, records ...*mapping.Record) {
	t.Helper()
	d := f.Folder()
	for _, r := range records {
		if outcome, err := d.Apply(r, rows); err != nil || outcome != want {
			t.Errorf("%s of %s: outcome %v (%v), want %v", r.Type, r.Entity, outcome, err, want)
		}
	}
}

const ordersFile = "../definition/testdata/orders/orders.yaml"

func read(t testing.TB, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestOrders folds the example of the design.
func TestOrders(t *testing.T) {
	s := shop(t)
	p := projection(t, s, "orders", read(t, ordersFile)+"\n---\n"+read(t, "../definition/testdata/orders/customers.yaml"))
	f := compiled(t, p)
	rows := newMemory(f)
	deleted := event(t, s, "o-1", "shop.v1.Payment", "")
	deleted.Source, deleted.Kind, deleted.Type, deleted.Value = 1, mapping.OfDeleted, "", nil
	paid := event(t, s, "o-1", "shop.v1.Payment", "paid_cents: 30")
	paid.Source, paid.Kind = 1, mapping.OfState
	step := func(want mapping.Outcome, r *mapping.Record, text string) {
		t.Helper()
		apply(t, f, rows, want, r)
		if got := rows.text(t, p.Row); got != text {
			t.Errorf("%s: rows\n%swant\n%s", r.Type, got, text)
		}
	}
	placed := `order_id: "o-1" customer_id: "c-7" total_cents: 1250 status: `
	step(mapping.Applied, event(t, s, "o-1", "shop.v1.OrderShipped", ""), "")
	step(mapping.Applied, event(t, s, "o-1", "shop.v1.OrderPlaced", `customer_id: "c-7" total_cents: 1250`),
		placed+"OPEN placed_at: {seconds: 1700000000 nanos: 5}\n")
	step(mapping.Ignored, event(t, s, "o-1", "shop.v1.OrderViewed", ""),
		placed+"OPEN placed_at: {seconds: 1700000000 nanos: 5}\n")
	step(mapping.Unmapped, event(t, s, "o-1", "shop.v1.Id", ""),
		placed+"OPEN placed_at: {seconds: 1700000000 nanos: 5}\n")
	step(mapping.Applied, event(t, s, "o-1", "shop.v1.OrderShipped", ""),
		placed+"SHIPPED placed_at: {seconds: 1700000000 nanos: 5}\n")
	step(mapping.Applied, paid, placed+"SHIPPED placed_at: {seconds: 1700000000 nanos: 5} paid_cents: 30\n")
	step(mapping.Applied, deleted, placed+"SHIPPED placed_at: {seconds: 1700000000 nanos: 5}\n")
	step(mapping.Applied, event(t, s, "o-1", "shop.v1.OrderDeleted", ""), "")
}

// TestLines folds several rows for each entity.
func TestLines(t *testing.T) {
	s := shop(t)
	p := projection(t, s, "lines", read(t, "../definition/testdata/orders/customers.yaml"))
	f := compiled(t, p)
	rows := newMemory(f)
	apply(t, f, rows, mapping.Applied,
		event(t, s, "o", "shop.v1.OrderPlaced",
			`lines { sku: "b" quantity: 1 } lines { sku: "a" quantity: 2 } lines { sku: "b" quantity: 3 }`),
		event(t, s, "o2", "shop.v1.OrderPlaced", `lines { sku: "a" quantity: 4 }`))
	const placed = " placed: {seconds: 1700000000 nanos: 5}\n"
	want := `order_id: "o" sku: "a" quantity: 2` + placed + `order_id: "o" sku: "b" quantity: 3` + placed +
		`order_id: "o2" sku: "a" quantity: 4` + placed
	if got := rows.text(t, p.Row); got != want {
		t.Errorf("placed: rows\n%swant\n%s", got, want)
	}
	apply(t, f, rows, mapping.Applied, event(t, s, "o", "shop.v1.OrderShipped", ""))
	want = `order_id: "o" sku: "a"` + placed + `order_id: "o" sku: "b"` + placed +
		`order_id: "o2" sku: "a" quantity: 4` + placed
	if got := rows.text(t, p.Row); got != want {
		t.Errorf("shipped: rows\n%swant\n%s", got, want)
	}
	apply(t, f, rows, mapping.Applied, event(t, s, "o", "shop.v1.OrderDeleted", ""))
	want = `order_id: "o2" sku: "a" quantity: 4` + placed
	if got := rows.text(t, p.Row); got != want {
		t.Errorf("deleted: rows\n%swant\n%s", got, want)
	}
}

// TestValues sets each kind of field from each kind of value.
func TestValues(t *testing.T) {
	s := shop(t)
	for name, test := range map[string]struct{ set, event, want string }{
		"literals": {
			"customer_id: 'c', total_cents: -5, status: OPEN, placed_at: 2026-11-30T12:00:00Z, express: true, items: 7, weight: 1.5, " +
				"ratio: 0.25, patience: 90s, small: 3",
			"", `customer_id: "c" total_cents: -5 status: OPEN placed_at: {seconds: 1796040000} weight: 1.5 express: true items: 7 ` +
				`patience: {seconds: 90} ratio: 0.25 small: 3`,
		},
		"of the record": {
			"customer_id: '${meta.principal}', note: '${meta.command_id}', customer_name: '${entity.type}', " +
				"total_cents: '${meta.sequence}', placed_at: '${meta.time}', tags: '${[meta.correlation_id]}'",
			"", `customer_id: "ann" total_cents: 7 placed_at: {seconds: 1700000000 nanos: 5} customer_name: "order" note: "c-1" tags: "r-1"`,
		},
		"paths": {
			"note: '${event.note}', total_cents: '${event.status}', counts: '${event.counts}', placed_at: '${event.due}'",
			`note: "n" status: SHIPPED counts { key: "b" value: 1 } counts { key: "a" value: 0 } due { nanos: 4 }`,
			`total_cents: 2 placed_at: {nanos: 4} note: "n" counts: {key: "a" value: 0} counts: {key: "b" value: 1}`,
		},
		"defaults": {
			"note: '${event.note}', total_cents: '${event.status}', counts: '${event.counts}', placed_at: '${event.due}'",
			"", `note: ""`,
		},
		"expressions": {
			"total_cents: '${event.total_cents * 2 + row.total_cents}', express: '${has(event.due) && event.due > timestamp(0)}', " +
				"tags: '${event.lines.map(l, l.sku)}', items: '${uint(event.lines.size())}', weight: '${double(sum(event.lines.map(l, l.cents)))}', " +
				"customer_id: 'c-${event.customer_id}/${event.total_cents}', address: '${Address{street: event.note, kind: Address.Kind.HOME}}', " +
				"small: '${event.status == Status.OPEN ? 1 : 2}', raw: '${bytes(event.note)}', patience: '${duration(\"1s\")}'",
			`customer_id: "x" total_cents: 21 note: "n" due { seconds: 1 } lines { sku: "a" cents: 1 } lines { sku: "b" cents: 2 }`,
			`customer_id: "c-x/21" total_cents: 42 tags: "a" tags: "b" address: {street: "n" kind: HOME} weight: 3 express: true items: 2 ` +
				`raw: "n" patience: {seconds: 1} small: 2`,
		},
		"maps": {
			"tags: '${sortedKeys(event.counts)}', counts: '${{\"z\": 1, \"a\": 2}}', " +
				"note: '${dyn(event.counts).map(k, string(k)).join(\",\")}'",
			`counts { key: "c" } counts { key: "a" } counts { key: "b" } counts { key: "d" } counts { key: "e" }`,
			`note: "a,b,c,d,e" tags: "a" tags: "b" tags: "c" tags: "d" tags: "e" counts: {key: "a" value: 2} counts: {key: "z" value: 1}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := shopProjection(t, "row: shop.v1.OrderRow\nkey: [order_id]\nfrom:\n  - entity: order\n    events:\n      OrderPlaced: {set: {"+
				test.set+"}}")
			f := compiled(t, p)
			rows := newMemory(f)
			apply(t, f, rows, mapping.Applied, event(t, s, "o", "shop.v1.OrderPlaced", test.event))
			if got := strings.TrimSpace(strings.TrimPrefix(rows.text(t, p.Row), `order_id: "o" `)); got != test.want {
				t.Errorf("row\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

// TestFoldErrors: each error says where, nothing is written, and the row is as it was.
func TestFoldErrors(t *testing.T) {
	s := shop(t)
	long := strings.Repeat("x", definition.MaxRowBytes)
	for name, test := range map[string]struct {
		spec, event, want string
		change            func(r *mapping.Record)
	}{
		"CEL":      {"OrderPlaced: {set: {total_cents: '${100 / event.total_cents}'}}", "", "order shop.v1.OrderPlaced: field total_cents: division by zero", nil},
		"overflow": {"OrderPlaced: {set: {small: '${event.total_cents}'}}", "total_cents: 3000000000", "field small: 3000000000 does not fit int32", nil},
		"row":      {"OrderPlaced: {set: {note: '${event.note}'}}", `note: "` + long + `"`, "the row would be above 256 KiB", nil},
		"time":     {"OrderPlaced: {set: {placed_at: '${event.due}'}}", "due { seconds: 253402300800 }", "the time is not between the years 1 and 9999", nil},
		"damage": {"OrderPlaced: {set: {note: '${event.note}'}}", "", "the message is damaged", func(r *mapping.Record) {
			r.Value = []byte{0x3a, 5, 'x'}
		}},
		"UTF-8": {"OrderPlaced: {set: {note: '${event.note}'}}", "", "field note: the text is not valid UTF-8", func(r *mapping.Record) {
			r.Value = []byte{0x3a, 1, 0xff}
		}},
		"entity id": {"OrderPlaced: {set: {note: x}}", "", "the text is not valid UTF-8", func(r *mapping.Record) { r.Entity = "\xff" }},
		"key":       {"OrderPlaced: {set: {note: x}}", "", "key is too long", func(r *mapping.Record) { r.Entity = strings.Repeat("k", 1023) }},
		"cost": {
			"OrderPlaced: {set: {items: '${uint(event.lines.filter(a, event.lines.exists(b, a.cents < b.cents)).size())}'}}",
			strings.Repeat("lines { cents: 1 } ", 400), "field items: operation cancelled: actual cost limit exceeded", nil,
		},
		"join":   {"OrderPlaced: {set: {note: 'a ${dyn(event.lines)}'}}", "", "field note: only texts", nil},
		"type":   {"OrderPlaced: {set: {note: '${dyn(event.total_cents)}'}}", "", "field note: the value does not fit the field: it is int, and the field is string", nil},
		"strict": {"OrderShipped: {set: {note: x}}", "", "order shop.v1.OrderPlaced: the definition is strict", nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := shopProjection(t, "row: shop.v1.OrderRow\nkey: [order_id]\nstrict: true\nmaxItems: {shop.v1.OrderPlaced.lines: 10}\n"+
				"from:\n  - entity: order\n    events:\n      "+test.spec)
			f := compiled(t, p)
			rows := newMemory(f)
			r := event(t, s, "o", "shop.v1.OrderPlaced", test.event)
			if test.change != nil {
				test.change(r)
			}
			_, err := f.Folder().Apply(r, rows)
			if !isFoldError(err) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			if len(rows.rows) > 0 {
				t.Errorf("rows %v after an error", rows.rows)
			}
		})
	}
}

func isFoldError(err error) bool {
	_, is := errors.AsType[*mapping.FoldError](err)
	return is
}

// replaced puts something else into a text, which must be there.
func replaced(t testing.TB, text, from, to string) string {
	t.Helper()
	if !strings.Contains(text, from) {
		t.Fatalf("no %q in the text", from)
	}
	return strings.ReplaceAll(text, from, to)
}
