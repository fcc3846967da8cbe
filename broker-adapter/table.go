package broker

import (
	"errors"
	"fmt"
	"slices"
)

// Member is a worker of a group.
type Member struct {
	// Name is the worker's, Address where peers reach it; Incarnation names its process.
	Name, Address string
	Incarnation   uint64
	// Public is where callers reach it; "" when it does not say so.
	Public string
	// Serves is what the worker said of its services when it joined last, as it encoded it; "" when it said nothing.
	Serves string
	// New: the balancing of the table is the first that it takes part in.
	New bool
}

// Table says which worker owns each partition of a group's topic and which ones follow it, as of one balancing of the group. It
// is a hint: who may write is decided in the log. A Table is not changed after it was made.
type Table struct {
	// Generation rises with each balancing of the group; it begins anew when the group does.
	Generation int32
	// Members are all workers of the group: those that stay, by name, then those that are on their way out, Leaving of them, which
	// own and follow nothing.
	Members []Member
	Leaving int
	// Owners holds, for each partition, an index into Members, or -1 for nobody.
	Owners []int32
	// HandedOver are the partitions, in order, that this balancing takes from a live owner, who will release them.
	HandedOver []int32
	// Standbys holds, for each partition, the indexes of those that follow it.
	Standbys [][]int32
}

// ErrTable: a table names partitions or workers that it does not have.
var ErrTable = errors.New("the routing table contradicts itself")

// Check returns an error if a table names partitions or workers that it does not have. Tables come from other processes: they are
// checked before anything in them is used. What a table is the table of, its user compares.
func (t *Table) Check() error {
	workers, partitions := int32(len(t.Members)), int32(len(t.Owners)) //nolint:gosec // small numbers
	beyond := func(what string, i, n int32) error { return fmt.Errorf("%w: %s is %d of %d", ErrTable, what, i, n) }
	if t.Leaving < 0 || t.Leaving > len(t.Members) {
		return beyond("the number of those that leave", int32(t.Leaving), workers) //nolint:gosec // shown only
	}
	if n := len(t.Standbys); n != 0 && n != len(t.Owners) {
		return beyond("the number of partitions with standbys", int32(n), partitions) //nolint:gosec // shown only
	}
	for _, owner := range t.Owners {
		if owner < nobody || owner >= workers {
			return beyond("an owner", owner, workers)
		}
	}
	for _, standbys := range t.Standbys {
		for _, s := range standbys {
			if s < 0 || s >= workers {
				return beyond("a standby", s, workers)
			}
		}
	}
	for _, p := range t.HandedOver {
		if p < 0 || p >= partitions {
			return beyond("a partition that is handed over", p, partitions)
		}
	}
	return nil
}

// Owner returns the worker that owns a partition; ok is false when nobody does at the moment.
func (t *Table) Owner(partition int32) (m Member, ok bool) {
	if t == nil || partition < 0 || int(partition) >= len(t.Owners) || t.Owners[partition] < 0 {
		return Member{}, false
	}
	return t.Members[t.Owners[partition]], true
}

// Staying are the workers that are not on their way out.
func (t *Table) Staying() []Member {
	if t == nil {
		return nil
	}
	return t.Members[:len(t.Members)-t.Leaving]
}

// Member returns a worker by its name; ok is false when it has no place in the table.
func (t *Table) Member(name string) (m Member, ok bool) {
	if i := t.index(name); i >= 0 {
		return t.Members[i], true
	}
	return Member{}, false
}

// Versions is how many different answers the workers give to the question what they serve: more than one during a rolling upgrade.
func (t *Table) Versions() int {
	if t == nil {
		return 0
	}
	seen := map[string]bool{}
	for _, m := range t.Members {
		if m.Serves != "" {
			seen[m.Serves] = true
		}
	}
	return len(seen)
}

// Owned returns the partitions that a worker owns, in order.
func (t *Table) Owned(name string) []int32 {
	i := t.index(name)
	if i < 0 {
		return nil
	}
	var owned []int32
	for p, owner := range t.Owners {
		if owner == i {
			owned = append(owned, int32(p))
		}
	}
	return owned
}

// Followed returns the partitions that a worker follows, in order.
func (t *Table) Followed(name string) []int32 {
	i := t.index(name)
	if i < 0 {
		return nil
	}
	var followed []int32
	for p, standbys := range t.Standbys {
		if slices.Contains(standbys, i) {
			followed = append(followed, int32(p))
		}
	}
	return followed
}

func (t *Table) index(name string) int32 {
	if t == nil {
		return -1
	}
	return int32(slices.IndexFunc(t.Members, func(m Member) bool { return m.Name == name })) //nolint:gosec // a number of workers
}

// Due says whether a balancing now would move a partition to this worker, because its image has become warm: a reason to ask for
// one (Group.Rebalance). It looks at the worker's images as they are now. It is false for all when shares are equal, so workers
// that ask only when it is true come to an end.
func (t *Table) Due(m Membership) bool {
	me := t.index(m.Worker)
	if me < 0 || int(me) >= len(t.Staying()) || m.Images == nil {
		return false
	}
	p := &planner{partitions: len(t.Owners), members: make([]Candidate, len(t.Staying())), load: make([]int, len(t.Staying()))}
	for _, owner := range t.Owners {
		if owner < 0 {
			return false // the balancing that gives it an owner is under way
		}
		p.load[owner]++
	}
	p.share()
	if p.room(me) <= 0 {
		return false
	}
	for part, lag := range m.Images() {
		if part >= 0 && int(part) < len(t.Owners) && lag <= Warm && p.room(t.Owners[part]) < 0 {
			return true
		}
	}
	return false
}
