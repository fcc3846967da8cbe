package storetest

import (
	"math/rand/v2"
	"testing"

	"github.com/millrace-io/millrace/materializer"
)

// Options give access to the stores under test.
type Options struct {
	// Open returns an empty store. The suite closes it.
	Open func(t testing.TB) materializer.Store
	// Disk returns a fresh disk whose power can be cut; nil leaves the tests of crashes out, for a
	// store without a disk.
	Disk func(t testing.TB) Disk
	// Seed repeats a run; 0 draws one.
	Seed uint64
}

// Disk is where a store keeps its rows, and can be opened as a power cut would leave it.
type Disk interface {
	// Open opens the store on this disk.
	Open(t testing.TB) (materializer.Store, error)
	// Crash returns a copy of the disk as it is, less some of what was not synced: unsynced percent
	// of it is kept, chosen by random. The store goes on with the disk it has.
	Crash(unsynced int, random *rand.Rand) Disk
	// Watch calls f before each write to the disk, on the goroutine that writes; nil stops that. A
	// disk without writes of its own does not call it.
	Watch(f func())
}

// Run tests a store.
func Run(t *testing.T, o Options) {
	t.Helper()
	if o.Seed == 0 {
		o.Seed = rand.Uint64() //nolint:gosec // a test's seed is no secret
	}
	s := suite{o}
	t.Run("Rows", s.rows)
	t.Run("Batches", s.batches)
	t.Run("Scan", s.scan)
	t.Run("Snapshot", s.snapshot)
	t.Run("Iterator", s.iterator)
	t.Run("Ingest", s.ingest)
	t.Run("DropRange", s.dropRange)
	t.Run("Close", s.close)
	t.Run("Concurrent", s.concurrent)
	t.Run("Random", s.random)
	if o.Disk != nil {
		t.Run("Crash", s.crash)
	}
}

type suite struct{ Options }

// open returns an empty store that is closed when the test ends.
func (s suite) open(t *testing.T) materializer.Store {
	t.Helper()
	store := s.Open(t)
	t.Cleanup(func() { check(t, store.Close()) })
	return store
}

// generator returns a source of numbers that differs between tests and repeats with the seed.
func (s suite) generator(t *testing.T, stream uint64) *rand.Rand {
	t.Helper()
	t.Logf("seed %d", s.Seed)
	return rand.New(rand.NewPCG(s.Seed, stream)) //nolint:gosec // a test must repeat
}
