package balance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// Notice comes with a worker's assignment: the table as of a rebalance, or only that rebalance's
// number.
type Notice struct {
	Generation int32
	// Table is nil if the tables of the whole group would not fit into one record; then only one
	// worker's assignment has it.
	Table *broker.Table
	// IDs are the members' names in the group, in the order of Table.Members. An id names one join,
	// as an incarnation names a process.
	IDs []string
}

// Kafka stores the state of a group as one record, which must stay below 1 MB: each member's join
// data and assignment, with about 150 bytes of overhead. So every worker gets the table while all
// copies together take at most TablesBudget, which is enough for about 65 workers with 256
// partitions and one standby; in larger groups one worker gets it, and the others look it up there.
// With 1 000 workers, 4 096 partitions and one standby the table takes 130 kB and the record 450 kB
// (TestLargeGroupFits); with 16 384 partitions 190 and 690 kB.
//
//	version (1 byte) · generation (4 bytes)
//	· members (uvarint), each name, address, incarnation (8 bytes), id in the group
//	· how many of them, the last ones, are leaving (uvarint)
//	· partitions (uvarint), each owner plus one (2 bytes)
//	· for each partition its standbys: how many (uvarint), each 2 bytes
//	· handed over (uvarint), each partition less the one before (uvarint)
//	· for each member its public address
//	· what workers serve: how many different answers (uvarint), each
//	· for each member 2*i (uvarint), where i is its answer from 1, or 0 for none; plus one if it is new
//
// Numbers of more than one byte are big endian. Without a table the notice ends after the
// generation. The last field is left out if no member says what it serves, the last two if none has
// a public address either. Readers skip trailing fields that they do not know.
const (
	tableVersion = 3
	// TablesBudget bounds all copies of a table together, in bytes.
	TablesBudget  = 512 << 10
	maxWorkers    = math.MaxUint16 - 1
	maxPartitions = 1 << 17
)

var errTable = errors.New("table of the group is damaged")

// Encode returns the bytes of a notice.
func (n Notice) Encode() []byte {
	b := binary.BigEndian.AppendUint32([]byte{tableVersion}, uint32(n.Generation)) //nolint:gosec // its bits
	if n.Table == nil {
		return b
	}
	b = binary.AppendUvarint(b, uint64(len(n.Table.Members)))
	for i, m := range n.Table.Members {
		b = binary.BigEndian.AppendUint64(appendText(appendText(b, m.Name), m.Address), m.Incarnation)
		b = appendText(b, n.IDs[i])
	}
	b = binary.AppendUvarint(b, uint64(n.Table.Leaving)) //nolint:gosec // a number of members
	b = binary.AppendUvarint(b, uint64(len(n.Table.Owners)))
	for _, owner := range n.Table.Owners {
		b = binary.BigEndian.AppendUint16(b, uint16(owner+1)) //nolint:gosec // at most maxWorkers
	}
	for _, standbys := range n.Table.Standbys {
		b = binary.AppendUvarint(b, uint64(len(standbys)))
		for _, s := range standbys {
			b = binary.BigEndian.AppendUint16(b, uint16(s)) //nolint:gosec // at most maxWorkers
		}
	}
	b = binary.AppendUvarint(b, uint64(len(n.Table.HandedOver)))
	before := int32(0)
	for _, p := range n.Table.HandedOver {
		b = binary.AppendUvarint(b, uint64(p-before)) //nolint:gosec // in order
		before = p
	}
	answers := answersOf(n.Table.Members)
	if len(answers) > 0 || slices.ContainsFunc(n.Table.Members, func(m broker.Member) bool { return m.Public != "" }) {
		for _, m := range n.Table.Members {
			b = appendText(b, m.Public)
		}
	}
	if len(answers) > 0 {
		b = appendAnswers(b, answers, n.Table.Members)
	}
	return b
}

