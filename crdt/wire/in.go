package wire

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/millrace-io/millrace/crdt"
	pb "github.com/millrace-io/millrace/proto/gen/cloudstate/crdt"
)

// MaxNesting is how deep maps may lie in each other.
const MaxNesting = 8

// ErrDelta: a function sent a delta that does not fit its value. Nothing of it was taken over; the
// function is to be corrected.
var ErrDelta = errors.New("delta does not fit")

// Changes returns what a delta of a function changes in the value that the function was told, and
// the type of the value. The whole delta is checked before; the error wraps ErrDelta. A delta
// without effect has no changes. NowMillis is the time for clocks of registers.
func Changes(told crdt.View, d *pb.CrdtDelta, nowMillis int64) (crdt.Type, []crdt.Change, error) {
	in := incoming{now: nowMillis}
	t, err := in.value(told, nil, d)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrDelta, err)
	}
	return t, in.changes, nil
}

// incoming collects the changes of one delta.
type incoming struct {
	now     int64
	changes []crdt.Change
}

func (in *incoming) add(path []crdt.Step, c crdt.Change) {
	c.Path = path
	in.changes = append(in.changes, c)
}

// value takes the delta of the value at a path.
func (in *incoming) value(told crdt.View, path []crdt.Step, d *pb.CrdtDelta) (crdt.Type, error) {
	t, err := typeOf(d)
	if err != nil {
		return 0, err
	}
	if has := told.Type(); has != 0 && has != t {
		return 0, fmt.Errorf("it is for a %v, the value is a %v", t, has)
	}
	switch {
	case t == crdt.ORMap:
		return t, in.ormap(told, path, d.GetOrmap())
	case t == crdt.ORSet:
		return t, in.orset(path, d.GetOrset())
	case t == crdt.GSet:
		return t, in.elements(path, crdt.OpAdd, d.GetGset().GetAdded())
	case t == crdt.LWWRegister:
		return t, in.register(told, path, d.GetLwwregister())
	}
	return t, in.scalar(told, path, d)
}

// typeOf returns the type that a delta is for.
func typeOf(d *pb.CrdtDelta) (crdt.Type, error) {
	switch d.GetDelta().(type) {
	case *pb.CrdtDelta_Gcounter:
		return crdt.GCounter, nil
	case *pb.CrdtDelta_Pncounter:
		return crdt.PNCounter, nil
	case *pb.CrdtDelta_Gset:
		return crdt.GSet, nil
	case *pb.CrdtDelta_Orset:
		return crdt.ORSet, nil
	case *pb.CrdtDelta_Lwwregister:
		return crdt.LWWRegister, nil
	case *pb.CrdtDelta_Flag:
		return crdt.Flag, nil
	case *pb.CrdtDelta_Ormap:
		return crdt.ORMap, nil
	case *pb.CrdtDelta_Vote:
		return crdt.Vote, nil
	default:
		return 0, errors.New("it is empty: it has a delta of no type")
	}
}

// scalar takes the delta of a counter, a flag or a vote.
func (in *incoming) scalar(told crdt.View, path []crdt.Step, d *pb.CrdtDelta) error {
	switch d := d.GetDelta().(type) {
	case *pb.CrdtDelta_Gcounter:
		n := d.Gcounter.GetIncrement()
		if n > math.MaxInt64 {
			return fmt.Errorf("an increment of %d is above %d", n, int64(math.MaxInt64))
		}
		if n > 0 {
			in.add(path, crdt.Change{Op: crdt.OpIncrement, Amount: int64(n)})
		}
	case *pb.CrdtDelta_Pncounter:
		if n := d.Pncounter.GetChange(); n != 0 {
			in.add(path, crdt.Change{Op: crdt.OpIncrement, Amount: n})
		}
	case *pb.CrdtDelta_Flag:
		switch {
		case d.Flag.GetValue():
			in.add(path, crdt.Change{Op: crdt.OpEnable})
		case told.Enabled():
			return errors.New("the flag is on, and cannot be switched off")
		}
	case *pb.CrdtDelta_Vote:
		in.add(path, crdt.Change{Op: crdt.OpVote, For: d.Vote.GetSelfVote()})
	}
	return nil
}

