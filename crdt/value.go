package crdt

import "slices"

// View reads a value: the entity, or what lies under a key of a map. It is valid until the state
// changes. The methods of a type that the value does not have return what an empty value has.
type View struct {
	v *node
}

// Root returns the value of the entity.
func (s *State) Root() View { return View{&s.root} }

// Type returns the type of the value, 0 for that of an entity before its first change.
func (w View) Type() Type { return w.v.typ }

// Count returns the value of a counter. Removals of keys can take a sum beyond the range of int64;
// then it is the end of the range.
func (w View) Count() int64 {
	t := sumOf(w.v.own)
	return t.value()
}

// Elements returns the elements of a set, sorted by type URL and bytes.
func (w View) Elements() []Element { return sortedElements(w.v.elements) }

// Has reports whether a set has an element, or a map a key.
func (w View) Has(e Element) bool { return len(w.v.elements[e]) > 0 || len(w.v.keys[e]) > 0 }

// Register returns the value of a register and its clock; false when it was never set.
func (w View) Register() (Element, int64, bool) {
	if len(w.v.own) == 0 {
		return Element{}, 0, false
	}
	best := 0
	for i := range w.v.own {
		if newer(&w.v.own[i], &w.v.own[best]) {
			best = i
		}
	}
	return w.v.own[best].value, w.v.own[best].clock, true
}

// Enabled returns the value of a flag.
func (w View) Enabled() bool { return w.v.typ == Flag && len(w.v.own) > 0 }

// Votes returns how many votes are for, and what the worker self voted. Only those of writers that
// are live count, and of one worker only the last.
func (w View) Votes(self string, live func(Writer) bool) (votesFor int, selfVote bool) {
	last := map[string]*contribution{}
	var names []string
	for i := range w.v.own {
		c := &w.v.own[i]
		if !live(c.writer) {
			continue
		}
		if last[c.writer.Name] == nil {
			names = append(names, c.writer.Name)
		}
		if b := last[c.writer.Name]; b == nil || c.offset > b.offset || c.offset == b.offset && c.n > b.n {
			last[c.writer.Name] = c
		}
	}
	for _, name := range names {
		if last[name].yes {
			votesFor++
		}
	}
	return votesFor, last[self] != nil && last[self].yes
}

// Keys returns the keys of a map, sorted by type URL and bytes.
func (w View) Keys() []Element { return sortedElements(w.v.keys) }

// At returns what shows under a key of a map: of several types the lowest.
func (w View) At(key Element) (View, bool) {
	if below := w.v.keys[key]; len(below) > 0 {
		return View{below[0]}, true
	}
	return View{&node{}}, false
}

// ClockRule is how the clock of a register follows from the one before it.
type ClockRule uint8

// The rules, numbered as Cloudstate's.
const (
	ClockDefault             ClockRule = 0
	ClockReverse             ClockRule = 1
	ClockCustom              ClockRule = 2
	ClockCustomAutoIncrement ClockRule = 3
)

// NextClock returns the clock that a writer gives a new value. Before is the clock of the value
// that it replaces, custom the one that the function asked for; set is false for a register without
// value.
// DEFAULT makes the last write win, REVERSE the first.
func NextClock(rule ClockRule, nowMillis, custom, before int64, set bool) (clock int64, reverse bool) {
	switch {
	case rule == ClockReverse && set:
		return min(-nowMillis, before-1), true
	case rule == ClockReverse:
		return -nowMillis, true
	case rule == ClockCustom, rule == ClockCustomAutoIncrement && (!set || custom > before):
		return custom, false
	case rule == ClockCustomAutoIncrement:
		return before + 1, false
	case set:
		return max(nowMillis, before+1), false
	default:
		return nowMillis, false
	}
}

// sortLeaf brings contributions into the order of the log.
func sortLeaf(l []contribution) {
	slices.SortStableFunc(l, func(a, b contribution) int { return compareContributions(&a, &b) })
}
