//go:build !race

package pebblestore_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Not with the race detector, under which Pebble checks itself and allocates for that.

// The hot path must not allocate beyond the value that it hands out.
func TestHotPathAllocations(t *testing.T) {
	options := small(vfs.NewMem())
	options.MemTableBytes = 64 << 20 // no flush while counting
	store := open(t, options)
	fill(t, store)
	key, value := row(7)
	b := store.NewBatch()
	get := testing.AllocsPerRun(200, func() {
		if _, err := store.Get(key); err != nil {
			t.Fatal(err)
		}
	})
	put := testing.AllocsPerRun(200, func() {
		if err := b.Put(key, value); err != nil {
			t.Fatal(err)
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("allocations: get %v, put and commit %v", get, put)
	if get > 3 {
		t.Errorf("Get allocates %v times", get)
	}
	if put > 1 {
		t.Errorf("Put and Commit allocate %v times", put)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}
