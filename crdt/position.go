package crdt

import (
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/internal/mutation"
)

// ErrRegressed: the log ends before what was read. The replicated entities of the partition halt.
var ErrRegressed = errors.New("log went backwards")

// Position is how far a holder has read a partition, and whether that is all of it. Only a complete
// holder may serve, write deltas and snapshots, and judge what is void.
type Position struct {
	// Lag is the topic's min.compaction.lag.ms: nothing younger is compacted away.
	Lag int64

	next     int64
	complete bool
	halted   bool
	// millis is the time of the newest record that was read; stood and stoodMillis are the wall
	// clock and millis when the holder was at the end.
	millis, stood, stoodMillis int64
}

// Next is the offset at which reading goes on.
func (p *Position) Next() int64 { return p.next }

// Start sets where reading goes on, from the store. The holder is not complete.
func (p *Position) Start(next int64) { *p = Position{Lag: p.Lag, next: next} }

// Read notes the record at an offset, with the time that the log gave it. A missing offset means
// compaction, because nothing on the topic is transactional: what stood there may have been covered
// by a snapshot that is still to come.
func (p *Position) Read(offset, millis int64) {
	p.gap(offset)
	p.next, p.millis = offset+1, max(p.millis, millis)
}

// Pass notes that the offsets below next have no record.
func (p *Position) Pass(next int64) {
	p.gap(next)
	p.next = max(p.next, next)
}

func (p *Position) gap(offset int64) {
	if offset != p.next && !mutation.On(mutation.DeltaGap) {
		p.complete = false
	}
}

// Fetched notes the end of the log as a fetch returned it, after its records were noted, with the
// wall clock before the fetch. The holder is complete if it stands at that end. The error is
// ErrRegressed; then it is never complete again.
func (p *Position) Fetched(end, nowMillis int64) error {
	if end < p.next && !mutation.On(mutation.DeltaRegress) {
		p.complete, p.halted = false, true
		return fmt.Errorf("%w: it ends at offset %d, and was read up to %d; run millrace repair for this partition",
			ErrRegressed, end, p.next)
	}
	if !p.halted && (p.next >= end || mutation.On(mutation.DeltaEnd)) {
		p.complete, p.stood, p.stoodMillis = true, nowMillis, p.millis
	}
	return nil
}

// Complete reports whether the holder has read everything without a gap since it stood at the end.
// It has not if that was more than half of Lag ago, by the wall clock or by the times of the
// records: what it did not read yet may be gone by the time that it does.
func (p *Position) Complete(nowMillis int64) bool {
	late := nowMillis-p.stood >= p.Lag/2 || p.millis-p.stoodMillis >= p.Lag/2
	if late && !mutation.On(mutation.DeltaLag) {
		p.complete = false
	}
	return p.complete
}

// Lapse ends completeness, as when a record cannot be folded.
func (p *Position) Lapse() { p.complete = false }
