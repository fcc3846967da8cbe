package cli

import (
	"os"
	"runtime"
	"runtime/debug"
)

// waitingThreads is how many threads may wait for the disk without holding up the others: a goroutine that syncs the log
// keeps its processor for a while, and on two cores that is half of them (docs/performance-diary.md has the figures).
const waitingThreads = 2

const (
	// heapRoom is how large the Go heap of a worker may be beyond twice what active entities may
	// take, before garbage is collected more often than gc-percent asks for.
	heapRoom = 512 << 20
	// gatewayHeap is how large that of a gateway may be.
	gatewayHeap = 1 << 30
)

// tune sets the Go runtime, unless the environment says otherwise. What lives on the heap of a
// worker is small as long as few
// entities are active, since caches and memtables lie outside of it: then collecting rarely costs little memory. Many active
// entities would make it cost much.
func tune(gcPercent int, limit int64) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.SetDefaultGOMAXPROCS() // tuning twice is tuning once
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + waitingThreads)
	}
}
