package wire

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/millrace-io/millrace/crdt"
	pb "github.com/millrace-io/millrace/proto/gen/cloudstate/crdt"
)

// ErrNoDelta: no delta says how one value becomes the other, because one would have to go back, as
// a set that only grows. The function has to begin with the new value.
var ErrNoDelta = errors.New("no delta leads from one value to the other")

// Voters says whose votes count.
type Voters struct {
	// Self is the worker whose function is told; Total is how many workers are live, as Live says
	// of their writers.
	Self  string
	Total int
	Live  func(crdt.Writer) bool
}

// Side is a value as it was, or is to be, told to a function.
type Side struct {
	Value  crdt.View
	Voters Voters
}

// Delta returns what makes from into to, for a function that knows from; nil if they are equal. For
// a function that knows nothing yet from is the value of an entity without records. The error wraps
// ErrNoDelta.
func Delta(from, to Side) (*pb.CrdtDelta, error) {
	if to.Value.Type() == 0 {
		return nil, nil //nolint:nilnil // there is nothing to tell
	}
	d, changed, err := between(from, to)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", to.Value.Type(), err)
	}
	if !changed {
		return nil, nil //nolint:nilnil // there is nothing to tell
	}
	return d, nil
}

// between returns a delta of to's type, also when nothing has changed.
func between(from, to Side) (d *pb.CrdtDelta, changed bool, err error) {
	if t := from.Value.Type(); t != 0 && t != to.Value.Type() {
		return nil, false, fmt.Errorf("%w: it was a %v", ErrNoDelta, t)
	}
	switch to.Value.Type() {
	case crdt.GCounter, crdt.PNCounter:
		return counter(from.Value, to.Value)
	case crdt.GSet:
		return gset(from.Value, to.Value)
	case crdt.ORSet:
		d, changed = orset(from.Value, to.Value)
		return d, changed, nil
	case crdt.LWWRegister:
		return register(from.Value, to.Value)
	case crdt.Flag:
		return flag(from.Value, to.Value)
	case crdt.Vote:
		d, changed = vote(from, to)
		return d, changed, nil
	case crdt.ORMap:
		return ormap(from, to)
	default:
		return nil, false, fmt.Errorf("%w: %v is unknown", ErrNoDelta, to.Value.Type())
	}
}

func counter(from, to crdt.View) (*pb.CrdtDelta, bool, error) {
	a, b := from.Count(), to.Count()
	if to.Type() == crdt.GCounter {
		if b < a {
			return nil, false, fmt.Errorf("%w: the counter was %d and is %d", ErrNoDelta, a, b)
		}
		return &pb.CrdtDelta{Delta: &pb.CrdtDelta_Gcounter{
			Gcounter: &pb.GCounterDelta{Increment: uint64(b - a)}, //nolint:gosec // neither is negative
		}}, a != b, nil
	}
	if a < 0 && b > math.MaxInt64+a || a > 0 && b < math.MinInt64+a {
		return nil, false, fmt.Errorf("%w: the counter was %d and is %d", ErrNoDelta, a, b)
	}
	return &pb.CrdtDelta{Delta: &pb.CrdtDelta_Pncounter{Pncounter: &pb.PNCounterDelta{Change: b - a}}}, a != b, nil
}

// missing returns the elements of list that a set does not have, or the keys that a map does not.
func missing(list []crdt.Element, in crdt.View) []*anypb.Any {
	var out []*anypb.Any
	for _, e := range list {
		if !in.Has(e) {
			out = append(out, anyOf(e))
		}
	}
	return out
}

func gset(from, to crdt.View) (*pb.CrdtDelta, bool, error) {
	if len(missing(from.Elements(), to)) > 0 {
		return nil, false, fmt.Errorf("%w: elements are gone", ErrNoDelta)
	}
	added := missing(to.Elements(), from)
	return &pb.CrdtDelta{Delta: &pb.CrdtDelta_Gset{Gset: &pb.GSetDelta{Added: added}}}, len(added) > 0, nil
}

