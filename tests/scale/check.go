package main

import (
	"fmt"
	"slices"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// check checks what must be true after every rebalance: no partition has two owners, members own
// what the table says, and at most a bounded part moved.
func (g *group) check() error {
	owners := make([]int32, g.partitions)
	for p := range owners {
		owners[p] = -1
	}
	for i, m := range g.members {
		for _, p := range m.owned {
			if other := owners[p]; other >= 0 {
				return fmt.Errorf("generation %d: %s and %s own partition %d", g.generation, g.members[other].Name, m.Name, p)
			}
			owners[p] = int32(i)
		}
		if g.table.Members[i] != m.Member {
			return fmt.Errorf("generation %d: the table has %v instead of %v", g.generation, g.table.Members[i], m.Member)
		}
	}
	if !slices.Equal(owners, g.table.Owners) {
		return fmt.Errorf("generation %d: members do not own what the table says", g.generation)
	}
	if none := count(owners, -1); none > broker.MaxMoves(g.partitions) {
		return fmt.Errorf("generation %d: %d partitions are without an owner at once", g.generation, none)
	}
	return nil
}

// checkRest: every partition has one owner and its followers, and shares are even. Followers that
// are no longer needed may stay until the next rebalance; they are counted.
func (g *group) checkRest() error {
	if none := count(g.table.Owners, -1); none > 0 {
		return fmt.Errorf("at rest %d partitions have no owner", none)
	}
	least, most := g.partitions, 0
	for _, m := range g.members {
		least, most = min(least, len(m.owned)), max(most, len(m.owned))
	}
	if most-least > 1 {
		return fmt.Errorf("at rest shares are from %d to %d", least, most)
	}
	g.step.Lingering = 0
	standbys := min(g.options.Standbys, len(g.members)-1)
	for p, followers := range g.table.Standbys {
		if len(followers) < standbys || slices.Contains(followers, g.table.Owners[p]) {
			return fmt.Errorf("at rest partition %d, owned by %d, is followed by %v", p, g.table.Owners[p], followers)
		}
		g.step.Lingering += len(followers) - standbys
	}
	return nil
}

func count(owners []int32, who int32) (n int) {
	for _, o := range owners {
		if o == who {
			n++
		}
	}
	return n
}

// same reports whether two tables are equal.
func same(a, b *broker.Table) bool {
	return a.Generation == b.Generation && slices.Equal(a.Members, b.Members) && slices.Equal(a.Owners, b.Owners) &&
		slices.EqualFunc(a.Standbys, b.Standbys, slices.Equal[[]int32])
}
