package materializer

import (
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
)

// entityKind is what differs between the kinds of entities here: what an outcome is as records,
// records as rows, and rows as what a session begins with. Each kind has a file with its value, and
// a line in entityKinds; nothing else in this package depends on a kind. A kind that needs rows of
// its own adds them to rowKinds.
type entityKind interface {
	// records are the kinds of records that change its entities' state. No other kind has them, so
	// that a record tells the kind of its entity. Each event has the next sequence; others have
	// that of the event before, or none.
	records() (events, others []record.Kind)
	// changes appends what an outcome changes in an entity that is at a position, and returns the
	// position after them.
	changes(buf []Change, at Position, out *entities.Outcome) ([]Change, Position)
	// fold writes the rows of a record but for index and head. deleted is for the head; content says
	// that the record's payload follows it.
	fold(f *Fold, rows Rows, prefix []byte, e *Entry) (deleted, content bool, err error)
	// load returns what a session begins with; content is what follows the head.
	load(p Partition, key entities.Key, prefix []byte, head *Head, content []byte) (entities.Loaded, error)
	// restore writes what the image has of an entity and the log has lost; before is the log's
	// head, zero if the log has none.
	restore(r *Restoration, key entities.Key, prefix []byte, head, before *Head, content []byte) error
	// note says, for an operator, what a loaded state is.
	note(loaded *entities.Loaded) string
}

// stateRecord is what a record says by its kind.
type stateRecord struct {
	of      entities.Kind
	isEvent bool
}

// entityKinds are the kinds whose state is in the journal, by number; byRecord is by kind of
// record.
var (
	entityKinds = [256]entityKind{entities.EventSourced: eventSourced{}, entities.Value: value{}} //nolint:gochecknoglobals // a table
	byRecord    = recordTable()                                                                   //nolint:gochecknoglobals // a table
)

// recordTable is indexed by the kinds of records, which are small numbers.
func recordTable() (table [256]stateRecord) {
	for kind, k := range entityKinds {
		if k == nil {
			continue
		}
		events, others := k.records()
		for i, r := range slices.Concat(events, others) {
			table[r] = stateRecord{of: entities.Kind(kind), isEvent: i < len(events)}
		}
	}
	return table
}

// stateRecordOf returns what a record of a kind does to an entity's state; false if it does
// nothing.
func stateRecordOf(kind record.Kind) (r stateRecord, known bool) {
	if kind >= 0 && int(kind) < len(byRecord) {
		r = byRecord[kind]
	}
	return r, r.of != entities.KindUnspecified
}

// Change is one record by which an outcome changes an entity's state.
type Change struct {
	Kind record.Kind
	// Sequence and PreviousSnapshot are those of record.Envelope.
	Sequence, PreviousSnapshot uint64
	Payload                    entities.Payload
}

// Position is how far an entity's records are numbered: the sequences of its last event, and of the
// last event in its snapshot.
type Position struct{ Sequence, Snapshot uint64 }

// PositionOf is the position of an entity that was loaded.
func PositionOf(loaded *entities.Loaded) Position {
	return Position{Sequence: loaded.Sequence, Snapshot: loaded.StateSequence}
}

// AppendChanges appends what an outcome changes in an entity of a kind, in the order of the log,
// and returns the position after them.
func AppendChanges(buf []Change, kind entities.Kind, at Position, out *entities.Outcome) ([]Change, Position) {
	if k := entityKinds[kind]; k != nil {
		return k.changes(buf, at, out)
	}
	if len(out.Events) > 0 || out.StateAction != entities.StateKept {
		panic(fmt.Sprintf("an outcome of an entity of %s, of which no session can be opened", kind))
	}
	return buf, at
}

// Note says, for an operator, what the loaded state of an entity is.
func (h *Head) Note(loaded *entities.Loaded) string {
	if k := entityKinds[h.Kind]; k != nil {
		return k.note(loaded)
	}
	return ""
}

// errKind is the error of a head that this version cannot read.
func errKind(key entities.Key, kind entities.Kind) error {
	return fmt.Errorf(
		"%s is of %s, which is not known to this version: use the version that wrote it, or a newer one", key, kind)
}
