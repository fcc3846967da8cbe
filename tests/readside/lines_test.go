package readside_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	ordersv1 "github.com/millrace-io/millrace/examples/orders/orders/v1"
	"github.com/millrace-io/millrace/projections/definition"
	"github.com/millrace-io/millrace/projections/mapping"
	"github.com/millrace-io/millrace/tests/readside"
)

// line is a row of testdata/lines.yaml.
type line struct {
	order, sku, carrier, label string
	quantity                   int32
	cents                      int64
	placed                     time.Time // zero: not there
	isDear                     bool
}

// lines does what testdata/lines.yaml says, by order and article.
type lines map[[2]string]*line

func (l lines) add(t *rapid.T, r *readside.Record) {
	id := r.Entity.ID
	decode := func(m proto.Message) {
		if err := proto.Unmarshal(r.Value, m); err != nil {
			t.Fatal(err)
		}
	}
	ofOrder := func(change func(*line)) {
		for _, row := range l {
			if row.order == id {
				change(row)
			}
		}
	}
	switch r.Type {
	case "orders.v1.OrderPlaced":
		var e ordersv1.OrderPlaced
		decode(&e)
		for _, from := range e.GetLines() {
			row := l[[2]string{id, from.GetSku()}]
			if row == nil {
				row = &line{order: id, sku: from.GetSku()}
				l[[2]string{id, row.sku}] = row
			}
			row.quantity, row.cents = from.GetQuantity(), from.GetCents()*int64(from.GetQuantity())
			row.placed, row.isDear = r.Time, from.GetCents() > 500
			row.label = fmt.Sprintf("%s/%s x%d", id, row.sku, row.quantity)
		}
	case "orders.v1.OrderShipped":
		var e ordersv1.OrderShipped
		decode(&e)
		ofOrder(func(row *line) { row.carrier, row.isDear = e.GetCarrier(), row.isDear && e.GetCarrier() != "" })
	case "orders.v1.OrderCancelled":
		ofOrder(func(row *line) { row.quantity, row.placed = 0, time.Time{} })
	case "orders.v1.OrderNoted":
		var e ordersv1.OrderNoted
		decode(&e)
		delete(l, [2]string{id, e.GetText()})
	case "orders.v1.OrderDeleted":
		ofOrder(func(row *line) { delete(l, [2]string{id, row.sku}) })
	}
}

// wire is the row in canonical form.
func (row *line) wire(t *rapid.T, d protoreflect.MessageDescriptor) []byte {
	m := dynamicpb.NewMessage(d)
	set := func(name protoreflect.Name, v any) {
		if f := d.Fields().ByName(name); !protoreflect.ValueOf(v).Equal(f.Default()) {
			m.Set(f, protoreflect.ValueOf(v))
		}
	}
	set("order_id", row.order)
	set("sku", row.sku)
	set("quantity", row.quantity)
	set("cents", row.cents)
	set("carrier", row.carrier)
	set("label", row.label)
	set("is_dear", row.isDear)
	if !row.placed.IsZero() {
		stamp := m.NewField(d.Fields().ByName("placed"))
		wire := encoded(t, timestamppb.New(row.placed))
		if err := proto.Unmarshal(wire, stamp.Message().Interface()); err != nil {
			t.Fatal(err)
		}
		m.Set(d.Fields().ByName("placed"), stamp)
	}
	wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// TestCompiledFoldOfLines does for testdata/lines.yaml what TestCompiledFoldIsThePlainOne does for
// the example.
func TestCompiledFoldOfLines(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "lines.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	set := definition.Check([]definition.Source{{Name: "lines.yaml", Text: text}}, definition.Options{Schema: schema(t)})
	if err := set.Report.Err(); err != nil {
		t.Fatal(err)
	}
	p, _ := set.Definitions[0].(*definition.Projection)
	fold, err := mapping.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		folder, m := newTable(fold)
		want := lines{}
		for _, r := range histories(t) {
			if r.Entity.Type == "order" {
				apply(t, folder, m, &r)
				want.add(t, &r)
			}
		}
		rows := map[string][]byte{}
		for _, row := range want {
			rows[tuple(row.order)+tuple(row.sku)] = row.wire(t, p.Row)
		}
		same(t, "rows", m.rows, rows)
		for _, row := range want {
			visible, err := folder.Visible(row.wire(t, p.Row))
			if err != nil || visible != (row.quantity > 0) {
				t.Errorf("%+v is visible: %v (%v)", row, visible, err)
			}
		}
		compareLines(t, fold, p, want)
	})
}

// compareLines compares the entries of the indexes and the groups by what they are made of: entries
// that are equal have equal keys, and sorted entries have sorted keys.
func compareLines(t *rapid.T, fold *mapping.Fold, p *definition.Projection, want lines) {
	folder := fold.Folder()
	keys, groups := map[string]*line{}, map[string][3]int64{}
	for _, row := range want {
		wire := row.wire(t, p.Row)
		tuple, in, err := folder.IndexEntry(nil, 0, wire)
		if err != nil || in != (row.cents >= 10) {
			t.Fatalf("%+v is in by_sku: %v (%v)", row, in, err)
		}
		if in {
			keys[string(tuple)] = row
		}
		group, sums, err := folder.Group(nil, 0, wire, nil)
		if err != nil || len(sums) != 2 {
			t.Fatalf("the group of %+v: %d (%v)", row, sums, err)
		}
		g := groups[string(group)]
		groups[string(group)] = [3]int64{g[0] + 1, g[1] + sums[0], g[2] + sums[1]}
	}
	wanted := map[string][3]int64{}
	for _, row := range want {
		key := tuple(row.sku) + map[bool]string{false: "\x00", true: "\x01"}[row.isDear]
		g := wanted[key]
		wanted[key] = [3]int64{g[0] + 1, g[1] + row.cents, g[2] + int64(row.quantity)}
	}
	if !maps.Equal(groups, wanted) {
		t.Errorf("groups %v, want %v", groups, wanted)
	}
	var before *line
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if row := keys[key]; before != nil && !before.bySKU(row) {
			t.Errorf("by_sku has %+v before %+v", before, row)
		}
		before = keys[key]
	}
}

// bySKU reports whether a row may stand before another one in by_sku: by article, the latest first
// and those without a time last, by quantity.
func (row *line) bySKU(o *line) bool {
	switch {
	case row.sku != o.sku:
		return row.sku < o.sku
	case !row.placed.Equal(o.placed):
		return row.placed.After(o.placed)
	default:
		return row.quantity <= o.quantity
	}
}
