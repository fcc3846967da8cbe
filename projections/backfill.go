package projections

import (
	"bytes"
	"context"

	"github.com/millrace-io/millrace/materializer"
)

// The most rows, and bytes of them, that one piece of a walk has.
const (
	walkRows  = 500
	walkBytes = 1 << 20
)

// backfill makes a piece of an index or an aggregate of a front that is not complete, from the
// rows. In between, records are applied: they keep indexes up to date from the beginning, because
// an entry that is written twice is the same; and of aggregates the groups of the rows up to the
// cursor, because a row must be counted once.
func (p *partition) backfill(ctx context.Context, f *front) (worked bool, err error) {
	for _, d := range f.datasets {
		if d.position.pending() == 0 {
			continue
		}
		select {
		case p.engine.reading <- struct{}{}:
		case <-ctx.Done():
			return worked, nil
		}
		if err := p.walk(d); err != nil {
			return worked, &storeError{err}
		}
		worked = true
		p.show([]*dataset{d}, 0)
	}
	return worked, nil
}

// walk makes a piece of what is not complete of a dataset. It gives the place back.
func (p *partition) walk(d *dataset) error {
	defer func() { <-p.engine.reading }()
	if err := d.walk(); err != nil {
		return err
	}
	return p.commit([]*dataset{d})
}

// walk adds the next rows to all incomplete parts that stand at the same row as the first of them.
func (d *dataset) walk() error {
	var walked []int // in position.parts
	var cursor []byte
	for i := range d.position.parts {
		if part := &d.position.parts[i]; !part.complete && (walked == nil || bytes.Equal(part.cursor, cursor)) {
			cursor, walked = part.cursor, append(walked, i)
		}
	}
	lower, upper := d.KindRange(KindRow)
	if len(cursor) > 0 {
		lower = append(d.RowKey(nil, cursor), 0)
	}
	rows := d.store.Iterator(lower, upper)
	n, size, last := 0, 0, cursor
	more := rows.First()
	for ; more && n < walkRows && size < walkBytes; more = rows.Next() {
		last = bytes.Clone(rows.Key()[headerSize:])
		d.walked = append(d.walked, walkedRow{key: last, value: bytes.Clone(rows.Value()), parts: walked})
		n, size = n+1, size+len(rows.Value())
	}
	if err := rows.Close(); err != nil {
		return err
	}
	for _, i := range walked {
		d.position.parts[i].cursor = last
		if !more {
			d.position.parts[i].complete, d.position.parts[i].cursor = true, nil
		}
	}
	return nil
}

// walkedRow is a row that a walk has come to, and the parts that it is added to, as indexes in
// position.parts.
type walkedRow struct {
	key, value []byte
	parts      []int
}

// flushWalk adds the rows that a walk has come to.
func (d *dataset) flushWalk(batch materializer.Batch) error {
	for _, w := range d.walked {
		isHidden, message, err := parseRow(w.value, nil)
		if err != nil {
			return err
		}
		if isHidden {
			continue
		}
		for _, i := range w.parts {
			at := d.plan.index(d.position.parts[i].kind, d.position.parts[i].number)
			if d.position.parts[i].kind == KindAggregate {
				err = d.count(at, 1, message)
			} else {
				err = d.putEntry(batch, at, &w, message)
			}
			if err != nil {
				return err
			}
		}
	}
	d.walked = d.walked[:0]
	return nil
}

// putEntry writes the entry of a row in an index.
func (d *dataset) putEntry(batch materializer.Batch, at int, w *walkedRow, message []byte) error {
	tuple, in, err := d.entry(d.after[:0], at, message)
	if err != nil || !in {
		return err
	}
	d.after = tuple
	part := &d.plan.parts[at]
	d.key = d.IndexKey(d.key[:0], part.number, tuple, w.key)
	if part.include {
		return batch.Put(d.key, w.value)
	}
	return batch.Put(d.key, nil)
}
