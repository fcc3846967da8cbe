package broker

import (
	"cmp"
	"slices"
)

// Warm is the largest lag, in records, with which an image counts as caught up: its worker takes a partition over in
// milliseconds. It is a power of two less one, because lags may travel as powers of two.
const Warm = 1<<10 - 1

// Candidate is a worker as it comes to a balancing of its group.
type Candidate struct {
	Member
	// Owned are the partitions that it owned as of balancing Generation. A claim of a later balancing beats one of an earlier.
	Owned      []int32
	Generation int32
	// Images are those of the partitions that it owns or follows.
	Images []Image
	// Leaving: it is on its way out, and hands over what it owns.
	Leaving bool
}

// Image says how far a worker's image of a partition is behind the end of the log, in records.
type Image struct {
	Partition int32
	Lag       int64
}

// MaxMoves is how many partitions one balancing takes from live owners that stay: a sixteenth. Their callers wait until the log has
// a release and a claim, those of all others notice nothing. The next balancing follows at once, so a large move takes sixteen short
// pauses, each for other callers.
func MaxMoves(partitions int) int { return max(1, partitions/16) }

// Plan balances a group. It is pure, and each worker that computes it from the same candidates gets the same table. Its rules,
// the first ones weigh more:
//
//   - A partition without a live owner, or with one that is leaving, is given away at once: to the worker whose image is closest to
//     the end of the log, within its share; else to one with a warm image beyond its share; else to whoever has most room.
//   - An owner keeps its partitions, unless it has more than its share.
//   - A partition with a live owner moves only to a worker that is warm for it, and at most MaxMoves do; none while others are given
//     away, because a worker that releases something takes nothing meanwhile. It goes from one to the other in one balancing: the new
//     owner reads in the log when the old one has released it.
//   - Who is leaving owns and follows nothing, unless all are.
//   - A worker that is to get a partition, and is not warm, follows it beside the others. When it is warm, Due says so.
//   - Every partition is followed by the given number of others, spread evenly; who has an image stays. Those with the best
//     images stay beside them until enough of the others are as good.
//
// Once everything is warm, and Due is false for all, shares differ by at most one. It takes time O(P log W).
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
		t.Leaving = 0 // to whom should they hand over?
	}
	members, leaving := members[:len(members)-t.Leaving], members[len(members)-t.Leaving:]
	p := &planner{members: members, leaving: leaving, partitions: partitions, standbys: max(0, min(standbys, len(members)-1))}
	if len(p.members) == 0 {
		fill(t.Owners, nobody)
		return t
	}
	p.collectImages()
	p.hearClaims()
	p.share()
	p.adopt()
	p.share() // as Due will see it: who is made to follow a partition now asks for it later
	p.balance()
	p.follow(t)
	return t
}

// Compare puts workers in the order of a table: those that stay by name, then those that leave.
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

const nobody = -1

func fill(s []int32, v int32) {
	for i := range s {
		s[i] = v
	}
}

type planner struct {
	// members are those that stay, leaving those that do not.
	members, leaving     []Candidate
	partitions, standbys int

	// images holds those of partition p from first[p] to first[p+1], the closest to the end of the log first.
	images []holder
	first  []int32

	// owner is who has a partition until the next balancing, target who is to have it.
	owner, target []int32
	// adopted says that the partition had no owner before this balancing, moves that it goes from its owner to its target now.
	adopted, moves []bool
	// left says that an owner which is leaving has it.
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

// collectImages turns what workers say of their images into who has one of each partition.
func (p *planner) collectImages() {
	p.first = make([]int32, p.partitions+1)
	seen := make([]int32, p.partitions) // the last worker that named the partition, plus one: a second mention does not count
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

// hearClaims finds the present owner of every partition. Others that claim it too release it by themselves: it is not in what they
// are given.
func (p *planner) hearClaims() {
	p.owner, p.adopted, p.moves = make([]int32, p.partitions), make([]bool, p.partitions), make([]bool, p.partitions)
	p.load = make([]int, len(p.members))
	fill(p.owner, nobody)
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

// share gives everybody an equal quota. What cannot be divided goes to those that have most, so that it need not move.
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

func (p *planner) room(m int32) int { return p.quota[m] - p.load[m] }

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
		p.roomiest(),
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

// closest returns the worker with room whose image is best; of several that with most room.
func (p *planner) closest(part int32, ok func(holder) bool) int32 {
	best := holder{member: nobody}
	for _, h := range p.holders(part) {
		switch {
		case p.room(h.member) <= 0 || !ok(h):
		case best.member < 0, h.lag == best.lag && p.room(h.member) > p.room(best.member):
			best = h
		}
	}
	return best.member
}

// warmest returns the worker with a warm image that is least above its share. A warm image counts more than the share: the
// partition is served at once, and moves when another one is warm.
func (p *planner) warmest(part int32) int32 {
	best := int32(nobody)
	for _, h := range p.holders(part) {
		if h.warm() && (best < 0 || p.room(h.member) > p.room(best)) {
			best = h.member
		}
	}
	return best
}

// roomiest returns a choice of the worker with most room.
func (p *planner) roomiest() func(int32) int32 {
	var byRoom *ranking
	return func(int32) int32 {
		if byRoom == nil { // made when it is needed: what was chosen before must count
			byRoom = newRanking(len(p.members), func(m int32) int { return -p.room(m) })
		}
		m := byRoom.first()
		byRoom.add(m, 1)
		return m
	}
}

// balance takes partitions from those above their share: now, where another one with room is warm; else that one is to follow.
func (p *planner) balance() {
	left := MaxMoves(p.partitions)
	if slices.Contains(p.adopted, true) {
		left = 0
	}
	for part := range p.surplus() {
		if m := p.closest(part, holder.warm); m >= 0 {
			if p.adopted[part] { // nobody has to release it
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
	roomiest := p.roomiest()
	for part := range p.surplus() {
		p.hand(part, roomiest(part), false)
	}
}

func (p *planner) hand(part, to int32, now bool) {
	p.load[p.target[part]]--
	p.load[to]++
	p.target[part], p.moves[part] = to, now
}

// surplus goes through the partitions of those who are, at that moment, above their share.
func (p *planner) surplus() func(func(int32) bool) {
	return func(yield func(int32) bool) {
		for part := range p.each() {
			if p.room(p.target[part]) < 0 && !yield(part) {
				return
			}
		}
	}
}

// each goes through all partitions.
func (p *planner) each() func(func(int32) bool) {
	return func(yield func(int32) bool) {
		for part := range p.partitions {
			if !yield(int32(part)) {
				return
			}
		}
	}
}
