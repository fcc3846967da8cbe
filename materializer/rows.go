package materializer

import (
	"encoding/binary"
	"fmt"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
)

// Meta says up to where a partition's rows are complete, and of which log. It is committed in the
// same batch as the rows.
type Meta struct {
	FoldVersion uint64
	// TopicID is that of the journal that was folded.
	TopicID string
	// Next is the offset of the first record without effect on the rows.
	Next int64
	// Owner is the owner by the reader rule before Next.
	Owner record.Owner
	// Ordinal is the number of the owner's records before Next that counted.
	Ordinal uint64
	// LogTime is the newest log time seen, in nanoseconds.
	LogTime int64
	// Floor is from the last repair: offsets below it were used before the log lost them, so that no
	// owner may serve before the log has reached it. 0: the log has lost nothing.
	Floor int64
	// Layout is the one by which the rows were folded; zero where it is not known.
	Layout entities.Layout
	// Lost counts the losses of the log before Next that repairs have accepted; 0: the log had no
	// gaps.
	Lost uint64
	// Start is the offset at which the fold began: 0, unless a repair has accepted that the log has
	// lost its beginning.
	Start int64
}

// MetaFrom is where a fold begins that does not have what was below an offset.
func MetaFrom(topicID string, start int64) Meta {
	return Meta{FoldVersion: FoldVersion, TopicID: topicID, Next: start, Start: start}
}

// The fold versions since which meta rows have a floor, a layout, and accepted losses with the
// start. The topic of an older row is still read.
const (
	floorSince  = 3
	layoutSince = 4
	lostSince   = 4
)

// Append appends the meta row. Positions of other rows that follow the partition have this form.
func (m *Meta) Append(buf []byte) []byte {
	buf = binary.AppendUvarint(buf, m.FoldVersion)
	buf = binary.AppendVarint(buf, m.Next)
	buf = binary.AppendUvarint(buf, m.Owner.Epoch)
	buf = binary.BigEndian.AppendUint64(buf, m.Owner.Nonce)
	buf = binary.AppendUvarint(buf, m.Ordinal)
	buf = binary.AppendVarint(buf, m.LogTime)
	buf = binary.AppendVarint(buf, m.Floor)
	buf = appendLayout(buf, m.Layout)
	buf = binary.AppendUvarint(buf, m.Lost)
	buf = binary.AppendVarint(buf, m.Start)
	return append(buf, m.TopicID...)
}

// ParseMeta reads what Append has written, in this version or an older one.
func ParseMeta(b []byte) (Meta, error) {
	d := decoder{rest: b}
	m := Meta{FoldVersion: d.uvarint(), Next: d.varint()}
	m.Owner.Epoch = d.uvarint()
	m.Owner.Nonce = d.fixed64()
	m.Ordinal = d.uvarint()
	m.LogTime = d.varint()
	if m.FoldVersion >= floorSince {
		m.Floor = d.varint()
	}
	if m.FoldVersion >= layoutSince {
		m.Layout = parseLayout(&d)
	}
	if m.FoldVersion >= lostSince {
		m.Lost = d.uvarint()
		m.Start = d.varint()
	}
	m.TopicID = string(d.rest)
	return m, d.error("meta row")
}

func appendLayout(buf []byte, l entities.Layout) []byte {
	buf = binary.AppendUvarint(buf, uint64(l.Generation))
	buf = binary.AppendVarint(buf, int64(l.Partitions))
	buf = binary.AppendVarint(buf, int64(l.Slots))
	for _, text := range []string{l.Hash, l.App} {
		buf = append(binary.AppendUvarint(buf, uint64(len(text))), text...)
	}
	return buf
}

func parseLayout(d *decoder) (l entities.Layout) {
	l.Generation = uint16(d.uvarint()) //nolint:gosec // as written
	l.Partitions = int32(d.varint())   //nolint:gosec // as written
	l.Slots = int32(d.varint())        //nolint:gosec // as written
	l.Hash = string(d.bytes(d.uvarint()))
	l.App = string(d.bytes(d.uvarint()))
	return l
}

// Head is the first row of an entity.
type Head struct {
	Kind entities.Kind
	// Sequence is that of the last event.
	Sequence uint64
	// Offset is that of the entity's last record.
	Offset int64
	// Deleted says that a value entity's value was deleted.
	Deleted bool
}

func (h *Head) append(buf []byte) []byte {
	deleted := byte(0)
	if h.Deleted {
		deleted = 1
	}
	buf = append(buf, byte(h.Kind), deleted)
	buf = binary.AppendUvarint(buf, h.Sequence)
	return binary.AppendVarint(buf, h.Offset)
}

// parseHead also returns what follows the head: the value of a value entity.
func parseHead(b []byte) (h Head, content []byte, err error) {
	d := decoder{rest: b}
	h = Head{Kind: entities.Kind(d.byte()), Deleted: d.byte() == 1, Sequence: d.uvarint(), Offset: d.varint()}
	return h, d.rest, d.error("head row")
}

// appendContent encodes a sequence and its payload.
func appendContent(buf []byte, sequence uint64, p entities.Payload) []byte {
	buf = binary.AppendUvarint(buf, sequence)
	buf = binary.AppendUvarint(buf, uint64(len(p.TypeURL)))
	buf = append(buf, p.TypeURL...)
	return append(buf, p.Value...)
}

func parseContent(b []byte) (sequence uint64, p entities.Payload, err error) {
	d := decoder{rest: b}
	sequence = d.uvarint()
	p.TypeURL = string(d.bytes(d.uvarint()))
	p.Value = d.rest
	return sequence, p, d.error("state row")
}

// Stored is a command that took effect, as the dedup table remembers it.
type Stored struct {
	PayloadHash uint64
	Offset      int64
	// LogTime is when it took effect, in nanoseconds.
	LogTime int64
	// Answer is an encoded millrace.record.v1.Answer.
	Answer []byte
}

func (s *Stored) append(buf []byte) []byte {
	buf = binary.BigEndian.AppendUint64(buf, s.PayloadHash)
	buf = binary.AppendVarint(buf, s.Offset)
	buf = binary.AppendVarint(buf, s.LogTime)
	return append(buf, s.Answer...)
}

func parseStored(b []byte) (Stored, error) {
	d := decoder{rest: b}
	s := Stored{PayloadHash: d.fixed64(), Offset: d.varint(), LogTime: d.varint(), Answer: d.rest}
	return s, d.error("dedup row")
}

// decoder takes a row apart and remembers whether it was too short.
type decoder struct {
	rest  []byte
	short bool
}

func (d *decoder) error(what string) error {
	if d.short {
		return fmt.Errorf("%w: %s is too short", ErrCorrupt, what)
	}
	return nil
}

func (d *decoder) byte() byte {
	if len(d.rest) < 1 {
		d.short = true
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	return advance(d, v, n)
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	return advance(d, v, n)
}

func advance[T int64 | uint64](d *decoder, v T, n int) T {
	if n <= 0 {
		d.short, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) fixed64() uint64 {
	if len(d.rest) < 8 {
		d.short, d.rest = true, nil
		return 0
	}
	v := binary.BigEndian.Uint64(d.rest)
	d.rest = d.rest[8:]
	return v
}

func (d *decoder) bytes(n uint64) []byte {
	if uint64(len(d.rest)) < n {
		d.short, d.rest = true, nil
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}
