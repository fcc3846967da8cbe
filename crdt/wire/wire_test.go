package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/millrace-io/millrace/crdt"
	pb "github.com/millrace-io/millrace/proto/gen/cloudstate/crdt"
)

// function is the value as a function keeps it, written down from the protocol's description.
type function struct {
	typ      crdt.Type
	count    int64
	elements map[string]bool
	register string
	flag     bool
	votes    [3]int
	keys     map[string]*function
}

func newFunction() *function {
	return &function{elements: map[string]bool{}, keys: map[string]*function{}}
}

// String writes the whole value, so that equal values have equal texts.
func (f *function) String() string {
	var b strings.Builder
	elements := slices.Sorted(maps.Keys(f.elements))
	fmt.Fprintf(&b, "%v %d %q %q %t %v {", f.typ, f.count, elements, f.register, f.flag, f.votes)
	for _, key := range slices.Sorted(maps.Keys(f.keys)) {
		fmt.Fprintf(&b, "%q: %v ", key, f.keys[key])
	}
	return b.String() + "}"
}

func name(a *anypb.Any) string { return a.GetTypeUrl() + "|" + string(a.GetValue()) }

// take applies what the host tells.
func (f *function) take(d *pb.CrdtDelta) {
	f.typ, _ = typeOf(d)
	f.count += int64(d.GetGcounter().GetIncrement()) + d.GetPncounter().GetChange()
	if d.GetOrset().GetCleared() {
		clear(f.elements)
	}
	for _, e := range d.GetOrset().GetRemoved() {
		delete(f.elements, name(e))
	}
	for _, e := range append(d.GetOrset().GetAdded(), d.GetGset().GetAdded()...) {
		f.elements[name(e)] = true
	}
	if v := d.GetLwwregister().GetValue(); v != nil {
		f.register = name(v)
	}
	f.flag = f.flag || d.GetFlag().GetValue()
	if v := d.GetVote(); v != nil {
		f.votes = [3]int{int(v.GetVotesFor()), int(v.GetTotalVoters())}
		if v.GetSelfVote() {
			f.votes[2] = 1
		}
	}
	f.takeMap(d.GetOrmap())
}

func (f *function) takeMap(d *pb.ORMapDelta) {
	if d.GetCleared() {
		clear(f.keys)
	}
	for _, key := range d.GetRemoved() {
		delete(f.keys, name(key))
	}
	for _, e := range d.GetUpdated() {
		f.keys[name(e.GetKey())].take(e.GetDelta())
	}
	for _, e := range d.GetAdded() {
		below := newFunction()
		below.take(e.GetDelta())
		f.keys[name(e.GetKey())] = below
	}
}

func word(rng *rand.Rand) *anypb.Any {
	return &anypb.Any{TypeUrl: "t" + fmt.Sprint(rng.IntN(2)), Value: []byte{byte('a' + rng.IntN(3))}}
}

func words(rng *rand.Rand) (list []*anypb.Any) {
	for range rng.IntN(3) {
		list = append(list, word(rng))
	}
	return list
}

// randomDelta returns a delta of a function that fits every value of the type.
func randomDelta(rng *rand.Rand, t crdt.Type, depth int) *pb.CrdtDelta {
	switch t {
	case crdt.GCounter:
		return &pb.CrdtDelta{Delta: &pb.CrdtDelta_Gcounter{Gcounter: &pb.GCounterDelta{Increment: rng.Uint64N(3)}}}
	case crdt.PNCounter:
		return &pb.CrdtDelta{Delta: &pb.CrdtDelta_Pncounter{Pncounter: &pb.PNCounterDelta{Change: rng.Int64N(5) - 2}}}
	case crdt.GSet:
		return &pb.CrdtDelta{Delta: &pb.CrdtDelta_Gset{Gset: &pb.GSetDelta{Added: words(rng)}}}
	case crdt.ORSet:
		d := &pb.ORSetDelta{Cleared: rng.IntN(6) == 0, Removed: words(rng), Added: words(rng)}
		return &pb.CrdtDelta{Delta: &pb.CrdtDelta_Orset{Orset: d}}
	case crdt.LWWRegister:
		d := &pb.LWWRegisterDelta{Value: word(rng), Clock: pb.CrdtClock(rng.Int32N(4)), CustomClockValue: rng.Int64N(9)}
		return &pb.CrdtDelta{Delta: &pb.CrdtDelta_Lwwregister{Lwwregister: d}}
	case crdt.Flag:
		return &pb.CrdtDelta{Delta: &pb.CrdtDelta_Flag{Flag: &pb.FlagDelta{Value: true}}}
	case crdt.Vote:
		return &pb.CrdtDelta{Delta: &pb.CrdtDelta_Vote{Vote: &pb.VoteDelta{SelfVote: rng.IntN(2) == 0}}}
	case crdt.ORMap:
	}
	d := &pb.ORMapDelta{Cleared: rng.IntN(9) == 0, Removed: words(rng)}
	for range rng.IntN(3) {
		types := []crdt.Type{1, 2, 3, 4, 5, 6, 7, 8}
		if depth == 0 {
			types = types[:7]
		}
		e := &pb.ORMapEntryDelta{Key: word(rng), Delta: randomDelta(rng, types[rng.IntN(len(types))], depth-1)}
		if rng.IntN(2) == 0 {
			d.Added = append(d.Added, e)
		} else {
			d.Updated = append(d.Updated, e)
		}
	}
	return &pb.CrdtDelta{Delta: &pb.CrdtDelta_Ormap{Ormap: d}}
}

