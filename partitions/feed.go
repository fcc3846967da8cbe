package partitions

import (
	"cmp"
	"errors"

	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/core"
	"github.com/millrace-io/millrace/partitions/replica"
)

// This file opens and ends the feed of a partition that this worker owns. Package replica does so
// for one that it follows.

// Replica returns the image of the partition on this worker: role, position, feed, and how current
// it is.
func (p *Partition) Replica() *replica.Replica { return p.replica }

// owns reports whether the store gets what the owner appends in this state.
func owns(s core.State) bool {
	return s == core.Active || s == core.Suspect || s == core.Releasing || s == core.Passing
}

// openFeed opens the feed if the claim that was read back has made this worker the owner.
func (p *Partition) openFeed(was core.State) {
	if was == core.Claiming && owns(p.core.State()) {
		p.tap = p.replica.Feed().Open(p.fold, materializer.Owning)
	}
}

// published shows the consumers of the feed what the store took or, with err, that it did not.
func (p *Partition) published(err error) {
	switch {
	case p.tap == nil:
	case err != nil:
		p.tap.End(materializer.FeedFailed, err)
		p.tap = nil
	default:
		p.tap.Publish()
	}
}

// endFeed ends the feed if this worker has ceased to own the partition, or if the partition halts
// while it is followed. It comes before the effects of the new state: one of them may follow the
// partition, and open the feed again.
func (p *Partition) endFeed() {
	state := p.core.State()
	halted := state == core.Halted || state == core.Repairing
	if owns(state) || (p.tap == nil && (!halted || p.replica.Role() == materializer.NoRole)) {
		return
	}
	reason, why := materializer.FeedMoved, errors.New(cmp.Or(p.core.LastFence(), "the partition was released"))
	if halted {
		reason, why = materializer.FeedHalted, p.core.Report().Halted
	}
	if p.tap == nil {
		p.replica.Feed().End(reason, why)
		return
	}
	p.tap.End(reason, why)
	p.tap = nil
}
