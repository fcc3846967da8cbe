package projections

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/millrace-io/millrace/internal/fields"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/materializer"
)

// The log of changes of a dataset says which rows have changed since a position, for those who
// watch a query. It has an entry for each row that a record has changed, under the offset of the
// record, and is written in the batch of the rows.
//
//	L1  An entry depends on the record and on the row before it alone: it is the same on every
//	    replica, so that a watch goes on at another one.
//	L2  It says where the row was in each index before the record, and where it is after it. Who
//	    has the row because it was there learns that it has left. (before)
//	L3  A caller that asks from a position before its beginning is told so.

// changeMarks is how many pieces of time the log of changes is kept in; the oldest goes as a whole.
const changeMarks = 8

// history is what the position row says of the log of changes.
type history struct {
	// since is the first offset whose changes are in it, plus one; 0: there is no log.
	since int64
	// marks are offsets with the log time at which they were reached, at least a piece apart.
	marks []mark
}

// mark is an offset, and the log time in nanoseconds at which the records before it were applied.
type mark struct{ offset, time int64 }

// The fields of an entry, and those of where a row is in an index.
const (
	changeKey protowire.Number = iota + 1
	changeFlags
	changeIndex
)

const (
	changeNumber protowire.Number = iota + 1
	changeBefore
	changeAfter
)

// Flags of an entry: the row was visible before the record, and is after it.
const (
	flagWas = 1 << iota
	flagIs
)

var errChange = fmt.Errorf("entry of the log of changes: %w", materializer.ErrCorrupt)

// changeEntry is an entry that the next commit writes.
type changeEntry struct {
	offset int64
	index  uint32
	value  []byte
}

// keepChanges begins or ends the log of changes, as the views ask for, and forgets what is older
// than they ask for. It is called when the records before a position are applied. Records behind it
// have entries if there is a log.
func (d *dataset) keepChanges() {
	h, at := &d.position.history, &d.position.meta
	switch {
	case d.plan.resume == 0:
		d.dirty = d.dirty || h.since != 0
		*h = history{}
		return
	case !d.position.built || d.position.stopped:
		return
	case h.since == 0:
		h.since, h.marks = at.Next+1, nil
		d.dirty = true
	}
	piece := max(int64(d.plan.resume/changeMarks), int64(time.Second))
	if len(h.marks) == 0 || at.LogTime-h.marks[len(h.marks)-1].time >= piece {
		h.marks = append(slices.Clone(h.marks), mark{at.Next, at.LogTime})
	}
	for len(h.marks) > 1 && at.LogTime-h.marks[1].time > int64(d.plan.resume) {
		h.marks = h.marks[1:]
		h.since = max(h.since, h.marks[0].offset+1)
		d.forgets = true
	}
}

// forgetChanges drops the entries before the log's beginning. The position row knows of it already.
func (d *dataset) forgetChanges() error {
	if !d.forgets {
		return nil
	}
	d.forgets = false
	return d.store.DropRange(d.ChangesBefore(d.position.since - 1))
}

// dropChanges drops all entries of a dataset that has no log.
func (p *partition) dropChanges(d *dataset) error {
	lower, upper := d.KindRange(KindChange)
	rows := p.store.Iterator(lower, upper)
	found := rows.First()
	if err := rows.Close(); err != nil || !found {
		return err
	}
	return p.store.DropRange(lower, upper)
}

// noteChanges makes the entries of what the present record has changed.
func (d *dataset) noteChanges(offset int64) error {
	if d.position.since == 0 {
		return nil
	}
	for i := range d.undo {
		c := &d.undo[i]
		again := slices.ContainsFunc(d.undo[:i], func(o change) bool { return o.row == c.row })
		was, is := c.exists && !c.isHidden, c.row.isVisible()
		if again || !was && !is || was && is && bytes.Equal(c.message, c.row.message) {
			continue
		}
		value, err := d.entryOf(c, was, is)
		if err != nil {
			return err
		}
		index := uint32(0)
		if n := len(d.changes); n > 0 && d.changes[n-1].offset == offset {
			index = d.changes[n-1].index + 1
		}
		d.changes = append(d.changes, changeEntry{offset, index, value})
	}
	return nil
}

// entryOf encodes an entry. c.message is the row before, c.row the row after the record.
func (d *dataset) entryOf(c *change, was, is bool) ([]byte, error) {
	var flags uint64
	if was {
		flags |= flagWas
	}
	if is {
		flags |= flagIs
	}
	buf := fields.AppendBytes(nil, changeKey, c.row.key)
	buf = fields.AppendUint(buf, changeFlags, flags)
	for _, i := range d.plan.watched {
		var before, after []byte
		var in bool
		var err error
		if was && !mutation.On(mutation.Before) {
			if before, in, err = d.entry(nil, i, c.message); err != nil {
				return nil, err
			} else if !in {
				before = nil
			}
		}
		if is {
			if after, in, err = d.entry(nil, i, c.row.message); err != nil {
				return nil, err
			} else if !in {
				after = nil
			}
		}
		var at int
		buf, at = fields.Begin(buf, changeIndex)
		buf = fields.AppendUint(buf, changeNumber, uint64(d.plan.parts[i].number))
		buf = fields.AppendBytes(buf, changeBefore, before)
		buf = fields.AppendBytes(buf, changeAfter, after)
		buf = fields.End(buf, at)
	}
	return buf, nil
}

