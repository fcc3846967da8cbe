package projections_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/projections"
)

// ordersYAML has two sources, rows that are not visible, and an expression that fails for a total
// of zero. %s are onError, the indexes, and the aggregates.
const ordersYAML = `
apiVersion: millrace/v1
kind: Projection
metadata: {name: orders, version: 1}
spec:
  row: shop.v1.OrderRow
  key: [order_id]
  visible: has(row.placed_at)
  from:
    - entity: order
      events:
        OrderPlaced: {set: {customer_id: '${event.customer_id}', total_cents: '${1000 / event.total_cents}', status: OPEN, placed_at: '${meta.time}'}}
        OrderShipped: {update: {status: SHIPPED}}
        OrderDeleted: {delete: true}
      ignore: [OrderViewed]
    - entity: payment
      state: {set: {paid_cents: '${state.paid_cents}'}}
      deleted: {set: {paid_cents: null}}
  onError: %s
  indexes: [%s]
  aggregates: [%s]
`

// The indexes and aggregates of orders, with their numbers.
var orderParts = map[uint16]string{
	1: "{name: by_customer, fields: [customer_id, placed_at desc], include: all}",
	2: "{name: open_only, fields: [placed_at], where: row.status == Status.OPEN}",
	3: "{name: by_status, groupBy: [status], count: orders, sum: {cents: total_cents}}",
	4: "{name: by_customer, groupBy: [customer_id], count: orders, sum: {paid: paid_cents}}",
}

const ordersDataset, linesDataset = 7, 8

// ordersView is a view of orders with some of its parts.
func (w *world) ordersView(onError string, parts ...uint16) *projections.View {
	w.t.Helper()
	v := &projections.View{Dataset: ordersDataset, Live: true}
	var indexes, aggregates []string
	for _, number := range parts {
		if number < 3 {
			indexes, v.Indexes = append(indexes, orderParts[number]), append(v.Indexes, number)
		} else {
			aggregates, v.Aggregates = append(aggregates, orderParts[number]), append(v.Aggregates, number)
		}
	}
	v.Projection = projection(w.t, fmt.Sprintf(ordersYAML, onError, strings.Join(indexes, ", "), strings.Join(aggregates, ", ")))
	return v
}

// linesYAML has several rows for each entity.
const linesYAML = `
apiVersion: millrace/v1
kind: Projection
metadata: {name: lines, version: 1}
spec:
  row: {order_id: string, sku: string, quantity: int32}
  key: [order_id, sku]
  from:
    - entity: order
      events:
        OrderPlaced: {forEach: {in: '${event.lines}', as: line, maxItems: 50}, set: {sku: '${line.sku}', quantity: '${line.quantity}'}}
        OrderShipped: {all: {update: {quantity: 0}}}
        OrderDeleted: {all: {delete: true}}
  indexes: [{name: by_sku, fields: [sku]}]
  aggregates: [{name: by_sku, groupBy: [sku], count: lines, sum: {quantity: quantity}}]
`

func (w *world) linesView() *projections.View {
	w.t.Helper()
	return &projections.View{
		Projection: projection(w.t, linesYAML), Dataset: linesDataset, Indexes: []uint16{1}, Aggregates: []uint16{2},
	}
}

// line is a line of an order that is placed.
type line struct {
	sku      string
	quantity int32
}

func (l line) wire() []byte {
	b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), l.sku)
	if l.quantity != 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), uint64(l.quantity))
	}
	return b
}

// placed is the event OrderPlaced.
func placed(customer string, total int64, lines ...line) []byte {
	b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), customer)
	b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), uint64(total))
	for _, l := range lines {
		b = protowire.AppendBytes(protowire.AppendTag(b, 3, protowire.BytesType), l.wire())
	}
	return b
}

const typePrefix = "type.googleapis.com/shop.v1."

// order is a row of the model. offsets are those of the last records of its sources, plus one.
type order struct {
	customer    string
	total, paid int64
	status      int32
	placed      int64
	offsets     [2]int64
	isPlaced    bool
}

