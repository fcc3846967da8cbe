package projections

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/projections/mapping"
)

// Ask says what a caller wants to read.
type Ask struct {
	Dataset uint32
	// Indexes and Aggregates are the numbers of those that are needed: they must be complete.
	Indexes, Aggregates []uint16
	Partition           int32
	// Reach is the position that the rows must have reached; 0: any.
	Reach int64
}

// NotHereError: this worker cannot answer from its rows. Another one may.
type NotHereError struct {
	Dataset   uint32
	Partition int32
	// State is that of the dataset, Progress how far it is or what is wrong.
	State    State
	Progress string
}

// Error says what is missing.
func (e *NotHereError) Error() string {
	return fmt.Sprintf("dataset %d of partition %d is %v on this worker: %s", e.Dataset, e.Partition, e.State, e.Progress)
}

// BehindError: the rows have not reached a position in the time that the caller had.
type BehindError struct {
	Partition int32
	// Wanted is the position that was asked for, Applied the one that was reached.
	Wanted, Applied int64
	// Err is why the wait has ended.
	Err error
}

// Error has both positions.
func (e *BehindError) Error() string {
	return fmt.Sprintf("partition %d: the rows have reached offset %d, and offset %d is wanted: %v",
		e.Partition, e.Applied, e.Wanted, e.Err)
}

// Unwrap returns why the wait has ended.
func (e *BehindError) Unwrap() error { return e.Err }

// Open waits until the rows have reached a position, and returns them as of one moment. Errors are
// *NotHereError, *BehindError if ctx has ended before, and those of the store.
func (e *Engine) Open(ctx context.Context, ask Ask) (*Snapshot, error) {
	p := e.partition(ask.Partition)
	if p == nil {
		return nil, &NotHereError{ask.Dataset, ask.Partition, Absent, "the worker has no image of the partition"}
	}
	for {
		s, moved, err := p.look(&ask)
		switch {
		case err != nil:
			return nil, err
		case s.applied >= ask.Reach:
			return p.snapshot(s, &ask)
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return nil, &BehindError{ask.Partition, ask.Reach, s.applied, context.Cause(ctx)}
		}
	}
}

// look returns what the dataset shows, if its rows may be returned, and a channel that is closed
// when that changes.
func (p *partition) look(ask *Ask) (*shown, <-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, err := p.readable(ask)
	if err != nil {
		return nil, nil, err
	}
	if p.moved == nil {
		p.moved = make(chan struct{})
	}
	return s, p.moved, nil
}

// readable returns what the dataset shows, if its rows may be returned. The lock is held.
func (p *partition) readable(ask *Ask) (*shown, error) {
	s := p.shown[ask.Dataset]
	if s == nil {
		return nil, &NotHereError{ask.Dataset, ask.Partition, Absent, "it is not defined, or was dropped"}
	}
	state := p.state(s)
	if state != Live && state != Paused {
		progress := fmt.Sprintf("it has reached offset %d", s.position.meta.Next)
		if s.position.built && !s.joined {
			progress = fmt.Sprintf("the rows are at offset %d, and the image is not there yet", s.position.meta.Next)
		}
		if cause := cmp.Or(p.cause(s), s.failed); cause != nil {
			progress = cause.Error()
		}
		return nil, &NotHereError{ask.Dataset, ask.Partition, state, progress}
	}
	return s, nil
}

// snapshot returns the rows as of now.
func (p *partition) snapshot(s *shown, ask *Ask) (*Snapshot, error) {
	snapshot := &Snapshot{
		dataset: Dataset{Address: p.address, Number: ask.Dataset}, plan: s.plan, rows: s.store.Snapshot(),
	}
	if err := snapshot.check(s, ask); err != nil {
		return nil, errors.Join(err, snapshot.Close())
	}
	return snapshot, nil
}

// check reads the position row of the snapshot. The rows may be newer than what was shown.
func (s *Snapshot) check(shown *shown, ask *Ask) error {
	value, err := s.rows.Get(s.dataset.PositionKey(nil))
	if err != nil {
		return err
	}
	if value == nil {
		return &NotHereError{ask.Dataset, ask.Partition, Building, "its rows were dropped and are built again"}
	}
	position, err := parsePosition(value)
	if err != nil {
		return err
	}
	if !position.built || position.hash != s.plan.hash {
		return &NotHereError{ask.Dataset, ask.Partition, Building, "its rows were dropped and are built again"}
	}
	for kind, numbers := range map[Kind][]uint16{KindIndex: ask.Indexes, KindAggregate: ask.Aggregates} {
		for _, number := range numbers {
			if !position.has(kind, number) || s.plan.part(kind, number) == nil {
				return &NotHereError{ask.Dataset, ask.Partition, Building, fmt.Sprintf("%v %d is made from the rows", kind, number)}
			}
		}
	}
	s.at, s.parked, s.history = position.meta, position.parked, position.history
	if position.meta == shown.stored { // what came later has changed no row
		s.at = shown.position.meta
	}
	return nil
}

// Snapshot is the rows of a dataset in one partition as of one moment. It belongs to one goroutine,
// and must be closed.
type Snapshot struct {
	dataset Dataset
	plan    *plan
	rows    materializer.Snapshot
	at      materializer.Meta
	parked  uint64
	history history
	// values are scratch space.
	values []mapping.Value
}

// Position is up to where the records of the partition are applied.
func (s *Snapshot) Position() materializer.Meta { return s.at }

// Close releases the snapshot.
func (s *Snapshot) Close() error { return s.rows.Close() }

