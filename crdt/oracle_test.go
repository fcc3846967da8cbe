package crdt

import (
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// oracle folds as the definitions say, without trees, squashing or snapshots: it keeps a flat list
// of everything that was ever contributed and not taken away.
type oracle struct {
	options Options
	typ     Type
	millis  int64
	last    map[Writer]uint64
	ids     map[ID]int64
	facts   []fact
}

// fact is one contribution; place tells apart what a leaf and a key have.
type fact struct {
	path    []Step
	place   Place
	element Element
	of      contribution
}

func newOracle(o Options) *oracle {
	return &oracle{options: o, last: map[Writer]uint64{}, ids: map[ID]int64{}}
}

func (o *oracle) apply(offset, millis int64, d *Delta) []Void {
	var voids []Void
	for i := range d.Commands {
		voids = append(voids, o.command(offset, millis, d, &d.Commands[i]))
	}
	return voids
}

func (o *oracle) command(offset, millis int64, d *Delta, c *Command) Void {
	if offset-c.Seen > o.options.Window {
		return Stale
	}
	if c.N <= o.last[d.Writer] {
		return Repeated
	}
	o.last[d.Writer], o.millis = c.N, max(o.millis, millis)
	if o.typ != 0 && o.typ != d.Type || d.Type < GCounter || d.Type > ORMap {
		return WrongType
	}
	if slices.ContainsFunc(c.Changes, func(x Change) bool { return !x.valid(d.Type) }) {
		return Malformed
	}
	if was, known := o.ids[c.ID]; known && c.ID != (ID{}) && o.millis-was < o.options.IDWindow {
		return IDKnown
	}
	added := map[string]*big.Int{}
	for _, x := range c.Changes {
		if x.Op != OpIncrement {
			continue
		}
		at := fmt.Sprint(x.Path)
		if added[at] == nil {
			added[at] = o.sum(x.Path)
		}
		if added[at].Add(added[at], big.NewInt(x.Amount)); !added[at].IsInt64() {
			return OutOfRange
		}
	}
	o.typ = d.Type
	if c.ID != (ID{}) {
		o.ids[c.ID] = o.millis
	}
	for _, x := range c.Changes {
		o.change(contribution{offset: offset, writer: d.Writer, n: c.N}, c.Seen, x)
	}
	return Effective
}

func (o *oracle) sum(path []Step) *big.Int {
	total := new(big.Int)
	for _, f := range o.facts {
		if f.place == PlaceValue && slices.Equal(f.path, path) {
			total.Add(total, big.NewInt(f.of.amount))
		}
	}
	return total
}

func (o *oracle) change(mark contribution, seen int64, c Change) {
	for depth := range c.Path {
		o.facts = append(o.facts, fact{path: c.Path[:depth+1], place: PlaceKey, of: mark})
	}
	f := fact{path: c.Path, place: PlaceValue, element: c.Element, of: mark}
	switch c.Op {
	case OpEnable: // the fact says it all
	case OpTouch:
		return
	case OpRemove, OpClear:
		o.take(mark, seen, c)
		return
	case OpAdd:
		f.place = PlaceElement
	case OpIncrement:
		f.of.amount = c.Amount
	case OpSet:
		f.element, f.of.value, f.of.clock, f.of.reverse = Element{}, c.Element, c.Clock, c.Reverse
	case OpVote:
		f.of.yes = c.For
		o.facts = slices.DeleteFunc(o.facts, func(other fact) bool { // a vote replaces what its worker had seen of its own
			w := other.of.writer
			return other.place == PlaceValue && slices.Equal(other.path, c.Path) &&
				(w == mark.writer || w.Name == mark.writer.Name && other.of.offset < seen)
		})
	}
	o.facts = append(o.facts, f)
}

// take removes what a removal had observed and concerns.
func (o *oracle) take(mark contribution, seen int64, c Change) {
	o.facts = slices.DeleteFunc(o.facts, func(f fact) bool {
		if f.of.offset >= seen && (f.of.writer != mark.writer || f.of.n >= mark.n) {
			return false
		}
		if len(f.path) < len(c.Path) || !slices.Equal(f.path[:len(c.Path)], c.Path) {
			return false
		}
		if len(f.path) > len(c.Path) {
			return c.Op == OpClear || f.path[len(c.Path)].Key == c.Element
		}
		return f.place == PlaceElement && (c.Op == OpClear || f.element == c.Element)
	})
}

// render shows the value of the oracle; that of a State looks the same.
func (o *oracle) render() string { return renderFacts(o.typ, nil, o.facts) }

func renderFacts(typ Type, path []Step, facts []fact) string {
	under := slices.DeleteFunc(slices.Clone(facts), func(f fact) bool {
		return len(f.path) < len(path) || !slices.Equal(f.path[:len(path)], path)
	})
	var b strings.Builder
	fmt.Fprintf(&b, "%s(", typ)
	switch typ {
	case GCounter, PNCounter:
		o := oracle{facts: under}
		sum := o.sum(path)
		for _, end := range []int64{9223372036854775807, -9223372036854775808} {
			if limit := big.NewInt(end); !sum.IsInt64() && sum.Sign() == limit.Sign() {
				sum = limit
			}
		}
		b.WriteString(sum.String())
	case GSet, ORSet:
		var all []Element
		for _, f := range under {
			if f.place == PlaceElement {
				all = append(all, f.element)
			}
		}
		slices.SortFunc(all, compareElements)
		fmt.Fprint(&b, slices.Compact(all))
	case LWWRegister:
		b.WriteString(renderRegister(under))
	case Flag:
		fmt.Fprint(&b, slices.ContainsFunc(under, func(f fact) bool { return f.place == PlaceValue }))
	case Vote:
		b.WriteString(renderVotes(under))
	case ORMap:
		var next []Step
		for _, f := range under {
			if len(f.path) > len(path) {
				next = append(next, f.path[len(path)])
			}
		}
		slices.SortFunc(next, func(a, b Step) int {
			if c := compareElements(a.Key, b.Key); c != 0 {
				return c
			}
			return int(a.Type) - int(b.Type)
		})
		for i, step := range next {
			if i == 0 || next[i-1].Key != step.Key {
				fmt.Fprintf(&b, "%v: %s ", step.Key, renderFacts(step.Type, append(slices.Clone(path), step), under))
			}
		}
	}
	return b.String() + ")"
}

func renderRegister(facts []fact) string {
	best := -1
	for i, f := range facts {
		if f.place != PlaceValue {
			continue
		}
		if best < 0 || wins(f.of, facts[best].of) {
			best = i
		}
	}
	if best < 0 {
		return "unset"
	}
	return fmt.Sprint(facts[best].of.value, facts[best].of.clock)
}

func wins(a, b contribution) bool {
	if a.clock != b.clock {
		return a.clock > b.clock
	}
	if a.reverse != b.reverse {
		return b.reverse
	}
	if a.offset == b.offset {
		return a.n == b.n || (a.n > b.n) != a.reverse
	}
	return (a.offset > b.offset) != a.reverse
}

// renderVotes counts the last vote of each worker; all runs are live.
func renderVotes(facts []fact) string {
	last := map[string]fact{}
	for _, f := range facts {
		if f.place == PlaceValue {
			last[f.of.writer.Name] = f
		}
	}
	count := 0
	for _, f := range last {
		if f.of.yes {
			count++
		}
	}
	return fmt.Sprint(count)
}

// renderView shows the value of a State.
func renderView(w View) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s(", w.Type())
	switch w.Type() {
	case GCounter, PNCounter:
		fmt.Fprint(&b, w.Count())
	case GSet, ORSet:
		fmt.Fprint(&b, w.Elements())
	case LWWRegister:
		value, clock, set := w.Register()
		if !set {
			b.WriteString("unset")
		} else {
			fmt.Fprint(&b, value, clock)
		}
	case Flag:
		fmt.Fprint(&b, w.Enabled())
	case Vote:
		count, _ := w.Votes("", func(Writer) bool { return true })
		fmt.Fprint(&b, count)
	case ORMap:
		for _, k := range w.Keys() {
			child, _ := w.At(k)
			fmt.Fprintf(&b, "%v: %s ", k, renderView(child))
		}
	}
	return b.String() + ")"
}
