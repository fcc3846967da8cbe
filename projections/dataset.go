package projections

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/projections/mapping"
)

// What happens when a record cannot be folded: definition.Projection.OnError.
const (
	onErrorSkip = "skip"
	onErrorStop = "stop"
)

// maxFailureText bounds the text of a failure in the store.
const maxFailureText = 1 << 10

// dataset is the rows of one fold of one partition, as the goroutine of the partition sees them:
// those of the store, and over them what the records since the last commit have changed.
//
//	W1  What a batch has of a dataset is rows, index entries, aggregates, parked entities and the
//	    position together. (position)
//	W2  What is written depends on the records alone, not on how they come in pieces.
type dataset struct {
	Dataset

	plan   *plan
	folder folder
	// folders are those of the parts, in the order of plan.parts.
	folders []folder
	store   materializer.Store

	// position is that of the rows below; stored is what the store has of it.
	position position
	stored   materializer.Meta
	// applied is the position up to which waits are over.
	applied int64
	// joined: its rows are of the image's history. Before, they are not returned.
	joined bool
	// failed is why the log could not be read for it, last at failedAt; nil after it could.
	failed   error
	failedAt time.Time
	// dirty: the position row is to be written although no record has changed a row.
	dirty bool

	// entities are those that records have touched since the last commit; present is that of the
	// record that is applied now, and undo what this record has changed.
	entities map[string]*entity
	present  *entity
	undo     []change
	// walked are rows that a walk has come to since the last commit.
	walked []walkedRow
	// changes are entries of the log of changes since the last commit. forgets: the oldest are to be
	// dropped.
	changes []changeEntry
	forgets bool
	// told are those of them that followers are to be told of, with the next position that is shown.
	told []changeEntry
	// unread is why a row could not be read while a record was applied.
	unread error

	// key, value and tuples are scratch space.
	key, value    []byte
	before, after []byte
	sums          []int64
	groups        map[string]*group
}

// entity is the rows of an entity that records have touched.
type entity struct {
	id   string
	rows []*row // by their keys
	// whole: the entity has no other rows.
	whole bool
	// parked is why it is not folded any more, nil if it is; looked: that is known. parkedNow: it
	// has changed since the last commit.
	parked            *Parked
	looked, parkedNow bool
}

// row is a row, before and after the records since the last commit.
type row struct {
	key []byte
	// stored is its value in the store, nil if it is not there; wasHidden and was are its parts.
	stored    []byte
	wasHidden bool
	was       []byte
	// exists: it is there now, with this message; touched: it was written.
	exists, isHidden, touched bool
	message                   []byte
	offsets                   []int64
}

// wasVisible and isVisible report whether it was visible in the store, and is visible now.
func (r *row) wasVisible() bool { return r.stored != nil && !r.wasHidden }
func (r *row) isVisible() bool  { return r.exists && !r.isHidden }

// change is what a record has changed of a row: how it was.
type change struct {
	*row

	exists, isHidden, touched bool
	message                   []byte
}

func newDataset(d Dataset, p *plan, store materializer.Store) *dataset {
	n := &dataset{Dataset: d, store: store, entities: map[string]*entity{}, groups: map[string]*group{}}
	n.adopt(p)
	return n
}

// adopt takes another plan of the same fold.
func (d *dataset) adopt(p *plan) {
	if d.plan == nil || d.plan.fold != p.fold {
		d.folder = p.fold.folder()
	}
	d.plan = p
	made := map[fold]folder{p.fold: d.folder}
	d.folders = d.folders[:0]
	for i := range p.parts {
		f := p.parts[i].fold
		if made[f] == nil {
			made[f] = f.folder()
		}
		d.folders = append(d.folders, made[f])
	}
}

// fresh is a dataset without rows: all indexes are complete.
func (d *dataset) fresh() position {
	p := position{version: KeyVersion, hash: d.plan.hash}
	for i := range d.plan.parts {
		p.parts = append(p.parts, progress{kind: d.plan.parts[i].kind, number: d.plan.parts[i].number, complete: true})
	}
	return p
}

