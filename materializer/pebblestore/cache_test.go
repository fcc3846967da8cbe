package pebblestore_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/pebblestore"
)

// sharing returns options of a store in a directory, with a shared cache.
func sharing(cache *pebblestore.Cache, fs vfs.FS, dir string) pebblestore.Options {
	o := small(fs)
	o.Dir, o.Cache, o.BlockCache, o.Compactions = dir, cache, 0, 1
	return o
}

// TestStoresShareACache: what one has read takes part of the room of both, and each can be closed
// and opened again, in any order and after the cache was given up.
func TestStoresShareACache(t *testing.T) {
	const memTable = 1 << 20
	cache := pebblestore.NewCache(1<<20, memTable, memTable)
	fs := vfs.NewMem()
	read := func(store *pebblestore.Store) {
		t.Helper()
		fill(t, store) // once: a compaction would take blocks out of the cache
		for range 2 {
			key, _ := row(0)
			if _, err := store.Get(key); err != nil {
				t.Fatal(err)
			}
		}
		if s := store.Stats(); s.CacheBytes == 0 || s.CacheHits == 0 {
			t.Errorf("the cache holds %d bytes and answered %d times", s.CacheBytes, s.CacheHits)
		}
	}
	openIn := func(dir string) *pebblestore.Store {
		o := sharing(cache, fs, dir)
		o.MemTableBytes = memTable
		return open(t, o)
	}
	first := openIn("first")
	read(first)
	second := openIn("second")
	before := first.Stats().CacheBytes
	read(second)
	if after := first.Stats().CacheBytes; after <= before {
		t.Errorf("the cache held %d bytes, and %d after another store had read", before, after)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	second = openIn("second")
	read(second)
	if err := errors.Join(cache.Close(), cache.Close(), first.Close()); err != nil {
		t.Fatal(err)
	}
	read(second)
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAFailedStoreLeavesTheOther: the disk of one is full when it writes its manifest, which ends
// that store and not the process.
func TestAFailedStoreLeavesTheOther(t *testing.T) {
	cache := pebblestore.NewCache(1<<20, small(nil).MemTableBytes, small(nil).MemTableBytes)
	disk, fs := &failing{errno: syscall.ENOSPC}, vfs.NewMem()
	state := open(t, sharing(cache, fs, "state"))
	options := sharing(cache, disk.fs(fs), "views")
	reported := make(chan error, 10)
	options.OnFailure = func(err error) { reported <- err }
	views := open(t, options)
	fill(t, state)
	fill(t, views)
	if err := commit(views, "lost"); err != nil {
		t.Fatal(err)
	}
	disk.begin("MANIFEST")
	if err := views.Flush(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Flush: %v, want ENOSPC", err)
	}
	for err := range reported {
		if errors.Is(err, pebblestore.ErrEnded) {
			break
		}
	}
	if err := errors.Join(commit(state, "kept"), state.Flush()); err != nil {
		t.Errorf("the other store: %v", err)
	}
	if err := views.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Close: %v, want ENOSPC", err)
	}
	disk.end()
	views = open(t, options)
	key, want := row(rows - 1)
	if got, err := views.Get(key); err != nil || string(got) != string(want) {
		t.Errorf("a row that was durable is %q, %v; want %q", got, err, want)
	}
	if err := errors.Join(commit(views, "again"), views.Close(), state.Close(), cache.Close()); err != nil {
		t.Error(err)
	}
}

// TestLowDiskRefusesWhatTakesRoom: below its low-water mark a store takes no rows, gives those that
// it has and drops ranges; with space again it goes on by itself.
func TestLowDiskRefusesWhatTakesRoom(t *testing.T) {
	fs := vfs.NewMem()
	options := small(fs)
	options.MinFreeBytes = 512 << 20
	store := open(t, options)
	fill(t, store) // this file system does not tell
	for _, free := range []uint64{512 << 20, 100 << 20} {
		fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: 1 << 40})
		isLow := free < options.MinFreeBytes
		for name, err := range map[string]error{
			"commit": commit(store, "a"), "ingest": store.Ingest(func() (r materializer.Row, ok bool) { return r, false }),
			"stats": store.Stats().Failure,
		} {
			if errors.Is(err, pebblestore.ErrLowDisk) != isLow || !isLow && err != nil {
				t.Errorf("%s with %d bytes free: %v", name, free, err)
			}
			if isLow && !strings.Contains(err.Error(), "100 MiB are free, it leaves 512 MiB to others") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	key, want := row(0)
	if got, err := store.Get(key); err != nil || string(got) != string(want) {
		t.Errorf("a row is %q, %v", got, err)
	}
	if err := errors.Join(store.DropRange(key, nil), store.Flush()); err != nil {
		t.Error(err)
	}
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 40, TotalBytes: 1 << 40})
	if err := errors.Join(commit(store, "b"), store.Close()); err != nil {
		t.Error(err)
	}
}
