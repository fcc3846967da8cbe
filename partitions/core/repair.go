package core

import (
	"errors"
	"fmt"
	"math"

	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

// The repair of a halted partition.
//
//	P1  After a loss no offset that was used is used again with another content: before anything
//	    is forgotten, a claim states below which offset, and an owner appends barriers there
//	    before it serves. (reuse)

// Repair is one repair that an operator asked for.
type Repair struct {
	Choice materializer.Choice
	Survey materializer.Survey
	// Restored is what was written again, err why the partition is still halted.
	Restored materializer.Restored
	Err      error
	Done     func(*Repair)
}

// passBatch is how many offsets one append uses up. That many barriers take less than 100 KiB, for
// which any topic has room.
const passBatch = 1024

// ErrNotHalted: there is nothing to repair.
var ErrNotHalted = errors.New("the partition is not halted")

// RepairAsked begins a repair that an operator asked for.
func (c *Core) RepairAsked(r *Repair) {
	if c.state != Halted {
		r.Err = fmt.Errorf("%w: it is %s", ErrNotHalted, c.state)
		c.emit(ReportRepaired{r})
		return
	}
	c.incarnation++
	c.state, c.repair = Repairing, r
	c.emit(Survey{r})
}

// repairFailed goes back to where the repair began. The next repair finds what was written until
// then.
func (c *Core) repairFailed(why error) {
	r := c.repair
	c.incarnation++
	c.state, c.repair, c.sent, c.owner = Halted, nil, nil, record.Owner{}
	r.Err = why
	c.emit(ReportRepaired{r})
}

// Surveyed takes the findings of the repair, and a random nonce. Before anything is forgotten, a
// claim in the log states which offsets were used, so that every later owner knows it, even if this
// worker dies.
func (c *Core) Surveyed(incarnation uint64, s materializer.Survey, nonce uint64, err error) {
	if incarnation != c.incarnation || c.state != Repairing {
		return
	}
	c.repair.Survey = s
	switch {
	case err != nil:
		c.repairFailed(err)
		return
	case c.repair.Choice == materializer.Preview:
		c.repair.Restored = s.Restored
		c.repairFailed(nil)
		return
	case c.repair.Choice == materializer.Retry:
		c.emit(Resume{})
		return
	case s.Epoch == math.MaxUint64:
		c.repairFailed(errEpochsUsed)
		return
	}
	c.owner, c.ordinal, c.next = record.Owner{Epoch: s.Epoch + 1, Nonce: nonce}, 0, s.End
	c.sendRepair([]materializer.Entry{{Envelope: record.Envelope{
		Kind: record.Claim, Epoch: c.owner.Epoch, Nonce: c.owner.Nonce,
		Claim: &record.ClaimInfo{
			Worker: c.worker, ReadTo: record.Unsigned(s.End), PreviousEpoch: s.Owner.Epoch, PreviousNonce: s.Owner.Nonce,
			Floor: record.Unsigned(s.Floor), Lost: s.Lost,
			Layout: c.layout, Types: c.types,
		},
	}}})
}

func (c *Core) sendRepair(entries []materializer.Entry) {
	b := c.newBatch()
	b.Entries = append(b.Entries, entries...)
	b.SentAt, b.Incarnation = c.now.Mono, c.incarnation
	c.sent = append(c.sent, b)
	c.emit(Append{b})
}

// repairAcked takes the log's answer to the claim of a repair, or to a page of records that are
// written again.
func (c *Core) repairAcked() {
	if len(c.sent) == 0 || !c.sent[0].acked {
		return
	}
	b := c.sent[0]
	c.sent = nil
	r, claim := b.Result, b.Entries[0].Envelope.Kind == record.Claim
	switch {
	case r.Err != nil:
		c.repairFailed(fmt.Errorf("append: %w", r.Err))
	case r.Base < c.next:
		c.repairFailed(errWentBack(c.partition, r.Base, c.next))
	case !claim && (r.Base > c.next || r.Last-r.Base+1 != int64(len(b.Entries))):
		c.repairFailed(errors.New("another process writes to the partition: make sure that no other worker serves it, and repair it again"))
	default:
		c.next = r.Last + 1
		c.emit(Restore{Repair: c.repair, Until: c.next})
	}
}

// Restored reports that the log was folded up to the last append of the repair, who owns the
// partition there, and which records are to be written next.
func (c *Core) Restored(
	incarnation uint64, owner record.Owner, page []materializer.Entry, restored materializer.Restored, err error,
) {
	if incarnation != c.incarnation || c.state != Repairing {
		return
	}
	c.repair.Restored = restored
	switch {
	case err != nil:
		c.repairFailed(err)
	case owner != c.owner:
		c.repairFailed(errClaimLost)
	case len(page) == 0:
		c.emit(StartOver{c.repair})
	default:
		for i := range page {
			c.ordinal++
			e := &page[i].Envelope
			e.Epoch, e.Nonce, e.Ordinal = c.owner.Epoch, c.owner.Nonce, c.ordinal
		}
		c.sendRepair(page)
	}
}

// StartedOver reports that the partition's rows were dropped, or agree with the log after all: from
// here on the partition is like any other.
func (c *Core) StartedOver(err error) {
	if err != nil {
		c.repairFailed(err)
		return
	}
	r := c.repair
	c.incarnation++
	c.halted, c.repair, c.owner, c.goneSince, c.attempts = nil, nil, record.Owner{}, 0, 0
	c.state, c.lastFence = Standby, ""
	c.emit(ReportRepaired{r})
	if c.assigned {
		c.catchUp(false)
	} else {
		c.standBy()
	}
}

// pass uses offsets up, so that what others know by them (targets know effects, callers tokens)
// never becomes something else. Then it opens the partition for its callers.
func (c *Core) pass() {
	if c.next >= c.floor {
		c.serve()
		return
	}
	c.state = Passing
	b := c.newBatch()
	for range min(c.floor-c.next, passBatch) {
		b.Entries = append(b.Entries, c.control(record.Barrier))
	}
	b.SentAt, b.Incarnation = c.now.Mono, c.incarnation
	c.sent = append(c.sent, b)
	c.emit(Append{b})
}

// passed takes the log's answer to these barriers. A gap ends the ownership: no caller waits for an
// answer yet.
func (c *Core) passed() {
	if len(c.sent) == 0 || !c.sent[0].acked {
		return
	}
	b := c.sent[0]
	switch r := b.Result; {
	case r.Err != nil:
		c.fence("append to the log failed: "+r.Err.Error(), false)
	case r.Base == c.next && r.Last-r.Base+1 == int64(len(b.Entries)):
		c.commit(b)
		c.pass()
	case r.Base >= 0 && r.Base < c.next:
		c.Halt(errWentBack(c.partition, r.Base, c.next))
	default:
		c.fence("the log holds records of another writer", false)
	}
}
