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
	// Public is where callers reach it; "" if it does not tell.
	Public string
	// Serves is Membership.Serves as of when the worker joined last; "" if it had none.
	Serves string
	// New: this rebalance is its first.
	New bool
}

// Table says which worker owns each partition of a group's topic and which ones follow it, as of
// one rebalance of the group. It is a hint: the log decides who may write. A Table is immutable.
type Table struct {
	// Generation rises with each rebalance of the group. It restarts with a new group.
	Generation int32
	// Members are all workers of the group: those that stay, by name, then the Leaving ones, which
	// own and follow nothing.
	Members []Member
	Leaving int
	// Owners holds, for each partition, an index into Members, or -1 for no owner.
	Owners []int32
	// HandedOver are the partitions, in order, that this rebalance takes from a live owner, who
	// will release them.
	HandedOver []int32
	// Standbys holds, for each partition, the indexes of those that follow it.
	Standbys [][]int32
}

// ErrTable: a table names partitions or workers that it does not have.
var ErrTable = errors.New("the routing table contradicts itself")

// Check returns an error if a table names partitions or workers that it does not have. Tables come
// from other processes: they are checked before use. Check does not compare the table with a topic.
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
		if owner < noWorker || owner >= workers {
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

// Owner returns the worker that owns a partition; ok is false if the partition has no owner.
func (t *Table) Owner(partition int32) (m Member, ok bool) {
	if t == nil || partition < 0 || int(partition) >= len(t.Owners) || t.Owners[partition] < 0 {
		return Member{}, false
	}
	return t.Members[t.Owners[partition]], true
}

// Staying returns the workers that are not leaving.
func (t *Table) Staying() []Member {
	if t == nil {
		return nil
	}
	return t.Members[:len(t.Members)-t.Leaving]
}

// Member returns a worker by its name; ok is false if it is not in the table.
func (t *Table) Member(name string) (m Member, ok bool) {
	if i := t.index(name); i >= 0 {
		return t.Members[i], true
	}
	return Member{}, false
}

// Versions returns the number of distinct values of Member.Serves: more than one during a rolling
// upgrade.
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

// Due reports whether a rebalance now would move a partition to this worker, because its image has
// become warm: then the worker should request one (Group.Rebalance). It calls m.Images. It is false
// for all workers when shares are equal, so requests come to an end.
func (t *Table) Due(m Membership) bool {
	me := t.index(m.Worker)
	if me < 0 || int(me) >= len(t.Staying()) || m.Images == nil {
		return false
	}
	p := &planner{
		partitions: len(t.Owners), members: make([]Candidate, len(t.Staying())), load: make([]int, len(t.Staying())),
	}
	for _, owner := range t.Owners {
		if owner < 0 {
			return false // the rebalance that assigns it is in progress
		}
		p.load[owner]++
	}
	p.share()
	if p.below(me) <= 0 {
		return false
	}
	for part, lag := range m.Images() {
		if part >= 0 && int(part) < len(t.Owners) && lag <= Warm && p.below(t.Owners[part]) < 0 {
			return true
		}
	}
	return false
}
