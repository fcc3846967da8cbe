package main

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

const (
	topic, groupName = "shop.journal", "millrace.shop"
	// behind is the lag of a new image, known that of an image of which only the position in the
	// store is known.
	behind = math.MaxInt64
	known  = 1 << 32
	// roundTrip is between a member and the coordinator; a rebalance takes three.
	roundTrip = time.Millisecond
	// requestPause is the least time between two requested rebalances, as in package kafka.
	requestPause = time.Second
)

// member is a worker in the group.
type member struct {
	broker.Member
	// id is its name in the group.
	id    string
	voice *rehearsal

	owned      []int32
	generation int32
	// lags are those of its images, stored what its store holds of partitions: it outlives the
	// process.
	lags   map[int32]int64
	stored map[int32]bool
	// cold are the partitions that it is reading to the end, in order; progress is of the first.
	cold     []int32
	progress float64
	// news: something has changed that may make a rebalance due.
	news bool
}

func (m *member) membership(standbys int) broker.Membership {
	return broker.Membership{
		Group: groupName, Worker: m.Name, Address: m.Address, Incarnation: m.Incarnation, Topic: topic, Standbys: standbys,
		Images: func() map[int32]int64 { return m.lags },
	}
}

// group is a group with its coordinator, in virtual time.
type group struct {
	options    options
	partitions int
	random     *rand.Rand
	now        time.Duration
	generation int32
	// members are in the order of their names.
	members []*member
	table   *broker.Table
	// joinedAt is when all joined last; waiting: a rebalance must follow, because a partition was
	// released for it.
	joinedAt time.Duration
	waiting  bool
	// restarted counts the workers of rolling restarts.
	restarted int
	// wire holds what the last rebalance sent, step the results of the present step, cost what was
	// measured.
	wire wire
	step *step
	cost costs
	// page is the coordinator's description of the group.
	page *kmsg.DescribeGroupsResponse
}

// wire is what one rebalance sends, in bytes.
type wire struct {
	// Joins are the members' requests, Leader the answer to the leader, which has all of them; Plan
	// is the leader's request, Syncs are the answers to all. Lookups are the look-ups of members
	// without a table.
	Joins, Leader, Plan, Syncs, Lookups int
	// Page is the description of the group, as sent to members without a table, and to a gateway
	// once a second.
	Page int
	// Record is what the coordinator stores.
	Record int
	// Table is the encoded table, which is in at least one assignment.
	Table int
	// Everywhere: the table is in each assignment.
	Everywhere bool
}

func (w wire) total() int { return w.Joins + w.Leader + w.Plan + w.Syncs + w.Lookups }

func newGroup(o options, partitions int) *group {
	random := rand.New(rand.NewPCG(o.Seed, uint64(partitions))) //nolint:gosec // a simulation
	return &group{options: o, partitions: partitions, random: random, step: &step{}}
}

// start makes a worker join with the next rebalance: a new one, or one that restarts with its
// store.
func (g *group) start(name string, stored map[int32]bool) {
	m := &member{
		Member: broker.Member{Name: name, Address: name + ".workers.example:9002", Incarnation: g.random.Uint64()},
		id: fmt.Sprintf("%s-%08x-%04x-%04x-%04x-%012x", name, g.random.Uint32(), g.random.Uint32()>>16,
			g.random.Uint32()>>16, g.random.Uint32()>>16, g.random.Uint64()>>16),
		lags: map[int32]int64{}, stored: stored, generation: -1,
	}
	if m.stored == nil {
		m.stored = map[int32]bool{}
	}
	for p := range m.stored {
		m.lags[p] = known
	}
	m.voice = rehearse(m.membership(g.options.Standbys))
	at, _ := slices.BinarySearchFunc(g.members, name, func(m *member, name string) int {
		if m.Name < name {
			return -1
		}
		return 1
	})
	g.members = slices.Insert(g.members, at, m)
}

// end removes a member.
func (g *group) end(m *member) {
	g.members = slices.DeleteFunc(g.members, func(other *member) bool { return other == m })
}

// balance is one rebalance, from the moment when the coordinator starts it.
func (g *group) balance() error {
	g.generation++
	g.waiting = false
	var delay time.Duration
	for range g.members { // each learns of it from the answer to its next heartbeat
		delay = max(delay, time.Duration(g.random.Int64N(int64(g.options.Heartbeat))))
	}
	given, err := g.exchange()
	if err != nil {
		return err
	}
	took := delay + 3*roundTrip + time.Duration(float64(g.wire.total())/g.options.Network*float64(time.Second))
	g.joinedAt = g.now + delay
	g.pass(took)
	moved := g.assign(given)
	g.follow()
	g.step.add(g, moved, took)
	return g.check()
}

