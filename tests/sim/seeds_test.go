//go:build !race

package sim

import (
	"fmt"
	"testing"
)

// maxRuns is how often a seed may run until two consecutive runs are the same. Two are enough on an
// idle machine; if the process is suspended for 10 ms, the runtime may schedule another goroutine.
const maxRuns = 3

// TestSeedsDecide: a seed determines the run. Not under the race detector, which randomizes
// scheduling on purpose.
func TestSeedsDecide(t *testing.T) {
	for seed := uint64(1); seed <= 60; seed++ {
		difference := "none"
		for n := 0; n < maxRuns && difference != ""; n++ {
			difference = differ(simulate(t, seed).script, simulate(t, seed).script)
		}
		if difference != "" {
			t.Fatalf("seed %d differs in each run: %s", seed, difference)
		}
	}
}

// differ returns the first event that differs between two runs; "" if none does.
func differ(a, b []string) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("event %d is %q, and the second time %q", i, a[i], b[i])
		}
	}
	if len(a) != len(b) {
		return fmt.Sprintf("%d events, and the second time %d", len(a), len(b))
	}
	return ""
}
