package broker_test

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

const (
	// far is the lag of an image that has just been begun.
	far = 1 << 30
	// enough is the number of rebalances after which any group of these tests is stable.
	enough = 400
)

// model is a group whose members do what the tables say.
type model struct {
	partitions, standbys int
	generation           int32
	members              []*worker
	table                *broker.Table
	// moved: the table has taken partitions from live owners, who join again when they have
	// released them.
	moved bool
	// joined counts names, so that each is new.
	joined int
}

// worker is a member of a model. Its images are of what it owns or follows, and nothing else.
type worker struct {
	broker.Member

	owned      []int32
	generation int32
	leaving    bool
	lags       map[int32]int64
}

func (m *model) join() *worker {
	m.joined++
	name := fmt.Sprintf("w%04d", m.joined)
	w := &worker{Member: broker.Member{Name: name, Address: name + ":1"}, lags: map[int32]int64{}, generation: -1}
	m.members = append(m.members, w)
	return w
}

func (m *model) leave(i int) { m.members = slices.Delete(m.members, i, i+1) }

func (w *worker) candidate() broker.Candidate {
	c := broker.Candidate{Member: w.Member, Owned: w.owned, Generation: w.generation, Leaving: w.leaving}
	for p, lag := range w.lags {
		c.Images = append(c.Images, broker.Image{Partition: p, Lag: lag})
	}
	slices.SortFunc(c.Images, func(a, b broker.Image) int { return cmp.Compare(a.Partition, b.Partition) })
	return c
}

func (m *model) candidates() []broker.Candidate {
	var all []broker.Candidate
	for _, w := range m.members {
		all = append(all, w.candidate())
	}
	return all
}

func (m *model) plan() *broker.Table {
	return broker.Plan(m.candidates(), m.partitions, m.standbys, m.generation+1)
}

// obey makes all workers own and follow what a table says.
func (m *model) obey(t *broker.Table) {
	m.table, m.generation = t, t.Generation
	for _, w := range m.members {
		w.owned, w.generation = t.Owned(w.Name), t.Generation
		lags := map[int32]int64{}
		for _, p := range slices.Concat(w.owned, t.Followed(w.Name)) {
			lag, has := w.lags[p]
			if !has {
				lag = far
			}
			lags[p] = lag
		}
		for _, p := range w.owned { // it reads to the end before it owns
			lags[p] = 0
		}
		w.lags = lags
	}
}

func (m *model) warm() {
	for _, w := range m.members {
		for p := range w.lags {
			w.lags[p] = 0
		}
	}
}

func (w *worker) membership() broker.Membership {
	return broker.Membership{Worker: w.Name, Images: func() map[int32]int64 { return w.lags }}
}

// restless reports whether a rebalance follows by itself: a partition is moving, or a worker
// requests it.
func (m *model) restless() bool {
	return m.moved ||
		slices.ContainsFunc(m.members, func(w *worker) bool { return m.table.Due(w.membership()) })
}

// rebalanceAll rebalances until no worker requests more, and returns how often.
func (m *model) rebalanceAll(t rapid.TB) int {
	for n := 1; ; n++ {
		m.check(t, m.plan())
		if !m.restless() {
			return n
		}
		if n == enough {
			t.Fatalf("the group does not become stable: %+v", m.table)
		}
	}
}

// stabilize rebalances only on request, with images that become warm, until there is no request.
// That must lead to even shares: nothing else makes a group rebalance.
func (m *model) stabilize(t rapid.TB) {
	for n := 0; ; n++ {
		m.warm()
		if !m.restless() {
			break
		}
		if n == enough {
			t.Fatalf("the group does not become stable: %+v", m.table)
		}
		m.check(t, m.plan())
	}
	least, most := m.partitions, 0
	for _, w := range m.members {
		least, most = min(least, len(w.owned)), max(most, len(w.owned))
	}
	if most-least > 1 {
		t.Fatalf("no worker requests a rebalance, and shares are from %d to %d: %+v", least, most, m.table)
	}
}

