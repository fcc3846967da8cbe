package core

import (
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
)

// How an ownership ends in order: intake stops, what is decided is committed, and a release record
// lets the successor go on at once. Skipping it costs time, never safety.

// Withheld sets why the partition is about to be revoked although the group assigns it to this
// worker.
func (c *Core) Withheld(why error) { c.withheld = why.Error() }

// Revoked asks for an orderly release of the partition.
func (c *Core) Revoked() {
	if !c.assigned {
		if !c.releasing { // otherwise the end of that release reports it
			c.emit(ReportReleased{})
		}
		return
	}
	c.assigned = false
	switch c.state {
	case Active, Suspect:
		c.beginRelease()
	case Standby, Halted, Repairing:
		c.emit(ReportReleased{})
	case Passing:
		c.releasing = true
		c.fence("it was revoked", false)
	case CatchingUp, Claiming:
		c.incarnation++
		c.owner = record.Owner{} // of a claim that is given up
		c.lastFence = "it was revoked"
		c.standBy()
		c.refuseAll(c.takeWaiting(), entities.PartitionMoved(c.partition, c.lastFence))
		c.emit(ReportReleased{})
	case Releasing:
	}
}

// beginRelease stops intake and lets what is decided finish.
func (c *Core) beginRelease() {
	c.releasing = true
	if c.state == Suspect {
		c.fence("it was revoked while a gap was being read", false)
		return
	}
	c.state = Releasing
	c.releaseBy = c.now.Mono + c.limits.ReleaseTimeout
	for e := c.all.first; e != nil; e = e.next {
		c.refuseAll(e.queue, entities.PartitionMoved(c.partition, "it is being released"))
		e.queue = nil
	}
	c.endRelease()
}

// endRelease ends an orderly release when nothing is undecided or uncommitted.
func (c *Core) endRelease() {
	if c.state != Releasing || len(c.sent) > 0 || len(c.full) > 0 || !c.open.empty() {
		return
	}
	for e := c.all.first; e != nil; e = e.next {
		if e.running != nil || e.opening {
			return
		}
	}
	b := c.newBatch()
	b.Entries = append(b.Entries, c.control(record.Release))
	b.Incarnation = unanswered
	c.emit(Append{b})
	c.fence("it was released", true)
	c.lastFence = "" // nothing went wrong
}

// unanswered is the incarnation of a batch whose acknowledgement changes nothing.
const unanswered = ^uint64(0)