// orset says only "cleared" when the set is empty now, and "cleared" with all elements when that is
// shorter.
func orset(from, to crdt.View) (*pb.CrdtDelta, bool) {
	all := to.Elements()
	d := &pb.ORSetDelta{Removed: missing(from.Elements(), to), Added: missing(all, from)}
	n := len(d.GetRemoved()) + len(d.GetAdded())
	if n > len(all) && len(d.GetRemoved()) > 0 {
		d = &pb.ORSetDelta{Cleared: true}
		for _, e := range all {
			d.Added = append(d.Added, anyOf(e))
		}
	}
	return &pb.CrdtDelta{Delta: &pb.CrdtDelta_Orset{Orset: d}}, n > 0
}

func register(from, to crdt.View) (*pb.CrdtDelta, bool, error) {
	a, _, was := from.Register()
	b, _, is := to.Register()
	d := &pb.LWWRegisterDelta{}
	switch {
	case is:
		d.Value = anyOf(b)
	case was:
		return nil, false, fmt.Errorf("%w: the register has no value any more", ErrNoDelta)
	}
	return &pb.CrdtDelta{Delta: &pb.CrdtDelta_Lwwregister{Lwwregister: d}}, is && (!was || a != b), nil
}

func flag(from, to crdt.View) (*pb.CrdtDelta, bool, error) {
	if from.Enabled() && !to.Enabled() {
		return nil, false, fmt.Errorf("%w: the flag is off again", ErrNoDelta)
	}
	return &pb.CrdtDelta{Delta: &pb.CrdtDelta_Flag{Flag: &pb.FlagDelta{Value: to.Enabled()}}},
		from.Enabled() != to.Enabled(), nil
}

// vote has changed also when only the number of voters has.
func vote(from, to Side) (*pb.CrdtDelta, bool) {
	told, now := votes(from), votes(to)
	changed := from.Value.Type() == 0 || told.GetSelfVote() != now.GetSelfVote() ||
		told.GetVotesFor() != now.GetVotesFor() || told.GetTotalVoters() != now.GetTotalVoters()
	return &pb.CrdtDelta{Delta: &pb.CrdtDelta_Vote{Vote: now}}, changed
}

func votes(s Side) *pb.VoteDelta {
	if s.Voters.Live == nil {
		return &pb.VoteDelta{}
	}
	votesFor, self := s.Value.Votes(s.Voters.Self, s.Voters.Live)
	return &pb.VoteDelta{
		SelfVote: self, VotesFor: int32(votesFor), TotalVoters: int32(s.Voters.Total), //nolint:gosec // numbers of workers
	}
}

// ormap says only "cleared" when the map is empty now. A key whose value no delta leads to, because
// it was removed and added again, is removed and added here too.
func ormap(from, to Side) (*pb.CrdtDelta, bool, error) {
	d := &pb.ORMapDelta{Removed: missing(from.Value.Keys(), to.Value)}
	keys := to.Value.Keys()
	if len(keys) == 0 && len(d.GetRemoved()) > 0 {
		d = &pb.ORMapDelta{Cleared: true}
	}
	for _, key := range keys {
		if err := entry(d, key, from, to); err != nil {
			return nil, false, err
		}
	}
	changed := d.GetCleared() || len(d.GetRemoved())+len(d.GetUpdated())+len(d.GetAdded()) > 0
	return &pb.CrdtDelta{Delta: &pb.CrdtDelta_Ormap{Ormap: d}}, changed, nil
}

// entry adds what has changed under one key.
func entry(d *pb.ORMapDelta, key crdt.Element, from, to Side) error {
	was, present := from.Value.At(key)
	is, _ := to.Value.At(key)
	now := Side{Value: is, Voters: to.Voters}
	if present {
		below, changed, err := between(Side{Value: was, Voters: from.Voters}, now)
		switch {
		case err == nil && changed:
			d.Updated = append(d.Updated, &pb.ORMapEntryDelta{Key: anyOf(key), Delta: below})
			return nil
		case err == nil:
			return nil
		case !errors.Is(err, ErrNoDelta):
			return err
		}
		d.Removed = append(d.Removed, anyOf(key))
	}
	below, _, err := between(Side{Value: nothing()}, now)
	if err != nil {
		return err
	}
	d.Added = append(d.Added, &pb.ORMapEntryDelta{Key: anyOf(key), Delta: below})
	return nil
}
