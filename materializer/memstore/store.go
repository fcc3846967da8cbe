package memstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/millrace-io/millrace/materializer"
)

// Store is a materializer.Store in memory. Make it with New.
type Store struct {
	rows   atomic.Pointer[node] // nil is empty
	closed atomic.Bool

	writing sync.Mutex // held while rows are replaced
	durable *node      // what a power cut would leave; guarded by writing
}

var _ materializer.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store { return &Store{} }

// Crash returns a new store with the rows that were durable: those at the last Flush, Ingest,
// DropRange or Close. The receiver is left alone.
func (s *Store) Crash() *Store {
	s.writing.Lock()
	defer s.writing.Unlock()
	return holding(s.durable)
}

// Clone returns a new store with all rows, as after a crash that lost nothing. The receiver is left
// alone.
func (s *Store) Clone() *Store { return holding(s.rows.Load()) }

// holding returns a store of which all rows are durable.
func holding(rows *node) *Store {
	s := &Store{durable: rows}
	s.rows.Store(rows)
	return s
}

// Get returns a copy of the row's value, or nil.
func (s *Store) Get(key []byte) ([]byte, error) {
	if s.closed.Load() {
		return nil, errClosed("get from store")
	}
	return s.rows.Load().copyOf(key), nil
}

// Scan yields the rows with lower <= key < upper; an empty upper is no bound.
func (s *Store) Scan(lower, upper []byte, yield func(key, value []byte) bool) error {
	if s.closed.Load() {
		return errClosed("scan store")
	}
	s.rows.Load().scan(lower, upper, yield)
	return nil
}

// Iterator returns an iterator over the present rows; an empty bound is no bound.
func (s *Store) Iterator(lower, upper []byte) materializer.Iterator {
	return newIterator(s, s.rows.Load(), lower, upper)
}

// NewBatch returns an empty batch.
func (s *Store) NewBatch() materializer.Batch { return &batch{store: s} }

// NewIndexedBatch returns an empty batch that can be read.
func (s *Store) NewIndexedBatch() materializer.IndexedBatch {
	return &indexedBatch{batch: batch{store: s}}
}

// Snapshot returns the present rows.
func (s *Store) Snapshot() materializer.Snapshot { return &snapshot{store: s, rows: s.rows.Load()} }

// Ingest adds the rows at once, or none of them if their keys do not ascend. As in a store with
// sorted tables on disk, rows that are ingested are durable, and so is everything before them.
func (s *Store) Ingest(next func() (materializer.Row, bool)) error {
	var rows []materializer.Row
	for row, ok := next(); ok; row, ok = next() {
		if len(row.Key) == 0 {
			return fmt.Errorf("ingest into store: %w", errEmptyKey)
		}
		if n := len(rows); n > 0 && bytes.Compare(rows[n-1].Key, row.Key) >= 0 {
			return fmt.Errorf("ingest into store: key %q follows %q: keys must ascend strictly", row.Key, rows[n-1].Key)
		}
		rows = append(rows, owned(row))
	}
	return s.write("ingest into store", func(root *node) *node { return apply(root, rows) }, true)
}

// DropRange removes the rows with lower <= key < upper; an empty upper is no bound.
func (s *Store) DropRange(lower, upper []byte) error {
	return s.write("drop range of store", func(root *node) *node {
		if len(upper) > 0 && bytes.Compare(lower, upper) >= 0 {
			return root
		}
		below, rest := root.split(lower)
		if len(upper) == 0 {
			return below
		}
		_, above := rest.split(upper)
		return merge(below, above)
	}, true)
}

// Flush makes what was committed survive Crash.
func (s *Store) Flush() error {
	return s.write("flush store", func(root *node) *node { return root }, true)
}

// Size returns the bytes of all keys and values; 0 after Close.
func (s *Store) Size() uint64 {
	if s.closed.Load() {
		return 0
	}
	return s.rows.Load().bytes()
}

// Close ends the use of the store, its snapshots and batches. It may be called again.
func (s *Store) Close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if !s.closed.Swap(true) {
		s.durable = s.rows.Load()
	}
	return nil
}

// write replaces the rows by what change makes of them. Readers see all of the change or nothing:
// they have the old root or the new one.
func (s *Store) write(doing string, change func(*node) *node, durable bool) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.closed.Load() {
		return errClosed(doing)
	}
	root := change(s.rows.Load())
	s.rows.Store(root)
	if durable {
		s.durable = root
	}
	return nil
}

// copyOf returns a copy of the value of one row: never nil if the row is there.
func (n *node) copyOf(key []byte) []byte {
	row := n.get(key)
	if row == nil {
		return nil
	}
	return append(make([]byte, 0, len(row.value)), row.value...)
}

