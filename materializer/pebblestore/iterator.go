package pebblestore

import (
	"bytes"
	"fmt"
	"io/fs"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/millrace-io/millrace/materializer"
)

// iterator implements materializer.Iterator. Closing the store closes it, at any moment: so keys
// and values are copied out of Pebble's memory.
type iterator struct {
	store *Store

	mu     sync.Mutex // held while rows is used
	rows   *pebble.Iterator
	err    error // no move succeeds any more
	closed bool

	placed     bool // it has been moved
	atRow      bool
	valueRead  bool // value is that of the row
	key, value []byte
}

var _ materializer.Iterator = (*iterator)(nil)

// Iterator returns an iterator over the present rows; an empty bound is no bound. While it is open
// Pebble keeps what has been overwritten since.
func (s *Store) Iterator(lower, upper []byte) materializer.Iterator {
	if !s.gate.enter() {
		return &iterator{store: s, err: s.closed("iterate")}
	}
	defer s.gate.leave()
	return s.iterator(s.db, lower, upper)
}

// Iterator returns an iterator over the snapshot's rows, which may be used longer than the
// snapshot.
func (v *snapshot) Iterator(lower, upper []byte) materializer.Iterator {
	if !v.enter() {
		return &iterator{store: v.store, err: v.closed("iterate")}
	}
	defer v.leave()
	return v.store.iterator(v.rows, lower, upper)
}

// iterator is called inside the gate, so that the store's Close finds what it makes.
func (s *Store) iterator(r pebble.Reader, lower, upper []byte) *iterator {
	if len(upper) > 0 && bytes.Compare(lower, upper) >= 0 {
		upper = lower // Pebble takes no bounds that cross
	}
	rows, err := r.NewIter(&pebble.IterOptions{LowerBound: bound(lower), UpperBound: bound(upper)})
	if err != nil {
		return &iterator{store: s, err: s.health.explain("iterate", err)}
	}
	it := &iterator{store: s, rows: rows}
	s.openMu.Lock()
	defer s.openMu.Unlock()
	s.iterators[it] = struct{}{}
	return it
}

// First goes to the first row.
func (it *iterator) First() bool { return it.move((*pebble.Iterator).First) }

// Last goes to the last row.
func (it *iterator) Last() bool { return it.move((*pebble.Iterator).Last) }

// Next goes to the next row.
func (it *iterator) Next() bool {
	if !it.placed {
		return it.First()
	}
	return it.move((*pebble.Iterator).Next)
}

// Prev goes to the row before.
func (it *iterator) Prev() bool {
	if !it.placed {
		return it.Last()
	}
	return it.move((*pebble.Iterator).Prev)
}

// SeekGE goes to the first row that is not below the key.
func (it *iterator) SeekGE(key []byte) bool {
	key = leastKey(key)
	return it.move(func(rows *pebble.Iterator) bool { return rows.SeekGE(key) })
}

// SeekLT goes to the last row below the key.
func (it *iterator) SeekLT(key []byte) bool {
	key = leastKey(key)
	return it.move(func(rows *pebble.Iterator) bool { return rows.SeekLT(key) })
}

// leastKey is the least key there can be instead of an empty one, which Pebble does not take.
func leastKey(key []byte) []byte {
	if len(key) == 0 {
		return []byte{0}
	}
	return key
}

// move makes one step, and copies the key: Pebble's is valid until the next step only, and not at
// all when the store is closed meanwhile. The value is copied when it is asked for.
func (it *iterator) move(step func(*pebble.Iterator) bool) bool {
	it.mu.Lock()
	defer it.mu.Unlock()
	it.placed, it.valueRead = true, false
	it.err = it.refusal()
	it.atRow = it.err == nil && step(it.rows)
	if it.atRow {
		it.key = append(it.key[:0], it.rows.Key()...)
	} else if it.err == nil {
		it.err = it.store.health.explain("iterate", it.rows.Error())
	}
	return it.atRow
}

// Key returns the row's key.
func (it *iterator) Key() []byte {
	if !it.atRow {
		return nil
	}
	return it.key
}

// Value reads the row's value.
func (it *iterator) Value() []byte {
	switch {
	case !it.atRow:
		return nil
	case !it.valueRead:
		it.readValue()
	}
	return it.value
}

// readValue copies the value, or leaves an empty one and notes why.
func (it *iterator) readValue() {
	it.mu.Lock()
	defer it.mu.Unlock()
	it.valueRead = true
	var value []byte
	if err := it.refusal(); err != nil {
		it.err = err
	} else if value, err = it.rows.ValueAndErr(); err != nil {
		it.err = it.store.health.explain("iterate", err)
	}
	it.value = append(it.value[:0], value...)
}

// refusal is called with it.mu held.
func (it *iterator) refusal() error {
	if it.err == nil && it.closed {
		return fmt.Errorf("iterate over store %s: %w", it.store.dir, fs.ErrClosed)
	}
	return it.err
}

// Error returns why no move succeeds any more.
func (it *iterator) Error() error {
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.err
}

// Close gives back what Pebble keeps for the iterator.
func (it *iterator) Close() error {
	it.store.openMu.Lock()
	delete(it.store.iterators, it)
	it.store.openMu.Unlock()
	it.mu.Lock()
	defer it.mu.Unlock()
	it.closed = true
	if it.rows != nil {
		// What it returns is in err, if it is an error of a move.
		if err := it.rows.Close(); it.err == nil {
			it.err = it.store.health.explain("iterate", err)
		}
		it.rows = nil
	}
	return it.err
}
