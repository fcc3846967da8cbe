package embedded

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestPowerCut cuts the power at a random operation of the disk, which loses none, half or all of
// what was not synced, in the middle of commits, flushes and compactions. Everything acknowledged
// before must be there afterwards, and the log must go on.
func TestPowerCut(t *testing.T) {
	for _, keep := range []int{0, 50, 100} {
		for seed := range *seeds {
			t.Run(fmt.Sprintf("unsynced kept=%d%%/seed=%d", keep, seed), func(t *testing.T) {
				t.Parallel()
				cutPower(t, keep, seed)
			})
		}
	}
}

func cutPower(t *testing.T, keep int, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, uint64(keep)))
	disk := vfs.NewCrashableMem()
	results := newLedger()
	var (
		countdown atomic.Int64
		once      sync.Once
		after     *vfs.MemFS
		expected  *ledger
	)
	countdown.Store(1 << 60)
	cut := errorfs.InjectorFunc(func(errorfs.Op) error {
		if countdown.Add(-1) < 0 {
			once.Do(func() {
				expected = results.clone() // first, since what is acknowledged later may be lost
				after = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keep, RNG: rng})
			})
		}
		return nil
	})
	log := mustOpen(t, Options{Dir: "/log", FS: errorfs.Wrap(disk, cut), MemTableBytes: minMemTableBytes})
	createTestTopic(t, log)
	// full tables and old WALs, so that the cut finds something to hit
	results.writers(t, log, "before", seed, 4, 200, always)
	countdown.Store(rng.Int64N(1500))
	results.writers(t, log, "around", seed, 4, 1<<20, func() bool { return countdown.Load() >= 0 })
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if after == nil {
		t.Fatalf("the power was never cut, %d operations were left", countdown.Load())
	}
	again := mustOpen(t, Options{Dir: "/log", FS: after, MemTableBytes: minMemTableBytes})
	expected.verify(t, again)
	expected.writers(t, again, "after", seed, 2, 100, always)
	expected.verify(t, again)
}