// TestFunctionsFollow: three functions send deltas, each at its own view of the log, and are told
// what has changed at random moments. Each has then exactly what one has that begins there.
func TestFunctionsFollow(t *testing.T) {
	for typ := crdt.GCounter; typ <= crdt.ORMap; typ++ {
		for seed := range uint64(150) {
			follow(t, typ, rand.New(rand.NewPCG(seed, uint64(typ))), seed)
		}
	}
}

func follow(t *testing.T, typ crdt.Type, rng *rand.Rand, seed uint64) {
	t.Helper()
	options := crdt.Options{Window: 1000, IDWindow: 1000}
	state := crdt.NewState(options)
	var told [3]*crdt.State
	var total, sent [3]int
	var functions [3]*function
	for i := range told {
		told[i], functions[i] = crdt.NewState(options), newFunction()
	}
	var views [3]int64
	for offset := range int64(30) {
		i := rng.IntN(3)
		writer := crdt.Writer{Name: fmt.Sprint("worker ", i), Incarnation: 1}
		_, changes, err := Changes(told[i].Root(), randomDelta(rng, typ, 2), 1000+rng.Int64N(5))
		if err != nil {
			continue // what was told has another type than the delta
		}
		sent[i]++
		voids, err := state.Apply(offset, offset, &crdt.Delta{
			Version: crdt.FoldVersion, Type: typ, Writer: writer,
			Commands: []crdt.Command{{N: uint64(sent[i]), Seen: views[i], Changes: changes}},
		})
		if err != nil || voids[0] != crdt.Effective {
			t.Fatalf("%v, seed %d, offset %d: %v, %v", typ, seed, offset, voids, err)
		}
		k := rng.IntN(3)
		next, live := state.Clone(), func(crdt.Writer) bool { return true }
		voters := func(n int) Voters { return Voters{Self: fmt.Sprint("worker ", k), Total: n, Live: live} }
		now := Side{next.Root(), voters(1 + rng.IntN(3))}
		d, err := Delta(Side{told[k].Root(), voters(total[k])}, now)
		if err != nil {
			t.Fatalf("%v, seed %d, offset %d: %v", typ, seed, offset, err)
		}
		if d != nil {
			functions[k].take(throughBytes(t, d))
		}
		told[k], total[k], views[k] = next, now.Voters.Total, offset+1
		fresh := newFunction()
		init, err := Delta(Side{Value: nothing()}, now)
		if err != nil {
			t.Fatalf("%v, seed %d, offset %d, first: %v", typ, seed, offset, err)
		}
		if init != nil {
			fresh.take(init)
		}
		if fresh.typ == 0 {
			fresh.typ = functions[k].typ // an empty value is not told
		}
		if functions[k].String() != fresh.String() {
			t.Fatalf("%v, seed %d, offset %d: told in steps\n%v\nat once\n%v", typ, seed, offset, functions[k], fresh)
		}
	}
}

func throughBytes(t *testing.T, d *pb.CrdtDelta) *pb.CrdtDelta {
	t.Helper()
	b, err := proto.Marshal(d)
	again := &pb.CrdtDelta{}
	if err := errors.Join(err, proto.Unmarshal(b, again)); err != nil {
		t.Fatal(err)
	}
	return again
}

