package crdt

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/internal/mutation"
)

// Void is why a command has no effect; every holder finds the same. The numbers are durable.
type Void uint8

// The reasons, in the order in which they are looked at. Stale and Repeated leave the state as it
// was; commands with one of the others count as their writer's last one.
const (
	// Effective: the command is not void.
	Effective Void = 0
	// Deleted: the entity had been deleted.
	Deleted Void = 1
	// Stale: the record is further than the window behind what the writer had seen.
	Stale Void = 2
	// Repeated: the writer's number is not above its last one.
	Repeated Void = 3
	// WrongType: the delta is of another type than the entity.
	WrongType Void = 4
	// Malformed: a change does not go with the type of what it changes.
	Malformed Void = 5
	// IDKnown: a command with this id took effect before.
	IDKnown Void = 6
	// OutOfRange: a counter would leave the range of int64.
	OutOfRange Void = 7
)

// String names the reason.
func (v Void) String() string {
	names := [...]string{
		"effective", "deleted", "stale", "repeated", "wrong type", "malformed", "id known", "out of range",
	}
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("reason %d", v)
}

// ErrNewer: a delta or a snapshot was written for a newer fold than this one. It must not be
// skipped: the holder is not complete until it runs a newer version.
var ErrNewer = errors.New("written for a newer version of the fold")

// Apply folds the delta at an offset into the state and returns, for each command, whether it is
// void. Offsets must ascend. Millis is the time that the log gave the record. The error is
// ErrNewer; the state is then as before.
func (s *State) Apply(offset, millis int64, d *Delta) ([]Void, error) {
	if d.Version > FoldVersion && !mutation.On(mutation.DeltaVersion) {
		return nil, fmt.Errorf("delta of %s at offset %d, version %d, this process folds up to %d: %w; upgrade it",
			d.Writer.Name, offset, d.Version, FoldVersion, ErrNewer)
	}
	voids := make([]Void, len(d.Commands))
	for i := range d.Commands {
		voids[i] = s.command(at{offset, millis}, d, &d.Commands[i])
	}
	return voids, nil
}

// command folds one command.
func (s *State) command(where at, d *Delta, c *Command) Void {
	switch {
	case s.deleted:
		return Deleted
	case where.offset-c.Seen > s.options.Window && !mutation.On(mutation.DeltaWindow):
		return Stale
	case c.N <= s.writers[d.Writer].n && !mutation.On(mutation.DeltaNumber):
		return Repeated
	}
	s.writers[d.Writer] = lastOf{n: c.N, offset: where.offset}
	s.millis = max(s.millis, where.millis)
	if void := s.judge(d, c); void != Effective {
		return void
	}
	if s.root.typ == 0 {
		s.root.typ = d.Type
	}
	if c.ID != (ID{}) {
		s.ids[c.ID] = KnownID{Offset: where.offset, Millis: s.millis, Hash: c.Hash, Answer: c.Answer}
	}
	for i := range c.Changes {
		s.change(contribution{offset: where.offset, writer: d.Writer, n: c.N}, c.Seen, &c.Changes[i])
	}
	return Effective
}

// judge looks at what a command says, before any of it is applied.
func (s *State) judge(d *Delta, c *Command) Void {
	if s.root.typ != 0 && d.Type != s.root.typ || !d.Type.known() {
		return WrongType
	}
	for i := range c.Changes {
		if !c.Changes[i].valid(d.Type) {
			return Malformed
		}
	}
	if c.ID != (ID{}) {
		if _, known := s.Known(c.ID); known && !mutation.On(mutation.DeltaID) {
			return IDKnown
		}
	}
	if s.overflows(c) && !mutation.On(mutation.DeltaWhole) {
		return OutOfRange
	}
	return Effective
}

// overflows reports whether the increments of a command, one after the other and without its
// removals, would bring a counter out of range.
func (s *State) overflows(c *Command) bool {
	type sum struct {
		path  []Step
		total total
	}
	var sums []sum
	for i := range c.Changes {
		change := &c.Changes[i]
		if change.Op != OpIncrement {
			continue
		}
		k := 0
		for k < len(sums) && !samePath(sums[k].path, change.Path) {
			k++
		}
		if k == len(sums) {
			sums = append(sums, sum{path: change.Path})
			if v := s.find(change.Path); v != nil {
				sums[k].total = sumOf(v.own)
			}
		}
		sums[k].total.add(change.Amount)
		if !sums[k].total.fits() {
			return true
		}
	}
	return false
}

// find returns the node at a path, nil if there is none.
func (s *State) find(path []Step) *node {
	v := &s.root
	for _, step := range path {
		if v = v.child(step); v == nil {
			return nil
		}
	}
	return v
}

