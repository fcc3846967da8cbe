package mapping

import (
	"errors"
	"fmt"

	"cel.dev/cel-go/common/types/ref"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/millrace-io/millrace/projections/definition"
)

// RecordKind is what a record of a source is.
type RecordKind uint8

// The kinds of records.
const (
	// OfEvent and OfSnapshot are records of event sourced entities.
	OfEvent RecordKind = iota + 1
	OfSnapshot
	// OfState is a new value of a value entity, OfDeleted the end of one.
	OfState
	OfDeleted
)

// Record is one effective record of a source.
type Record struct {
	// Source is the index in Projection.Sources.
	Source int
	Kind   RecordKind
	// Type is the type URL of the message in Value.
	Type string
	// Value is the wire form of the message. Of a type of json.cloudstate.io/ it is JSON, by itself or
	// as the bytes of field 1.
	Value []byte
	// Entity is the id of the entity.
	Entity string
	// First: surely there is no row of the entity yet, so that rows need not be read.
	First bool
	Meta  Meta
}

// Meta is what expressions know of a record.
type Meta struct {
	// Seconds and Nanos are the log time since 1970.
	Seconds  int64
	Nanos    int32
	Sequence int64

	Principal, CommandID, CorrelationID string
}

// Rows are the rows of a dataset. Keys are key tuples, rows have the canonical wire form.
type Rows interface {
	// Get returns a row, nil if it is not there. It is valid until the next call.
	Get(key []byte) ([]byte, error)
	// Of calls yield for the rows of an entity in the order of their keys, until it returns false.
	// Key and row are valid until yield returns; yield does not call Rows.
	Of(entity string, yield func(key, row []byte) bool) error
	// Put copies both.
	Put(key, row []byte)
	Delete(key []byte)
}

// Outcome is what a record did.
type Outcome uint8

// The outcomes.
const (
	// Applied: a clause was run.
	Applied Outcome = iota + 1
	// Ignored: the definition says that the type does nothing.
	Ignored
	// Unmapped: the definition does not have the type.
	Unmapped
)

// FoldError is an error that depends on the log and the definition only, so that each replica has
// it at the same record.
type FoldError struct {
	// Clause says which one, Field which field of the row; "" for the whole record.
	Clause, Field string
	Err           error
}

// Error says what failed, and where.
func (e *FoldError) Error() string {
	if e.Field == "" {
		return e.Clause + ": " + e.Err.Error()
	}
	return e.Clause + ": field " + e.Field + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *FoldError) Unwrap() error { return e.Err }

// ErrUnsupported: this version cannot fold what the definition asks for.
var ErrUnsupported = errors.New("this version of millrace does not support it")

var (
	errRowTooLong  = fmt.Errorf("the row would be above %d KiB", definition.MaxRowBytes>>10)
	errRecord      = fmt.Errorf("the rows of one record would be above %d MiB", maxRecordBytes>>20)
	errTooManyRows = fmt.Errorf("the entity has more than %d rows", maxRowsPerEntity)
	errStrict      = errors.New("the definition is strict and does not have this type")
)

// What one record can touch: rows, and bytes of them.
const (
	maxRowsPerEntity = 10_000
	maxRecordBytes   = 16 << 20
)

// Fold is a compiled projection. It is not changed, so goroutines may share it; each needs a Folder
// of its own.
type Fold struct {
	projection *definition.Projection
	rowType    protoreflect.MessageDescriptor
	// entries is what visible, indexes and aggregates read, by one scan of a row.
	entries    *plan
	keyShape   Shape
	key        *extract
	sources    []*source
	visible    *condition
	indexes    []*index
	aggregates []*aggregate
}

// source is one entity type.
type source struct {
	entity   string
	clauses  map[string]*clause
	ignored  map[string]bool
	snapshot *clause
	state    *clause
	deleted  *clause
}

// clause is a compiled clause.
type clause struct {
	// name is what errors call it.
	name    string
	typ     string
	action  definition.Action
	all     bool
	forEach *forEach
	scope   scope
	// keys find the row, behind the entity id; sets write it, by number.
	keys, sets []*setter
	hasOneofs  bool
	gone       *program
}

type forEach struct {
	in       *program
	maxItems int
	// isWhole: the items are all rows that the entity has, others are deleted.
	isWhole bool
}

// extract takes values of fields out of a row.
type extract struct {
	plan   *plan
	places []place
	shape  Shape
}

type condition struct {
	name    string
	scope   scope
	program *program
}

type index struct {
	where  *condition
	fields *extract
}

type aggregate struct {
	groups *extract
	sums   *extract
}

// KeyShape is that of the tuples of keys: the entity id is the first value.
func (f *Fold) KeyShape() Shape { return f.keyShape }

// EntityKey appends what the keys of an entity's rows begin with.
func (f *Fold) EntityKey(buf []byte, entity string) []byte {
	id := OfText(entity)
	return f.keyShape[0].append(buf, &id)
}

// IndexShape is that of the tuples of an index, without the key that follows on them.
func (f *Fold) IndexShape(index int) Shape { return f.indexes[index].fields.shape }

// GroupShape is that of the groups of an aggregate.
func (f *Fold) GroupShape(aggregate int) Shape { return f.aggregates[aggregate].groups.shape }

// SumUnsigned says whether sum number i of an aggregate, in the order of Aggregate.Sums, is of an
// unsigned field: what Group returns is the bits of a uint64 then.
func (f *Fold) SumUnsigned(aggregate, i int) bool {
	return f.aggregates[aggregate].sums.places[i].class == uintClass
}

// Folder applies records. It belongs to one goroutine.
type Folder struct {
	fold   *Fold
	record *Record
	source *source
	clause *clause

	// What expressions see.
	scope        *scope
	eventCells   []cell
	eventMessage any
	row          []byte
	rowCells     []cell
	isRowScanned bool
	rowMessage   any
	item         ref.Val

	// seen is the row whose entries were asked for last, and what a scan of it has found.
	seen      []byte
	seenCells []cell
	isSeen    bool

	rewriter rewriter
	entity   []byte
	values   []byte
	joined   []byte
	message  []byte
	pieces   []piece
	arena    []byte
	ops      []op
	pending  map[string]int
	tuple    []Value
	cells    []cell
	encoded  []byte
}

// Folder returns a new one.
func (f *Fold) Folder() *Folder { return &Folder{fold: f, pending: map[string]int{}} }

// begin sets what expressions see.
func (d *Folder) begin(s *scope) {
	d.scope, d.eventMessage, d.item = s, nil, nil
	d.setRow(nil)
}

// setRow sets the row that expressions see.
func (d *Folder) setRow(row []byte) { d.row, d.isRowScanned, d.rowMessage = row, false, nil }

// scanRow reads the row, once.
func (d *Folder) scanRow() error {
	if d.isRowScanned {
		return nil
	}
	d.rowCells = d.scope.row.empty(d.rowCells)
	d.isRowScanned = true
	return d.scope.row.top.scan(d.rowCells, d.row)
}