// apply folds a record. The error is one of the store.
func (d *dataset) apply(r *mapping.Record, entityType string, offset int64) error {
	e, err := d.entity(r)
	if err != nil {
		return err
	}
	switch {
	case e.parked != nil:
		e.parked.Behind++
		e.parkedNow = true
		return nil
	case d.skips(offset):
		d.position.skipped++
		return nil
	}
	d.present, d.undo = e, d.undo[:0]
	outcome, err := d.folder.Apply(r, d)
	if err == nil {
		err = d.look(r.Source, offset)
	}
	if err == nil {
		err = d.noteChanges(offset)
	}
	if d.unread != nil {
		return d.unread
	}
	if err == nil {
		if outcome == mapping.Unmapped {
			d.position.unmapped++
		}
		return nil
	}
	d.revert()
	if _, is := errors.AsType[*mapping.FoldError](err); !is {
		return err
	}
	d.fail(e, failure{Offset: offset, Entity: entityType + "/" + r.Entity, Text: short(err.Error())})
	return nil
}

// fail does what the definition says of a record that cannot be folded.
func (d *dataset) fail(e *entity, f failure) {
	d.position.failed = f
	switch d.plan.projection.OnError {
	case onErrorSkip:
		d.position.skipped++
	case onErrorStop:
		d.position.stopped = true
	default:
		e.parked, e.parkedNow = &Parked{Offset: f.Offset, Entity: f.Entity, Text: f.Text}, true
		d.position.parked++
	}
}

func short(text string) string {
	if len(text) <= maxFailureText {
		return text
	}
	return string(bytes.ToValidUTF8([]byte(text[:maxFailureText]), nil)) + " …"
}

// look decides which of the rows that the record has written are visible, and notes the record in
// them.
func (d *dataset) look(source int, offset int64) error {
	for i := range d.undo {
		if r := d.undo[i].row; r.exists && d.plan.projection.Visible != nil {
			visible, err := d.folder.Visible(r.message)
			if err != nil {
				return err
			}
			r.isHidden = !visible
		}
	}
	for i := range d.undo {
		if r := d.undo[i].row; r.exists {
			r.offsets[source] = offset + 1
		} else {
			clear(r.offsets)
		}
	}
	return nil
}

// revert takes back what the record has changed.
func (d *dataset) revert() {
	for _, c := range slices.Backward(d.undo) {
		c.row.exists, c.row.isHidden, c.row.touched, c.row.message = c.exists, c.isHidden, c.touched, c.message
	}
}

// entity returns the entity of a record.
func (d *dataset) entity(r *mapping.Record) (*entity, error) {
	e := d.entities[r.Entity]
	if e == nil {
		e = &entity{id: r.Entity, whole: r.First}
		d.entities[r.Entity] = e
	}
	if !e.looked {
		e.looked = true
		if d.position.parked > 0 {
			d.key = d.ParkedKey(d.key[:0], r.Entity)
			value, err := d.store.Get(d.key)
			if err != nil || value == nil {
				return e, err
			}
			parked, err := parseParked(value)
			e.parked = &parked
			return e, err
		}
	}
	return e, nil
}

// row returns a row of the present entity.
func (d *dataset) row(key []byte) (*row, error) {
	e := d.present
	i, found := e.find(key)
	if found {
		return e.rows[i], nil
	}
	r := &row{key: bytes.Clone(key), offsets: make([]int64, len(d.plan.sources))}
	if !e.whole {
		d.key = d.RowKey(d.key[:0], key)
		value, err := d.store.Get(d.key)
		if err == nil {
			err = r.read(value)
		}
		if err != nil {
			return nil, err
		}
	}
	e.rows = slices.Insert(e.rows, i, r)
	return r, nil
}

func (e *entity) find(key []byte) (int, bool) {
	return slices.BinarySearchFunc(e.rows, key, func(r *row, key []byte) int { return bytes.Compare(r.key, key) })
}

