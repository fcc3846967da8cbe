package core

import "time"

// Report describes a partition for status and metrics.
type Report struct {
	State State
	Epoch uint64
	// Next is the offset after the last committed record.
	Next int64
	// InFlight batches are sent and not acknowledged.
	InFlight int
	// Entities counts active ones, ActiveBytes is their memory.
	Entities    int
	ActiveBytes int
	// Effects counts open ones in memory; MoreEffects: the store has others that are to be sent.
	// Parked ones wait for an operator, and are in the store only.
	Effects, Parked int
	MoreEffects     bool
	// Refusals counts refused effects that are kept for an operator.
	Refusals int
	// Timers counts those in memory; Overdue is how late the next one is. MoreTimers: the store has
	// others.
	Timers     int
	MoreTimers bool
	Overdue    time.Duration
	// Halted is why the partition is halted, nil if it is not. Floor is the offset that an owner must
	// reach before it serves, after a repair.
	Halted error
	Floor  int64
}

// Report returns the present state of the partition.
func (c *Core) Report() Report {
	o, t := &c.outbox, &c.timers
	return Report{
		State: c.state, Epoch: c.owner.Epoch, Next: c.next, InFlight: len(c.sent),
		Entities: len(c.entities), ActiveBytes: c.active,
		Effects: len(o.byOffset), Parked: o.parked, MoreEffects: o.more || o.left, Refusals: len(o.kept),
		Timers: t.loaded(), MoreTimers: t.more || t.left(), Overdue: t.overdue(c.now.Log), Halted: c.halted, Floor: c.floor,
	}
}
