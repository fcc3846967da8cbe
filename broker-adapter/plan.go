package broker

import (
	"cmp"
	"slices"
)

// Warm is the largest lag, in records, of an image that counts as caught up: its worker takes the
// partition over in milliseconds. It is a power of two less one, because lags may be encoded as
// powers of two.
const Warm = 1<<10 - 1

// Candidate is a worker that takes part in a rebalance of its group.
type Candidate struct {
	Member
	// Owned are the partitions that it owned as of the rebalance Generation. Of two workers that
	// say that they own a partition, the one with the later Generation counts.
	Owned      []int32
	Generation int32
	// Images are those of the partitions that it owns or follows.
	Images []Image
	// Leaving: the worker is about to leave and hands over what it owns.
	Leaving bool
}

// Image is how far a worker's image of a partition is behind the end of the log, in records.
type Image struct {
	Partition int32
	Lag       int64
}

// MaxMoves is how many partitions one rebalance takes from live owners that stay: a sixteenth.
// Callers of these partitions wait until the log has a release and a claim; others are not
// affected. The next rebalance follows at once, so a large move is sixteen short pauses, each for
// other callers.
func MaxMoves(partitions int) int { return max(1, partitions/16) }

// Plan assigns the partitions of a group. It is a pure function: all workers compute the same table
// from the same candidates. Its rules, in order of precedence:
//
//   - A partition without a live owner, or with one that is leaving, is assigned at once: to the
//     worker whose image is closest to the end of the log, within its share; else to one with a
//     warm image beyond its share; else to the one most below its share.
//   - An owner keeps its partitions, unless it has more than its share.
//   - A partition with a live owner moves only to a worker that is warm for it, and at most
//     MaxMoves do; none while partitions without an owner are assigned, because a worker that
//     releases partitions takes none meanwhile. It moves in one rebalance: the new owner reads in
//     the log when the old one has released it.
//   - A worker that is leaving owns and follows nothing, unless all are leaving.
//   - A worker that is to get a partition, and is not warm, follows it in addition to the standbys.
//     When it is warm, Due reports it.
//   - Every partition has the given number of followers, spread evenly; workers with an image keep
//     following. Those with the best images stay, in addition, until enough of the others have
//     caught up.
//
// Once everything is warm, and Due is false for all, shares differ by at most one. It takes time
// O(P log W).
func Plan(members []Candidate, partitions, standbys int, generation int32) *Table {
	members = slices.SortedStableFunc(slices.Values(members), Candidate.Compare)
	t := &Table{Generation: generation, Owners: make([]int32, partitions), Standbys: make([][]int32, partitions)}
	for i := range members {
		t.Members = append(t.Members, members[i].Member)
		if members[i].Leaving {
			t.Leaving++
		}
	}
	if t.Leaving == len(members) {
		t.Leaving = 0 // there is no worker to hand over to
	}
	members, leaving := members[:len(members)-t.Leaving], members[len(members)-t.Leaving:]
	p := &planner{
		members: members, leaving: leaving, partitions: partitions, standbys: max(0, min(standbys, len(members)-1)),
	}
	if len(p.members) == 0 {
		fill(t.Owners, noWorker)
		return t
	}
	p.collectImages()
	p.findOwners()
	p.share()
	p.adopt()
	p.share() // as in Due: a worker that follows a partition from now on requests it later
	p.balance()
	p.follow(t)
	return t
}

// Compare orders workers as in a table: those that stay by name, then those that leave.
func (c Candidate) Compare(other Candidate) int {
	switch {
	case c.Leaving == other.Leaving:
		return cmp.Compare(c.Name, other.Name)
	case c.Leaving:
		return 1
	default:
		return -1
	}
}

const noWorker = -1

func fill(s []int32, v int32) {
	for i := range s {
		s[i] = v
	}
}

type planner struct {
	// members are those that stay, leaving those that do not.
	members, leaving     []Candidate
	partitions, standbys int

	// images holds those of partition p from first[p] to first[p+1], the closest to the end of the
	// log first.
	images []holder
	first  []int32

	// owner is the owner of a partition until the next rebalance, target its final one.
	owner, target []int32
	// adopted: the partition had no owner before this rebalance. moves: it moves from its owner to
	// its target now.
	adopted, moves []bool
	// left: its owner is leaving.
	left []bool
	// load is how many partitions each worker is to have, quota its share.
	load, quota []int
}

// holder is a worker with an image of some partition.
type holder struct {
	member int32
	lag    int64
}

func (h holder) warm() bool { return h.lag <= Warm }

func (p *planner) holders(part int32) []holder { return p.images[p.first[part]:p.first[part+1]] }

// collectImages collects the holders of an image of each partition.
func (p *planner) collectImages() {
	p.first = make([]int32, p.partitions+1)
	// the last worker with an image of the partition, plus one: duplicates are ignored
	seen := make([]int32, p.partitions)
	each := func(do func(member int32, i Image)) {
		clear(seen)
		for m := range p.members {
			for _, i := range p.members[m].Images {
				if i.Partition >= 0 && int(i.Partition) < p.partitions && seen[i.Partition] != int32(m+1) {
					seen[i.Partition] = int32(m + 1)
					do(int32(m), i)
				}
			}
		}
	}
	each(func(_ int32, i Image) { p.first[i.Partition+1]++ })
	for part := range p.partitions {
		p.first[part+1] += p.first[part]
	}
	p.images = make([]holder, p.first[p.partitions])
	next := slices.Clone(p.first)
	each(func(member int32, i Image) {
		p.images[next[i.Partition]] = holder{member: member, lag: max(0, i.Lag)}
		next[i.Partition]++
	})
	for part := range p.each() {
		slices.SortStableFunc(p.holders(part), func(a, b holder) int { return cmp.Compare(a.lag, b.lag) })
	}
}

