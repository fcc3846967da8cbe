package mapping

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/projections/definition"
)

const typeURLPrefix = "type.googleapis.com/"

// op is a row that is to be written, or deleted, when all went well.
type op struct {
	keyFrom, keyTo, rowFrom, rowTo int
	isDelete, isSkipped            bool
}

// Apply runs the clause of a record on the rows of its entity. With an error nothing was written:
// a *FoldError depends on the log only, all others are of rows.
func (d *Folder) Apply(r *Record, rows Rows) (Outcome, error) {
	if r.Source < 0 || r.Source >= len(d.fold.sources) {
		return 0, fmt.Errorf("projection %s has no source %d", d.fold.projection.Head().Name, r.Source)
	}
	d.record, d.source = r, d.fold.sources[r.Source]
	c, outcome := d.source.find(r)
	if c == nil {
		if outcome == Unmapped && d.fold.projection.Strict {
			return 0, &FoldError{Clause: d.source.entity + " " + bareType(r.Type), Err: errStrict}
		}
		return outcome, nil
	}
	d.clause = c
	d.begin(&c.scope)
	d.arena, d.ops = d.arena[:0], d.ops[:0]
	d.entity = append(d.entity[:0], r.Entity...)
	if !utf8.Valid(d.entity) {
		return 0, d.failed("", fmt.Errorf("entity id %q: %w", r.Entity, errUTF8))
	}
	if c.scope.event != nil && c.scope.event.cells > 0 {
		d.eventCells = c.scope.event.empty(d.eventCells)
		if err := c.scope.event.top.scan(d.eventCells, r.Value); err != nil {
			return 0, d.failed("", err)
		}
	}
	if err := d.run(rows); err != nil {
		if mutation.On(mutation.WholeRecord) {
			d.commit(rows)
		}
		return 0, err
	}
	d.commit(rows)
	return Applied, nil
}

// bareType returns a type as definitions name it.
func bareType(url string) string { return strings.TrimPrefix(url, typeURLPrefix) }

// find returns the clause for a record, or what comes of a record without one.
func (s *source) find(r *Record) (*clause, Outcome) {
	name := bareType(r.Type)
	var c *clause
	switch r.Kind {
	case OfEvent:
		c = s.clauses[name]
		if c == nil && s.ignored[name] {
			return nil, Ignored
		}
		return c, Unmapped
	case OfSnapshot:
		c = s.snapshot
	case OfState:
		c = s.state
	case OfDeleted:
		if s.deleted == nil {
			return nil, Ignored
		}
		return s.deleted, Applied
	}
	if c == nil {
		return nil, Ignored
	}
	if c.typ != name {
		return nil, Unmapped
	}
	return c, Applied
}

// failed is an error of the log at a field.
func (d *Folder) failed(name string, err error) *FoldError {
	return &FoldError{Clause: d.clause.name, Field: name, Err: err}
}

// run notes what the clause does.
func (d *Folder) run(rows Rows) error {
	c := d.clause
	if c.gone != nil {
		isGone, err := d.evalBool(c.gone)
		if err != nil {
			return d.failed("deleted", err)
		}
		if isGone {
			return d.eachRow(rows, func(key, _ []byte) *FoldError {
				d.note(key, op{isDelete: true})
				return nil
			})
		}
	}
	switch {
	case c.all:
		return d.eachRow(rows, func(key, row []byte) *FoldError { return d.change(key, row) })
	case c.forEach != nil:
		return d.runForEach(rows)
	default:
		return d.one(rows, false)
	}
}

// eachRow calls a function for the rows of the entity.
func (d *Folder) eachRow(rows Rows, do func(key, row []byte) *FoldError) error {
	if d.record.First {
		return nil
	}
	var failed *FoldError
	n := 0
	if err := rows.Of(d.record.Entity, func(key, row []byte) bool {
		if n++; n > maxRowsPerEntity {
			failed = d.failed("", errTooManyRows)
			return false
		}
		failed = do(key, row)
		return failed == nil
	}); err != nil {
		return err //nolint:wrapcheck // it is the caller's own
	}
	if failed != nil {
		return failed
	}
	return nil
}

// unchanged stands for a row that an item has left as it is.
const unchanged = -1

