package clock

import (
	"testing"
	"time"
)

// TestDrift: time follows the wall clock forward and never goes back; each jump of more than a
// second is counted once.
func TestDrift(t *testing.T) {
	d := newDrifting(1000)
	var wall, mono time.Duration
	for _, step := range []struct {
		what                 string
		wall, mono           time.Duration
		ahead, forward, back time.Duration
	}{
		{"nothing", 0, 0, 0, 0, 0},
		{"time", time.Hour, time.Hour, 0, 0, 0},
		{"a correction", 0, 900 * time.Millisecond, 0, 0, 0},
		{"one in the other direction", 1700 * time.Millisecond, 0, 0, 0, 0},
		{"corrections that add up", 300 * time.Millisecond, 0, 1100 * time.Millisecond, 1100 * time.Millisecond, 0},
		{"a suspension", time.Hour, 0, time.Hour + 1100*time.Millisecond, time.Hour + 1100*time.Millisecond, 0},
		{"the clock is set back", -time.Minute, 0, time.Hour + 1100*time.Millisecond, time.Hour + 1100*time.Millisecond, time.Minute},
		{"a suspension after that", 30 * time.Second, 0, time.Hour + 1100*time.Millisecond, time.Hour + 31100*time.Millisecond, time.Minute},
		{"the clock is set right", 30 * time.Second, 0, time.Hour + 1100*time.Millisecond, time.Hour + 61100*time.Millisecond, time.Minute},
		{"time again", time.Hour, time.Hour, time.Hour + 1100*time.Millisecond, time.Hour + 61100*time.Millisecond, time.Minute},
	} {
		wall, mono = wall+step.wall, mono+step.mono
		for range 2 {
			if got := d.observe(1000+int64(wall), mono); got != step.ahead {
				t.Errorf("%s: ahead by %v, want %v", step.what, got, step.ahead)
			}
			if got := d.jumps(); got != (Jumps{step.forward, step.back}) {
				t.Errorf("%s: %+v, want forward %v, back %v", step.what, got, step.forward, step.back)
			}
		}
	}
}

// TestTheMachinesClock: Wall returns the machine's time, with a monotonic reading.
func TestTheMachinesClock(t *testing.T) {
	before, at, after := time.Now(), Wall{}.Now(), time.Now()
	if at.Before(before) || at.After(after) {
		t.Errorf("%v is not between %v and %v", at, before, after)
	}
	if got := JumpsOf(Wall{}); got != (Jumps{}) {
		t.Logf("the machine's clock jumped during the test: %+v", got)
	}
}
