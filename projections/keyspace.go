package projections

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/projections/mapping"
)

// KeyVersion is the version of the keys and tuples in the store of the views. A store of another
// one is deleted and built again.
const KeyVersion = 1

// Kind is a kind of row. The bytes are durable; a retired one stays reserved.
type Kind byte

// The kinds of rows: docs/views-keyspace.md has the same table.
const (
	KindPosition  Kind = 'm' // how far the dataset is folded
	KindRow       Kind = 'r' // a row of the projection
	KindIndex     Kind = 'i' // an entry of an index
	KindAggregate Kind = 'g' // a group of an aggregate
	KindChange    Kind = 'l' // an entry of the log of changes
	KindParked    Kind = 'k' // an entity that is not folded any more, and why
)

// String names the kind as shown to people.
func (k Kind) String() string {
	switch k {
	case KindIndex:
		return "index"
	case KindAggregate:
		return "aggregate"
	default:
		return string(k)
	}
}

// Dataset names the rows of one fold, of one partition of one generation of the journal.
type Dataset struct {
	materializer.Address

	// Number is that of the fold, unique in the app.
	Number uint32
}

const (
	addressSize = 4
	// headerSize is the length of what all keys begin with: address, dataset, kind.
	headerSize = addressSize + 4 + 1
)

// errKey: no function of this file made such a key.
var errKey = errors.New("key is damaged")

func (d Dataset) append(buf []byte) []byte {
	buf = binary.BigEndian.AppendUint16(buf, d.Generation)
	buf = binary.BigEndian.AppendUint16(buf, d.Partition)
	return binary.BigEndian.AppendUint32(buf, d.Number)
}

// numberOf returns the number of the dataset of a key, as if zeros followed on it.
func numberOf(key []byte) uint32 {
	var number [4]byte
	copy(number[:], key[addressSize:])
	return binary.BigEndian.Uint32(number[:])
}

// Header appends what the keys of a kind begin with. Kinds with a number (indexes and aggregates)
// have it behind that: see IndexHeader and AggregateHeader.
func (d Dataset) Header(buf []byte, k Kind) []byte { return append(d.append(buf), byte(k)) }

// PositionKey appends the key of the dataset's position.
func (d Dataset) PositionKey(buf []byte) []byte { return d.Header(buf, KindPosition) }

// RowKey appends the key of the row with this key tuple.
func (d Dataset) RowKey(buf, key []byte) []byte { return append(d.Header(buf, KindRow), key...) }

// IndexHeader appends what the entries of an index begin with.
func (d Dataset) IndexHeader(buf []byte, index uint16) []byte {
	return binary.BigEndian.AppendUint16(d.Header(buf, KindIndex), index)
}

// IndexKey appends the key of an entry of an index: the tuple of the indexed fields and the key
// tuple of the row.
func (d Dataset) IndexKey(buf []byte, index uint16, tuple, key []byte) []byte {
	return append(append(d.IndexHeader(buf, index), tuple...), key...)
}

// AggregateHeader appends what the groups of an aggregate begin with.
func (d Dataset) AggregateHeader(buf []byte, aggregate uint16) []byte {
	return binary.BigEndian.AppendUint16(d.Header(buf, KindAggregate), aggregate)
}

// AggregateKey appends the key of a group of an aggregate.
func (d Dataset) AggregateKey(buf []byte, aggregate uint16, group []byte) []byte {
	return append(d.AggregateHeader(buf, aggregate), group...)
}

// ChangeKey appends the key of a change: the offset of its record, and its index among the changes
// of that record. Offsets are not negative, so that changes sort by them.
func (d Dataset) ChangeKey(buf []byte, offset int64, index uint32) []byte {
	buf = binary.BigEndian.AppendUint64(d.Header(buf, KindChange), uint64(offset)) //nolint:gosec // not negative
	return binary.BigEndian.AppendUint32(buf, index)
}

// ParkedKey appends the key of what is known of a parked entity.
func (d Dataset) ParkedKey(buf []byte, entity string) []byte {
	return append(d.Header(buf, KindParked), entity...)
}

// Range returns the bounds of all keys of the dataset in its partition: what is dropped with it.
func (d Dataset) Range() (lower, upper []byte) { return within(d.append(nil)) }

// KindRange returns the bounds of the keys of one kind.
func (d Dataset) KindRange(k Kind) (lower, upper []byte) { return within(d.Header(nil, k)) }

// IndexRange returns the bounds of the entries of an index.
func (d Dataset) IndexRange(index uint16) (lower, upper []byte) {
	return within(d.IndexHeader(nil, index))
}

// AggregateRange returns the bounds of the groups of an aggregate.
func (d Dataset) AggregateRange(aggregate uint16) (lower, upper []byte) {
	return within(d.AggregateHeader(nil, aggregate))
}

// ChangesBefore returns the bounds of the changes of records before an offset: what a log of
// changes forgets.
func (d Dataset) ChangesBefore(offset int64) (lower, upper []byte) {
	return d.Header(nil, KindChange), d.ChangeKey(nil, offset, 0)
}

// PartitionRange returns the bounds of all keys of a partition, of all its datasets.
func PartitionRange(a materializer.Address) (lower, upper []byte) {
	return within(Dataset{Address: a}.append(nil)[:addressSize])
}

// GenerationRange returns the bounds of all keys of a generation of the journal.
func GenerationRange(generation uint16) (lower, upper []byte) {
	return within(binary.BigEndian.AppendUint16(nil, generation))
}

func within(prefix []byte) (lower, upper []byte) { return prefix, mapping.Successor(prefix) }

// Key is a key, taken apart. Which fields are set follows from the kind.
type Key struct {
	Dataset

	Kind Kind
	// Piece is the number of the index or of the aggregate.
	Piece uint16
	// Tuple is the key tuple of a row, the tuple and the key tuple of an entry of an index, or the
	// group of an aggregate. It is part of the key's memory.
	Tuple []byte
	// Offset and Index are those of a change.
	Offset int64
	Index  uint32
	// Entity is the id of one that is parked.
	Entity string
}

// ParseKey takes a key apart.
func ParseKey(b []byte) (Key, error) {
	if len(b) < headerSize {
		return Key{}, fmt.Errorf("%w: %x has no header", errKey, b)
	}
	k := Key{
		Dataset: Dataset{
			Address: materializer.Address{Generation: binary.BigEndian.Uint16(b), Partition: binary.BigEndian.Uint16(b[2:])},
			Number:  binary.BigEndian.Uint32(b[addressSize:]),
		},
		Kind: Kind(b[headerSize-1]),
	}
	rest, isWhole := b[headerSize:], true
	switch k.Kind {
	case KindPosition:
		isWhole = len(rest) == 0
	case KindRow:
		k.Tuple = rest
	case KindIndex, KindAggregate:
		if isWhole = len(rest) >= 2; isWhole {
			k.Piece, k.Tuple = binary.BigEndian.Uint16(rest), rest[2:]
		}
	case KindChange:
		if isWhole = len(rest) == 12; isWhole {
			k.Offset, k.Index = int64(binary.BigEndian.Uint64(rest)), binary.BigEndian.Uint32(rest[8:]) //nolint:gosec // see below
			isWhole = k.Offset >= 0
		}
	case KindParked:
		k.Entity = string(rest)
	default:
		return Key{}, fmt.Errorf("%w: %x has the kind %q, which this version does not know", errKey, b, byte(k.Kind))
	}
	if !isWhole {
		return Key{}, fmt.Errorf("%w: %x is not of the form of kind %q", errKey, b, byte(k.Kind))
	}
	return k, nil
}