// one changes the row that the clause names. With isRepeated the record may have changed it before.
func (d *Folder) one(rows Rows, isRepeated bool) error {
	key, failed := d.key()
	if failed != nil {
		return failed
	}
	var row []byte
	n, isPending := 0, false
	if isRepeated {
		n, isPending = d.pending[string(key)]
		isPending = isPending && n != unchanged
	}
	switch {
	case isPending:
		if !d.ops[n].isDelete {
			row = d.arena[d.ops[n].rowFrom:d.ops[n].rowTo]
		}
	case d.record.First, d.clause.action == definition.DeleteRow:
	default:
		var err error
		if row, err = rows.Get(key); err != nil {
			return err //nolint:wrapcheck // it is the caller's own
		}
	}
	before := len(d.ops)
	if failed := d.change(key, row); failed != nil {
		return failed
	}
	switch {
	case !isRepeated:
	case len(d.ops) == before && !isPending:
		d.pending[string(key)] = unchanged
	case len(d.ops) > before:
		if isPending {
			d.ops[n].isSkipped = true
		}
		d.pending[string(key)] = before
	}
	return nil
}

// key returns the tuple of the row's key.
func (d *Folder) key() ([]byte, *FoldError) {
	d.tuple = append(d.tuple[:0], OfText(d.entity))
	if len(d.clause.keys) > 0 {
		if failed := d.evaluate(d.clause.keys); failed != nil {
			return nil, failed
		}
		e := d.fold.key
		d.cells = e.plan.empty(d.cells)
		if err := e.plan.top.scan(d.cells, d.values); err != nil {
			return nil, d.failed("", err)
		}
		for i := range e.places[1:] {
			d.tuple = append(d.tuple, e.places[i+1].tuple(d.cells))
		}
	}
	d.encoded = d.fold.keyShape.Append(d.encoded[:0], d.tuple...)
	if err := CheckKey(d.encoded); err != nil {
		return nil, d.failed("", err)
	}
	return d.encoded, nil
}

// change notes what becomes of a row; nil is one that is not there.
func (d *Folder) change(key, row []byte) *FoldError {
	c := d.clause
	switch {
	case c.action == definition.DeleteRow:
		d.note(key, op{isDelete: true})
		return nil
	case c.action == definition.UpdateRow && row == nil:
		return nil
	}
	d.setRow(row)
	if failed := d.evaluate(c.sets); failed != nil {
		return failed
	}
	from := len(d.arena)
	var err error
	if d.arena, err = d.rewrite(d.arena, row); err != nil {
		return d.failed("", err)
	}
	written := d.arena[from:]
	switch {
	case len(written) > definition.MaxRowBytes:
		return d.failed("", errRowTooLong)
	case len(d.arena) > maxRecordBytes:
		return d.failed("", errRecord)
	case row != nil && bytes.Equal(written, row):
		d.arena = d.arena[:from]
		return nil
	}
	if v := d.fold.visible; v != nil && v.program.test == nil {
		if _, err := d.holds(v, written); err != nil {
			return &FoldError{Clause: c.name, Field: v.name, Err: err}
		}
		d.scope = &c.scope
	}
	d.note(key, op{rowFrom: from, rowTo: len(d.arena)})
	return nil
}

// note keeps an operation for the end.
func (d *Folder) note(key []byte, o op) {
	o.keyFrom = len(d.arena)
	d.arena = append(d.arena, key...)
	o.keyTo = len(d.arena)
	d.ops = append(d.ops, o)
}

// commit writes what the clause has done.
func (d *Folder) commit(rows Rows) {
	for _, o := range d.ops {
		switch key := d.arena[o.keyFrom:o.keyTo]; {
		case o.isSkipped:
		case o.isDelete:
			rows.Delete(key)
		default:
			rows.Put(key, d.arena[o.rowFrom:o.rowTo])
		}
	}
}

var errNotIterable = errors.New("forEach goes through a list or a map")

// runForEach runs the action for each item.
func (d *Folder) runForEach(rows Rows) error {
	items, err := d.eval(d.clause.forEach.in)
	if err != nil {
		return d.failed("forEach", err)
	}
	list, err := itemsOf(items)
	if err != nil {
		return d.failed("forEach", err)
	}
	n, limit := 0, d.clause.forEach.maxItems
	clear(d.pending)
	for it := list; it.HasNext() == types.True; {
		if n++; n > limit {
			return d.failed("forEach", fmt.Errorf("there are more than %d items: raise maxItems", limit))
		}
		d.item = it.Next()
		d.setRow(nil)
		if err := d.one(rows, true); err != nil {
			return err
		}
	}
	if !d.clause.forEach.isWhole {
		return nil
	}
	return d.eachRow(rows, func(key, _ []byte) *FoldError {
		if _, isItem := d.pending[string(key)]; !isItem {
			d.note(key, op{isDelete: true})
		}
		return nil
	})
}

