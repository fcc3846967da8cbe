package readside_test

import (
	"bytes"
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/examples/orders/orders"
	ordersv1 "github.com/millrace-io/millrace/examples/orders/orders/v1"
	"github.com/millrace-io/millrace/internal/app/inprocess"
	"github.com/millrace-io/millrace/projections/definition"
	"github.com/millrace-io/millrace/projections/mapping"
	"github.com/millrace-io/millrace/tests/readside"
)

// schema is what the services of examples/orders declare.
func schema(t testing.TB) *definition.Schema {
	t.Helper()
	function, err := inprocess.New(orders.Orders, orders.Customers)
	if err != nil {
		t.Fatal(err)
	}
	catalog, err := discovery.NewCatalog(function.Spec(), discovery.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := definition.SchemaOf(catalog)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// exampleProjections returns the definitions of examples/orders, checked.
func exampleProjections(t testing.TB) map[string]*definition.Projection {
	t.Helper()
	var files []definition.Source
	for _, name := range []string{"customers.yaml", "orders.yaml"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "examples", "orders", "definitions", name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, definition.Source{Name: name, Text: text})
	}
	set := definition.Check(files, definition.Options{Schema: schema(t)})
	if err := set.Report.Err(); err != nil {
		t.Fatal(err)
	}
	projections := map[string]*definition.Projection{}
	for _, d := range set.Definitions {
		projections[d.Head().Name], _ = d.(*definition.Projection)
	}
	return projections
}

// words are ids and texts, few, so that entities have histories; some are hard to encode.
var words = rapid.SampledFrom([]string{"a", "b", "ab", "a\x00", "a\x00\x01", "\x01", "ü", "zz"})

// events draws an event of an order. Its bytes may be those of two messages, one after the other,
// which is the sum of both, or have fields that no message has.
func events(t *rapid.T) (proto.Message, []byte) {
	one := func() proto.Message {
		switch rapid.IntRange(0, 6).Draw(t, "event") {
		case 0, 1, 2:
			e := &ordersv1.OrderPlaced{CustomerId: words.Draw(t, "customer")}
			for range rapid.IntRange(0, 3).Draw(t, "lines") {
				e.Lines = append(e.Lines, &ordersv1.Line{
					Sku: words.Draw(t, "sku"), Quantity: rapid.Int32Range(-2, 1_000_000).Draw(t, "quantity"),
					Cents: rapid.Int64Range(-1, 1_000_000_000).Draw(t, "cents"),
				})
			}
			return e
		case 3:
			return &ordersv1.OrderShipped{Carrier: rapid.OneOf(words, rapid.Just("")).Draw(t, "carrier")}
		case 4:
			return &ordersv1.OrderCancelled{Reason: words.Draw(t, "reason")}
		case 5:
			return &ordersv1.OrderNoted{Text: words.Draw(t, "text")}
		default:
			return &ordersv1.OrderDeleted{}
		}
	}
	m := one()
	wire := encoded(t, m)
	if rapid.IntRange(0, 3).Draw(t, "strange") == 0 {
		other := one()
		if other.ProtoReflect().Descriptor() == m.ProtoReflect().Descriptor() {
			wire = append(wire, encoded(t, other)...)
		}
		wire = append(wire, 0xf8, 0x3f, 7) // field 1023 is a varint, 7
	}
	return m, wire
}

func encoded(t *rapid.T, m proto.Message) []byte {
	wire, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// histories draws the records of a partition.
func histories(t *rapid.T) []readside.Record {
	var list []readside.Record
	clock := time.Unix(1_700_000_000, 0)
	for range rapid.IntRange(1, 40).Draw(t, "records") {
		clock = clock.Add(time.Duration(rapid.Int64Range(0, 3e9).Draw(t, "time")))
		r := readside.Record{Offset: int64(len(list)), Time: clock}
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			r.Kind, r.Entity = record.State, entities.Key{Type: "customer", ID: words.Draw(t, "id")}
			r.Type = "orders.v1.Customer"
			city := rapid.OneOf(words, rapid.Just("")).Draw(t, "city")
			r.Value = encoded(t, &ordersv1.Customer{Name: words.Draw(t, "name"), City: city})
		case 1:
			r.Kind, r.Entity = record.Delete, entities.Key{Type: "customer", ID: words.Draw(t, "id")}
		default:
			m, wire := events(t)
			r.Kind, r.Entity, r.Value = record.Event, entities.Key{Type: "order", ID: words.Draw(t, "id")}, wire
			r.Type = string(m.ProtoReflect().Descriptor().FullName())
		}
		list = append(list, r)
	}
	return list
}

// table is the rows of a fold in memory.
type table struct {
	rows map[string][]byte
	key  func(entity string) []byte
}

func (m *table) Get(key []byte) ([]byte, error) { return m.rows[string(key)], nil }
func (m *table) Put(key, row []byte)            { m.rows[string(key)] = bytes.Clone(row) }
func (m *table) Delete(key []byte)              { delete(m.rows, string(key)) }

func (m *table) Of(entity string, yield func(key, row []byte) bool) error {
	for _, key := range slices.Sorted(maps.Keys(m.rows)) {
		if strings.HasPrefix(key, string(m.key(entity))) && !yield([]byte(key), m.rows[key]) {
			break
		}
	}
	return nil
}

// TestCompiledFoldIsThePlainOne folds random histories by the compiled definitions of
// examples/orders and by plain code, and compares rows, entries of indexes, and groups.
func TestCompiledFoldIsThePlainOne(t *testing.T) {
	for name, p := range exampleProjections(t) {
		fold, err := mapping.Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { sameFold(t, fold, p, histories(t)) })
		})
	}
}

