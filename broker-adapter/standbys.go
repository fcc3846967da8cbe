package broker

import "slices"

// follow chooses who follows each partition, and writes the table.
func (p *planner) follow(t *Table) {
	duty := newRanking(len(p.members), func(int32) int { return 0 })
	regular := p.keepStandbys(duty)
	p.fillStandbys(regular, duty)
	p.evenStandbys(regular, duty)
	for part := range p.each() {
		owner := p.owner[part]
		if p.moves[part] {
			owner = p.target[part]
		}
		if p.moves[part] || p.left[part] {
			t.HandedOver = append(t.HandedOver, part)
		}
		t.Owners[part] = owner
		t.Standbys[part] = p.followers(part, owner, regular[part])
	}
}

// keepStandbys keeps workers with an image as standbys, up to their share.
func (p *planner) keepStandbys(duty *ranking) [][]int32 {
	most := p.duties()
	regular := make([][]int32, p.partitions)
	for part := range p.each() {
		for _, h := range p.holders(part) {
			if len(regular[part]) < p.standbys && h.member != p.target[part] && duty.of(h.member) < most {
				regular[part] = append(regular[part], h.member)
				duty.add(h.member, 1)
			}
		}
	}
	return regular
}

// duties returns an equal share of all partitions to follow, rounded up.
func (p *planner) duties() int {
	return (p.partitions*p.standbys + len(p.members) - 1) / len(p.members)
}

// fillStandbys gives the rest to the workers that follow least.
func (p *planner) fillStandbys(regular [][]int32, duty *ranking) {
	for part := range p.each() {
		for len(regular[part]) < p.standbys {
			least := p.leastDuty(part, regular[part], duty)
			for _, h := range p.holders(part) { // some worker is above its share in any case: prefer one with an image
				if duty.of(least) >= p.duties() && duty.of(h.member) <= duty.of(least) &&
					p.mayFollow(part, regular[part], h.member) {
					least = h.member
					break
				}
			}
			regular[part] = append(regular[part], least)
			duty.add(least, 1)
		}
	}
}

// evenStandbys moves standbys away from workers that follow more than others.
func (p *planner) evenStandbys(regular [][]int32, duty *ranking) {
	for part := range p.each() {
		for i, m := range regular[part] {
			if duty.of(m) <= duty.of(duty.first())+1 {
				continue
			}
			if least := p.leastDuty(part, regular[part], duty); least >= 0 && duty.of(least)+1 < duty.of(m) {
				regular[part][i] = least
				duty.add(m, -1)
				duty.add(least, 1)
			}
		}
	}
}

func (p *planner) mayFollow(part int32, regular []int32, m int32) bool {
	return m != p.target[part] && !slices.Contains(regular, m)
}

// leastDuty returns the worker that follows least among those that may follow this partition, or
// none.
func (p *planner) leastDuty(part int32, regular []int32, duty *ranking) int32 {
	return duty.firstOf(func(m int32) bool { return p.mayFollow(part, regular, m) })
}

// followers returns the workers that follow a partition until the next rebalance.
func (p *planner) followers(part, owner int32, regular []int32) []int32 {
	target := p.target[part]
	var all []int32
	for _, m := range regular {
		if m != owner {
			all = append(all, m)
		}
	}
	for _, h := range p.holders(part) { // a worker with an image stays until enough of the others have caught up
		if h.member == owner || h.member == target || slices.Contains(all, h.member) {
			continue
		}
		asGood := 0
		for _, other := range p.holders(part) {
			if (other.warm() || other.lag <= h.lag) && slices.Contains(all, other.member) {
				asGood++
			}
		}
		if asGood < p.standbys {
			all = append(all, h.member)
		}
	}
	if target != owner {
		all = append(all, target)
	}
	return all
}
