package entities

import (
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/internal/plural"
)

// Layout is everything that determines where in a journal an entity's records are. All records of a
// journal are written under one layout: every claim and every store contains it, and a different
// one is refused.
type Layout struct {
	App        string
	Generation uint16
	// Partitions is how many partitions hold the data: a power of two up to Slots. The topic may
	// have more; those hold nothing.
	Partitions int32
	Slots      int32
	// Hash names the function from an entity id to its slot.
	Hash string
}

// Generation is the generation of the journals that this version writes.
const Generation = 1

// slotHash is the hash of Slot.
const slotHash = "murmur2"

// ErrLayout: something was written, or is routed, under another layout than that of this process.
var ErrLayout = errors.New("the layout differs")

// LayoutOf returns the layout of the journal of an app with that many partitions.
func LayoutOf(app string, partitions int32) Layout {
	return Layout{App: app, Generation: Generation, Partitions: partitions, Slots: Slots, Hash: slotHash}
}

// Check returns an error if entities cannot be spread over that many partitions.
func (l Layout) Check() error {
	if l.Partitions < 1 || l.Partitions > Slots || l.Partitions&(l.Partitions-1) != 0 {
		return fmt.Errorf("%s: a journal needs a power of two, up to %d", plural.Of(l.Partitions, "partition"), Slots)
	}
	return nil
}

// Has reports whether there is a partition of that number.
func (l Layout) Has(partition int32) bool { return partition >= 0 && partition < l.Partitions }

// String returns the layout as shown to people.
func (l Layout) String() string {
	return fmt.Sprintf("app %q, generation %d, %s, %d slots, hash %q", l.App, l.Generation,
		plural.Of(l.Partitions, "partition"), l.Slots, l.Hash)
}

// Differs compares the layout of this process with another one; what names the owner of that one.
// The error names both, and the remedy.
func (l Layout) Differs(other Layout, what string) error {
	if l == other {
		return nil
	}
	alike := other
	alike.Partitions = l.Partitions
	if l == alike {
		return fmt.Errorf("%w: %s is for %s, this process uses %d: nothing is lost, but entities would be looked up in the wrong one; "+
			"if %d is right, start this process with --partitions %d", ErrLayout, what,
			plural.Of(other.Partitions, "partition"), l.Partitions, other.Partitions, other.Partitions)
	}
	return fmt.Errorf("%w: %s is for %s; this process uses %s: start it with the same settings and version", ErrLayout,
		what, other, l)
}
