package crdt

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/millrace-io/millrace/internal/mutation"
)

// Part is a piece of a snapshot: the state of one entity, folded through an offset. A snapshot has
// Count parts with one nonce, numbered from 0.
type Part struct {
	// Version is the lowest FoldVersion that understands the snapshot.
	Version int
	Through int64
	// Nonce is random, one for each attempt to write a snapshot: parts of two attempts differ.
	Nonce        uint64
	Index, Count int
	Type         Type
	Deleted      bool
	// Millis is the entity's log time.
	Millis  int64
	Leaves  []Leaf
	Writers []WriterRow
	IDs     []IDRow
}

// Leaf has contributions of one leaf; a long one may lie in several parts.
type Leaf struct {
	Path []Step
	// Place is where they lie at the end of Path, Element in which element of a set.
	Place         Place
	Element       Element
	Contributions []Contribution
}

// Place is where a contribution lies in a value. The numbers are durable.
type Place uint8

// The places: the value itself, the key under which it lies, one of its elements.
const (
	PlaceValue   Place = 1
	PlaceKey     Place = 2
	PlaceElement Place = 3
)

// Contribution is what one command put into a leaf, or, behind the window, several did.
type Contribution struct {
	Offset  int64
	Writer  Writer
	N       uint64
	Amount  int64
	Clock   int64
	Reverse bool
	Value   Element
	For     bool
}

// WriterRow is the last number of a writer, and the offset of its record.
type WriterRow struct {
	Writer Writer
	N      uint64
	Offset int64
}

// IDRow is a known id.
type IDRow struct {
	ID    ID
	Known KnownID
}

func compareContributions(a, b *contribution) int {
	return cmp.Or(cmp.Compare(a.offset, b.offset), compareWriters(a.writer, b.writer), cmp.Compare(a.n, b.n))
}

// Squash makes one contribution of all those in a leaf that every later command has observed, and
// forgets writers and ids that no later command can repeat. Through is the offset up to which the
// state was folded. The value stays, and so does what later deltas make of it.
func (s *State) Squash(through int64) {
	low := through + 1 - s.options.Window
	if mutation.On(mutation.DeltaSquash) {
		low = through + 1
	}
	s.root.squash(low, s.options.KeepWriters)
	maps.DeleteFunc(s.writers, func(_ Writer, last lastOf) bool { return last.offset < low })
	maps.DeleteFunc(s.ids, func(_ ID, k KnownID) bool { return s.millis-k.Millis >= s.options.IDWindow })
}

func (v *node) squash(low int64, apart bool) {
	switch v.typ {
	case GCounter, PNCounter:
		v.own = merge(v.own, low, apart, addAmounts)
	case LWWRegister:
		v.own = merge(v.own, low, apart, winner)
	case Flag:
		v.own = merge(v.own, low, apart, last)
	case Vote: // of each run of a worker there is one
	case GSet, ORSet, ORMap: // they have none of their own
	}
	v.touches = merge(v.touches, low, false, last)
	for _, e := range sortedElements(v.elements) {
		v.elements[e] = merge(v.elements[e], low, apart, last)
	}
	for _, k := range sortedElements(v.keys) {
		for _, child := range v.keys[k] {
			child.squash(low, apart)
		}
	}
}

// merge joins the contributions below low, those of each writer by themselves if apart is set. Join
// puts the second into the first, or returns false.
func merge(l []contribution, low int64, apart bool, join func(into, c *contribution) bool) []contribution {
	sortLeaf(l)
	var left []contribution
	for i := range l {
		c := l[i]
		if c.offset < low && !apart {
			c.writer, c.n = Writer{}, 0
		}
		joined := false
		for k := 0; k < len(left) && !joined && c.offset < low; k++ {
			joined = left[k].writer == c.writer && join(&left[k], &c)
		}
		if !joined {
			left = append(left, c)
		}
	}
	return left
}

func addAmounts(into, c *contribution) bool {
	t := sumOf([]contribution{*into, *c})
	if t.fits() {
		into.amount, into.offset, into.n = t.value(), c.offset, c.n
	}
	return t.fits()
}

// winner keeps the place of the value that wins, because it decides between equal clocks.
func winner(into, c *contribution) bool {
	if newer(c, into) {
		*into = *c
	}
	return true
}

func last(into, c *contribution) bool {
	*into = *c
	return true
}

// Split returns the state as parts of a snapshot through an offset, none of which is larger than
// maxBytes by more than one row. There is always one: that of an empty state must stay in the log.
func (s *State) Split(through int64, nonce uint64, maxBytes int) []*Part {
	w := splitter{state: s, through: through, nonce: nonce, limit: maxBytes}
	w.open()
	w.node(nil, &s.root)
	if !mutation.On(mutation.DeltaRows) {
		for _, id := range slices.SortedFunc(maps.Keys(s.ids), compareIDs) {
			k := s.ids[id]
			p := w.part(len(id.Principal) + len(id.ID) + len(k.Hash) + len(k.Answer) + 24)
			p.IDs = append(p.IDs, IDRow{ID: id, Known: k})
		}
	}
	for _, writer := range slices.SortedFunc(maps.Keys(s.writers), compareWriters) {
		row := s.writers[writer]
		p := w.part(len(writer.Name) + 24)
		p.Writers = append(p.Writers, WriterRow{Writer: writer, N: row.n, Offset: row.offset})
	}
	for _, p := range w.parts {
		p.Count = len(w.parts)
	}
	return w.parts
}

