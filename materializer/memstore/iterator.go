package memstore

import (
	"bytes"

	"github.com/millrace-io/millrace/materializer"
)

// iterator implements materializer.Iterator on rows that never change. It has no path into the
// tree: each move searches from the root, which is fast enough for tests, and a row stays valid
// when the store changes.
type iterator struct {
	store        *Store
	rows         *node
	lower, upper []byte
	at           *node // the row; nil: off says where it stands
	off          place
	err          error
	closed       bool
}

// place is where an iterator stands that is not at a row.
type place int8

const (
	isNew place = iota
	before
	behind
)

func newIterator(s *Store, rows *node, lower, upper []byte) *iterator {
	return &iterator{store: s, rows: rows, lower: bytes.Clone(lower), upper: bytes.Clone(upper)}
}

// First goes to the first row.
func (it *iterator) First() bool { return it.forward(it.rows.ceiling(it.lower)) }

// Last goes to the last row.
func (it *iterator) Last() bool { return it.backward(it.rows.floor(it.upper)) }

// Next goes to the next row.
func (it *iterator) Next() bool {
	switch {
	case it.at != nil:
		return it.forward(it.rows.ceiling(append(bytes.Clone(it.at.key), 0)))
	case it.off == behind:
		return it.forward(nil)
	default:
		return it.First()
	}
}

// Prev goes to the row before.
func (it *iterator) Prev() bool {
	switch {
	case it.at != nil:
		return it.backward(it.rows.floor(it.at.key))
	case it.off == before:
		return it.backward(nil)
	default:
		return it.Last()
	}
}

// SeekGE goes to the first row that is not below the key.
func (it *iterator) SeekGE(key []byte) bool {
	if bytes.Compare(key, it.lower) < 0 {
		key = it.lower
	}
	return it.forward(it.rows.ceiling(key))
}

// SeekLT goes to the last row below the key.
func (it *iterator) SeekLT(key []byte) bool {
	if len(key) == 0 {
		return it.backward(nil) // no key is below it, and floor takes it for none
	}
	if len(it.upper) > 0 && bytes.Compare(key, it.upper) > 0 {
		key = it.upper
	}
	return it.backward(it.rows.floor(key))
}

// forward ends a move upwards: at the row, or behind all of them.
func (it *iterator) forward(row *node) bool {
	if row != nil && len(it.upper) > 0 && bytes.Compare(row.key, it.upper) >= 0 {
		row = nil
	}
	return it.stand(row, behind)
}

// backward ends a move downwards: at the row, or before all of them.
func (it *iterator) backward(row *node) bool {
	if row != nil && bytes.Compare(row.key, it.lower) < 0 {
		row = nil
	}
	return it.stand(row, before)
}

// stand ends each move.
func (it *iterator) stand(row *node, off place) bool {
	if it.err == nil && (it.closed || it.store.closed.Load()) {
		it.err = errClosed("iterate over store")
	}
	if it.err != nil {
		row = nil
	}
	it.at, it.off = row, off
	return row != nil
}

// Key returns the row's key.
func (it *iterator) Key() []byte {
	if it.at == nil {
		return nil
	}
	return it.at.key
}

// Value returns the row's value.
func (it *iterator) Value() []byte {
	if it.at == nil {
		return nil
	}
	return it.at.value
}

// Error returns why no move succeeds any more.
func (it *iterator) Error() error { return it.err }

// Close releases the rows.
func (it *iterator) Close() error {
	it.closed, it.rows, it.at = true, nil, nil
	return it.err
}

var _ materializer.Iterator = (*iterator)(nil)