// check checks a table against the rules of every rebalance, and obeys it.
func (m *model) check(t rapid.TB, table *broker.Table) {
	before := m.owners()
	staying := len(table.Staying())
	quota, most := m.partitions/staying, (m.partitions+staying-1)/staying
	moved, adopted := 0, 0
	for p, owner := range table.Owners {
		part := int32(p)
		was := before[part]
		switch {
		case owner < 0 || int(owner) >= staying:
			t.Fatalf("partition %d is given to %d of %d workers that stay", p, owner, staying)
		case was == nil || was.leaving && table.Leaving > 0:
			adopted++
		case table.Members[owner].Name != was.Name:
			moved++
			if has := m.claims(table, was); has <= quota {
				t.Fatalf("partition %d is taken from %s, which has %d of a share of %d", p, was.Name, has, quota)
			}
			if lag, has := m.named(table.Members[owner].Name).lags[part]; !has || lag > broker.Warm {
				t.Fatalf("partition %d goes from %s to %s, which is not warm for it", p, was.Name, table.Members[owner].Name)
			}
		}
		waits := was != nil && table.Members[owner].Name != was.Name
		if waits != slices.Contains(table.HandedOver, part) {
			t.Fatalf("partition %d goes from %v to %s; handed over are %v", p, was, table.Members[owner].Name, table.HandedOver)
		}
		m.checkFollowers(t, table, part)
	}
	if moved > broker.MaxMoves(m.partitions) || moved > 0 && adopted > 0 {
		t.Fatalf("%d of %d partitions move at once, while %d are assigned", moved, m.partitions, adopted)
	}
	m.moved = moved > 0
	for _, w := range m.members {
		if w.leaving && table.Leaving > 0 {
			if len(table.Owned(w.Name))+len(table.Followed(w.Name)) > 0 {
				t.Fatalf("%s is leaving, and is to own %v and follow %v", w.Name, table.Owned(w.Name), table.Followed(w.Name))
			}
			continue
		}
		if kept := len(table.Owned(w.Name)); kept < min(len(w.owned), quota) {
			t.Fatalf("%s had %d partitions, is left with %d, and its share is %d to %d", w.Name, len(w.owned), kept, quota, most)
		}
	}
	m.obey(table)
}

// claims is how many partitions a worker had and, in this table, adopts.
func (m *model) claims(table *broker.Table, w *worker) int {
	return len(w.owned) +
		len(slices.DeleteFunc(table.Owned(w.Name), func(p int32) bool { return slices.Contains(w.owned, p) }))
}

func (m *model) owners() map[int32]*worker {
	owners := map[int32]*worker{}
	for _, w := range m.members {
		for _, p := range w.owned {
			owners[p] = w
		}
	}
	return owners
}

func (m *model) named(name string) *worker {
	return m.members[slices.IndexFunc(m.members, func(w *worker) bool { return w.Name == name })]
}

// checkFollowers: enough, none twice, never the owner; and warm images stay while they are needed.
func (m *model) checkFollowers(t rapid.TB, table *broker.Table, p int32) {
	followers := table.Standbys[p]
	if slices.Contains(followers, table.Owners[p]) && table.Owners[p] >= 0 {
		t.Fatalf("partition %d is followed by its owner", p)
	}
	if sorted := slices.Sorted(slices.Values(followers)); len(slices.Compact(sorted)) != len(followers) {
		t.Fatalf("partition %d is followed twice by one worker: %v", p, followers)
	}
	standbys := min(m.standbys, len(table.Staying())-1)
	if len(followers) < standbys || len(followers) > 2*standbys+1 {
		t.Fatalf("partition %d has %d followers, %d standbys are wanted", p, len(followers), standbys)
	}
	had, keeps := 0, 0
	for i, member := range table.Staying() {
		if lag, has := m.named(member.Name).lags[p]; has && lag <= broker.Warm {
			had++
			if table.Owners[p] == int32(i) || slices.Contains(followers, int32(i)) {
				keeps++
			}
		}
	}
	if keeps < min(had, standbys+1) {
		t.Fatalf("partition %d had %d warm images and keeps %d", p, had, keeps)
	}
}