// read sets the row to what the store has, nil: it has none. It keeps the value.
func (r *row) read(value []byte) (err error) {
	if value == nil {
		return nil
	}
	if r.wasHidden, r.was, err = parseRow(value, r.offsets); err != nil {
		return err
	}
	r.stored, r.exists, r.isHidden, r.message = value, true, r.wasHidden, r.was
	return nil
}

// Get returns a row: mapping.Rows.
func (d *dataset) Get(key []byte) ([]byte, error) {
	r, err := d.row(key)
	if err != nil {
		d.unread = err
		return nil, err
	}
	if !r.exists {
		return nil, nil
	}
	return r.message, nil
}

// Of yields the rows of the present entity in the order of their keys: mapping.Rows.
func (d *dataset) Of(id string, yield func(key, row []byte) bool) error {
	e := d.present
	if err := d.whole(e, id); err != nil {
		d.unread = err
		return err
	}
	for _, r := range slices.Clone(e.rows) {
		if r.exists && !yield(r.key, r.message) {
			break
		}
	}
	return nil
}

// whole reads all rows of an entity.
func (d *dataset) whole(e *entity, id string) error {
	if e.whole {
		return nil
	}
	prefix := d.plan.fold.EntityKey(nil, id)
	lower, upper := within(d.RowKey(nil, prefix))
	var failed error
	err := d.store.Scan(lower, upper, func(key, value []byte) bool {
		key = key[headerSize:]
		i, found := e.find(key)
		if found {
			return true
		}
		r := &row{key: bytes.Clone(key), offsets: make([]int64, len(d.plan.sources))}
		failed = r.read(bytes.Clone(value))
		e.rows = slices.Insert(e.rows, i, r)
		return failed == nil
	})
	e.whole = err == nil && failed == nil
	return errors.Join(err, failed)
}

// Put writes a row of the present entity: mapping.Rows.
func (d *dataset) Put(key, message []byte) {
	if r := d.written(key); r != nil {
		r.exists, r.isHidden, r.message = true, false, bytes.Clone(message)
	}
}

// Delete removes a row of the present entity: mapping.Rows.
func (d *dataset) Delete(key []byte) {
	if r := d.written(key); r != nil {
		r.exists, r.isHidden, r.message = false, false, nil
	}
}

// written returns a row that is about to be changed, nil if it cannot be read.
func (d *dataset) written(key []byte) *row {
	r, err := d.row(key)
	if err != nil {
		d.unread = err
		return nil
	}
	d.undo = append(d.undo, change{row: r, exists: r.exists, isHidden: r.isHidden, touched: r.touched, message: r.message})
	r.touched = true
	return r
}

// forget drops what the records since the last commit have changed.
func (d *dataset) forget() {
	clear(d.entities)
	clear(d.groups)
	d.walked, d.changes = d.walked[:0], d.changes[:0]
	d.present, d.undo, d.unread = nil, d.undo[:0], nil
}

// changed reports whether there is something to write beside the position.
func (d *dataset) changed() bool { return len(d.entities) > 0 }

// flush writes everything but the position.
func (d *dataset) flush(batch materializer.Batch) error {
	for _, e := range d.entities {
		for _, r := range e.rows {
			if r.touched {
				if err := d.flushRow(batch, r); err != nil {
					return err
				}
			}
		}
		if e.parkedNow {
			if err := d.flushParked(batch, e); err != nil {
				return err
			}
		}
	}
	if err := d.flushChanges(batch); err != nil {
		return err
	}
	if err := d.flushWalk(batch); err != nil {
		return err
	}
	return d.flushGroups(batch)
}