// change applies one change of a command whose mark, a contribution without content, is given.
func (s *State) change(mark contribution, seen int64, c *Change) {
	v := &s.root
	for _, step := range c.Path {
		v = v.grow(step)
		v.touches = latest(v.touches, mark)
	}
	switch c.Op {
	case OpIncrement:
		mark.amount = c.Amount
		v.own = append(v.own, mark)
	case OpAdd:
		if v.elements == nil {
			v.elements = map[Element][]contribution{}
		}
		v.elements[c.Element] = latest(v.elements[c.Element], mark)
	case OpRemove:
		v.remove(c.Element, mark, seen)
	case OpClear:
		for _, e := range sortedElements(v.elements) {
			v.remove(e, mark, seen)
		}
		for _, k := range sortedElements(v.keys) {
			v.remove(k, mark, seen)
		}
	case OpSet:
		mark.clock, mark.reverse, mark.value = c.Clock, c.Reverse, c.Element
		v.own = set(v.own, mark)
	case OpEnable:
		v.own = latest(v.own, mark)
	case OpVote:
		mark.yes = c.For
		v.own = vote(v.own, mark, seen)
	case OpTouch: // the path says it all
	}
}

// observed is the rule of removal: a command by mark's writer that had seen the log below seen
// takes what lies there, and what that writer contributed with a smaller number.
func observed(c *contribution, mark contribution, seen int64) bool {
	if mutation.On(mutation.DeltaObserved) {
		return true
	}
	return c.offset < seen || c.writer == mark.writer && c.n < mark.n
}

// keep returns what a removal leaves of contributions, in place.
func keep(l []contribution, mark contribution, seen int64) []contribution {
	left := l[:0]
	for i := range l {
		if !observed(&l[i], mark, seen) {
			left = append(left, l[i])
		}
	}
	return left
}

// remove takes an element of a set, or all that lies under a key of a map.
func (v *node) remove(e Element, mark contribution, seen int64) {
	if l, ok := v.elements[e]; ok {
		if l = keep(l, mark, seen); len(l) > 0 {
			v.elements[e] = l
		} else {
			delete(v.elements, e)
		}
	}
	below, ok := v.keys[e]
	if !ok {
		return
	}
	left := below[:0]
	for _, child := range below {
		if child.prune(mark, seen); !child.empty() {
			left = append(left, child)
		}
	}
	if len(left) > 0 {
		v.keys[e] = left
	} else {
		delete(v.keys, e)
	}
}

// prune takes what was observed at and below a node, at every depth.
func (v *node) prune(mark contribution, seen int64) {
	v.own, v.touches = keep(v.own, mark, seen), keep(v.touches, mark, seen)
	for _, e := range sortedElements(v.elements) {
		v.remove(e, mark, seen)
	}
	for _, k := range sortedElements(v.keys) {
		v.remove(k, mark, seen)
	}
}

// latest adds a contribution without content. It takes the place of the one that its writer had: a
// removal that has observed it has observed that too.
func latest(l []contribution, mark contribution) []contribution {
	for i := range l {
		if l[i].writer == mark.writer {
			l[i] = mark
			return l
		}
	}
	return append(l, mark)
}

// vote adds a vote. It replaces those of its worker that the writer had seen, or cast itself.
func vote(l []contribution, mark contribution, seen int64) []contribution {
	left := l[:0]
	for i := range l {
		if l[i].writer.Name != mark.writer.Name || l[i].writer != mark.writer && l[i].offset >= seen {
			left = append(left, l[i])
		}
	}
	return append(left, mark)
}

// set adds a value of a register. Those of the same writer that it wins over never show again: what
// removes it removes them. Of two values in one command with equal clocks the second counts.
func set(l []contribution, mark contribution) []contribution {
	left := l[:0]
	for i := range l {
		if l[i].writer != mark.writer || newer(&l[i], &mark) {
			left = append(left, l[i])
		}
	}
	return append(left, mark)
}

// Delete marks the entity as deleted, for good, and drops what it had.
func (s *State) Delete() {
	*s = State{options: s.options, deleted: true, writers: map[Writer]lastOf{}, ids: map[ID]KnownID{}}
}

// newer orders values of a register: the highest clock wins, then the later in the log, or the
// earlier if both ask for that. A value in normal order wins over a reversed one of equal clock.
func newer(a, b *contribution) bool {
	switch {
	case a.clock != b.clock:
		return a.clock > b.clock
	case a.reverse != b.reverse:
		return b.reverse
	default:
		order := cmp.Or(cmp.Compare(a.offset, b.offset), cmp.Compare(a.n, b.n))
		return order > 0 && !a.reverse || order < 0 && a.reverse
	}
}