func drawModel(t *rapid.T) *model {
	m := &model{
		partitions: 1 << rapid.IntRange(0, 7).Draw(t, "log2 of partitions"),
		standbys:   rapid.IntRange(0, 3).Draw(t, "standbys"),
	}
	for range rapid.IntRange(1, 9).Draw(t, "workers") {
		m.join()
	}
	return m
}

// TestPlanInAnyGroup: workers join and leave, images become warm and fall behind, and rebalances
// happen at any moment. The rules of every rebalance hold; and without further changes, with images
// that become warm, the group becomes stable: shares are equal, each partition has its standbys and
// no more, these are spread, and nothing changes any more.
func TestPlanInAnyGroup(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t)
		m.check(t, m.plan())
		for range rapid.IntRange(0, 12).Draw(t, "steps") {
			m.step(t)
		}
		m.stabilize(t)
		for rounds := 1; !m.rests(); rounds++ {
			if rounds > 8 {
				t.Fatalf("the group does not become stable: %+v", m.table)
			}
			m.warm() // new images become warm, and their partitions may move
			m.rebalanceAll(t)
		}
		m.checkRest(t)
	})
}

func (m *model) step(t *rapid.T) {
	switch rapid.SampledFrom([]string{"join", "leave", "leave at once", "warm", "fall behind", "balance"}).Draw(t,
		"step") {
	case "join":
		m.join()
	case "leave":
		if len(m.members) > 1 {
			m.leave(rapid.IntRange(0, len(m.members)-1).Draw(t, "who"))
		}
	case "leave at once":
		i := rapid.IntRange(0, len(m.members)-1).Draw(t, "who")
		m.members[i].leaving = true
		m.check(t, m.plan())
		m.members[i].leaving = false
		if len(m.members) > 1 {
			m.leave(i)
		}
	case "warm":
		w := rapid.SampledFrom(m.members).Draw(t, "who")
		for p := range w.lags {
			w.lags[p] = 0
		}
	case "fall behind":
		w := rapid.SampledFrom(m.members).Draw(t, "who")
		lag := rapid.SampledFrom([]int64{1, broker.Warm, broker.Warm + 1, far}).Draw(t, "lag")
		for p := range w.lags {
			if !slices.Contains(w.owned, p) {
				w.lags[p] = lag
			}
		}
	}
	m.check(t, m.plan())
}

// checkRest checks a stable group in which everything is warm.
func (m *model) checkRest(t rapid.TB) {
	loads, duties := make([]int, len(m.members)), make([]int, len(m.members))
	for i, w := range m.members {
		loads[i], duties[i] = len(w.owned), len(m.table.Followed(w.Name))
	}
	if slices.Max(loads)-slices.Min(loads) > 1 {
		t.Fatalf("shares are %v", loads)
	}
	if slices.Max(duties)-slices.Min(duties) > 2 {
		t.Fatalf("standbys are spread as %v over shares of %v", duties, loads)
	}
	for p, followers := range m.table.Standbys {
		if len(followers) != min(m.standbys, len(m.members)-1) {
			t.Fatalf("partition %d keeps %d followers", p, len(followers))
		}
	}
}

// rests reports whether a rebalance would change nothing, now and when everything is warm.
func (m *model) rests() bool {
	again := m.plan()
	if m.restless() || !slices.Equal(again.Owners, m.table.Owners) || !sameFollowers(again, m.table) {
		return false
	}
	m.warm()
	warm := m.plan()
	return slices.Equal(warm.Owners, m.table.Owners) && sameFollowers(warm, m.table)
}

func sameFollowers(a, b *broker.Table) bool {
	return slices.EqualFunc(a.Standbys, b.Standbys, func(x, y []int32) bool {
		return slices.Equal(slices.Sorted(slices.Values(x)), slices.Sorted(slices.Values(y)))
	})
}

