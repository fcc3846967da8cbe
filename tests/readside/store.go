package readside

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Scanner reads keys and values in order: a store of the views.
type Scanner interface {
	Scan(lower, upper []byte, yield func(key, value []byte) bool) error
}

// Compared is what a comparison has found.
type Compared struct {
	// Rows, Entries and Groups are equal to the recomputation.
	Rows, Entries, Groups int
	// Different are keys that are too many, missing, or have another value, as shown to people; the
	// first maxDifferent of all.
	Different []string
}

const maxDifferent = 20

// different keeps a difference.
func (c *Compared) different(format string, args ...any) {
	if len(c.Different) < maxDifferent {
		c.Different = append(c.Different, fmt.Sprintf(format, args...))
	}
}

// The kinds of keys, and the sizes of what they begin with: docs/views-keyspace.md.
const (
	kindRow, kindIndex, kindAggregate, kindParked = 'r', 'i', 'g', 'k'

	keyHeader = 2 + 2 + 4 + 1
)

// found is what the store has of one dataset of one partition: values by the keys behind the
// header.
type found struct {
	rows, parked, indexes, aggregates map[string][]byte
}

// CompareStore compares what a store has of the projections of examples/orders with the rows that
// the partitions make. It must have both, of all partitions, and nothing else of them.
func CompareStore(store Scanner, partitions []Partition) (*Compared, error) {
	list, err := ComparePartitions(store, partitions)
	if err != nil {
		return nil, err
	}
	all := &Compared{}
	for _, c := range list {
		all.Add(c)
	}
	return all, nil
}

// Add adds what another comparison has found.
func (c *Compared) Add(o *Compared) {
	c.Rows, c.Entries, c.Groups = c.Rows+o.Rows, c.Entries+o.Entries, c.Groups+o.Groups
	for _, d := range o.Different {
		c.different("%s", d)
	}
}

// ComparePartitions is CompareStore for a worker that has some of the partitions: each is compared
// by itself.
func ComparePartitions(store Scanner, partitions []Partition) ([]*Compared, error) {
	compared := make([]*Compared, len(partitions))
	datasets, err := scanStore(store, len(partitions))
	if err != nil {
		return nil, err
	}
	all, err := FoldAll(partitions)
	if err != nil {
		return nil, err
	}
	isOrders, err := tellApart(datasets, all)
	if err != nil {
		return nil, err
	}
	for partition := range partitions {
		rows, err := Fold(partitions[partition].Records)
		if err != nil {
			return nil, err
		}
		c := &Compared{}
		compared[partition] = c
		for number, ofPartition := range datasets {
			want, err := rows.StoredCustomers()
			if isOrders[number] {
				want, err = rows.StoredOrders()
			}
			if err != nil {
				return nil, err
			}
			c.dataset(fmt.Sprintf("dataset %d of partition %d", number, partition), ofPartition[partition], want)
		}
	}
	return compared, nil
}