// model folds slowly, all from the beginning: what the tests compare with.
type model struct {
	orders map[string]*order
	lines  map[string]map[string]*modelLine
	parked map[string]*projections.Parked
	// skipped, unmapped of orders; unmappedLines of lines.
	skipped, unmapped, unmappedLines uint64
}

type modelLine struct {
	quantity int32
	offset   int64
}

func modelOf(entries []materializer.Entry, onError string, skips map[int64]bool) *model {
	m := &model{
		orders: map[string]*order{}, lines: map[string]map[string]*modelLine{}, parked: map[string]*projections.Parked{},
	}
	for i := range entries {
		e := &entries[i]
		typ, id, _ := strings.Cut(string(e.Key), "/")
		switch e.Envelope.Kind {
		case record.Event, record.State, record.Delete:
		default:
			continue
		}
		if typ == "order" {
			m.foldLines(e, id)
		}
		if typ == "order" || typ == "payment" {
			if m.foldOrder(e, typ, id, onError, skips[e.Offset]) {
				break // it has stopped
			}
		}
	}
	return m
}

// fieldsOf reads a message of numbers and bytes.
func fieldsOf(b []byte, each func(number protowire.Number, n uint64, bytes []byte)) {
	for len(b) > 0 {
		number, form, size := protowire.ConsumeTag(b)
		b = b[size:]
		var n uint64
		var v []byte
		if form == protowire.VarintType {
			n, size = protowire.ConsumeVarint(b)
		} else {
			v, size = protowire.ConsumeBytes(b)
		}
		each(number, n, v)
		b = b[size:]
	}
}

func (m *model) foldOrder(e *materializer.Entry, typ, id, onError string, skip bool) (stopped bool) {
	if p := m.parked[id]; p != nil {
		p.Behind++
		return false
	}
	if skip {
		m.skipped++
		return false
	}
	row := func() *order {
		if m.orders[id] == nil {
			m.orders[id] = &order{}
		}
		return m.orders[id]
	}
	source := 0
	before, was := order{}, m.orders[id]
	if was != nil {
		before = *was
	}
	switch name := strings.TrimPrefix(e.Envelope.TypeURL, typePrefix); {
	case typ == "payment" && e.Envelope.Kind == record.State:
		source = 1
		o := row()
		o.paid = 0
		fieldsOf(e.Value, func(_ protowire.Number, n uint64, _ []byte) { o.paid = int64(n) })
	case typ == "payment":
		source = 1
		row().paid = 0
	case name == "OrderPlaced":
		var customer string
		var total int64
		fieldsOf(e.Value, func(number protowire.Number, n uint64, b []byte) {
			switch number {
			case 1:
				customer = string(b)
			case 2:
				total = int64(n)
			}
		})
		if total == 0 {
			switch onError {
			case "skip":
				m.skipped++
			case "stop":
				return true
			default:
				m.parked[id] = &projections.Parked{Offset: e.Offset, Entity: typ + "/" + id}
			}
			return false
		}
		o := row()
		o.customer, o.total, o.status, o.placed, o.isPlaced = customer, 1000/total, 1, e.Envelope.LogTime, true
	case name == "OrderShipped":
		if m.orders[id] == nil {
			return false
		}
		row().status = 2
	case name == "OrderDeleted":
		delete(m.orders, id)
		return false
	case name == "OrderViewed":
		return false
	default:
		m.unmapped++
		return false
	}
	if was == nil || *was != before { // a row that stays as it is is not written
		m.orders[id].offsets[source] = e.Offset + 1
	}
	return false
}

func (m *model) foldLines(e *materializer.Entry, id string) {
	switch strings.TrimPrefix(e.Envelope.TypeURL, typePrefix) {
	case "OrderPlaced":
		fieldsOf(e.Value, func(number protowire.Number, _ uint64, b []byte) {
			if number != 3 {
				return
			}
			var l line
			fieldsOf(b, func(number protowire.Number, n uint64, b []byte) {
				if number == 1 {
					l.sku = string(b)
				} else {
					l.quantity = int32(n)
				}
			})
			if m.lines[id] == nil {
				m.lines[id] = map[string]*modelLine{}
			}
			if was := m.lines[id][l.sku]; was == nil || was.quantity != l.quantity {
				m.lines[id][l.sku] = &modelLine{l.quantity, e.Offset + 1}
			}
		})
	case "OrderShipped":
		for _, l := range m.lines[id] {
			if l.quantity != 0 {
				l.quantity, l.offset = 0, e.Offset+1
			}
		}
	case "OrderDeleted":
		delete(m.lines, id)
	default:
		m.unmappedLines++
	}
}

