package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Member is a worker of a group.
type Member struct {
	// Name is the worker's, Address where peers reach it. Address is "" while the group is being balanced.
	Name, Address string
	// Partitions are those assigned to it.
	Partitions []int32
}

// RoutingTable says which worker owns which partition of the group's topic, as of one balancing of the group. It is a hint:
// who may write is decided in the log. A RoutingTable is not changed after it was made.
type RoutingTable struct {
	workers []worker
	// owners holds, for each partition, an index into workers plus one; 0: nobody.
	owners []uint16
}

type worker struct{ name, address string }

// Partitions is how many the table covers.
func (t *RoutingTable) Partitions() int { return len(t.owners) }

// Owner returns the name and address of the worker that owns a partition; ok is false when nobody does at the moment.
func (t *RoutingTable) Owner(partition int32) (name, address string, ok bool) {
	if partition < 0 || int(partition) >= len(t.owners) || t.owners[partition] == 0 {
		return "", "", false
	}
	w := t.workers[t.owners[partition]-1]
	return w.name, w.address, true
}

// Address returns where a worker is reached; ok is false when it has no place in the table.
func (t *RoutingTable) Address(name string) (address string, ok bool) {
	for _, w := range t.workers {
		if w.name == name {
			return w.address, true
		}
	}
	return "", false
}

// RoutingTable returns the table that this worker's membership heard last, nil before the first.
func (l *Log) RoutingTable() *RoutingTable { return l.table.Load() }

// The encoded table is repeated for every member in one record of the group's own topic, which must stay below 1 MB: hence
// addresses once and two bytes for each partition.
//
//	version (1 byte) · workers (uvarint), each name and address · partitions (uvarint), each 2 bytes, big endian
const tableVersion = 1

const (
	maxWorkers    = math.MaxUint16 - 1
	maxPartitions = 1 << 16
)

var errTable = errors.New("routing table is damaged")

func (t *RoutingTable) encode() []byte {
	b := []byte{tableVersion}
	b = binary.AppendUvarint(b, uint64(len(t.workers)))
	for _, w := range t.workers {
		b = appendText(appendText(b, w.name), w.address)
	}
	b = binary.AppendUvarint(b, uint64(len(t.owners)))
	for _, o := range t.owners {
		b = binary.BigEndian.AppendUint16(b, o)
	}
	return b
}

func decodeTable(b []byte) (*RoutingTable, error) {
	d := decoder{rest: b}
	if v := d.byte(); d.err == nil && v != tableVersion {
		return nil, fmt.Errorf("routing table has version %d, this release reads %d", v, tableVersion)
	}
	t := &RoutingTable{}
	for range d.count(maxWorkers) {
		t.workers = append(t.workers, worker{name: d.text(), address: d.text()})
	}
	for range d.count(maxPartitions) {
		t.owners = append(t.owners, d.uint16())
	}
	if d.err != nil {
		return nil, d.err
	}
	for _, o := range t.owners {
		if int(o) > len(t.workers) {
			return nil, errTable
		}
	}
	return t, nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decoder reads what appendText and its like have written. After the first error it returns zero values.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) take(n uint64) []byte {
	if d.err != nil || n > uint64(len(d.rest)) {
		d.err = errTable
		return nil
	}
	head := d.rest[:n]
	d.rest = d.rest[n:]
	return head
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint16() uint16 {
	if b := d.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	n, used := binary.Uvarint(d.rest)
	if used <= 0 {
		d.err = errTable
		return 0
	}
	d.take(uint64(used))
	return n
}

// count reads a number of things that follow, each of at least one byte.
func (d *decoder) count(most uint64) uint64 {
	n := d.uvarint()
	if n > most || n > uint64(len(d.rest)) {
		d.err = errTable
		return 0
	}
	return n
}

func (d *decoder) text() string { return string(d.take(d.uvarint())) }