// answersOf returns the distinct values of Member.Serves in order of first use. There are as many
// as versions of the program: one, or two during a rolling upgrade.
func answersOf(members []broker.Member) []string {
	var answers []string
	seen := map[string]bool{"": true}
	for _, m := range members {
		if !seen[m.Serves] {
			seen[m.Serves] = true
			answers = append(answers, m.Serves)
		}
	}
	return answers
}

func appendAnswers(b []byte, answers []string, members []broker.Member) []byte {
	place := make(map[string]uint64, len(answers))
	b = binary.AppendUvarint(b, uint64(len(answers)))
	for i, a := range answers {
		b = appendText(b, a)
		place[a] = uint64(i) + 1
	}
	for _, m := range members {
		n := 2 * place[m.Serves]
		if m.New {
			n++
		}
		b = binary.AppendUvarint(b, n)
	}
	return b
}

// answers reads what appendAnswers wrote into the members.
func (d *decoder) answers(members []broker.Member) {
	answers := []string{""}
	for range d.count(uint64(len(members))) {
		answers = append(answers, d.text())
	}
	for i := range members {
		n := d.uvarint()
		if n/2 >= uint64(len(answers)) {
			d.err = errTable
			return
		}
		members[i].Serves, members[i].New = answers[n/2], n%2 == 1
	}
}

// DecodeNotice reads what Encode has written, in this release or one that it works with.
func DecodeNotice(b []byte) (Notice, error) {
	d := decoder{rest: b}
	if v := d.byte(); d.err == nil && v != tableVersion {
		return Notice{}, fmt.Errorf("table of the group has version %d, this release reads %d", v, tableVersion)
	}
	n := Notice{Generation: int32(d.uint32())} //nolint:gosec // its bits
	if d.err != nil || len(d.rest) == 0 {
		return n, d.err
	}
	t := &broker.Table{Generation: n.Generation}
	for range d.count(maxWorkers) {
		t.Members = append(t.Members, broker.Member{Name: d.text(), Address: d.text(), Incarnation: d.uint64()})
		n.IDs = append(n.IDs, d.text())
	}
	workers := len(t.Members)
	if t.Leaving = int(d.uvarint()); t.Leaving < 0 || t.Leaving > workers { //nolint:gosec // checked
		return Notice{}, errTable
	}
	for range d.count(maxPartitions) {
		t.Owners = append(t.Owners, d.worker(workers+1)-1)
	}
	for range t.Owners {
		var standbys []int32
		for range d.count(uint64(workers)) {
			standbys = append(standbys, d.worker(workers))
		}
		t.Standbys = append(t.Standbys, standbys)
	}
	partition := uint64(0)
	for range d.count(maxPartitions) {
		if partition += d.uvarint(); partition >= uint64(len(t.Owners)) {
			return Notice{}, errTable
		}
		t.HandedOver = append(t.HandedOver, int32(partition)) //nolint:gosec // checked
	}
	if len(d.rest) > 0 {
		for i := range t.Members {
			t.Members[i].Public = d.text()
		}
	}
	if len(d.rest) > 0 {
		d.answers(t.Members)
	}
	if d.err != nil {
		return Notice{}, d.err
	}
	n.Table = t
	return n, nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decoder reads the fields of notices and join data. After the first error it returns zero values.
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

func (d *decoder) uint32() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// worker reads two bytes that must be below n.
func (d *decoder) worker(n int) int32 {
	b := d.take(2)
	if b == nil {
		return 0
	}
	w := int32(binary.BigEndian.Uint16(b))
	if int(w) >= n {
		d.err = errTable
	}
	return w
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

// count reads the number of elements that follow, each of at least one byte.
func (d *decoder) count(most uint64) uint64 {
	n := d.uvarint()
	if n > most || n > uint64(len(d.rest)) {
		d.err = errTable
		return 0
	}
	return n
}

func (d *decoder) text() string { return string(d.take(d.uvarint())) }