// text is a text in a tuple.
func text(s string) string { return strings.ReplaceAll(s, "\x00", "\x00\xff") + "\x00\x01" }

func number32(n int32) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(n)^1<<31))
}

// moment is a time in a tuple, which is there.
func moment(nanos int64) string {
	b := binary.BigEndian.AppendUint64([]byte{1}, uint64(nanos/1e9)^1<<63)
	return string(binary.BigEndian.AppendUint32(b, uint32(nanos%1e9)^1<<31))
}

func inverted(s string) string {
	b := []byte(s)
	for i := range b {
		b[i] = ^b[i]
	}
	return string(b)
}

func headerOf(hidden bool, offsets ...int64) string {
	b := []byte{0, byte(len(offsets))}
	if hidden {
		b[0] = 1
	}
	for _, o := range offsets {
		b = binary.AppendUvarint(b, uint64(o))
	}
	return string(b)
}

// sums are groups by their tuples.
type sums map[string][2]int64

func (s sums) add(key string, n int64) { s[key] = [2]int64{s[key][0] + 1, s[key][1] + n} }

func (s sums) rows(into map[string]string, number uint16) {
	for key, g := range s {
		b := binary.AppendVarint(nil, g[0])
		b = binary.BigEndian.AppendUint64(b, uint64(g[1]>>63))
		into["g"+numbered(number)+key] = string(binary.BigEndian.AppendUint64(b, uint64(g[1])))
	}
}

func numbered(n uint16) string { return string(binary.BigEndian.AppendUint16(nil, n)) }

// storedOrders are the keys behind the number of the dataset, and the values, of orders.
func (w *world) storedOrders(m *model, view *projections.View) map[string]string {
	rows := map[string]string{}
	has := func(number uint16) bool {
		return slices.Contains(view.Indexes, number) || slices.Contains(view.Aggregates, number)
	}
	byStatus, byCustomer := sums{}, sums{}
	for id, o := range m.orders {
		fields := map[protoreflect.Name]any{
			"order_id": id, "customer_id": o.customer, "total_cents": o.total, "paid_cents": o.paid,
			"status": protoreflect.EnumNumber(o.status),
		}
		if o.isPlaced {
			fields["placed_at"] = (&timestamppb.Timestamp{Seconds: o.placed / 1e9, Nanos: int32(o.placed % 1e9)}).ProtoReflect()
		}
		value := headerOf(!o.isPlaced, o.offsets[:]...) + string(message(w.t, view.Projection.Row, fields))
		key := text(id)
		rows["r"+key] = value
		if !o.isPlaced {
			continue
		}
		if has(1) {
			rows["i"+numbered(1)+text(o.customer)+inverted(moment(o.placed))+key] = value
		}
		if has(2) && o.status == 1 {
			rows["i"+numbered(2)+moment(o.placed)+key] = ""
		}
		byStatus.add(number32(o.status), o.total)
		byCustomer.add(text(o.customer), o.paid)
	}
	if has(3) {
		byStatus.rows(rows, 3)
	}
	if has(4) {
		byCustomer.rows(rows, 4)
	}
	for id, p := range m.parked {
		rows["k"+id] = fmt.Sprintf("%s at %d, %d behind", p.Entity, p.Offset, p.Behind)
	}
	return rows
}

func (w *world) storedLines(m *model, view *projections.View) map[string]string {
	rows := map[string]string{}
	bySKU := sums{}
	for id, lines := range m.lines {
		for sku, l := range lines {
			key := text(id) + text(sku)
			rows["r"+key] = headerOf(false, l.offset) + string(message(w.t, view.Projection.Row,
				map[protoreflect.Name]any{"order_id": id, "sku": sku, "quantity": l.quantity}))
			rows["i"+numbered(1)+text(sku)+key] = ""
			bySKU.add(text(sku), int64(l.quantity))
		}
	}
	bySKU.rows(rows, 2)
	return rows
}

