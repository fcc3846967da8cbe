//go:build !race

package sim

import (
	"fmt"
	"testing"
)

// tellings is how often a seed may be told before two of its stories in a row must be the same. Once is enough on a machine
// with nothing else to do; where the process is held up for 10 ms, the runtime lets another goroutine go first.
const tellings = 3

// TestSeedsDecide: the same seed is the same story. The race detector leaves to chance which goroutine runs, on purpose: there it
// does not hold.
func TestSeedsDecide(t *testing.T) {
	for seed := uint64(1); seed <= 60; seed++ {
		difference := "none"
		for n := 0; n < tellings && difference != ""; n++ {
			difference = differ(simulate(t, seed).script, simulate(t, seed).script)
		}
		if difference != "" {
			t.Fatalf("seed %d is another story each time: %s", seed, difference)
		}
	}
}

// differ names the first event in which two stories are not the same; "" if they are.
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
