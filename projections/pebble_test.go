package projections_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/pebblestore"
	"github.com/millrace-io/millrace/projections"
	"github.com/millrace-io/millrace/tests/kit"
)

// TestPowerCuts: after each cut the store opens at some batch, and what is built from there is
// equal to a recomputation.
func TestPowerCuts(t *testing.T) {
	disk := vfs.NewCrashableMem()
	f := newFixture(t, 5, 1<<20)
	defer f.stop()
	views := []*projections.View{f.ordersView("park-key", 1, 3), f.linesView()}
	rnd := rand.New(rand.NewPCG(5, 5))
	for cut := range 12 {
		store, err := pebblestore.Open(pebblestore.Options{Dir: "views", FS: disk, MemTableBytes: 256 << 10})
		if err != nil {
			t.Fatal(err)
		}
		f.views = store
		if cut%3 == 2 {
			views[0] = f.ordersView("park-key", someParts(rnd)...)
		}
		f.start(views...)
		for range 30 {
			for range rnd.IntN(20) {
				f.command()
			}
			f.turn(1 + rnd.IntN(40))
			if rnd.IntN(10) == 0 {
				if err := store.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		f.catchUp()
		if cut%2 == 0 { // else it is somewhere in between
			kit.Await(t, "the datasets", func() bool {
				for _, v := range views {
					if ready, _ := f.engine.Ready(v.Dataset); !ready || f.statusOf(v.Dataset).Position != f.end() {
						return false
					}
				}
				return true
			})
			f.same(views...)
		}
		left := disk.CrashClone(vfs.CrashCloneCfg{
			UnsyncedDataPercent: []int{0, 50, 100}[cut%3], RNG: rand.New(rand.NewPCG(rnd.Uint64(), 0)),
		})
		f.stop()
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		disk = left
		f.atEachCut(disk, views)
	}
}

// atEachCut compares what a cut has left with a recomputation up to its position.
func (f *fixture) atEachCut(disk *vfs.MemFS, views []*projections.View) {
	f.t.Helper()
	store, err := pebblestore.Open(pebblestore.Options{Dir: "views", FS: disk, MemTableBytes: 256 << 10})
	if err != nil {
		f.t.Fatal(err)
	}
	var reader materializer.Reader = store
	for _, v := range views {
		if err := f.compare(reader, v); err != nil && !errors.Is(err, errOtherParts) {
			f.t.Fatalf("after the cut: %v", err)
		}
	}
	if err := store.Close(); err != nil {
		f.t.Fatal(err)
	}
}
