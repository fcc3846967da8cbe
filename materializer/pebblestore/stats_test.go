package pebblestore_test

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/materializer/pebblestore"
)

func TestStatsCountWhatHappened(t *testing.T) {
	store := open(t, small(vfs.NewMem()))
	fill(t, store)
	for i := range rows {
		key, _ := row(i)
		if _, err := store.Get(key); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Get(append(key, 'x')); err != nil { // absent
			t.Fatal(err)
		}
	}
	snapshot, iterator := store.Snapshot(), store.Iterator(nil, nil)
	s := store.Stats()
	for name, n := range map[string]int64{
		"DiskBytes": int64(s.DiskBytes), "MemTableBytes": int64(s.MemTableBytes), "MemTables": s.MemTables,
		"Flushes": s.Flushes, "WrittenBytes": int64(s.WrittenBytes), "CommittedBytes": int64(s.CommittedBytes),
		"CacheHits": s.CacheHits, "CacheMisses": s.CacheMisses, "FilterHits": s.FilterHits, "Snapshots": int64(s.Snapshots),
		"Iterators": int64(s.Iterators),
	} {
		if n <= 0 {
			t.Errorf("%s is %d, want more", name, n)
		}
	}
	if want := uint64(rows / 100); s.Commits != want {
		t.Errorf("Commits is %d, want %d", s.Commits, want)
	}
	if s.Failure != nil {
		t.Errorf("Failure is %v", s.Failure)
	}
	if err := errors.Join(snapshot.Close(), iterator.Close()); err != nil {
		t.Error(err)
	}
	if s := store.Stats(); s.Iterators != 0 || s.Snapshots != 0 {
		t.Errorf("closed ones are counted: %d snapshots, %d iterators", s.Snapshots, s.Iterators)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

// Memtables must not take all the room of the cache: they may be larger than it is.
func TestCacheBesideMemTables(t *testing.T) {
	o := small(vfs.NewMem())
	o.BlockCache, o.MemTableBytes = 1<<20, 1<<20
	store := open(t, o)
	for range 4 { // Pebble begins with a small memtable and makes each one twice as large
		fill(t, store)
	}
	for range 2 {
		key, _ := row(0)
		if _, err := store.Get(key); err != nil {
			t.Fatal(err)
		}
	}
	if s := store.Stats(); s.CacheBytes == 0 || s.CacheHits == 0 {
		t.Errorf("the cache holds %d bytes and answered %d times, with memtables of %d bytes", s.CacheBytes, s.CacheHits,
			s.MemTableBytes)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

func TestEveryMetricIsEmitted(t *testing.T) {
	store := open(t, small(vfs.NewMem()))
	fill(t, store)
	source := pebblestore.Metrics(func() map[string]*pebblestore.Store { return map[string]*pebblestore.Store{"store": store} })
	if _, err := observe.Collector(source); err != nil {
		t.Error(err)
	}
	values := emitted{}
	source.Collect(values)
	if values["millrace_pebblestore_disk_bytes"] == 0 || values["millrace_pebblestore_commits_total"] != rows/100 {
		t.Errorf("values are %v", values)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	source.Collect(values) // a scrape may come late
	for _, m := range source.Metrics {
		if _, ok := values[m.Name]; !ok {
			t.Errorf("%s is declared but not emitted", m.Name)
		}
	}
}

// emitted keeps the last value of each metric of a store with the name "store".
type emitted map[string]float64

func (e emitted) Value(name string, value float64, labels ...string) {
	if len(labels) == 1 && labels[0] == "store" {
		e[name] = value
	}
}

func (emitted) Latency(string, observe.Snapshot, ...string) {}
