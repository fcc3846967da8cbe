package pebblestore

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cockroachdb/pebble/v2"

	"github.com/millrace-io/millrace/materializer"
)

// maxBatchBytes is far above what a group of records makes, and below what Pebble can hold in one
// batch.
const maxBatchBytes = 1 << 30

// errEmptyKey: Pebble takes an empty key for no key in places, and forgets range tombstones that
// begin there.
var errEmptyKey = errors.New("key is empty: a row needs one")

// batch implements materializer.Batch. Its memory is used again after each commit.
type batch struct {
	store *Store
	rows  *pebble.Batch // nil after Close
}

// indexedBatch implements materializer.IndexedBatch.
type indexedBatch struct {
	batch

	iterators []*iterator // made since the last commit
}

// NewBatch returns an empty batch. It must be closed.
func (s *Store) NewBatch() materializer.Batch {
	return &batch{store: s, rows: s.db.NewBatch()}
}

// NewIndexedBatch returns an empty batch that can be read. It must be closed.
func (s *Store) NewIndexedBatch() materializer.IndexedBatch {
	return &indexedBatch{batch: batch{store: s, rows: s.db.NewIndexedBatch()}}
}

// Put adds a row to the batch.
func (b *batch) Put(key, value []byte) error {
	if err := b.admit(key, len(value)); err != nil {
		return err
	}
	return b.store.health.explain("put", b.rows.Set(key, value, nil))
}

// Delete adds the removal of a row to the batch.
func (b *batch) Delete(key []byte) error {
	if err := b.admit(key, 0); err != nil {
		return err
	}
	return b.store.health.explain("delete", b.rows.Delete(key, nil))
}

func (b *batch) admit(key []byte, valueBytes int) error {
	if b.rows == nil {
		return fmt.Errorf("batch of store %s: %w", b.store.dir, fs.ErrClosed)
	}
	if len(key) == 0 {
		return fmt.Errorf("batch of store %s: %w", b.store.dir, errEmptyKey)
	}
	if size := b.rows.Len() + len(key) + valueBytes; size > maxBatchBytes {
		return fmt.Errorf("batch of store %s: %d bytes are above the limit of %d: commit more often, or ingest",
			b.store.dir, size, maxBatchBytes)
	}
	return nil
}

// Commit makes the rows visible, all at once. When it is refused, the batch keeps them.
func (b *batch) Commit() error {
	if b.rows == nil {
		return fmt.Errorf("batch of store %s: %w", b.store.dir, fs.ErrClosed)
	}
	if !b.store.gate.enter() {
		return b.store.closed("commit")
	}
	defer b.store.gate.leave()
	if err := b.store.refusal(); err != nil {
		return err
	}
	bytes := b.rows.Len()
	b.store.order.RLock()
	err := b.store.db.Apply(b.rows, pebble.NoSync)
	b.store.order.RUnlock()
	if err != nil {
		return b.store.health.explain("commit", err)
	}
	b.rows.Reset()
	b.store.counters.commits.Add(1)
	b.store.counters.committedBytes.Add(uint64(bytes)) //nolint:gosec // sizes are not negative
	return nil
}

// Get returns a copy of the row's value, or nil.
func (b *indexedBatch) Get(key []byte) ([]byte, error) {
	if err := b.enter("get"); err != nil {
		return nil, err
	}
	defer b.store.gate.leave()
	return b.store.get(b.rows, key)
}

// Scan yields the rows with lower <= key < upper; an empty upper is no bound.
func (b *indexedBatch) Scan(lower, upper []byte, yield func(key, value []byte) bool) error {
	if err := b.enter("scan"); err != nil {
		return err
	}
	defer b.store.gate.leave()
	return b.store.scan(b.rows, lower, upper, yield)
}

// Iterator returns an iterator over the rows of batch and store; an empty bound is no bound.
func (b *indexedBatch) Iterator(lower, upper []byte) materializer.Iterator {
	if err := b.enter("iterate"); err != nil {
		return &iterator{store: b.store, err: err}
	}
	defer b.store.gate.leave()
	it := b.store.iterator(b.rows, lower, upper)
	b.iterators = append(b.iterators, it)
	return it
}

// enter passes the store's gate, or returns why that is not possible.
func (b *indexedBatch) enter(doing string) error {
	if b.rows == nil {
		return fmt.Errorf("%s: batch of store %s: %w", doing, b.store.dir, fs.ErrClosed)
	}
	if !b.store.gate.enter() {
		return b.store.closed(doing)
	}
	return nil
}

// Commit makes the rows visible, all at once, and ends the batch's iterators, which read its
// memory. When it is refused, the batch keeps its rows.
func (b *indexedBatch) Commit() error {
	b.endIterators()
	return b.batch.Commit()
}

// Close gives the batch's memory back.
func (b *indexedBatch) Close() error {
	b.endIterators()
	return b.batch.Close()
}

func (b *indexedBatch) endIterators() {
	for _, it := range b.iterators {
		_ = it.Close() // what it has to say its user gets
	}
	clear(b.iterators)
	b.iterators = b.iterators[:0]
}

// Close gives the batch's memory back.
func (b *batch) Close() error {
	if b.rows == nil {
		return nil
	}
	rows := b.rows
	b.rows = nil
	return rows.Close()
}