// TestPlanIsAskedFor: a worker that follows a partition in order to get it requests it when it is
// warm, whatever has changed meanwhile.
func TestPlanIsAskedFor(t *testing.T) {
	m := &model{partitions: 32}
	for range 9 {
		m.join()
	}
	m.check(t, m.plan())
	for range 2 {
		m.join()
		m.check(t, m.plan())
	}
	m.stabilize(t)
}

// TestPlanIsDeterministic: the order in which candidates come does not matter.
func TestPlanIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t)
		m.check(t, m.plan())
		m.step(t)
		shuffled := rapid.Permutation(m.candidates()).Draw(t, "order")
		if other := broker.Plan(shuffled, m.partitions, m.standbys, m.generation+1); !reflect.DeepEqual(other, m.plan()) {
			t.Fatalf("%+v and %+v", other, m.plan())
		}
	})
}

// TestPlanAnyInput: the table is valid whatever candidates say.
func TestPlanAnyInput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		partitions := rapid.IntRange(0, 20).Draw(t, "partitions")
		var members []broker.Candidate
		for i := range rapid.IntRange(0, 5).Draw(t, "workers") {
			c := broker.Candidate{
				Member: broker.Member{Name: fmt.Sprint(i)}, Owned: rapid.SliceOf(rapid.Int32Range(-2, 25)).Draw(t, "owned"),
				Generation: rapid.Int32Range(-1, 3).Draw(t, "generation"), Leaving: rapid.Bool().Draw(t, "leaving"),
			}
			for _, p := range rapid.SliceOf(rapid.Int32Range(-2, 25)).Draw(t, "images") {
				c.Images = append(c.Images, broker.Image{Partition: p, Lag: rapid.Int64Range(-1, 5000).Draw(t, "lag")})
			}
			members = append(members, c)
		}
		table := broker.Plan(members, partitions, rapid.IntRange(-1, 7).Draw(t, "standbys"), 7)
		if len(table.Owners) != partitions || len(table.Standbys) != partitions || table.Generation != 7 ||
			len(table.Members) != len(members) {
			t.Fatalf("%+v", table)
		}
		for p, owner := range table.Owners {
			if len(members) == 0 {
				if owner != -1 {
					t.Fatalf("partition %d is owned by %d of no workers", p, owner)
				}
				continue
			}
			if owner < 0 || int(owner) >= len(table.Staying()) {
				t.Fatalf("partition %d is owned by %d", p, owner)
			}
		}
	})
}

// TestPlanOfALargeGroup: the pure plan for a thousand workers and a hundred thousand partitions
// takes well below a second, when the group starts, when it is stable, and when a hundred workers
// die.
func TestPlanOfALargeGroup(t *testing.T) {
	m := &model{partitions: 100_000, standbys: 1}
	for range 1000 {
		m.join()
	}
	took := func(what string) {
		t.Helper()
		candidates, began := m.candidates(), time.Now()
		table := broker.Plan(candidates, m.partitions, m.standbys, m.generation+1)
		t.Logf("%s: %v", what, time.Since(began).Round(time.Millisecond))
		m.obeyAtOnce(table)
	}
	took("begins")
	m.warm()
	took("at rest")
	m.members = m.members[100:]
	took("a hundred die")
	for _, w := range m.members {
		if len(w.owned) < 111 || len(w.owned) > 113 {
			t.Fatalf("%s owns %d partitions", w.Name, len(w.owned))
		}
	}
}

// obeyAtOnce is obey in one pass over the table.
func (m *model) obeyAtOnce(t *broker.Table) {
	m.table, m.generation = t, t.Generation
	lags := make([]map[int32]int64, len(t.Members))
	for i, w := range m.members { // both are in the order of names
		w.owned, w.generation, lags[i] = nil, t.Generation, map[int32]int64{}
	}
	for p := range t.Owners {
		if o := t.Owners[p]; o >= 0 {
			m.members[o].owned = append(m.members[o].owned, int32(p))
			lags[o][int32(p)] = 0
		}
		for _, f := range t.Standbys[p] {
			lags[f][int32(p)] = 0
		}
	}
	for i, w := range m.members {
		w.lags = lags[i]
	}
}
