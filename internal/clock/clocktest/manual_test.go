package clocktest_test

import (
	"testing"
	"time"

	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/clock/clocktest"
)

// TestASuspendedManualClock: a suspension ends no wait, and counts.
func TestASuspendedManualClock(t *testing.T) {
	m := clocktest.NewManual(time.Unix(0, 0))
	woken, stop := m.After(time.Minute)
	defer stop()
	m.Suspend(time.Hour)
	m.Advance(time.Minute - 1)
	select {
	case <-woken:
		t.Error("woken in a suspension")
	default:
	}
	m.Advance(1)
	<-woken
	if got := clock.JumpsOf(m); got.Forward != time.Hour || m.Now() != time.Unix(0, 0).Add(time.Hour+time.Minute) {
		t.Errorf("%+v at %v", got, m.Now())
	}
}