func sameFold(t *rapid.T, fold *mapping.Fold, p *definition.Projection, history []readside.Record) {
	folder, m := newTable(fold)
	source := p.Sources[0].Entity.Name
	for i := range history {
		if history[i].Entity.Type == source {
			apply(t, folder, m, &history[i])
		}
	}
	rows, err := readside.Fold(history)
	if err != nil {
		t.Fatal(err)
	}
	want, err := rows.StoredCustomers()
	if source == "order" {
		want, err = rows.StoredOrders()
	}
	if err != nil {
		t.Fatal(err)
	}
	same(t, "rows", m.rows, want.Rows)
	for i, x := range p.Indexes {
		entries := map[string][]byte{}
		for key, row := range m.rows {
			tuple, in, err := folder.IndexEntry(nil, i, row)
			if err != nil {
				t.Fatal(err)
			}
			if in {
				entries[string(tuple)+key] = map[bool][]byte{true: row}[x.IncludeAll]
			}
		}
		wanted := map[string][]byte{}
		for key, e := range want.Indexes[i] {
			wanted[key] = e.Row
		}
		same(t, "index "+x.Name, entries, wanted)
	}
	for i, a := range p.Aggregates {
		groups, wanted := map[string][]byte{}, map[string][]byte{}
		for _, row := range m.rows {
			group, sums, err := folder.Group(nil, i, row, nil)
			if err != nil {
				t.Fatal(err)
			}
			groups[string(group)] = sum(groups[string(group)], 1, sums[0])
		}
		for key, g := range want.Aggregates[i] {
			wanted[key] = sum(nil, g.Orders, g.Cents)
		}
		same(t, "aggregate "+a.Name, groups, wanted)
	}
}

func newTable(fold *mapping.Fold) (*mapping.Folder, *table) {
	return fold.Folder(), &table{
		rows: map[string][]byte{}, key: func(entity string) []byte { return fold.EntityKey(nil, entity) },
	}
}

// apply folds a record of the only source.
func apply(t *rapid.T, folder *mapping.Folder, rows *table, r *readside.Record) {
	kinds := map[record.Kind]mapping.RecordKind{
		record.Event: mapping.OfEvent, record.State: mapping.OfState, record.Delete: mapping.OfDeleted,
	}
	in := mapping.Record{Kind: kinds[r.Kind], Value: r.Value, Entity: r.Entity.ID, Meta: mapping.Meta{
		Seconds: r.Time.Unix(), Nanos: int32(r.Time.Nanosecond()),
	}}
	if r.Type != "" {
		in.Type = "type.googleapis.com/" + r.Type
	}
	if _, err := folder.Apply(&in, rows); err != nil {
		t.Fatalf("record %d: %v", r.Offset, err)
	}
}

// tuple is a text in a tuple.
func tuple(s string) string { return strings.ReplaceAll(s, "\x00", "\x00\xff") + "\x00\x01" }

// sum adds to a count and a sum.
func sum(group []byte, count, n int64) []byte {
	if group == nil {
		group = make([]byte, 16)
	}
	next := binary.BigEndian.AppendUint64(nil, binary.BigEndian.Uint64(group)+uint64(count))
	return binary.BigEndian.AppendUint64(next, binary.BigEndian.Uint64(group[8:])+uint64(n))
}

func same(t *rapid.T, what string, got, want map[string][]byte) {
	if !maps.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("%s are %q, want %q", what, got, want)
	}
}
