package crdt

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// history makes random deltas for one entity: writers that are behind by some offsets, keys that
// are used for several types, maps in maps, commands that come again under their id.
type history struct {
	r      *rand.Rand
	typ    Type
	offset int64
	millis int64
	n      map[Writer]uint64
	sent   []*Delta
}

var testOptions = Options{Window: 25, IDWindow: 150}

func newHistory(seed uint64, typ Type) *history {
	return &history{r: rand.New(rand.NewPCG(seed, 18)), typ: typ, n: map[Writer]uint64{}}
}

func (h *history) element() Element {
	return Element{TypeURL: "t", Value: string(rune('a' + h.r.IntN(3)))}
}

// change makes a change below a value of a type.
func (h *history) change(typ Type, depth int) Change {
	switch typ {
	case GCounter, PNCounter:
		c := Change{Op: OpIncrement, Amount: h.r.Int64N(9)}
		if h.r.IntN(12) == 0 {
			c.Amount = math.MaxInt64 - h.r.Int64N(20)
		}
		if typ == PNCounter && h.r.IntN(2) == 0 {
			c.Amount = -c.Amount
		}
		return c
	case GSet:
		return Change{Op: OpAdd, Element: h.element()}
	case ORSet:
		return Change{Op: []Op{OpAdd, OpAdd, OpRemove, OpRemove, OpClear}[h.r.IntN(5)], Element: h.element()}
	case LWWRegister:
		return Change{Op: OpSet, Element: h.element(), Clock: h.r.Int64N(5), Reverse: h.r.IntN(4) == 0}
	case Flag:
		return Change{Op: OpEnable}
	case Vote:
		return Change{Op: OpVote, For: h.r.IntN(2) == 0}
	case ORMap: // below
	}
	if x := h.r.IntN(10); x < 3 || depth == 3 {
		return Change{Op: []Op{OpRemove, OpRemove, OpClear}[h.r.IntN(3)], Element: h.element()}
	}
	step := Step{Key: h.element(), Type: Type(1 + h.r.IntN(8))}
	c := Change{Op: OpTouch}
	if h.r.IntN(6) > 0 {
		c = h.change(step.Type, depth+1)
	}
	c.Path = append([]Step{step}, c.Path...)
	return c
}

// delta makes the next record.
func (h *history) delta() (offset, millis int64, d *Delta) {
	h.offset += 1 + h.r.Int64N(3)
	h.millis += h.r.Int64N(5)
	if len(h.sent) > 0 && h.r.IntN(20) == 0 {
		return h.offset, h.millis, h.sent[h.r.IntN(len(h.sent))] // the log has it twice
	}
	w := Writer{Name: string(rune('A' + h.r.IntN(3))), Incarnation: h.r.Uint64N(2)}
	d = &Delta{Version: 1, Type: h.typ, Writer: w}
	if h.r.IntN(40) == 0 {
		d.Type = Type(h.r.IntN(9))
	}
	for range 1 + h.r.IntN(2) {
		h.n[w]++
		c := Command{N: h.n[w], Seen: max(0, h.offset-h.r.Int64N(28))}
		if h.r.IntN(4) == 0 {
			c.ID = ID{Principal: "p", ID: string(rune('0' + h.r.IntN(6)))}
		}
		for range h.r.IntN(3) {
			c.Changes = append(c.Changes, h.change(d.Type, 0))
		}
		d.Commands = append(d.Commands, c)
	}
	h.sent = append(h.sent, d)
	return h.offset, h.millis, d
}

// TestFoldIsTheDefinition folds random histories of every type by State and by the oracle, and
// through a snapshot at a random offset: squashed, in small parts, in any order.
func TestFoldIsTheDefinition(t *testing.T) {
	seeds := uint64(400)
	if testing.Short() {
		seeds = 50
	}
	for typ := GCounter; typ <= ORMap; typ++ {
		t.Run(typ.String(), func(t *testing.T) {
			for seed := range seeds {
				if foldOneHistory(t, seed, typ); t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
}

func foldOneHistory(t *testing.T, seed uint64, typ Type) {
	h := newHistory(seed, typ)
	options := testOptions
	options.KeepWriters = seed%2 == 1
	state, short, want := NewState(options), NewState(options), newOracle(options)
	for i := range 60 {
		offset, millis, d := h.delta()
		voids := want.apply(offset, millis, d)
		for name, s := range map[string]*State{"fold": state, "snapshot and tail": short} {
			got, err := s.Apply(offset, millis, d)
			if err != nil || !slices.Equal(got, voids) {
				t.Errorf("record %d, %s: %v, %v; want %v", i, name, got, err, voids)
				return
			}
			if got := renderView(s.Root()); got != want.render() {
				t.Errorf("record %d, %s: %s, want %s", i, name, got, want.render())
				return
			}
		}
		if h.r.IntN(6) == 0 {
			copied := short.Clone()
			copied.Squash(offset)
			parts := copied.Split(offset, 1, 1+h.r.IntN(300))
			h.r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
			joined, err := Join(options, parts)
			if err != nil {
				t.Errorf("record %d: %v", i, err)
				return
			}
			short = joined
		}
	}
}

// TestAddWins shows what a removal takes: what its writer had seen, and what it wrote itself.
func TestAddWins(t *testing.T) {
	a, b := Writer{Name: "a", Incarnation: 1}, Writer{Name: "b", Incarnation: 1}
	x := Element{TypeURL: "t", Value: "x"}
	add, remove := Change{Op: OpAdd, Element: x}, Change{Op: OpRemove, Element: x}
	for name, test := range map[string]struct {
		remover Writer
		seen    int64
		want    bool
	}{
		"seen": {b, 11, false}, "not seen": {b, 10, true}, "written by itself": {a, 10, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewState(testOptions)
			apply(t, s, 10, &Delta{
				Version: 1, Type: ORSet, Writer: a,
				Commands: []Command{{N: 1, Seen: 10, Changes: []Change{add}}},
			})
			apply(t, s, 12, &Delta{
				Version: 1, Type: ORSet, Writer: test.remover,
				Commands: []Command{{N: 2, Seen: test.seen, Changes: []Change{remove}}},
			})
			if got := s.Root().Has(x); got != test.want {
				t.Errorf("the element is there: %t, want %t", got, test.want)
			}
		})
	}
}

func apply(t *testing.T, s *State, offset int64, d *Delta) []Void {
	t.Helper()
	voids, err := s.Apply(offset, 0, d)
	if err != nil {
		t.Fatal(err)
	}
	return voids
}