// stored is what a store has of a dataset, as the model has it; position is its position row.
func stored(store materializer.Reader, dataset uint32) (rows map[string]string, position []byte, err error) {
	rows = map[string]string{}
	d := projections.Dataset{Address: address, Number: dataset}
	lower, upper := d.Range()
	err = store.Scan(lower, upper, func(key, value []byte) bool {
		switch k, _ := projections.ParseKey(key); k.Kind {
		case projections.KindPosition:
			position = bytes.Clone(value)
		case projections.KindParked:
			p, _ := projections.ParkedOf(value)
			rows[string(key[8:])] = fmt.Sprintf("%s at %d, %d behind", p.Entity, p.Offset, p.Behind)
		default:
			rows[string(key[8:])] = string(value)
		}
		return true
	})
	return rows, position, err
}

// errOtherParts: the store has other indexes and aggregates than the view.
var errOtherParts = errors.New("not those of the view")

// differs returns the first difference.
func differs(got, want map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if value, there := got[key]; !there || value != want[key] {
			return fmt.Errorf("%q is %q (%t), want %q; %d keys of %d", key, value, there, want[key], len(got), len(want))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, there := want[key]; !there {
			return fmt.Errorf("%q is there with %q", key, got[key])
		}
	}
	return nil
}

// leftOut are the records that are left out of the rows now: those of the view, but for the ones
// behind which entities are still to be folded again.
func leftOut(got map[string]string, view *projections.View) (map[int64]bool, error) {
	skips := map[int64]bool{}
	for _, s := range view.Skips {
		skips[s.Offset] = s.Partition == journal.ID
	}
	for key, value := range got {
		if key[0] == 'k' {
			_, at, _ := strings.Cut(value, " at ")
			var offset int64
			if _, err := fmt.Sscanf(at, "%d,", &offset); err != nil {
				return nil, fmt.Errorf("%q: %w", value, err)
			}
			delete(skips, offset)
		}
	}
	return skips, nil
}

// compare compares a dataset with the recomputation up to its position in the store.
func (w *world) compare(store materializer.Reader, view *projections.View) error {
	w.t.Helper()
	got, position, err := stored(store, view.Dataset)
	if err != nil {
		return err
	}
	if position == nil {
		return differs(got, nil)
	}
	at, err := projections.StoredOf(position)
	if err != nil {
		return err
	}
	skips, err := leftOut(got, view)
	if err != nil {
		return err
	}
	m := modelOf(w.effective(at.Next), view.Projection.OnError, skips)
	var want map[string]string
	numbers := [...]uint64{uint64(len(m.orders)), uint64(len(m.parked)), m.skipped, m.unmapped}
	if view.Dataset == ordersDataset {
		want = w.storedOrders(m, view)
	} else {
		want, numbers = w.storedLines(m, view), [...]uint64{0, 0, 0, m.unmappedLines}
		for _, lines := range m.lines {
			numbers[0] += uint64(len(lines))
		}
	}
	parts := slices.Concat(view.Indexes, view.Aggregates)
	if slices.Sort(parts); !slices.Equal(parts, at.Parts) {
		return fmt.Errorf("dataset %d at offset %d: its indexes and aggregates are %v, %w", view.Dataset, at.Next, at.Parts,
			errOtherParts)
	}
	if at.Pending > 0 { // what is not complete is not compared
		for _, all := range []map[string]string{got, want} {
			maps.DeleteFunc(all, func(key, _ string) bool { return key[0] == 'i' || key[0] == 'g' })
		}
	}
	if err := differs(got, want); err != nil {
		return fmt.Errorf("dataset %d at offset %d: %w", view.Dataset, at.Next, err)
	}
	if is := [...]uint64{at.Rows, at.Parked, at.Skipped, at.Unmapped}; is != numbers {
		return fmt.Errorf("dataset %d at offset %d: rows, parked, skipped, unmapped are %v, want %v", view.Dataset, at.Next,
			is, numbers)
	}
	return nil
}