// TestRefused: deltas that do not fit.
func TestRefused(t *testing.T) {
	on := crdt.NewState(crdt.Options{Window: 10})
	_, err := on.Apply(0, 0, &crdt.Delta{
		Version: crdt.FoldVersion, Type: crdt.Flag, Writer: crdt.Writer{Name: "w"},
		Commands: []crdt.Command{{N: 1, Changes: []crdt.Change{{Op: crdt.OpEnable}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	key := &anypb.Any{TypeUrl: "k"}
	nested := &pb.CrdtDelta{Delta: &pb.CrdtDelta_Flag{Flag: &pb.FlagDelta{}}}
	for range MaxNesting + 1 {
		nested = &pb.CrdtDelta{Delta: &pb.CrdtDelta_Ormap{Ormap: &pb.ORMapDelta{
			Added: []*pb.ORMapEntryDelta{{Key: key, Delta: nested}},
		}}}
	}
	entries := func(e ...*pb.ORMapEntryDelta) *pb.CrdtDelta {
		return &pb.CrdtDelta{Delta: &pb.CrdtDelta_Ormap{Ormap: &pb.ORMapDelta{Updated: e}}}
	}
	increment := &pb.GCounterDelta{Increment: math.MaxInt64 + 1}
	register := func(r *pb.LWWRegisterDelta) *pb.CrdtDelta {
		return &pb.CrdtDelta{Delta: &pb.CrdtDelta_Lwwregister{Lwwregister: r}}
	}
	for want, c := range map[string]struct {
		told crdt.View
		d    *pb.CrdtDelta
	}{
		"a delta of no type":        {nothing(), &pb.CrdtDelta{}},
		"the value is a Flag":       {on.Root(), randomDelta(rand.New(rand.NewPCG(1, 1)), crdt.GSet, 0)},
		"cannot be switched off":    {on.Root(), &pb.CrdtDelta{Delta: &pb.CrdtDelta_Flag{Flag: &pb.FlagDelta{}}}},
		"increment of 9223372036":   {nothing(), &pb.CrdtDelta{Delta: &pb.CrdtDelta_Gcounter{Gcounter: increment}}},
		"value is missing":          {nothing(), register(&pb.LWWRegisterDelta{})},
		"clock 7 is unknown":        {nothing(), register(&pb.LWWRegisterDelta{Value: key, Clock: 7})},
		"more than 8 deep":          {nothing(), nested},
		"has no key":                {nothing(), entries(&pb.ORMapEntryDelta{})},
		`entry "": it is empty: it`: {nothing(), entries(&pb.ORMapEntryDelta{Key: key})},
	} {
		_, changes, err := Changes(c.told, c.d, 0)
		if !errors.Is(err, ErrDelta) || !strings.Contains(err.Error(), want) || changes != nil {
			t.Errorf("%d changes, %v; want an error with %q", len(changes), err, want)
		}
	}
}

// TestGolden: the bytes that a function is told, as they were when this was written.
func TestGolden(t *testing.T) {
	state := crdt.NewState(crdt.Options{Window: 10})
	key := crdt.Element{TypeURL: "k", Value: "1"}
	_, err := state.Apply(0, 0, &crdt.Delta{
		Version: crdt.FoldVersion, Type: crdt.ORMap, Writer: crdt.Writer{Name: "w"},
		Commands: []crdt.Command{{N: 1, Changes: []crdt.Change{
			{Path: []crdt.Step{{Key: key, Type: crdt.PNCounter}}, Op: crdt.OpIncrement, Amount: -2},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	d, err := Delta(Side{Value: nothing()}, Side{Value: state.Root()})
	if err != nil {
		t.Fatal(err)
	}
	got, err := proto.MarshalOptions{Deterministic: true}.Marshal(d)
	want, _ := hex.DecodeString("3a10220e0a060a016b12013112041202" + "0803")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, %v; want %x", got, err, want)
	}
}

// FuzzChanges: whatever a function sends is refused or gives changes that the fold takes.
func FuzzChanges(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 3))
	for t := crdt.GCounter; t <= crdt.ORMap; t++ {
		b, _ := proto.Marshal(randomDelta(rng, t, 2))
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d := &pb.CrdtDelta{}
		if proto.Unmarshal(b, d) != nil {
			return
		}
		typ, changes, err := Changes(nothing(), d, 5)
		if err != nil {
			return
		}
		voids, err := crdt.NewState(crdt.Options{Window: 10}).Apply(0, 0, &crdt.Delta{
			Version: crdt.FoldVersion, Type: typ, Writer: crdt.Writer{Name: "w"},
			Commands: []crdt.Command{{N: 1, Changes: changes}},
		})
		if err != nil || voids[0] != crdt.Effective && voids[0] != crdt.OutOfRange {
			t.Fatalf("%v, %v", voids, err)
		}
	})
}