// flushRow writes a row, its entries of indexes, and collects what it changes of aggregates.
func (d *dataset) flushRow(batch materializer.Batch, r *row) error {
	d.key = d.RowKey(d.key[:0], r.key)
	var err error
	switch {
	case r.exists:
		d.value = appendRow(d.value[:0], r.isHidden, r.offsets, r.message)
		err = batch.Put(d.key, d.value)
		if r.stored == nil {
			d.position.rows++
		}
	case r.stored != nil:
		err = batch.Delete(d.key)
		d.position.rows--
	default:
		return nil
	}
	if err != nil {
		return err
	}
	for i := range d.plan.parts {
		switch part := &d.plan.parts[i]; {
		case part.kind == KindIndex:
			err = d.flushEntry(batch, i, r)
		case d.position.part(part.kind, part.number).counts(r.key):
			if r.wasVisible() {
				err = d.count(i, -1, r.was)
			}
			if r.isVisible() && err == nil {
				err = d.count(i, 1, r.message)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// flushEntry brings the entry of a row in an index up to date. d.value has the row as it is stored.
func (d *dataset) flushEntry(batch materializer.Batch, i int, r *row) (err error) {
	part := &d.plan.parts[i]
	was, is := r.wasVisible(), r.isVisible()
	if was {
		if d.before, was, err = d.entry(d.before[:0], i, r.was); err != nil {
			return err
		}
	}
	if is {
		if d.after, is, err = d.entry(d.after[:0], i, r.message); err != nil {
			return err
		}
	}
	same := was && is && bytes.Equal(d.before, d.after)
	if was && !same {
		d.key = d.IndexKey(d.key[:0], part.number, d.before, r.key)
		if err := batch.Delete(d.key); err != nil {
			return err
		}
	}
	if !is || same && !part.include && d.position.has(part.kind, part.number) {
		return nil
	}
	d.key = d.IndexKey(d.key[:0], part.number, d.after, r.key)
	if part.include {
		return batch.Put(d.key, d.value)
	}
	return batch.Put(d.key, nil)
}

// entry returns the tuple of a row in an index. A row of which the condition of the index cannot be
// evaluated is not in it: an index does not park an entity.
func (d *dataset) entry(buf []byte, i int, message []byte) (tuple []byte, in bool, err error) {
	tuple, in, err = d.folders[i].IndexEntry(buf, d.plan.parts[i].at, message)
	if _, is := errors.AsType[*mapping.FoldError](err); is {
		return buf, false, nil
	}
	return tuple, in, err
}

// count adds a row to its group of an aggregate, or takes it away.
func (d *dataset) count(i int, sign int64, message []byte) error {
	part := &d.plan.parts[i]
	d.after = d.AggregateHeader(d.after[:0], part.number)
	key, sums, err := d.folders[i].Group(d.after, part.at, message, d.sums[:0])
	if err != nil {
		if _, is := errors.AsType[*mapping.FoldError](err); is {
			return nil // it is in no group
		}
		return err
	}
	d.after, d.sums = key, sums
	g := d.groups[string(key)]
	if g == nil {
		g = &group{}
		d.groups[string(key)] = g
	}
	g.add(sign, sums, part)
	return nil
}

// flushGroups writes the groups of aggregates that have changed.
func (d *dataset) flushGroups(batch materializer.Batch) error {
	for key, delta := range d.groups {
		if delta.isZero() {
			continue
		}
		stored, err := d.store.Get([]byte(key))
		if err != nil {
			return err
		}
		now := group{sums: make([]Sum, len(delta.sums))}
		if stored != nil {
			if now, err = parseGroup(stored, nil); err != nil {
				return err
			}
		}
		if err := now.plus(delta); err != nil {
			return err
		}
		if now.isZero() {
			err = batch.Delete([]byte(key))
		} else {
			d.value = now.append(d.value[:0])
			err = batch.Put([]byte(key), d.value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// flushPosition writes the position row.
func (d *dataset) flushPosition(batch materializer.Batch) error {
	d.value = d.position.append(d.value[:0])
	return batch.Put(d.PositionKey(nil), d.value)
}

// committed takes over what the store has now.
func (d *dataset) committed() {
	d.stored, d.dirty = d.position.meta, false
	d.told = append(d.told, d.changes...)
	d.forget()
}

// String names the dataset as shown to people.
func (d *dataset) String() string {
	return fmt.Sprintf("dataset %d (%s) of %s", d.Number, d.plan, d.Address)
}