// flushChanges writes the entries.
func (d *dataset) flushChanges(batch materializer.Batch) error {
	for i := range d.changes {
		c := &d.changes[i]
		d.key = d.ChangeKey(d.key[:0], c.offset, c.index)
		if err := batch.Put(d.key, c.value); err != nil {
			return err
		}
	}
	return nil
}

// Range is what a watch is about: the rows by key, or the entries of an index, whose tuples are not
// below Lower and below Upper; nil is no bound.
type Range struct {
	// ByIndex: the entries of the index with this number; else the rows by key.
	ByIndex      bool
	Index        uint16
	Lower, Upper []byte
}

func (r *Range) has(tuple []byte) bool {
	return bytes.Compare(tuple, r.Lower) >= 0 && (r.Upper == nil || bytes.Compare(tuple, r.Upper) < 0)
}

// Change is a row of a range that has changed. Row is nil if it is not in the range now.
type Change struct {
	Key, Row []byte
	// Stale: its entity is parked.
	Stale bool
}

// GapError: changes since a position are asked for, and the log of changes begins later.
type GapError struct {
	Partition int32
	// Asked is the offset that was asked for, Since the first one whose changes are known; -1: none.
	Asked, Since int64
}

// Error has both offsets.
func (e *GapError) Error() string {
	if e.Since < 0 {
		return fmt.Sprintf("no changes of these rows are kept for partition %d", e.Partition)
	}
	return fmt.Sprintf("changes of partition %d since offset %d are asked for, and are kept since offset %d", e.Partition,
		e.Asked, e.Since)
}

// Changes returns the rows of a range that records from an offset on have changed, each once, as
// they are now. It ends when it has most of them, or at the snapshot's position: through is the
// offset from which to ask next. The error is a *GapError if the changes are not kept, or one of
// the store.
func (s *Snapshot) Changes(from int64, of Range, most int) (changes []Change, through int64, err error) {
	switch {
	case s.history.since == 0:
		return nil, 0, &GapError{int32(s.dataset.Partition), from, -1}
	case from < s.history.since-1:
		return nil, 0, &GapError{int32(s.dataset.Partition), from, s.history.since - 1}
	}
	_, lower := s.dataset.ChangesBefore(from)
	_, upper := s.dataset.KindRange(KindChange)
	rows := s.rows.Iterator(lower, upper)
	told := map[string]bool{} // keys that are in changes
	through = s.at.Next
	for found := rows.First(); found; found = rows.Next() {
		key, err := ParseKey(rows.Key())
		if err != nil {
			return nil, 0, errors.Join(err, rows.Close())
		}
		if len(changes) >= most && key.Offset >= through {
			break
		}
		entry, err := parseChange(rows.Value(), &of)
		if err != nil {
			return nil, 0, errors.Join(err, rows.Close())
		}
		if !entry.touches {
			continue
		}
		if !told[string(entry.key)] {
			told[string(entry.key)] = true
			changes = append(changes, Change{Key: bytes.Clone(entry.key)})
		}
		if len(changes) >= most {
			through = key.Offset + 1
		}
	}
	if err := rows.Close(); err != nil {
		return nil, 0, err
	}
	for i := range changes {
		if err := s.present(&changes[i], &of); err != nil {
			return nil, 0, err
		}
	}
	return changes, through, nil
}

// present sets the row of a change to what the snapshot has, if it is in the range.
func (s *Snapshot) present(c *Change, of *Range) error {
	row, stale, err := s.Get(c.Key)
	if err != nil || row == nil {
		return err
	}
	if of.ByIndex {
		part := s.plan.part(KindIndex, of.Index)
		tuple, in, err := part.fold.folder().IndexEntry(nil, part.at, row)
		if err != nil || !in || !of.has(append(tuple, c.Key...)) {
			return nil //nolint:nilerr // a row of which the condition cannot be evaluated is not in the index
		}
	} else if !of.has(c.Key) {
		return nil
	}
	c.Row, c.Stale = bytes.Clone(row), stale
	return nil
}

// touched is what an entry says about a range.
type touched struct {
	key []byte
	// touches: the row was in the range before or is after it; or the entry does not know.
	touches bool
}

func parseChange(value []byte, of *Range) (t touched, err error) {
	r := fields.Of(value, errChange)
	var flags uint64
	named := false
	for r.Next() {
		switch r.Number {
		case changeKey:
			t.key = r.B
		case changeFlags:
			flags = r.N
		case changeIndex:
			number, before, after, err := parseChangeIndex(r.B)
			if err != nil {
				return t, err
			}
			if !of.ByIndex || number != of.Index {
				continue
			}
			named = true
			t.touches = before != nil && of.has(append(bytes.Clone(before), t.key...)) ||
				after != nil && of.has(append(bytes.Clone(after), t.key...))
		}
	}
	switch {
	case r.Err != nil:
		return t, r.Err
	case !of.ByIndex:
		t.touches = flags != 0 && of.has(t.key)
	case !named:
		t.touches = true
	}
	return t, nil
}

func parseChangeIndex(b []byte) (number uint16, before, after []byte, err error) {
	r := fields.Of(b, errChange)
	for r.Next() {
		switch r.Number {
		case changeNumber:
			number = uint16(r.N) //nolint:gosec // as written
		case changeBefore:
			before = r.B
		case changeAfter:
			after = r.B
		}
	}
	return number, before, after, r.Err
}