// splitter writes the parts of a snapshot.
type splitter struct {
	state   *State
	through int64
	nonce   uint64
	limit   int
	parts   []*Part
	size    int
}

func (w *splitter) open() {
	w.parts = append(w.parts, &Part{
		Version: FoldVersion, Through: w.through, Nonce: w.nonce, Index: len(w.parts), Type: w.state.root.typ,
		Deleted: w.state.deleted, Millis: w.state.millis,
	})
	w.size = 0
}

func (w *splitter) last() *Part { return w.parts[len(w.parts)-1] }

// part returns the part that takes a row of so many bytes.
func (w *splitter) part(bytes int) *Part {
	if w.size > 0 && w.size+bytes > w.limit {
		w.open()
	}
	w.size += bytes
	return w.last()
}

func (w *splitter) node(path []Step, v *node) {
	w.leaf(Leaf{Path: path, Place: PlaceValue}, v.own)
	w.leaf(Leaf{Path: path, Place: PlaceKey}, v.touches)
	for _, e := range sortedElements(v.elements) {
		w.leaf(Leaf{Path: path, Place: PlaceElement, Element: e}, v.elements[e])
	}
	for _, k := range sortedElements(v.keys) {
		for _, child := range v.keys[k] {
			w.node(append(slices.Clone(path), Step{Key: k, Type: child.typ}), child)
		}
	}
}

// leaf writes the contributions of a leaf, each where there is room.
func (w *splitter) leaf(l Leaf, of []contribution) {
	head := len(l.Element.TypeURL) + len(l.Element.Value)
	for _, step := range l.Path {
		head += len(step.Key.TypeURL) + len(step.Key.Value) + 2
	}
	var open *Part
	for i := range of {
		c := &of[i]
		size := 32 + len(c.writer.Name) + len(c.value.TypeURL) + len(c.value.Value)
		if open == nil {
			size += head
		}
		if p := w.part(size); p != open {
			open = p
			p.Leaves = append(p.Leaves, l)
		}
		leaf := &open.Leaves[len(open.Leaves)-1]
		leaf.Contributions = append(leaf.Contributions, Contribution{
			Offset: c.offset, Writer: c.writer, N: c.n, Amount: c.amount, Clock: c.clock, Reverse: c.reverse,
			Value: c.value, For: c.yes,
		})
	}
}

// Join makes the state of all parts of one snapshot, in any order. The error is ErrNewer, or says
// what is wrong with a part; a holder that gets one is not complete.
func Join(o Options, parts []*Part) (*State, error) {
	s := NewState(o)
	ordered := slices.SortedFunc(slices.Values(parts), func(a, b *Part) int { return cmp.Compare(a.Index, b.Index) })
	for _, p := range ordered {
		if p.Version > FoldVersion {
			return nil, fmt.Errorf("snapshot through offset %d, version %d, this process folds up to %d: %w; upgrade it",
				p.Through, p.Version, FoldVersion, ErrNewer)
		}
		if err := s.add(p); err != nil {
			return nil, fmt.Errorf("snapshot through offset %d, part %d of %d: %w", p.Through, p.Index, p.Count, err)
		}
	}
	return s, nil
}

// add puts a part of a snapshot into a state.
func (s *State) add(p *Part) error {
	s.root.typ, s.deleted, s.millis = p.Type, p.Deleted, max(s.millis, p.Millis)
	for i := range p.Leaves {
		l := &p.Leaves[i]
		v := &s.root
		for depth, step := range l.Path {
			if v.typ != ORMap || !step.Type.known() {
				return fmt.Errorf("leaf %d: its path at depth %d is below a %s", i, depth, v.typ)
			}
			v = v.grow(step)
		}
		if err := v.add(l); err != nil {
			return fmt.Errorf("leaf %d: %w", i, err)
		}
	}
	for _, row := range p.Writers {
		s.writers[row.Writer] = lastOf{n: row.N, offset: row.Offset}
	}
	for _, row := range p.IDs {
		s.ids[row.ID] = row.Known
	}
	return nil
}

func (v *node) add(l *Leaf) error {
	of := make([]contribution, 0, len(l.Contributions))
	for i := range l.Contributions {
		c := &l.Contributions[i]
		of = append(of, contribution{
			offset: c.Offset, writer: c.Writer, n: c.N, amount: c.Amount, clock: c.Clock, reverse: c.Reverse,
			value: c.Value, yes: c.For,
		})
	}
	switch l.Place {
	case PlaceValue:
		v.own = append(v.own, of...)
	case PlaceKey:
		v.touches = append(v.touches, of...)
	case PlaceElement:
		if v.elements == nil {
			v.elements = map[Element][]contribution{}
		}
		v.elements[l.Element] = append(v.elements[l.Element], of...)
	default:
		return fmt.Errorf("place %d is not known", l.Place)
	}
	return nil
}
