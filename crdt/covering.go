package crdt

import "github.com/millrace-io/millrace/internal/mutation"

// Covering knows the snapshots of one entity that this holder wrote, and which of them it has read
// back. Deltas at or below such a one, and snapshots below it, may be deleted from the log; the
// snapshot itself stays, also when it is empty.
type Covering struct {
	written map[snapshotKey]map[int]bool
	through int64
	any     bool
}

// Wrote notes a snapshot before its parts are sent.
func (c *Covering) Wrote(parts []*Part) {
	if c.written == nil {
		c.written = map[snapshotKey]map[int]bool{}
	}
	c.written[snapshotKey{parts[0].Through, parts[0].Nonce}] = map[int]bool{}
	if mutation.On(mutation.DeltaReadBack) {
		c.covers(parts[0].Through)
	}
}

// Read notes a part of any snapshot as it comes from the log.
func (c *Covering) Read(p *Part) {
	key := snapshotKey{p.Through, p.Nonce}
	read, own := c.written[key]
	if !own {
		return
	}
	if read[p.Index] = true; len(read) == p.Count {
		delete(c.written, key)
		c.covers(p.Through)
	}
}

func (c *Covering) covers(through int64) {
	if !c.any || through > c.through {
		c.through, c.any = through, true
	}
}

// Through returns the offset through which everything of the entity may be deleted; false while no
// snapshot was read back.
func (c *Covering) Through() (int64, bool) { return c.through, c.any }