func (in *incoming) orset(path []crdt.Step, d *pb.ORSetDelta) error {
	if d.GetCleared() {
		in.add(path, crdt.Change{Op: crdt.OpClear})
	}
	if err := in.elements(path, crdt.OpRemove, d.GetRemoved()); err != nil {
		return err
	}
	return in.elements(path, crdt.OpAdd, d.GetAdded())
}

// elements takes elements of a set, or removed keys of a map.
func (in *incoming) elements(path []crdt.Step, op crdt.Op, list []*anypb.Any) error {
	for i, a := range list {
		if a == nil {
			return fmt.Errorf("element %d is missing", i)
		}
		in.add(path, crdt.Change{Op: op, Element: element(a)})
	}
	return nil
}

func (in *incoming) register(told crdt.View, path []crdt.Step, d *pb.LWWRegisterDelta) error {
	if d.GetValue() == nil {
		return errors.New("the register's value is missing")
	}
	rule := d.GetClock()
	if rule < pb.CrdtClock_DEFAULT || rule > pb.CrdtClock_CUSTOM_AUTO_INCREMENT {
		return fmt.Errorf("the register's clock %d is unknown; there are 0 to 3", rule)
	}
	_, before, set := told.Register()
	clock, reverse := crdt.NextClock(
		crdt.ClockRule(rule), in.now, d.GetCustomClockValue(), before, set)
	in.add(path, crdt.Change{Op: crdt.OpSet, Element: element(d.GetValue()), Clock: clock, Reverse: reverse})
	return nil
}

// ormap takes the delta of a map: first what goes, then what changes below keys that stay, then new
// keys.
func (in *incoming) ormap(told crdt.View, path []crdt.Step, d *pb.ORMapDelta) error {
	if len(path) >= MaxNesting {
		return fmt.Errorf("maps lie more than %d deep", MaxNesting)
	}
	if d.GetCleared() {
		in.add(path, crdt.Change{Op: crdt.OpClear})
		told = nothing()
	}
	if err := in.elements(path, crdt.OpRemove, d.GetRemoved()); err != nil {
		return err
	}
	gone := map[crdt.Element]bool{}
	for _, key := range d.GetRemoved() {
		gone[element(key)] = true
	}
	for _, e := range d.GetUpdated() {
		if err := in.entry(told, gone, path, e, false); err != nil {
			return err
		}
	}
	for _, e := range d.GetAdded() {
		if err := in.entry(told, gone, path, e, true); err != nil {
			return err
		}
	}
	return nil
}

// entry takes one entry of a map. An update of a key that is gone, or whose value is of another
// type, is checked and has no effect. A key that is added becomes present, with whatever value.
func (in *incoming) entry(
	told crdt.View, gone map[crdt.Element]bool, path []crdt.Step, e *pb.ORMapEntryDelta, added bool,
) error {
	if e.GetKey() == nil {
		return errors.New("an entry of the map has no key")
	}
	key := element(e.GetKey())
	t, err := typeOf(e.GetDelta())
	if err != nil {
		return fmt.Errorf("entry %q: %w", key.Value, err)
	}
	below, present := told.At(key)
	if gone[key] || below.Type() != t {
		below, present = nothing(), false
	}
	path = append(slices.Clone(path), crdt.Step{Key: key, Type: t})
	before := len(in.changes)
	if added {
		in.add(path, crdt.Change{Op: crdt.OpTouch})
	}
	if _, err := in.value(below, path, e.GetDelta()); err != nil {
		return fmt.Errorf("entry %q: %w", key.Value, err)
	}
	if !added && !present {
		in.changes = in.changes[:before]
	}
	return nil
}

// nothing is a value without a type.
func nothing() crdt.View { return crdt.NewState(crdt.Options{}).Root() }

func element(a *anypb.Any) crdt.Element {
	return crdt.Element{TypeURL: a.GetTypeUrl(), Value: string(a.GetValue())}
}

func anyOf(e crdt.Element) *anypb.Any {
	return &anypb.Any{TypeUrl: e.TypeURL, Value: []byte(e.Value)}
}
