package partitions

import (
	"time"

	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/partitions/core"
)

// coreTime is the time for a partition's core.
type coreTime struct {
	clock clock.Clock
	// began is when Now.Mono was 0.
	began time.Time
	// claim is the log time of the own claim, readBack when it was read back.
	claim    int64
	readBack time.Time
	// jumped is how far the machine's clock had jumped at the last check.
	jumped time.Duration
}

// start starts the clock of Now.Mono.
func (t *coreTime) start() { t.began, t.jumped = t.clock.Now(), clock.JumpsOf(t.clock).Forward }

// owned lets the log's time run on from the newest log time that was folded: that of the own claim.
func (t *coreTime) owned(logTime int64) { t.claim, t.readBack = logTime, t.clock.Now() }

// now returns the time.
func (t *coreTime) now() core.Now {
	now := t.clock.Now()
	return core.Now{Mono: now.Sub(t.began), Log: t.claim + int64(now.Sub(t.readBack))}
}

// at returns the wall time of a moment of the core.
func (t *coreTime) at(mono time.Duration) time.Time { return t.began.Add(mono) }

// jump returns by how much the machine's clock went on without this process since the last check,
// as after a suspension.
func (t *coreTime) jump() time.Duration {
	forward := clock.JumpsOf(t.clock).Forward
	if forward == t.jumped || mutation.On(mutation.Suspend) {
		return 0
	}
	by := forward - t.jumped
	t.jumped = forward
	return by
}