// scanStore reads everything: by dataset, then by partition.
func scanStore(store Scanner, partitions int) (map[uint32][]*found, error) {
	datasets := map[uint32][]*found{}
	var failed error
	err := store.Scan([]byte{0}, bytes.Repeat([]byte{0xff}, keyHeader), func(key, value []byte) bool {
		if len(key) < keyHeader {
			failed = fmt.Errorf("key %x has no header", key)
			return false
		}
		partition, number := int(binary.BigEndian.Uint16(key[2:])), binary.BigEndian.Uint32(key[4:])
		if partition >= partitions {
			failed = fmt.Errorf("key %x is of partition %d, and the journal has %d", key, partition, partitions)
			return false
		}
		if datasets[number] == nil {
			list := make([]*found, partitions)
			for i := range list {
				list[i] = &found{map[string][]byte{}, map[string][]byte{}, map[string][]byte{}, map[string][]byte{}}
			}
			datasets[number] = list
		}
		f, rest := datasets[number][partition], string(key[keyHeader:])
		switch key[keyHeader-1] {
		case kindRow:
			f.rows[rest] = bytes.Clone(value)
		case kindIndex:
			f.indexes[rest] = bytes.Clone(value)
		case kindAggregate:
			f.aggregates[rest] = bytes.Clone(value)
		case kindParked:
			f.parked[rest] = bytes.Clone(value)
		default: // positions and changes
		}
		return true
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, fmt.Errorf("scan the views: %w", err)
	}
	return datasets, nil
}

// tellApart says which dataset is of orders, and which is of customers: there is one of each.
func tellApart(datasets map[uint32][]*found, all *Rows) (isOrders map[uint32]bool, err error) {
	isOrders = map[uint32]bool{}
	orders := 0
	for number, partitions := range datasets {
		for _, f := range partitions {
			for key := range f.rows {
				_, isOrder := all.Orders[strings.TrimSuffix(key, "\x00\x01")]
				isOrders[number] = isOrders[number] || isOrder
			}
		}
		if isOrders[number] {
			orders++
		}
	}
	if len(datasets) != 2 || orders != 1 {
		return nil, fmt.Errorf("the views have datasets %v, of which %d have orders: there must be one of orders and one of customers",
			slices.Sorted(maps.Keys(datasets)), orders)
	}
	return isOrders, nil
}

// dataset compares a dataset of one partition.
func (c *Compared) dataset(name string, got *found, want *Dataset) {
	for key := range got.parked {
		c.different("%s: entity %q is parked: %q", name, key, got.parked[key])
	}
	c.values(name, "row", got.rows, want.Rows, &c.Rows, message)
	entries := map[string][]byte{}
	for i, list := range want.Indexes {
		for key, e := range list {
			entries[piece(i)+key] = e.Row
		}
	}
	c.values(name, "entry", got.indexes, entries, &c.Entries, message)
	groups := map[string][]byte{}
	for i, list := range want.Aggregates {
		for key, g := range list {
			groups[piece(i)+key] = stored(g)
		}
	}
	c.values(name, "group", got.aggregates, groups, &c.Groups, func(value []byte) ([]byte, error) { return value, nil })
}

// piece is the number of an index or an aggregate: from 1, in the order of the definition.
func piece(i int) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(i+1))) //nolint:gosec // few
}

// values compares the values of one kind, and counts those that are equal.
func (c *Compared) values(
	dataset, kind string, got, want map[string][]byte, equal *int, content func([]byte) ([]byte, error),
) {
	for _, key := range slices.Sorted(maps.Keys(want)) {
		value, there := got[key]
		if !there {
			c.different("%s: %s %q is missing; want %x", dataset, kind, key, want[key])
			continue
		}
		is, err := content(value)
		switch {
		case err != nil:
			c.different("%s: %s %q has the value %x: %v", dataset, kind, key, value, err)
		case !bytes.Equal(is, want[key]):
			c.different("%s: %s %q is %x, want %x", dataset, kind, key, is, want[key])
		default:
			*equal++
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, there := want[key]; !there {
			c.different("%s: %s %q is there with %x, and should not be", dataset, kind, key, got[key])
		}
	}
}

// message returns the message of a stored row: behind the flags, the number of sources, and an
// offset for each of them. An entry of an index without rows has nothing.
func message(value []byte) ([]byte, error) {
	if len(value) == 0 {
		return nil, nil
	}
	if len(value) < 2 || value[0] != 0 {
		return nil, errors.New("the header is not that of a visible row")
	}
	rest := value[2:]
	for range value[1] {
		_, size := binary.Uvarint(rest)
		if size <= 0 {
			return nil, errors.New("the header ends too early")
		}
		rest = rest[size:]
	}
	return rest, nil
}

// stored is the value of a group: the count, and 128 bits of the sum.
func stored(g Group) []byte {
	b := binary.AppendVarint(nil, g.Orders)
	b = binary.BigEndian.AppendUint64(b, uint64(g.Cents>>63)) //nolint:gosec // bit by bit
	return binary.BigEndian.AppendUint64(b, uint64(g.Cents))  //nolint:gosec // bit by bit
}
