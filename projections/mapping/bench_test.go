package mapping_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/millrace-io/millrace/projections/definition"
	"github.com/millrace-io/millrace/projections/mapping"
)

// arenaRows are Rows in memory that allocate nothing once a row is there.
type arenaRows struct {
	fold *mapping.Fold
	rows map[string]*[]byte // empty: deleted
}

func (m *arenaRows) Get(key []byte) ([]byte, error) {
	if row := m.rows[string(key)]; row != nil && len(*row) > 0 {
		return *row, nil
	}
	return nil, nil
}

func (m *arenaRows) Of(entity string, yield func(key, row []byte) bool) error {
	key := m.fold.EntityKey(nil, entity)
	if row, _ := m.Get(key); row != nil {
		yield(key, row)
	}
	return nil
}

func (m *arenaRows) Put(key, row []byte) {
	old := m.rows[string(key)]
	if old == nil {
		old = new([]byte)
		m.rows[string(key)] = old
	}
	*old = append((*old)[:0], row...)
}

func (m *arenaRows) Delete(key []byte) {
	if old := m.rows[string(key)]; old != nil {
		*old = (*old)[:0]
	}
}

// withCEL is the example of the design, with an expression in the event that comes first of three.
const withCEL = `'${event.total_cents > 100000 ? "large " + event.customer_id : event.customer_id}'`

// BenchmarkApply folds three events of an order, placed, shipped and paid, over rows in memory, and
// makes the entries of the example's indexes and its aggregate, as an applier does. Sub-benchmarks:
// wire has no expression; cel has one in a third of the events; fold is cel without the entries.
func BenchmarkApply(b *testing.B) {
	s := shop(b)
	text := read(b, ordersFile) + "\n---\n" + read(b, "../definition/testdata/orders/customers.yaml")
	plain := projection(b, s, "orders", text)
	const orders = 1_000
	for _, bench := range []struct {
		name       string
		expression string
		entries    bool
	}{{"fold-wire", "", false}, {"fold-cel", withCEL, false}, {"all-wire", "", true}, {"all-cel", withCEL, true}} {
		b.Run(bench.name, func(b *testing.B) {
			p := plain
			if bench.expression != "" {
				p = projection(b, s, "orders", replaced(b, text, "'${event.customer_id}'", bench.expression))
			}
			f := compiled(b, p)
			rows := &arenaRows{fold: f, rows: map[string]*[]byte{}}
			d := f.Folder()
			records := orderRecords(orders)
			b.ReportAllocs()
			var buf, first []byte
			var sums []int64
			n := 0
			before := cpu(b)
			for b.Loop() {
				r := &records[n%len(records)]
				n++
				if bench.entries {
					buf = f.EntityKey(buf[:0], r.Entity)
					row, _ := rows.Get(buf)
					first = append(first[:0], row...)
				}
				if _, err := d.Apply(r, rows); err != nil {
					b.Fatal(err)
				}
				if bench.entries { // of the row before and the row after: an applier makes both
					if len(first) > 0 {
						buf, sums = entries(b, d, p, buf, first, sums)
					}
					buf = f.EntityKey(buf[:0], r.Entity)
					row, _ := rows.Get(buf)
					buf, sums = entries(b, d, p, buf, row, sums)
				}
			}
			b.ReportMetric(float64(n)/(cpu(b)-before).Seconds(), "events/CPU-s")
		})
	}
}

// cpu is the processor time of the process, which a busy machine changes less than time.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// entries makes all entries of a row.
func entries(
	b *testing.B, d *mapping.Folder, p *definition.Projection, buf, row []byte, sums []int64,
) ([]byte, []int64) {
	b.Helper()
	isVisible, err := d.Visible(row)
	if err != nil || !isVisible {
		b.Fatal(isVisible, err)
	}
	for i := range p.Indexes {
		if buf, _, err = d.IndexEntry(buf[:0], i, row); err != nil {
			b.Fatal(err)
		}
	}
	for i := range p.Aggregates {
		if buf, sums, err = d.Group(buf[:0], i, row, sums[:0]); err != nil {
			b.Fatal(err)
		}
	}
	return buf, sums
}

// orderRecords are three records for each of some orders, in the order in which they happen.
func orderRecords(orders int) []mapping.Record {
	var records []mapping.Record
	text := func(b []byte, number protowire.Number, text string) []byte {
		return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), text)
	}
	number := func(b []byte, field protowire.Number, n uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), n)
	}
	for i := range orders {
		id := fmt.Sprintf("order-%09d", i)
		placed := number(text(nil, 1, fmt.Sprintf("customer-%07d", i%97)), 2, uint64(i)*300)
		for range 2 {
			line := number(number(text(nil, 1, "sku-12345"), 2, 3), 3, 999)
			placed = protowire.AppendBytes(protowire.AppendTag(placed, 3, protowire.BytesType), line)
		}
		meta := mapping.Meta{Seconds: 1_700_000_000 + int64(i), Nanos: 5_000, Sequence: 1}
		records = append(records,
			mapping.Record{
				Kind: mapping.OfEvent, Type: "type.googleapis.com/shop.v1.OrderPlaced", Value: placed, Entity: id, Meta: meta,
			},
			mapping.Record{
				Source: 1, Kind: mapping.OfState, Type: "type.googleapis.com/shop.v1.Payment", Value: number(nil, 1, uint64(i)*300),
				Entity: id, Meta: meta,
			},
			mapping.Record{
				Kind: mapping.OfEvent, Type: "type.googleapis.com/shop.v1.OrderShipped", Value: text(nil, 1, "carrier"), Entity: id,
				Meta: meta,
			})
	}
	return records
}

// TestWireCopiesDoNotAllocate: events without expressions allocate nothing once rows are there, and
// neither do the entries of their rows.
func TestWireCopiesDoNotAllocate(t *testing.T) {
	p := projection(t, shop(t), "orders", read(t, ordersFile)+"\n---\n"+read(t, "../definition/testdata/orders/customers.yaml"))
	f := compiled(t, p)
	rows := &arenaRows{fold: f, rows: map[string]*[]byte{}}
	d, records := f.Folder(), orderRecords(3)
	if n := testing.AllocsPerRun(100, func() {
		for i := range records {
			if _, err := d.Apply(&records[i], rows); err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations for %d events", n, len(records))
	}
}