// Get returns the row with a key tuple; nil if there is none, or it is not visible. stale: its
// entity is parked, so that the row does not have what came later.
func (s *Snapshot) Get(key []byte) (row []byte, stale bool, err error) {
	value, err := s.rows.Get(s.dataset.RowKey(nil, key))
	if err != nil || value == nil {
		return nil, false, err
	}
	isHidden, row, err := parseRow(value, nil)
	if err != nil || isHidden {
		return nil, false, err
	}
	stale, err = s.stale(key)
	return row, stale, err
}

// stale reports whether the entity of a row is parked.
func (s *Snapshot) stale(key []byte) (bool, error) {
	if s.parked == 0 {
		return false, nil
	}
	shape := s.plan.fold.KeyShape()
	var err error
	if s.values, _, err = shape[:1].Decode(s.values[:0], key); err != nil {
		return false, err
	}
	value, err := s.rows.Get(s.dataset.ParkedKey(nil, string(s.values[0].Text())))
	return value != nil, err
}

// Rows goes over the visible rows whose key tuples are not below lower and below upper, in the
// order of their keys or in reverse. nil is no bound.
func (s *Snapshot) Rows(lower, upper []byte, reverse bool) *Rows {
	return s.over(&part{kind: KindRow}, s.dataset.Header(nil, KindRow), lower, upper, reverse)
}

// Index goes over the entries of an index, in the same way: the bounds are about the tuple of the
// indexed fields and the key tuple behind it.
func (s *Snapshot) Index(number uint16, lower, upper []byte, reverse bool) *Rows {
	part := s.plan.part(KindIndex, number)
	return s.over(part, s.dataset.IndexHeader(nil, number), lower, upper, reverse)
}

// Groups goes over the groups of an aggregate, in the same way.
func (s *Snapshot) Groups(number uint16, lower, upper []byte, reverse bool) *Rows {
	part := s.plan.part(KindAggregate, number)
	return s.over(part, s.dataset.AggregateHeader(nil, number), lower, upper, reverse)
}

func (s *Snapshot) over(of *part, header, lower, upper []byte, reverse bool) *Rows {
	r := &Rows{snapshot: s, of: of, header: len(header), reverse: reverse}
	if of == nil {
		r.err = errors.New("the snapshot was opened without this index or aggregate")
		return r
	}
	from, to := within(header)
	from = append(from, lower...)
	if upper != nil {
		to = append(bytes.Clone(header), upper...)
	}
	r.rows = s.rows.Iterator(from, to)
	return r
}

// Rows goes over rows, entries of an index, or groups of an aggregate. It must be closed. What it
// returns is valid until the next move, and must not be changed.
type Rows struct {
	snapshot *Snapshot
	of       *part
	rows     materializer.Iterator
	header   int
	reverse  bool
	err      error

	tuple, key, order []byte
	group             group
	seek              []byte // scratch space
}

// Next goes to the next one. It returns false at the end, and after an error.
func (r *Rows) Next() bool {
	for r.err == nil {
		if !r.move() {
			r.err = r.rows.Error()
			return false
		}
		if visible := r.read(); visible || r.err != nil {
			return r.err == nil
		}
	}
	return false
}

// move goes to the next row of the store. A group is written with each change of its rows, and Next
// would go through all the versions that the store still has of it one by one.
func (r *Rows) move() bool {
	if r.of.kind == KindAggregate && r.tuple != nil {
		r.seek = append(r.seek[:0], r.rows.Key()...)
		if r.reverse {
			return r.rows.SeekLT(r.seek)
		}
		return r.rows.SeekGE(append(r.seek, 0))
	}
	if r.reverse {
		return r.rows.Prev()
	}
	return r.rows.Next()
}

// read takes the key apart, and reports whether it is to be shown.
func (r *Rows) read() bool {
	r.tuple = r.rows.Key()[r.header:]
	r.key, r.order = r.tuple, nil
	switch r.of.kind {
	case KindRow:
		var isHidden bool
		isHidden, _, r.err = parseRow(r.rows.Value(), nil)
		return !isHidden
	case KindIndex:
		var rest []byte
		shape := r.of.fold.IndexShape(r.of.at)
		r.snapshot.values, rest, r.err = shape.Decode(r.snapshot.values[:0], r.tuple)
		r.order, r.key = r.tuple[:len(r.tuple)-len(rest)], rest
	default:
		r.group, r.err = parseGroup(r.rows.Value(), r.group.sums[:0])
	}
	return true
}

// Key is the key tuple of the row; of a group it is the tuple of its fields.
func (r *Rows) Key() []byte { return r.key }

// Order is the tuple of the indexed fields, nil without an index.
func (r *Rows) Order() []byte { return r.order }

// Tuple is what the bounds are about: Order and Key. After a page, the next one begins behind it.
func (r *Rows) Tuple() []byte { return r.tuple }

// Row returns the row, and whether its entity is parked.
func (r *Rows) Row() (row []byte, stale bool, err error) {
	if r.of.kind == KindIndex && !r.of.include {
		row, stale, err = r.snapshot.Get(r.key)
		if err == nil && row == nil {
			err = fmt.Errorf("index %d has an entry of a row that is not there: %w", r.of.number, materializer.ErrCorrupt)
		}
		return row, stale, err
	}
	if _, row, err = parseRow(r.rows.Value(), nil); err != nil {
		return nil, false, err
	}
	stale, err = r.snapshot.stale(r.key)
	return row, stale, err
}

// Group returns the number of rows of a group, and their sums in the order of the aggregate.
func (r *Rows) Group() (count int64, sums []Sum) { return r.group.count, r.group.sums }

// Close releases the iterator and returns its error.
func (r *Rows) Close() error {
	if r.rows == nil {
		return r.err
	}
	return errors.Join(r.err, r.rows.Close())
}
