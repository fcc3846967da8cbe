package partitions

import (
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/core"
	"github.com/millrace-io/millrace/partitions/repair"
)

// Status is the state of a partition. If it is followed, Next is the offset after what is folded.
type Status struct {
	core.Report

	Partition int32
	// Followed: another worker owns the partition and this one keeps its image fresh, Lag records
	// behind the log's end.
	Followed bool
	Lag      int64
	// Waiting counts commands that are submitted and not answered.
	Waiting    int64
	Fold       materializer.FoldCounts
	LastError  string
	LastFailed time.Time
	// Inspection is the last inspection of the log that the store was folded from, after the topic's
	// settings were wrong.
	Inspection repair.Inspection
}

// stats counts the work of a partition since the process began.
type stats struct {
	commands, failed, batches, records, activated, passivated, expired, alarms atomic.Uint64
	delivered, fired, refused, refusalsDropped                                 atomic.Uint64
	// reads were answered from the image of a followed partition, by consistency.
	reads [entities.AtLeast + 1]atomic.Uint64
}

// Counts are the totals of one partition since the process began.
type Counts struct {
	Commands, Failed, Batches, Records, Activated, Passivated, Expired, Alarms uint64
	// Delivered counts attempts to deliver effects, Fired attempts to run timers.
	Delivered, Fired uint64
	// Refused counts refusals of effects by their targets, RefusalsDropped those that were kept and
	// later dropped to make room.
	Refused, RefusalsDropped uint64
	// Reads were answered from the image of a followed partition, by consistency.
	Reads [entities.AtLeast + 1]uint64
}

// FollowerReads returns how many reads were answered from the image of a followed partition.
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
	s.Inspection = p.inspector.Last()
	if at := p.replica.Position(); at != nil {
		s.Followed, s.Next, s.Lag = true, at.Next, at.Lag()
	}
	return s
}

// Counts returns the partition's totals.
func (p *Partition) Counts() Counts { return p.stats.counts() }

// publish publishes the present status, if a step was taken or a tick has passed since the last
// time.
func (p *Partition) publish() {
	was := p.status.Load()
	if now := p.clock.Now(); was.State == p.core.State() && now.Sub(was.published) < tick && was.LastError == p.last.what {
		return
	}
	p.show()
}

// show publishes the present status.
func (p *Partition) show() {
	was, now := p.status.Load(), p.core.Report()
	if now.State == core.Halted && was.State != core.Halted {
		p.failed(now.Halted)
	}
	s := &published{
		published: p.clock.Now(),
		Status:    Status{Partition: p.id, Report: now, LastError: p.last.what, LastFailed: p.last.when},
	}
	if p.fold != nil {
		s.Fold = p.fold.Counts()
	}
	p.status.Store(s)
	if was.State != now.State && p.hooks.StateChanged != nil {
		why := ""
		if (now.State < was.State && now.State != core.Active) || now.State == core.Halted {
			why = p.core.LastFence()
		}
		p.hooks.StateChanged(p.id, was.State, now.State, why)
	}
}

type published struct {
	Status
	published time.Time
}
