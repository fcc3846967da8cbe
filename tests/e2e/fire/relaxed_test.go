package fire

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// This file is about looks that may be answered with an earlier state than the newest.

// freshness is which state a look asks for.
type freshness uint8

const (
	// newest is linearizable.
	newest freshness = iota
	// atLeast asks for a state that includes all that an earlier answer is of.
	atLeast
	// bounded asks for one that was the newest not longer ago than a bound.
	bounded
	// eventual asks for any that there ever was.
	eventual
)

// bounds are those that bounded looks promise.
var bounds = []time.Duration{20 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second}

// relax chooses which state a look asks for; history is what the entity was asked before.
func (c *command) relax(rng *rand.Rand, history []*command) {
	switch rng.IntN(3) {
	case 0:
		for _, h := range slices.Backward(history) { // mostly a fresh one
			if h.fate == done && h.token != "" && rng.IntN(2) == 0 {
				c.freshness, c.after = atLeast, h
				return
			}
		}
	case 1:
		c.freshness, c.bound = bounded, bounds[rng.IntN(len(bounds))]
		return
	}
	c.freshness = eventual
}

// headers are the request headers for the state that a look asks for.
func (c *command) headers() []string {
	switch c.freshness {
	case atLeast:
		return []string{"millrace-min-token", c.after.token}
	case bounded:
		return []string{"millrace-max-staleness", c.bound.String()}
	case eventual:
		return []string{"millrace-consistency", "eventual"}
	case newest:
	}
	return nil
}

// asked describes, for a failure, which state a look asked for.
func (c *command) asked() string {
	switch c.freshness {
	case atLeast:
		return fmt.Sprintf(" at least what [%d..%d us] showed", c.after.called/1000, c.after.returned/1000)
	case bounded:
		return fmt.Sprintf(" not older than %v", c.bound)
	case eventual:
		return " at anything"
	case newest:
	}
	return ""
}

// since is the earliest moment whose newest state a command may be answered with.
func (c *command) since() int64 {
	switch c.freshness {
	case atLeast:
		return c.after.since()
	case bounded:
		return c.called - int64(c.bound)
	case eventual:
		return 0
	case newest:
	}
	return c.called
}

// window is when what a look has shown can have been the newest: from when all of it can have
// happened, to when something must have happened that it does not show. Porcupine need not try what
// lies outside.
func (d *diagnosis) window(c *command) (from, to int64) {
	from, to = c.since(), c.returned
	for slot := range slots {
		g := d.gave[slot]
		switch {
		case g == nil:
		case c.showed.set.has(slot):
			from = max(from, g.called)
			for _, t := range d.takes[slot] {
				if t.fate == done {
					to = min(to, t.returned)
				}
			}
		case g.fate == done && !d.mayBeTaken(c, slot):
			to = min(to, g.returned)
		}
	}
	for _, s := range d.shuts {
		if s.fate == done && !c.showed.closed {
			to = min(to, s.returned)
		}
	}
	return from, to
}

// mustHaveBeen: what a look shows was the newest state at some moment, and has all that its token
// stands for.
func (d *diagnosis) mustHaveBeen(c *command) {
	if from, to := d.window(c); from > to {
		d.name(disorder, "what %v was never there at once: the last of it came at %d us, and at %d us something was there that is missing", c, from/1000, to/1000)
	}
	if c.freshness != atLeast {
		return
	}
	saw := c.after.showed
	for slot := range slots {
		switch {
		case saw.set.has(slot) && !c.showed.set.has(slot) && !d.mayBeTaken(c, slot):
			d.name(before, "%v lacks %d", c, slot)
		case c.after.kind == take && c.after.slot == slot && c.showed.set.has(slot):
			d.name(before, "%v has %d again", c, slot)
		}
	}
	if saw.closed && !c.showed.closed {
		d.name(before, "%v is open again", c)
	}
}

// age is how old the answer of a bounded or eventual look was at least, when it was asked for:
// since when something was acknowledged that it does not show. Eventual looks have no bound.
type age struct{ bound, measured time.Duration }

// ages are those of a history's bounded and eventual looks.
func ages(history []*command) []age {
	d := diagnose("", history)
	var all []age
	for _, c := range history {
		if (c.freshness == bounded || c.freshness == eventual) && c.fate == done {
			_, to := d.window(c)
			all = append(all, age{c.bound, time.Duration(max(0, c.called-to))})
		}
	}
	return all
}