// exchange simulates the requests of one rebalance, counts their bytes, and returns what each
// member was assigned.
func (g *group) exchange() (given [][]int32, err error) {
	g.wire = wire{}
	answer := kmsg.NewPtrJoinGroupResponse()
	answer.Version, answer.Generation, answer.LeaderID = 9, g.generation, g.members[0].id
	var protocol string
	for _, m := range g.members {
		req := kmsg.NewPtrJoinGroupRequest()
		req.Version, req.Group, req.MemberID, req.InstanceID, req.ProtocolType = 9, groupName, m.id, &m.Name, "consumer"
		p := kmsg.NewJoinGroupRequestProtocol()
		p.Name, p.Metadata = m.voice.protocol(m.owned, m.generation)
		protocol = p.Name
		req.Protocols = append(req.Protocols, p)
		g.wire.Joins += len(req.AppendTo(nil))
		j := kmsg.NewJoinGroupResponseMember()
		j.MemberID, j.InstanceID, j.ProtocolMetadata = m.id, &m.Name, p.Metadata
		answer.Members = append(answer.Members, j)
	}
	g.wire.Leader = len(answer.AppendTo(nil))
	var plan []kmsg.SyncGroupRequestGroupAssignment
	g.cost.plan.of(func() {
		plan, err = g.members[0].voice.lead(answer.Members, int32(g.partitions), g.generation) //nolint:gosec // a number of partitions
	})
	if err != nil {
		return nil, err
	}
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Version, sync.Group, sync.MemberID, sync.GroupAssignment = 5, groupName, g.members[0].id, plan
	g.wire.Plan = len(sync.AppendTo(nil))
	g.wire.Record = g.record(answer.Members, protocol, plan)
	var first kmsg.ConsumerMemberAssignment
	if err := first.ReadFrom(plan[0].MemberAssignment); err != nil {
		return nil, err
	}
	g.wire.Table = len(first.UserData)
	g.page = describe(answer.Members, protocol, plan)
	return g.give()
}

// give makes every member read its assignment. Those without a table look it up.
func (g *group) give() (given [][]int32, err error) {
	g.wire.Page = len(g.page.AppendTo(nil))
	g.cost.decode.of(func() { g.table = lookUp(&g.page.Groups[0]) })
	if g.table == nil {
		return nil, errors.New("the table is in no assignment")
	}
	tables := 0
	for i, m := range g.members {
		resp := kmsg.NewPtrSyncGroupResponse()
		resp.Version, resp.MemberAssignment = 5, g.page.Groups[0].Members[i].MemberAssignment
		g.wire.Syncs += len(resp.AppendTo(nil))
		owned, table, err := m.voice.take(resp.MemberAssignment)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", m.Name, err)
		case table == nil:
			g.wire.Lookups += g.wire.Page
		case tables < 3 && !same(table, g.table): // equal bytes are decoded alike: a few are enough
			return nil, fmt.Errorf("%s got another table than the group shows", m.Name)
		default:
			tables++
		}
		given = append(given, owned)
	}
	g.wire.Everywhere = tables == len(g.members)
	return given, nil
}

// record returns the size of what the coordinator stores of the group.
func (g *group) record(joined []kmsg.JoinGroupResponseMember, protocol string,
	plan []kmsg.SyncGroupRequestGroupAssignment,
) int {
	v := kmsg.GroupMetadataValue{
		Version: 3, ProtocolType: "consumer", Generation: g.generation, Protocol: &protocol, Leader: &g.members[0].id,
	}
	for i := range joined {
		v.Members = append(v.Members, kmsg.GroupMetadataValueMember{
			MemberID: joined[i].MemberID, InstanceID: joined[i].InstanceID, ClientID: "millrace", ClientHost: "/10.111.111.111",
			Subscription: joined[i].ProtocolMetadata, Assignment: plan[i].MemberAssignment,
		})
	}
	return len(v.AppendTo(nil))
}

// describe returns the coordinator's description of the group.
func describe(joined []kmsg.JoinGroupResponseMember, protocol string,
	plan []kmsg.SyncGroupRequestGroupAssignment,
) *kmsg.DescribeGroupsResponse {
	resp := kmsg.NewPtrDescribeGroupsResponse()
	resp.Version = 5
	d := kmsg.NewDescribeGroupsResponseGroup()
	d.Group, d.State, d.ProtocolType, d.Protocol = groupName, "Stable", "consumer", protocol
	for i := range joined {
		m := kmsg.NewDescribeGroupsResponseGroupMember()
		m.MemberID, m.InstanceID, m.ClientID, m.ClientHost = joined[i].MemberID, joined[i].InstanceID, "millrace",
			"/10.111.111.111"
		m.ProtocolMetadata, m.MemberAssignment = joined[i].ProtocolMetadata, plan[i].MemberAssignment
		d.Members = append(d.Members, m)
	}
	resp.Groups = append(resp.Groups, d)
	return resp
}

