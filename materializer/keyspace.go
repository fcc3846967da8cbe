package materializer

import (
	"encoding/binary"
	"fmt"
)

// FoldVersion is the version of the fold and of the key space together. A store that was folded by
// another version is rebuilt.
const FoldVersion = 4

// Address names one partition of one generation of the journal.
type Address struct {
	Generation uint16
	Partition  uint16
}

// The generations of rows that are no journal's: what a repair and a verification fold beside the
// store, dropped before and after.
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

// addressSize is the length of the address at the start of every key.
const addressSize = 4

func (a Address) append(buf []byte) []byte {
	buf = binary.BigEndian.AppendUint16(buf, a.Generation)
	return binary.BigEndian.AppendUint16(buf, a.Partition)
}

// Range returns the bounds of all rows of the partition.
func (a Address) Range() (lower, upper []byte) {
	lower = a.append(nil)
	return lower, binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(lower)+1)
}

func (a Address) metaKey() []byte { return a.row(nil, rowMeta) }

// appendNumber appends an offset or a time to a key. Neither is negative, so that keys sort by it.
func appendNumber(key []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(key, uint64(n)) //nolint:gosec // not negative
}

// numberAt is the offset or time with which a part of a key begins.
func numberAt(key []byte) int64 { return int64(binary.BigEndian.Uint64(key)) } //nolint:gosec // written by appendNumber

// tailOffset is the offset at the end of a key.
func tailOffset(key []byte) int64 { return numberAt(key[len(key)-8:]) }

// appendEntity appends the common prefix of an entity's rows: type and id, each after its length.
func appendEntity[S ~string | ~[]byte](buf []byte, a Address, typ, id S) []byte {
	buf = a.row(buf, rowEntity)
	buf = binary.AppendUvarint(buf, uint64(len(typ)))
	buf = append(buf, typ...)
	buf = binary.AppendUvarint(buf, uint64(len(id)))
	return append(buf, id...)
}

func appendTail(prefix []byte, sequence uint64) []byte {
	return binary.BigEndian.AppendUint64(entityRow(prefix, entityTail), sequence)
}

func appendIndex(prefix []byte, offset int64) []byte {
	return appendNumber(entityRow(prefix, entityIndex), offset)
}

func appendDedup(prefix []byte, principal, commandID string) []byte {
	prefix = entityRow(prefix, entityDedup)
	prefix = binary.AppendUvarint(prefix, uint64(len(principal)))
	prefix = append(prefix, principal...)
	return append(prefix, commandID...)
}

// appendExpiry appends a log time and a dedup row's key; kind is rowExpiry or rowRouted.
func appendExpiry(buf []byte, a Address, kind byte, logTime int64, dedupKey []byte) []byte {
	buf = a.row(buf, kind)
	buf = appendNumber(buf, logTime)
	return append(buf, dedupKey...)
}

// expiryHeader is the length of an expiry row's key before the dedup row's key in it.
const expiryHeader = addressSize + 1 + 8
