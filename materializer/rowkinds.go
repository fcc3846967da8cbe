package materializer

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/millrace-io/millrace/internal/invariant"
)

// A new kind of rows is a constant and its line in rowKinds, here, its encoding, and what the fold
// writes and removes. Comparison, restoration, overlay and the test of docs/keyspace.md go by the
// line; FoldVersion is raised if older stores lack the rows.

// The kinds of rows: the byte after generation and partition. A retired byte stays reserved.
const (
	rowMeta       = 'm' // one row: what the partition's rows vouch for
	rowEntity     = 'e' // all rows of entities
	rowExpiry     = 'x' // dedup rows by log time, for their removal
	rowRouted     = 'y' // the same for command ids that a router gave, which are needed for a short time only
	rowOutbox     = 'o' // effects that are not settled, by the offset of their record
	rowParked     = 'k' // why an effect waits for an operator, by the same offset
	rowRefused    = 'u' // effects that their targets refused, by the offset of the refused record
	rowDelivered  = 'q' // answers to effects of other partitions, by the effect; and the progress of each source
	rowTimer      = 't' // timers by due time and the offset that set them; an entry may be out of date
	rowHalted     = 'h' // one row: why the partition halted; while it is there, nothing is read from the log
	rowSuspected  = 'd' // one row: the log below the store's position must be searched for losses, or has some
	rowSaga       = 's' // reserved
	rowProjection = 'p' // reserved
	rowCell       = 'c' // reserved
)

// The kinds of rows of one entity: the byte after its type and id.
const (
	entityHead  = 'h' // kind, last sequence and offset, and a value entity's value; there from the first record on
	entityState = 's' // snapshot of an event-sourced entity
	entityTail  = 't' // events after the snapshot, by sequence
	entityIndex = 'i' // no content, by offset of each record
	entityDedup = 'd' // answers by principal and command id
	entityTimer = 'w' // timers by name
)

// rowKind describes one kind of rows, except how records become such rows (fold.go).
type rowKind struct {
	kind byte
	// entity: it is a kind of rows of one entity.
	entity bool
	// name is that of the constant; since is the first fold version that writes such rows, 0 for a
	// reserved kind.
	name  string
	since uint64
	// what such a row is, as shown to an operator before what key makes of the rest of its key.
	what string
	key  keyCodec
	// embeds is where the key contains the partition's address once more, 0 if it does not.
	embeds int
	// slot is the place, from 1, that an overlay has for the newest row of this kind of each entity,
	// because a fold writes it again and again; 0: none. Such a key ends with the kind.
	slot int

	// local: no fold writes it, only this worker. swept: a worker removes rows that do not count
	// any more, so that a store may lack what a fold of the log has. relocated: after a repair,
	// records have other offsets or times in the log, so that store and log have different rows.
	local, swept, relocated bool
	// same reports whether two rows that differ mean the same; restored: after a repair. Nil: they
	// never do.
	same func(have, want []byte, restored bool) bool

	// beyond counts what a row holds of records at or after an offset. Nil: nothing, or another kind
	// counts it.
	beyond func(c *count, key, value []byte) error
	// base restores what the image knows to be gone: it is called for a row that only the log's
	// fold has. image restores what the log has lost: it is called for a row of the image that the
	// log's fold does not have, or has with another value. Nil: other kinds restore it. Rows that
	// embed an address cannot have them.
	base  func(r *Restoration, key []byte) error
	image func(r *Restoration, key, value, base []byte) error
}

// rowKinds are all kinds of rows. A restoration goes through them in this order.
var rowKinds = []rowKind{ //nolint:gochecknoglobals // a constant
	{kind: rowMeta, name: "rowMeta", since: 1, what: "position", key: keyNothing(), same: sameMeta},

	{kind: rowEntity, name: "rowEntity", since: 1, what: "entity", key: keyAnything()},
	{
		entity: true, kind: entityHead, name: "entityHead", since: 1, what: "head", key: keyNothing(), slot: 1,
		beyond: (*count).head, base: (*Restoration).baseHead, image: (*Restoration).imageHead,
	},
	{entity: true, kind: entityState, name: "entityState", since: 1, what: "snapshot", key: keyNothing(), slot: 2},
	{entity: true, kind: entityTail, name: "entityTail", since: 1, what: "event", key: keyNumber()},
	{entity: true, kind: entityIndex, name: "entityIndex", since: 1, what: "index", key: keyNumber(), relocated: true, beyond: (*count).index},
	{
		entity: true, kind: entityDedup, name: "entityDedup", since: 1, what: "stored answer", key: keyAnything(),
		swept:  true,
		beyond: (*count).command, image: (*Restoration).imageDedup,
	},
	{
		entity: true, kind: entityTimer, name: "entityTimer", since: 2, what: "timer", key: keyName(),
		beyond: (*count).timer, base: (*Restoration).baseTimer, image: (*Restoration).imageTimer,
	},

	{kind: rowExpiry, name: "rowExpiry", since: 1, what: "expiry", key: keyExpiry(), embeds: expiryHeader, swept: true, relocated: true},
	{kind: rowRouted, name: "rowRouted", since: 3, what: "expiry", key: keyExpiry(), embeds: expiryHeader, swept: true, relocated: true},
	{
		kind: rowOutbox, name: "rowOutbox", since: 2, what: "effect of offset", key: keyNumber(),
		beyond: (*count).effect, base: (*Restoration).baseOutbox, image: (*Restoration).imageOutbox,
	},
	{
		kind: rowParked, name: "rowParked", since: 2, what: "parked effect of offset", key: keyNumber(),
		base: (*Restoration).baseParked, image: (*Restoration).imageParked,
	},
	{
		kind: rowRefused, name: "rowRefused", since: 4, what: "refusal of offset", key: keyNumber(),
		base: (*Restoration).baseRefused, image: (*Restoration).imageRefused,
	},
	{
		kind: rowDelivered, name: "rowDelivered", since: 2, what: "effect of", key: keySource(), swept: true,
		beyond: (*count).delivered, image: (*Restoration).imageDelivered,
	},
	{kind: rowTimer, name: "rowTimer", since: 2, what: "timer due at", key: keyDue(), swept: true, relocated: true},
	{kind: rowHalted, name: "rowHalted", since: 3, what: "mark of a halt", key: keyNothing(), local: true},
	{kind: rowSuspected, name: "rowSuspected", since: 4, what: "mark of a suspected log", key: keyNothing(), local: true},
	{kind: rowSaga, name: "rowSaga"},
	{kind: rowProjection, name: "rowProjection"},
	{kind: rowCell, name: "rowCell"},
}

