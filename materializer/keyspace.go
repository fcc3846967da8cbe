package materializer

import (
	"encoding/binary"
	"fmt"
)

// FoldVersion is the version of the fold and of the key space together. A store that was folded by another version is
// rebuilt.
const FoldVersion = 4

// The row kinds: the byte after generation and partition. docs/keyspace.md has their meaning and a test compares. A
// retired one stays reserved.
const (
	// rowMeta: one row, what the partition's rows vouch for. Since version 1.
	rowMeta = 'm'
	// rowEntity: all rows of entities. Since version 1.
	rowEntity = 'e'
	// rowExpiry: dedup rows by log time, for their removal. Since version 1.
	rowExpiry = 'x'
	// rowRouted: the same for command ids that a router gave, which are needed for a short time only. Since version 3.
	rowRouted = 'y'
	// rowOutbox: effects that are not settled, by the offset of their record. Since version 2.
	rowOutbox = 'o'
	// rowParked: why an effect waits for an operator, by the same offset. Since version 2.
	rowParked = 'k'
	// rowRefused: effects that their targets refused, by the offset of the refused record, until an operator has looked at them
	// or newer ones take their place. Since version 4.
	rowRefused = 'u'
	// rowDelivered: answers to effects of other partitions, by the effect's address; and how far each of those partitions has
	// settled. Since version 2.
	rowDelivered = 'q'
	// rowTimer: timers by due time and the offset that set them. One that was cancelled or set anew since may still stand here.
	// Since version 2.
	rowTimer = 't'
	// rowHalted: one row, why the partition halted; no fold writes it, and nothing is read from the log while it is there. Since
	// version 3.
	rowHalted = 'h'
	// rowSuspected: one row while the log below the store's position has to be looked through for losses, or has lost something there;
	// no fold writes it. Since version 4.
	rowSuspected = 'd'
	// rowSaga, rowProjection, rowCell: reserved.
	rowSaga       = 's'
	rowProjection = 'p'
	rowCell       = 'c'
)

// The rows of one entity: the byte after its type and id.
const (
	// entityHead: kind, last sequence and offset; of a value entity also the value. It exists from the first record on. Since
	// version 1.
	entityHead = 'h'
	// entityState: snapshot of an event-sourced entity. Since version 1.
	entityState = 's'
	// entityTail: events after the snapshot, by sequence. Since version 1.
	entityTail = 't'
	// entityIndex: no content, by offset of each record. Since version 1.
	entityIndex = 'i'
	// entityDedup: answers by principal and command id. Since version 1.
	entityDedup = 'd'
	// entityTimer: timers by name. Since version 2.
	entityTimer = 'w'
)

// Address names one partition of one generation of the journal.
type Address struct {
	Generation uint16
	Partition  uint16
}

// The generations of rows that are no journal's: what a repair and a verification fold beside the store, dropped before and
// after.
const (
	generationVerify = 0xfffe
	generationRepair = 0xffff
)

// ForRepair and ForVerify are where the partition's log is folded beside its store.
func (a Address) ForRepair() Address { return Address{generationRepair, a.Partition} }

// ForVerify is what ForRepair is, for a verification.
func (a Address) ForVerify() Address { return Address{generationVerify, a.Partition} }

// String returns the address as shown to people.
func (a Address) String() string { return fmt.Sprintf("partition %d", a.Partition) }

func (a Address) append(buf []byte) []byte {
	buf = binary.BigEndian.AppendUint16(buf, a.Generation)
	return binary.BigEndian.AppendUint16(buf, a.Partition)
}

// Range returns the bounds of all rows of the partition.
func (a Address) Range() (lower, upper []byte) {
	lower = a.append(nil)
	return lower, binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(lower)+1)
}

func (a Address) metaKey() []byte { return append(a.append(nil), rowMeta) }

// appendEntity appends the common prefix of an entity's rows: type and id, each behind its length.
func appendEntity[S ~string | ~[]byte](buf []byte, a Address, typ, id S) []byte {
	buf = append(a.append(buf), rowEntity)
	buf = binary.AppendUvarint(buf, uint64(len(typ)))
	buf = append(buf, typ...)
	buf = binary.AppendUvarint(buf, uint64(len(id)))
	return append(buf, id...)
}

func appendTail(prefix []byte, sequence uint64) []byte {
	return binary.BigEndian.AppendUint64(append(prefix, entityTail), sequence)
}

func appendIndex(prefix []byte, offset int64) []byte {
	return binary.BigEndian.AppendUint64(append(prefix, entityIndex), uint64(offset)) //nolint:gosec // offsets are positive
}

func appendDedup(prefix []byte, principal, commandID string) []byte {
	prefix = append(prefix, entityDedup)
	prefix = binary.AppendUvarint(prefix, uint64(len(principal)))
	prefix = append(prefix, principal...)
	return append(prefix, commandID...)
}

// isExpiry says whether rows of a kind hold the keys of dedup rows that expire.
func isExpiry(kind byte) bool { return kind == rowExpiry || kind == rowRouted }

// appendExpiry puts a dedup row's key behind its log time; kind is rowExpiry or rowRouted.
func appendExpiry(buf []byte, a Address, kind byte, logTime int64, dedupKey []byte) []byte {
	buf = append(a.append(buf), kind)
	buf = binary.BigEndian.AppendUint64(buf, uint64(logTime)) //nolint:gosec // log times are positive
	return append(buf, dedupKey...)
}

// expiryHeader is the length of an expiry row's key before the dedup row's key in it.
const expiryHeader = 4 + 1 + 8