// moves are what one rebalance changed.
type moves struct{ released, claims, mostClaims, cold, rebuilt, mostRebuilt, followed int }

// assign makes all members own what they were assigned, and release the rest.
func (g *group) assign(given [][]int32) (done moves) {
	for i, m := range g.members {
		released, fresh := differ(m.owned, given[i])
		done.released += released
		done.claims += len(fresh)
		done.mostClaims = max(done.mostClaims, len(fresh))
		rebuilt := 0
		for _, p := range fresh { // it reads to the end before it owns
			if lag, has := m.lags[p]; !has || lag > broker.Warm {
				done.cold++
				if !m.stored[p] {
					rebuilt++
				}
			}
			m.lags[p], m.stored[p] = 0, true
		}
		done.rebuilt += rebuilt
		done.mostRebuilt = max(done.mostRebuilt, rebuilt)
		m.owned, m.generation, m.news = given[i], g.generation, true
	}
	for _, standbys := range g.table.Standbys {
		done.followed += len(standbys)
	}
	g.waiting = done.released > 0
	return done
}

// differ returns how many of before are not in now, and which of now are new. Both are sorted.
func differ(before, now []int32) (gone int, fresh []int32) {
	i := 0
	for _, p := range now {
		for ; i < len(before) && before[i] < p; i++ {
			gone++
		}
		if i < len(before) && before[i] == p {
			i++
		} else {
			fresh = append(fresh, p)
		}
	}
	return gone + len(before) - i, fresh
}

// follow gives all members the images that the table asks for, and removes all others.
func (g *group) follow() {
	wanted := make([][]int32, len(g.members))
	for i, m := range g.members {
		wanted[i] = append(make([]int32, 0, 2*len(m.owned)), m.owned...)
	}
	for p, standbys := range g.table.Standbys {
		for _, s := range standbys {
			wanted[s] = append(wanted[s], int32(p))
		}
	}
	wantedBy := make([]int, g.partitions) // the last member that wants the partition, plus one
	for i, m := range g.members {
		m.cold = m.cold[:0]
		for _, p := range wanted[i] {
			wantedBy[p] = i + 1
			if lag, has := m.lags[p]; !has || lag > broker.Warm {
				m.lags[p] = behind
				m.cold = append(m.cold, p)
			}
		}
		for p := range m.lags {
			if wantedBy[p] != i+1 {
				delete(m.lags, p)
			}
		}
		slices.Sort(m.cold)
	}
}

// pass advances the time: members that are behind read on. What a store already has is there at
// once.
func (g *group) pass(d time.Duration) {
	g.now += d
	for _, m := range g.members {
		if len(m.cold) == 0 {
			m.progress = 0
			continue
		}
		m.progress += d.Seconds() * g.options.CatchUp
		for len(m.cold) > 0 && (m.stored[m.cold[0]] || m.progress >= 1) {
			p := m.cold[0]
			if !m.stored[p] {
				m.progress--
				g.step.Rebuilt++
			}
			m.lags[p], m.stored[p], m.news = 0, true, true
			m.cold = m.cold[1:]
		}
	}
}

// rebalanceAll rebalances until no member requests more and everything is warm.
func (g *group) rebalanceAll() error {
	for rounds := 0; ; rounds++ {
		switch {
		case rounds > 100_000:
			return errors.New("the group does not become stable")
		case g.waiting || slices.Contains(g.table.Owners, -1):
		case g.due():
			g.pass(max(0, g.joinedAt+requestPause-g.now))
		case g.behind():
			g.pass(requestPause / 4)
			continue
		default:
			return g.checkRest()
		}
		if err := g.balance(); err != nil {
			return err
		}
	}
}

func (g *group) behind() bool {
	return slices.ContainsFunc(g.members, func(m *member) bool { return len(m.cold) > 0 })
}

// due reports whether a worker requests a rebalance.
func (g *group) due() bool {
	for _, m := range g.members {
		if !m.news {
			continue
		}
		var due bool
		g.cost.due.of(func() { due = g.table.Due(m.membership(g.options.Standbys)) })
		if due {
			return true
		}
		m.news = false
	}
	return false
}