// partitionRows and entityRows are the kinds by their bytes; nil for a byte that is none, or
// reserved.
var partitionRows, entityRows [256]*rowKind //nolint:gochecknoglobals // constants

func init() { //nolint:gochecknoinits // the functions in the table look kinds up, which no initializer may
	for i := range rowKinds {
		k := &rowKinds[i]
		switch {
		case k.since == 0:
		case k.entity:
			entityRows[k.kind] = k
		default:
			partitionRows[k.kind] = k
		}
	}
}

// kindOf returns the kind of a row and what follows the kind in its key; nil for a key that no
// version before this one has written.
func kindOf(key []byte) (k *rowKind, rest []byte) {
	if len(key) <= addressSize {
		return nil, nil
	}
	if key[addressSize] != rowEntity {
		return partitionRows[key[addressSize]], key[addressSize+1:]
	}
	cut := entityPrefix(key)
	if cut >= len(key) {
		return nil, nil
	}
	return entityRows[key[cut]], key[cut+1:]
}

// within is the kind of the rows among which those of a kind lie.
func (k *rowKind) within() byte {
	if k.entity {
		return rowEntity
	}
	return k.kind
}

// rowName says what a row is, for an operator.
func rowName(key []byte) string {
	k, rest := kindOf(key)
	if k == nil || !k.key.valid(rest) {
		return fmt.Sprintf("row %x", key)
	}
	name := k.what
	if k.entity {
		name = entityOf(key).String() + ": " + name
	}
	if text := k.key.text(rest); text != "" {
		name += " " + text
	}
	return name
}

// row begins the key of a row of the partition.
func (a Address) row(buf []byte, kind byte) []byte {
	if invariant.Enabled {
		invariant.Check(partitionRows[kind] != nil, "row kind %q is not in the table", kind)
	}
	return append(a.append(buf), kind)
}

// rows returns the bounds of all rows of a kind.
func (a Address) rows(kind byte) (lower, upper []byte) {
	return a.row(nil, kind), append(a.append(nil), kind+1)
}

// entityRow begins the key of a row of the entity that has a prefix.
func entityRow(prefix []byte, kind byte) []byte {
	if invariant.Enabled {
		invariant.Check(entityRows[kind] != nil, "row kind %q of entities is not in the table", kind)
	}
	return append(prefix, kind)
}

// keyCodec is the part of a key after the kind of its row.
type keyCodec struct {
	valid func(rest []byte) bool
	// text is for an operator; "" if there is nothing to say.
	text func(rest []byte) string
}

func sized(n int) func([]byte) bool { return func(rest []byte) bool { return len(rest) == n } }
func anything([]byte) bool          { return true }
func silent([]byte) string          { return "" }

func number(rest []byte) string { return strconv.FormatInt(numberAt(rest), 10) }

func keyNothing() keyCodec  { return keyCodec{sized(0), silent} }
func keyAnything() keyCodec { return keyCodec{anything, silent} }

// keyNumber is an offset or a sequence.
func keyNumber() keyCodec { return keyCodec{sized(8), number} }

func keyName() keyCodec {
	return keyCodec{anything, func(rest []byte) string { return strconv.Quote(string(rest)) }}
}

// keyExpiry is a log time and the key of a dedup row.
func keyExpiry() keyCodec {
	return keyCodec{func(rest []byte) bool {
		return len(rest) > 8+addressSize && rest[8+addressSize] == rowEntity
	}, number}
}

// keySource is the generation and partition of effects; of one of them also its offset and index.
func keySource() keyCodec {
	return keyCodec{
		func(rest []byte) bool { return len(rest) == 4 || len(rest) == 4+8+4 },
		func(rest []byte) string {
			text := fmt.Sprintf("partition %d", binary.BigEndian.Uint16(rest[2:]))
			if len(rest) > 4 {
				text += ", offset " + number(rest[4:])
			}
			return text
		},
	}
}

// keyDue is the time when a timer is due, and the offset that set it.
func keyDue() keyCodec {
	return keyCodec{sized(16), func(rest []byte) string { return number(rest) + ", set at offset " + number(rest[8:]) }}
}
