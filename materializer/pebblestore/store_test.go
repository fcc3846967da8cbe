package pebblestore_test

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/millrace-io/millrace/internal/leaktest"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/pebblestore"
	"github.com/millrace-io/millrace/materializer/storetest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// small makes Pebble flush, compact and split tables within a short test.
func small(fs vfs.FS) pebblestore.Options {
	return pebblestore.Options{
		Dir: "store", FS: fs, BlockCache: 1 << 20, MemTableBytes: 64 << 10,
		IngestTableBytes: 64 << 10,
	}
}

func open(t testing.TB, o pebblestore.Options) *pebblestore.Store {
	t.Helper()
	store, err := pebblestore.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestConformance(t *testing.T) {
	storetest.Run(t, storetest.Options{
		Open: func(t testing.TB) materializer.Store { return open(t, small(vfs.NewMem())) },
		Disk: func(testing.TB) storetest.Disk { return &disk{fs: vfs.NewCrashableMem()} },
	})
}

func TestConformanceWithDefaultsOnTheRealDisk(t *testing.T) {
	storetest.Run(t, storetest.Options{
		Open: func(t testing.TB) materializer.Store { return open(t, pebblestore.Options{Dir: t.TempDir()}) },
	})
}

// disk is a file system in memory that knows what was synced.
type disk struct {
	fs    *vfs.MemFS
	watch atomic.Pointer[func()]
}

func (d *disk) Open(testing.TB) (materializer.Store, error) {
	return pebblestore.Open(small(errorfs.Wrap(d.fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if watch := d.watch.Load(); watch != nil && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			(*watch)()
		}
		return nil
	}))))
}

func (d *disk) Crash(unsynced int, random *rand.Rand) storetest.Disk {
	clone := d.fs.CrashClone(vfs.CrashCloneCfg{
		UnsyncedDataPercent: unsynced,
		RNG:                 rand.New(rand.NewPCG(random.Uint64(), 0)),
	})
	return &disk{fs: clone}
}

func (d *disk) Watch(f func()) {
	if f == nil {
		d.watch.Store(nil)
		return
	}
	d.watch.Store(&f)
}
