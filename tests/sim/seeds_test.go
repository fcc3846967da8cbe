//go:build !race

package sim

import "testing"

// TestSeedsDecide: the same seed is the same story. The race detector leaves to chance which goroutine runs, on purpose: there it
// does not hold.
func TestSeedsDecide(t *testing.T) {
	for seed := range uint64(60) {
		a, b := simulate(t, seed+1), simulate(t, seed+1)
		for i := range min(len(a.script), len(b.script)) {
			if a.script[i] != b.script[i] {
				t.Fatalf("seed %d, event %d: %q, and the second time %q", seed+1, i, a.script[i], b.script[i])
			}
		}
		if len(a.script) != len(b.script) {
			t.Fatalf("seed %d: %d events, and the second time %d", seed+1, len(a.script), len(b.script))
		}
	}
}