// itemsOf iterates a list, or the sorted keys of a map.
func itemsOf(v ref.Val) (traits.Iterator, error) {
	switch v := sorted(v).(type) {
	case traits.Mapper:
		return v.Iterator(), nil
	case traits.Lister:
		return v.Iterator(), nil
	default:
		if isNull(v) {
			return types.NewRefValList(types.DefaultTypeAdapter, nil).Iterator(), nil
		}
		return nil, fmt.Errorf("%w: this is %s", errNotIterable, v.Type().TypeName())
	}
}

// holds runs a condition on a row.
func (d *Folder) holds(c *condition, row []byte) (bool, error) {
	if err := d.look(row); err != nil {
		return false, err
	}
	if c.program.test != nil {
		return c.program.test.holds(d.seenCells), nil
	}
	d.scope = &c.scope
	d.setRow(row)
	return d.evalBool(c.program)
}

// look scans a row for its entries, if it is not the one of the call before. It keeps a copy: the
// caller may use the memory for another row.
func (d *Folder) look(row []byte) error {
	if d.isSeen && bytes.Equal(d.seen, row) {
		return nil
	}
	d.seen = append(d.seen[:0], row...)
	d.seenCells = d.fold.entries.empty(d.seenCells)
	d.isSeen = d.fold.entries.top.scan(d.seenCells, d.seen) == nil
	if !d.isSeen {
		return errDamagedRow
	}
	return nil
}

// Visible says whether a row is returned by queries, and stands in indexes and aggregates.
func (d *Folder) Visible(row []byte) (bool, error) {
	if d.fold.visible == nil {
		return true, nil
	}
	return d.holds(d.fold.visible, row)
}

// IndexEntry appends the tuple of a row in an index, by its number in Projection.Indexes, without
// the key that follows on it. in is false for a row that the index leaves out. The caller has asked
// Visible. The error says that the row is damaged.
func (d *Folder) IndexEntry(buf []byte, index int, row []byte) (tuple []byte, in bool, err error) {
	x := d.fold.indexes[index]
	if x.where != nil {
		// An index never fails a row, so a condition that has no value is false.
		if in, err := d.holds(x.where, row); err != nil || !in {
			return buf, false, nil //nolint:nilerr // see above
		}
	}
	if err := d.extract(x.fields, row); err != nil {
		return buf, false, err
	}
	return x.fields.shape.Append(buf, d.tuple...), true, nil
}

// Group appends the group of a row in an aggregate, by its number in Projection.Aggregates, and
// what is added to the sums, in the order of Aggregate.Sums: see SumUnsigned. The caller has asked
// Visible. The error says that the row is damaged.
func (d *Folder) Group(
	buf []byte, aggregate int, row []byte, sums []int64,
) (group []byte, _ []int64, err error) {
	a := d.fold.aggregates[aggregate]
	if err := d.extract(a.groups, row); err != nil {
		return buf, sums, err
	}
	buf = a.groups.shape.Append(buf, d.tuple...)
	if err := d.extract(a.sums, row); err != nil {
		return buf, sums, err
	}
	for _, v := range d.tuple {
		sums = append(sums, v.Int())
	}
	return buf, sums, nil
}

// extract takes the values of fields out of a row, into the tuple.
func (d *Folder) extract(e *extract, row []byte) error {
	if err := d.look(row); err != nil {
		return err
	}
	d.tuple = d.tuple[:0]
	for i := range e.places {
		d.tuple = append(d.tuple, e.places[i].tuple(d.seenCells))
	}
	return nil
}

// tuple returns the value for a tuple, absent if the field has presence and is not set.
func (at *place) tuple(cells []cell) Value {
	v, isThere := at.value(cells)
	if !isThere {
		return Value{}
	}
	return Value{isPresent: true, bits: v.bits, nanos: v.nanos, text: v.text}
}
