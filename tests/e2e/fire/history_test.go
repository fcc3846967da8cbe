package fire

import (
	"fmt"
	"strings"
	"time"
)

// slots is how many things one entity can be given at most. Each is given by one command, so that a
// look at it shows which commands took effect.
const slots = 192

// set is a set of slots. Sets are equal when == says so.
type set [slots / 64]uint64

func (s set) has(slot int) bool { return s[slot/64]>>(slot%64)&1 == 1 }

func (s set) with(slot int) set {
	s[slot/64] |= 1 << (slot % 64)
	return s
}

func (s set) without(slot int) set {
	s[slot/64] &^= 1 << (slot % 64)
	return s
}

// String lists the slots.
func (s set) String() string {
	var all []string
	for slot := range slots {
		if s.has(slot) {
			all = append(all, fmt.Sprint(slot))
		}
	}
	return "{" + strings.Join(all, " ") + "}"
}

// contents is what an entity shows of itself.
type contents struct {
	set    set
	closed bool
	// odd is what no order of commands can lead to: first what was given twice, then what was never
	// given; "" for nothing.
	twice, phantom string
}

// kind is what a command asks for.
type kind uint8

const (
	give kind = iota
	take
	shut
	look
)

func (k kind) String() string { return [...]string{"give", "take", "shut", "look"}[k] }

// fate is what is known of a command in the end.
type fate uint8

const (
	// unknown: it may have happened, or may happen yet.
	unknown fate = iota
	// done: it happened, and what it showed is known.
	done
	// refused: the function refused it.
	refused
	// never: the worker answered that it did not happen, and will not.
	never
)

func (f fate) String() string { return [...]string{"unknown", "done", "refused", "not applied"}[f] }

// command is what a client asked of an entity, and what it knows.
type command struct {
	kind kind
	// slot is what is given or taken.
	slot int
	// sleep is how many milliseconds a script takes over it.
	sleep int
	// id is its command id, empty for none.
	id string
	// freshness is which state a look asks for: with after, one not older than an answer's; with
	// bound, not older than that.
	freshness freshness
	after     *command
	bound     time.Duration
	// called and returned are nanoseconds of one monotonic clock.
	called, returned int64
	fate             fate
	// showed is what the answer of a command that is done showed; missing: it was refused because
	// there is nothing to take.
	showed  contents
	missing bool
	// token is the answer's token of its state.
	token string
	// last marks the look after which there is no command to the entity.
	last bool
}

// String returns the command as a failure shows it.
func (c *command) String() string {
	text := fmt.Sprintf("[%d..%d us] %s%s", c.called/1000, c.returned/1000, c.kind, c.asked())
	if c.kind == give || c.kind == take {
		text += fmt.Sprintf(" %d", c.slot)
	}
	if c.id != "" {
		text += " id " + c.id
	}
	text += ": " + c.fate.String()
	if c.fate == done {
		text += fmt.Sprintf(", showed %v", c.showed.set)
		if c.showed.closed {
			text += " shut"
		}
		text += c.showed.twice + c.showed.phantom
	}
	if c.missing {
		text += ", nothing to take"
	}
	return text
}

// changes reports whether a command changes anything when it takes effect.
func (c *command) changes() bool { return c.kind != look }

// happened reports whether a command may have taken effect.
func (c *command) happened() bool { return c.fate == done || c.fate == unknown }
