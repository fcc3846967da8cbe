package cli

import (
	"os"
	"runtime"
	"runtime/debug"

	"github.com/millrace-io/millrace/internal/app/node"
)

// waitingThreads is how many threads may wait for the disk without holding up the others: a goroutine that syncs the log
// keeps its processor for a while, and on two cores that is half of them (docs/performance-diary.md has the figures).
const waitingThreads = 2

// heapRoom is how large the Go heap may be beyond twice what active entities may take, before garbage is collected more often than
// GCPercent asks for.
const heapRoom = 512 << 20

// tune sets the Go runtime for a worker, unless the environment says otherwise. What lives on the heap is small as long as few
// entities are active, since caches and memtables lie outside of it: then collecting rarely costs little memory. Many active
// entities would make it cost much.
func tune(c *node.Config) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(c.GCPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(2*int64(c.ActiveMemory) + heapRoom)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.SetDefaultGOMAXPROCS() // tuning twice is tuning once
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + waitingThreads)
	}
}