// apply sets rows in their order: of two for one key, the later one counts.
func apply(root *node, rows []materializer.Row) *node {
	for _, row := range rows {
		if row.Delete {
			root = root.remove(row.Key)
		} else {
			root = root.put(leaf(row.Key, row.Value))
		}
	}
	return root
}

// owned copies a row: the contract lets callers reuse key and value after the call.
func owned(row materializer.Row) materializer.Row {
	row.Key, row.Value = bytes.Clone(row.Key), bytes.Clone(row.Value)
	return row
}

var errEmptyKey = errors.New("key is empty: a row needs one")

func errClosed(doing string) error { return fmt.Errorf("%s: %w", doing, fs.ErrClosed) }

// batch implements materializer.Batch. No reader sees its rows before Commit: they are only in the
// list.
type batch struct {
	store *Store // nil after Close
	rows  []materializer.Row
}

func (b *batch) Put(key, value []byte) error {
	return b.add(materializer.Row{Key: key, Value: value})
}

func (b *batch) Delete(key []byte) error {
	return b.add(materializer.Row{Key: key, Delete: true})
}

func (b *batch) add(row materializer.Row) error {
	if b.store == nil {
		return errClosed("write to batch")
	}
	if len(row.Key) == 0 {
		return fmt.Errorf("write to batch: %w", errEmptyKey)
	}
	b.rows = append(b.rows, owned(row))
	return nil
}

func (b *batch) Commit() error {
	if b.store == nil {
		return errClosed("commit batch")
	}
	err := b.store.write("commit to store", func(root *node) *node { return apply(root, b.rows) }, false)
	if err != nil {
		return err
	}
	clear(b.rows)
	b.rows = b.rows[:0]
	return nil
}

func (b *batch) Close() error {
	b.store, b.rows = nil, nil
	return nil
}

// indexedBatch implements materializer.IndexedBatch.
type indexedBatch struct {
	batch

	// below are rows of the store, over which view has the batch's first seen rows.
	below, view *node
	seen        int
	iterators   []*iterator // made since the last commit
}

// present returns the rows of the batch over those of the store.
func (b *indexedBatch) present(doing string) (*node, error) {
	if b.store == nil || b.store.closed.Load() {
		return nil, errClosed(doing)
	}
	if now := b.store.rows.Load(); b.seen == 0 || now != b.below {
		b.below, b.view, b.seen = now, now, 0
	}
	b.view, b.seen = apply(b.view, b.rows[b.seen:]), len(b.rows)
	return b.view, nil
}

func (b *indexedBatch) Get(key []byte) ([]byte, error) {
	rows, err := b.present("get from batch")
	return rows.copyOf(key), err
}

func (b *indexedBatch) Scan(lower, upper []byte, yield func(key, value []byte) bool) error {
	rows, err := b.present("scan batch")
	rows.scan(lower, upper, yield)
	return err
}

func (b *indexedBatch) Iterator(lower, upper []byte) materializer.Iterator {
	rows, err := b.present("iterate over batch")
	it := newIterator(b.store, rows, lower, upper)
	it.err = err
	b.iterators = append(b.iterators, it)
	return it
}

func (b *indexedBatch) Commit() error {
	b.endIterators()
	err := b.batch.Commit()
	if err == nil {
		b.below, b.view, b.seen = nil, nil, 0
	}
	return err
}

func (b *indexedBatch) Close() error {
	b.endIterators()
	b.below, b.view = nil, nil
	return b.batch.Close()
}

func (b *indexedBatch) endIterators() {
	for _, it := range b.iterators {
		_ = it.Close() // what it has to say its user gets
	}
	b.iterators = nil
}

// snapshot implements materializer.Snapshot. It costs nothing while it is open, except that the
// rows that it shows are not freed.
type snapshot struct {
	store  *Store
	rows   *node
	closed atomic.Bool
}

func (s *snapshot) Get(key []byte) ([]byte, error) {
	if s.closed.Load() || s.store.closed.Load() {
		return nil, errClosed("get from snapshot")
	}
	return s.rows.copyOf(key), nil
}

func (s *snapshot) Scan(lower, upper []byte, yield func(key, value []byte) bool) error {
	if s.closed.Load() || s.store.closed.Load() {
		return errClosed("scan snapshot")
	}
	s.rows.scan(lower, upper, yield)
	return nil
}

func (s *snapshot) Iterator(lower, upper []byte) materializer.Iterator {
	it := newIterator(s.store, s.rows, lower, upper)
	if s.closed.Load() {
		it.err = errClosed("iterate over snapshot")
	}
	return it
}

func (s *snapshot) Close() error {
	s.closed.Store(true)
	return nil
}
