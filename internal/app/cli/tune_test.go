package cli

import (
	"runtime"
	"runtime/debug"
	"testing"
)

// TestTune: the runtime is set as the settings ask for, and not where the environment has set it
// already.
func TestTune(t *testing.T) {
	limit, percent, processors := debug.SetMemoryLimit(-1), debug.SetGCPercent(100), runtime.GOMAXPROCS(0)
	t.Cleanup(func() {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(percent)
		runtime.GOMAXPROCS(processors)
	})
	for name, of := range map[string]struct {
		environment    bool
		limit, percent int64
	}{
		"by the settings":    {false, 200 << 20, 250},
		"by the environment": {true, limit, 100},
	} {
		t.Run(name, func(t *testing.T) {
			debug.SetMemoryLimit(limit)
			debug.SetGCPercent(100)
			for _, variable := range []string{"GOGC", "GOMEMLIMIT", "GOMAXPROCS"} {
				value := ""
				if of.environment {
					value = "as it was"
				}
				t.Setenv(variable, value)
			}
			tune(250, 200<<20)
			if got := debug.SetMemoryLimit(-1); got != of.limit {
				t.Errorf("the heap's soft limit is %d bytes, want %d", got, of.limit)
			}
			if got := debug.SetGCPercent(100); int64(got) != of.percent {
				t.Errorf("garbage is collected at %d %%, want %d", got, of.percent)
			}
		})
	}
}
