package pebblestore

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/millrace-io/millrace/materializer"
)

// snapshot implements materializer.Snapshot. A use passes its own gate and the store's; closing the
// store closes it.
type snapshot struct {
	store   *Store
	rows    *pebble.Snapshot // nil if the store was closed before
	gate    gate
	closing sync.Once
}

// Snapshot returns the rows of this moment. While it is open Pebble keeps what has been overwritten
// since.
func (s *Store) Snapshot() materializer.Snapshot {
	v := &snapshot{store: s, gate: newGate()}
	if !s.gate.enter() {
		return v
	}
	defer s.gate.leave()
	v.rows = s.db.NewSnapshot()
	s.openMu.Lock()
	defer s.openMu.Unlock()
	s.snapshots[v] = struct{}{}
	return v
}

// Get returns a copy of the row's value, or nil.
func (v *snapshot) Get(key []byte) ([]byte, error) {
	if !v.enter() {
		return nil, v.closed("get")
	}
	defer v.leave()
	return v.store.get(v.rows, key)
}

// Scan yields the rows with lower <= key < upper; an empty upper is no bound.
func (v *snapshot) Scan(lower, upper []byte, yield func(key, value []byte) bool) error {
	if !v.enter() {
		return v.closed("scan")
	}
	defer v.leave()
	return v.store.scan(v.rows, lower, upper, yield)
}

// Close waits for reads that are under way and releases the snapshot. It may be called again.
func (v *snapshot) Close() error {
	v.closing.Do(func() {
		v.gate.close()
		if v.rows == nil {
			return
		}
		_ = v.rows.Close() // never fails
		v.store.openMu.Lock()
		defer v.store.openMu.Unlock()
		delete(v.store.snapshots, v)
	})
	return nil
}

// enter begins a use: the store's gate first, so that the store, which closes its own gate before
// its snapshots, waits for uses that have begun.
func (v *snapshot) enter() bool {
	if v.rows == nil || !v.store.gate.enter() {
		return false
	}
	if !v.gate.enter() {
		v.store.gate.leave()
		return false
	}
	return true
}

func (v *snapshot) leave() {
	v.gate.leave()
	v.store.gate.leave()
}

func (v *snapshot) closed(doing string) error {
	return fmt.Errorf("%s: snapshot of store %s: %w", doing, v.store.dir, fs.ErrClosed)
}

// open returns the snapshots and iterators that are open.
func (s *Store) open() (snapshots []*snapshot, iterators []*iterator) {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	return slices.Collect(maps.Keys(s.snapshots)), slices.Collect(maps.Keys(s.iterators))
}
