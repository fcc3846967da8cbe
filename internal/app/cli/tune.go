package cli

import (
	"os"
	"runtime"
	"runtime/debug"
)

// waitingThreads is how many threads may wait for the disk without delaying the others: a goroutine
// that syncs the log keeps its processor for a while, and on two cores that is half of them
// (docs/performance-diary.md has the figures).
const waitingThreads = 2

const (
	// heapSlack is how large the Go heap of a worker may be, beyond twice the memory of active
	// entities, before garbage is collected more often than gc-percent asks for.
	heapSlack = 512 << 20
	// gatewayHeap is the same bound for a gateway.
	gatewayHeap = 1 << 30
)

// tune sets the Go runtime, unless the environment does. The live heap of a worker is small while
// few entities are active, since caches and memtables are outside of it: then rare collections cost
// little memory. With many active entities they would cost much.
func tune(gcPercent int, limit int64) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.SetDefaultGOMAXPROCS() // so that tune may run twice
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + waitingThreads)
	}
}
