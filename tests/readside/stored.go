package readside

import (
	"encoding/binary"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	ordersv1 "github.com/millrace-io/millrace/examples/orders/orders/v1"
)

// Dataset is what the store has of one projection and one partition, by the keys of
// docs/views-keyspace.md without what names partition, dataset, and index or aggregate.
type Dataset struct {
	// Rows have the rows in wire form by their key tuples.
	Rows map[string][]byte
	// Indexes and Aggregates are in the order of the definition.
	Indexes    []map[string]Entry
	Aggregates []map[string]Group
}

// Entry is an entry of an index: the key tuple of its row, and the row if the index has the rows.
type Entry struct {
	Key string
	Row []byte
}

// StoredOrders returns the dataset of the projection orders: the indexes by_customer and open_only,
// the aggregate by_status.
func (r *Rows) StoredOrders() (*Dataset, error) {
	d := &Dataset{
		Rows: map[string][]byte{}, Indexes: []map[string]Entry{{}, {}}, Aggregates: []map[string]Group{{}},
	}
	for id, row := range r.Orders {
		wire, err := encode(row)
		if err != nil {
			return nil, err
		}
		key := text(id)
		d.Rows[key] = wire
		placed := moment(row.GetPlacedAt())
		d.Indexes[0][text(row.GetCustomerId())+inverted(placed)+key] = Entry{key, wire}
		if row.GetStatus() == ordersv1.Status_STATUS_OPEN {
			d.Indexes[1][placed+key] = Entry{Key: key}
		}
	}
	for status, group := range r.CountByStatus() {
		d.Aggregates[0][number32(int32(status))] = group
	}
	return d, nil
}

// StoredCustomers returns the dataset of the projection customers: the index by_city.
func (r *Rows) StoredCustomers() (*Dataset, error) {
	d := &Dataset{Rows: map[string][]byte{}, Indexes: []map[string]Entry{{}}}
	for id, row := range r.Customers {
		wire, err := encode(row)
		if err != nil {
			return nil, err
		}
		d.Rows[text(id)] = wire
		d.Indexes[0][text(row.GetCity())+text(row.GetName())+text(id)] = Entry{Key: text(id)}
	}
	return d, nil
}

// encode returns the canonical wire form: fields by number, those with their default left out.
func encode(m proto.Message) ([]byte, error) {
	wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode a row: %w", err)
	}
	return wire, nil
}

// text is a string in a tuple; none here is long enough to be cut in an index.
func text(s string) string { return strings.ReplaceAll(s, "\x00", "\x00\xff") + "\x00\x01" }

// number32 is an int32 or an enum in a tuple.
func number32(n int32) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(n)^1<<31)) //nolint:gosec // bit by bit
}

// moment is a Timestamp in a tuple, with the byte that says that it is there.
func moment(t *timestamppb.Timestamp) string {
	if t == nil {
		return "\x00"
	}
	b := binary.BigEndian.AppendUint64([]byte{1}, uint64(t.GetSeconds())^1<<63) //nolint:gosec // bit by bit
	return string(binary.BigEndian.AppendUint32(b, uint32(t.GetNanos())^1<<31)) //nolint:gosec // bit by bit
}

// inverted is a field of a tuple that sorts the other way round.
func inverted(field string) string {
	b := []byte(field)
	for i := range b {
		b[i] = ^b[i]
	}
	return string(b)
}
