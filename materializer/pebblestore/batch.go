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

// NewBatch returns an empty batch. It must be closed.
func (s *Store) NewBatch() materializer.Batch {
	return &batch{store: s, rows: s.db.NewBatch()}
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
	if err := b.store.health.refusal(); err != nil {
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

// Close gives the batch's memory back.
func (b *batch) Close() error {
	if b.rows == nil {
		return nil
	}
	rows := b.rows
	b.rows = nil
	return rows.Close()
}
