package partitions

import (
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
)

// Status is what a partition says of itself.
type Status struct {
	Partition int32
	State     State
	Epoch     uint64
	// Next is the offset behind the last committed record; where the partition is followed, behind what is folded.
	Next int64
	// Followed: another worker owns the partition and this one keeps its image fresh, Lag records behind the log's end.
	Followed bool
	Lag      int64
	// Waiting commands are submitted and not answered, InFlight batches sent and not acknowledged.
	Waiting  int64
	InFlight int
	// Entities are active ones, ActiveBytes their memory.
	Entities    int
	ActiveBytes int
	Fold        materializer.FoldCounts
	// Effects are open ones in memory; MoreEffects: the store has others that are to be sent. Parked ones wait for an operator, and are
	// in the store only.
	Effects, Parked int
	// Refusals are refused effects that are kept for an operator.
	Refusals    int
	MoreEffects bool
	// Timers are those in memory; Overdue is how late the next one is. MoreTimers: the store has others.
	Timers     int
	MoreTimers bool
	Overdue    time.Duration
	// Halted is why it is halted, nil when it is not. Floor is the offset that an owner must reach before it serves, since a repair.
	Halted     error
	Floor      int64
	LastError  string
	LastFailed time.Time
	// Inspection is the last look through the log that the store was folded from, after the topic's settings were wrong.
	Inspection Inspection
}

// stats count what a partition did since the process began.
type stats struct {
	commands, failed, batches, records, activated, passivated, expired, alarms, delivered, fired, refused, refusalsDropped atomic.Uint64
	reads                                                                                                                  readStats
}

// Counts are the totals of one partition since the process began.
type Counts struct {
	Commands, Failed, Batches, Records, Activated, Passivated, Expired, Alarms uint64
	// Delivered counts attempts to deliver effects, Fired attempts to run timers.
	Delivered, Fired uint64
	// Refused counts refusals of effects by their targets, RefusalsDropped those that were kept and had to make room.
	Refused, RefusalsDropped uint64
	// Reads were answered from the image of a followed partition, by consistency.
	Reads [entities.AtLeast + 1]uint64
}

// FollowerReads is how many reads were answered from the image of a followed partition.
func (c Counts) FollowerReads() uint64 {
	sum := uint64(0)
	for _, n := range c.Reads {
		sum += n
	}
	return sum
}

func (s *stats) counts() Counts {
	c := Counts{
		Commands: s.commands.Load(), Failed: s.failed.Load(), Batches: s.batches.Load(), Records: s.records.Load(),
		Activated: s.activated.Load(), Passivated: s.passivated.Load(), Expired: s.expired.Load(), Alarms: s.alarms.Load(),
		Delivered: s.delivered.Load(), Fired: s.fired.Load(),
		Refused: s.refused.Load(), RefusalsDropped: s.refusalsDropped.Load(),
	}
	for i := range s.reads {
		c.Reads[i] = s.reads[i].Load()
	}
	return c
}

// Status returns the partition's last published status.
func (p *Partition) Status() Status {
	s := p.status.Load().Status
	s.Waiting = p.waiting.Load()
	if i := p.inspection.Load(); i != nil {
		s.Inspection = *i
	}
	if i := p.image.Load(); i != nil {
		s.Followed, s.Next, s.Lag = true, i.next, max(i.end-i.next, 0)
	}
	return s
}

// Counts returns the partition's totals.
func (p *Partition) Counts() Counts { return p.stats.counts() }

// publish makes the present status visible, when a step was taken or a tick has passed since the last time.
func (p *Partition) publish() {
	was := p.status.Load()
	now := p.clock.Now()
	c := p.core
	if was.State == c.state && now.Sub(was.published) < tick && was.LastError == p.lastError {
		return
	}
	p.show()
}

// show makes the present status visible.
func (p *Partition) show() {
	was, c := p.status.Load(), p.core
	if c.state == Halted && was.State != Halted {
		p.failed(c.halted)
	}
	s := &published{published: p.clock.Now(), Status: Status{
		Partition: p.id, State: c.state, Epoch: c.owner.Epoch, Next: c.next, InFlight: len(c.sent),
		Entities: len(c.entities), ActiveBytes: c.active, LastError: p.lastError, LastFailed: p.lastFailed, Halted: c.halted, Floor: c.floor,
	}}
	s.Refusals = len(c.outbox.kept)
	s.Effects, s.Parked, s.MoreEffects = len(c.outbox.byOffset), c.outbox.parked, c.outbox.more || c.outbox.left
	s.Timers, s.MoreTimers, s.Overdue = c.timers.loaded(), c.timers.more || c.timers.left(), c.timers.overdue(c.now.Log)
	if p.fold != nil {
		s.Fold = p.fold.Counts()
	}
	p.status.Store(s)
	if was.State != c.state && p.hooks.StateChanged != nil {
		why := ""
		if (c.state < was.State && c.state != Active) || c.state == Halted {
			why = c.lastFence
		}
		p.hooks.StateChanged(p.id, was.State, c.state, why)
	}
}

type published struct {
	Status
	published time.Time
}