// findOwners finds the present owner of every partition. Other workers that say that they own it
// release it, since it is not among what they are assigned.
func (p *planner) findOwners() {
	p.owner, p.adopted, p.moves = make([]int32, p.partitions), make([]bool, p.partitions), make([]bool, p.partitions)
	p.load = make([]int, len(p.members))
	fill(p.owner, noWorker)
	for m := range p.members {
		for _, part := range p.members[m].Owned {
			if part < 0 || int(part) >= p.partitions {
				continue
			}
			if before := p.owner[part]; before < 0 || p.members[before].Generation < p.members[m].Generation {
				p.owner[part] = int32(m)
			}
		}
	}
	p.left = make([]bool, p.partitions)
	for i := range p.leaving {
		for _, part := range p.leaving[i].Owned {
			if part >= 0 && int(part) < p.partitions {
				p.left[part] = p.owner[part] < 0
			}
		}
	}
	for _, m := range p.owner {
		if m >= 0 {
			p.load[m]++
		}
	}
	p.target = slices.Clone(p.owner)
}

// share gives all workers an equal quota. The remainder goes to the workers that own most, so that
// it need not move.
func (p *planner) share() {
	order := make([]int, len(p.members))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(p.load[b], p.load[a]) })
	p.quota = make([]int, len(p.members))
	for rank, m := range order {
		p.quota[m] = p.partitions / len(order)
		if rank < p.partitions%len(order) {
			p.quota[m]++
		}
	}
}

func (p *planner) below(m int32) int { return p.quota[m] - p.load[m] }

// adopt finds owners for the partitions that have none.
func (p *planner) adopt() {
	var orphans []int32
	for part := range p.each() {
		if p.owner[part] < 0 {
			orphans = append(orphans, part)
		}
	}
	for _, choose := range []func(part int32) int32{
		func(part int32) int32 { return p.closest(part, holder.warm) },
		p.warmest,
		func(part int32) int32 { return p.closest(part, func(holder) bool { return true }) },
		p.leastLoaded(),
	} {
		left := orphans[:0]
		for _, part := range orphans {
			m := choose(part)
			if m < 0 {
				left = append(left, part)
				continue
			}
			p.owner[part], p.target[part], p.adopted[part] = m, m, true
			p.load[m]++
		}
		orphans = left
	}
}

// closest returns the worker below its quota whose image is best; of several, the one most below
// it.
func (p *planner) closest(part int32, ok func(holder) bool) int32 {
	best := holder{member: noWorker}
	for _, h := range p.holders(part) {
		switch {
		case p.below(h.member) <= 0 || !ok(h):
		case best.member < 0, h.lag == best.lag && p.below(h.member) > p.below(best.member):
			best = h
		}
	}
	return best.member
}

// warmest returns the worker with a warm image that is least above its share. A warm image is more
// important than the share: the partition is served at once, and moves when another worker is warm.
func (p *planner) warmest(part int32) int32 {
	best := int32(noWorker)
	for _, h := range p.holders(part) {
		if h.warm() && (best < 0 || p.below(h.member) > p.below(best)) {
			best = h.member
		}
	}
	return best
}

// leastLoaded returns a function that chooses the worker most below its quota.
func (p *planner) leastLoaded() func(int32) int32 {
	var byLoad *ranking
	return func(int32) int32 {
		if byLoad == nil { // made on first use, after earlier assignments
			byLoad = newRanking(len(p.members), func(m int32) int { return -p.below(m) })
		}
		m := byLoad.first()
		byLoad.add(m, 1)
		return m
	}
}

// balance takes partitions from workers above their share. A partition moves now if a worker below
// its share is warm for it; otherwise that worker is to follow it.
func (p *planner) balance() {
	left := MaxMoves(p.partitions)
	if slices.Contains(p.adopted, true) {
		left = 0
	}
	for part := range p.surplus() {
		if m := p.closest(part, holder.warm); m >= 0 {
			if p.adopted[part] { // no owner has to release it
				p.owner[part] = m
				p.hand(part, m, false)
				continue
			}
			p.hand(part, m, left > 0)
			left--
		}
	}
	for part := range p.surplus() {
		if m := p.closest(part, func(holder) bool { return true }); m >= 0 {
			p.hand(part, m, false)
		}
	}
	next := p.leastLoaded()
	for part := range p.surplus() {
		p.hand(part, next(part), false)
	}
}

func (p *planner) hand(part, to int32, now bool) {
	p.load[p.target[part]]--
	p.load[to]++
	p.target[part], p.moves[part] = to, now
}

// surplus yields the partitions of workers that are above their share at that moment.
func (p *planner) surplus() func(func(int32) bool) {
	return func(yield func(int32) bool) {
		for part := range p.each() {
			if p.below(p.target[part]) < 0 && !yield(part) {
				return
			}
		}
	}
}

// each yields all partitions.
func (p *planner) each() func(func(int32) bool) {
	return func(yield func(int32) bool) {
		for part := range p.partitions {
			if !yield(int32(part)) {
				return
			}
		}
	}
}
