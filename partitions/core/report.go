package core

import "time"

// Report is what a core says of its partition.
type Report struct {
	State State
	Epoch uint64
	// Next is the offset behind the last committed record.
	Next int64
	// InFlight batches are sent and not acknowledged.
	InFlight int
	// Entities are active ones, ActiveBytes their memory.
	Entities    int
	ActiveBytes int
	// Effects are open ones in memory; MoreEffects: the store has others that are to be sent.
	// Parked ones wait for an operator, and are in the store only.
	Effects, Parked int
	MoreEffects     bool
	// Refusals are refused effects that are kept for an operator.
	Refusals int
	// Timers are those in memory; Overdue is how late the next one is. MoreTimers: the store has
	// others.
	Timers     int
	MoreTimers bool
	Overdue    time.Duration
	// Halted is why it is halted, nil when it is not. Floor is the offset that an owner must reach
	// before it serves, since a repair.
	Halted error
	Floor  int64
}

// Report describes the partition as it is now.
func (c *Core) Report() Report {
	o, t := &c.outbox, &c.timers
	return Report{
		State: c.state, Epoch: c.owner.Epoch, Next: c.next, InFlight: len(c.sent), Entities: len(c.entities), ActiveBytes: c.active,
		Effects: len(o.byOffset), Parked: o.parked, MoreEffects: o.more || o.left, Refusals: len(o.kept),
		Timers: t.loaded(), MoreTimers: t.more || t.left(), Overdue: t.overdue(c.now.Log), Halted: c.halted, Floor: c.floor,
	}
}
