package fire

import (
	"fmt"
	"math"
	"time"

	"github.com/anishathalye/porcupine"
)

// The promises, by the names that they have in the reports.
const (
	lostWrite  = "acknowledged lost"   // V1
	twice      = "applied twice"       // V2
	phantom    = "never written"       // V2
	stale      = "stale answer"        // V3
	beyond     = "beyond its bound"    // a bounded read
	before     = "before its token"    // a read of at least some state
	disorder   = "order of answers"    // V3
	notOwner   = "not by the owner"    // V8
	falseNever = "false not applied"   // V10
	otherBytes = "other answer"        // a repeat is answered with what the first attempt got
	heldUp     = "held up"             // what others do delays a call by a bound at most
	silent     = "halted in silence"   // a partition that is not served says what was lost
	tooLong    = "too long to check"   // a fault of the test's size
	unexpected = "unexpected answer"   // an error that no caller should see
	unhealed   = "not served again"    // V9
	served     = "served after a halt" // the topic is another one
)

// violation is a broken promise.
type violation struct{ promise, entity, text string }

func (v violation) String() string { return v.promise + ": " + v.entity + ": " + v.text }

// state is an entity under commands.
type state struct {
	set    set
	closed bool
}

// step returns the state of an entity after a command takes effect.
func (s state) step(c *command) state {
	switch {
	case s.closed:
	case c.kind == give:
		s.set = s.set.with(c.slot)
	case c.kind == take:
		s.set = s.set.without(c.slot)
	case c.kind == shut:
		s.closed = true
	}
	return s
}

// model is one entity. A command whose outcome is unknown may take effect at any time, also after
// everything else.
var model = porcupine.Model{
	Init: func() any { return state{} },
	Step: func(before, input, _ any) (bool, any) {
		s, c := before.(state), input.(*command) //nolint:forcetypeassert // the model's own
		after := s.step(c)
		switch c.fate {
		case unknown:
			return true, after
		case refused:
			if c.missing {
				return !s.closed && c.kind == take && !s.set.has(c.slot), s
			}
			return s.closed && c.kind != look, s
		case done:
			possible := c.kind == look || !s.closed && (c.kind != take || s.set.has(c.slot))
			return possible && c.showed == contents{set: after.set, closed: after.closed}, after
		case never:
		}
		return false, s
	},
	DescribeOperation: func(input, _ any) string { return fmt.Sprint(input) },
}

// patience bounds the search for an order of one entity's commands.
const patience = 20 * time.Second

// check returns the promises that one entity's history breaks. It looks for violations that have a
// name, and then searches for an order.
func check(entity string, history []*command) []violation {
	d := diagnose(entity, history)
	d.run()
	if len(d.found) > 0 {
		return d.found
	}
	var ops []porcupine.Operation
	for i, c := range history {
		if c.fate == never || c.fate == unknown && !c.changes() {
			continue
		}
		returned := c.returned
		if c.fate == unknown {
			returned = math.MaxInt64
		}
		called := c.called
		if c.freshness != newest {
			called, returned = d.window(c) // it may be of an earlier state
		}
		ops = append(ops, porcupine.Operation{ClientId: i, Input: c, Call: called, Return: returned})
	}
	switch porcupine.CheckOperationsTimeout(model, ops, patience) {
	case porcupine.Ok:
	case porcupine.Unknown:
		d.name(tooLong, "%d commands could not be ordered within %v", len(ops), patience)
	case porcupine.Illegal:
		d.name(disorder, "the answers are not those of any order of the commands:%s", d.story())
	}
	return d.found
}

// diagnosis looks for broken promises that have a name.
type diagnosis struct {
	entity  string
	history []*command
	gave    [slots]*command
	// takes are the commands that may have taken something out.
	takes [slots][]*command
	shuts []*command
	found []violation
}

func diagnose(entity string, history []*command) *diagnosis {
	d := &diagnosis{entity: entity, history: history}
	for _, c := range history {
		switch c.kind {
		case give:
			d.gave[c.slot] = c
		case take:
			d.takes[c.slot] = append(d.takes[c.slot], c)
		case shut:
			d.shuts = append(d.shuts, c)
		case look:
		}
	}
	return d
}

func (d *diagnosis) run() {
	for _, c := range d.history {
		if c.fate == done {
			d.look(c)
		}
		if c.fate == refused && c.missing {
			d.mustNotMiss(c, c.slot)
		}
	}
}

// look compares what an answer showed with what its caller can expect.
func (d *diagnosis) look(c *command) {
	if c.showed.twice != "" {
		d.name(twice, "%v", c)
	}
	if c.showed.phantom != "" {
		d.name(phantom, "%v", c)
	}
	named := len(d.found)
	for slot := range slots {
		if c.showed.set.has(slot) {
			d.mustNotShow(c, slot)
		} else {
			d.mustNotMiss(c, slot)
		}
	}
	if c.freshness != newest && len(d.found) == named {
		d.mustHaveBeen(c)
	}
}

// mustNotShow: what is shown was given, by a command that may have taken effect, and was not taken
// out before.
func (d *diagnosis) mustNotShow(c *command, slot int) {
	g := d.gave[slot]
	switch {
	case g == nil || g.called > c.returned:
		d.name(phantom, "%v: %d was never given", c, slot)
	case !g.happened():
		d.name(falseNever, "%v, and then %v", g, c)
	default:
		for _, t := range d.takes[slot] {
			if t.fate == done && t.returned < c.since() {
				d.absent(c, t)
			}
		}
	}
}

// mustNotMiss: what was given before is shown, unless it may have been taken out.
func (d *diagnosis) mustNotMiss(c *command, slot int) {
	g := d.gave[slot]
	if g == nil || g.fate != done || g.returned >= c.since() || d.mayBeTaken(c, slot) {
		return
	}
	for _, t := range d.takes[slot] {
		if t.fate == never && t.called < c.returned {
			d.name(falseNever, "%v, then %v, and then %v", g, t, c)
			return
		}
	}
	d.absent(c, g)
}

// mayBeTaken reports whether something may be missing from what c saw because another command has
// taken it out, or c itself.
func (d *diagnosis) mayBeTaken(c *command, slot int) bool {
	for _, t := range d.takes[slot] {
		if t != c && t.happened() && t.called < c.returned {
			return true
		}
	}
	return c.kind == take && c.slot == slot && c.fate == done
}

// absent: the effect of an acknowledged command is missing from what c saw.
func (d *diagnosis) absent(c, acknowledged *command) {
	promise := stale
	switch {
	case c.last:
		promise = lostWrite
	case c.freshness == atLeast:
		promise = before
	case c.freshness == bounded:
		promise = beyond
	}
	d.name(promise, "%v, and then %v", acknowledged, c)
}

func (d *diagnosis) name(promise, format string, args ...any) {
	const most = 3 // the rest is more of the same
	if len(d.found) < most {
		d.found = append(d.found, violation{promise, d.entity, fmt.Sprintf(format, args...)})
	}
}

// story is the whole history, a line for each command.
func (d *diagnosis) story() string {
	text := ""
	for _, c := range d.history {
		text += "\n    " + c.String()
	}
	return text
}
