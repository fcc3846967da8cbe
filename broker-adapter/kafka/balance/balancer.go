package balance

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// ProtocolName keeps consumers with another balancer out of groups of millrace.
const ProtocolName = "millrace-3"

// consumerVersion is the version of the consumer protocol: the first with the generation of the
// owned partitions.
const consumerVersion = 3

// Balancer carries the decisions of broker.Plan in the cooperative protocol. Unlike in that
// protocol, a partition that moves is given to its next owner in the same rebalance that takes it
// from the last one: the log decides who may write. The group's client calls the methods of
// kgo.GroupBalancer from one goroutine; the others may be called from any.
type Balancer struct {
	m broker.Membership
	// budget bounds all copies of the table together, in bytes.
	budget int
	// requests counts the rebalances that this worker requested; joined is when it joined last, in
	// nanoseconds since start.
	requests atomic.Uint64
	joined   atomic.Int64
	start    time.Time
	// leaving: this worker hands over what it owns. asked: its last join data said so. replanned is
	// closed by the first table after that.
	leaving, asked atomic.Bool
	replanned      chan struct{}
	replanOnce     sync.Once
	// publish gets every notice that comes with an assignment. It must not block.
	publish func(Notice)
}

// New returns a balancer for a member that has not joined yet. All copies of a table together may
// take budget bytes. publish gets every notice that comes with an assignment; it must not block.
func New(m broker.Membership, budget int, publish func(Notice)) *Balancer {
	return &Balancer{m: m, budget: budget, start: time.Now(), publish: publish, replanned: make(chan struct{})}
}

// Ask makes the next join data differ from the last: only that makes a group rebalance.
func (b *Balancer) Ask() { b.requests.Add(1) }

// Leave makes the next join data say that this worker hands over what it owns. Replanned is closed
// by the first table after that.
func (b *Balancer) Leave() { b.leaving.Store(true) }

// Replanned is closed when a rebalance has taken into account that this worker leaves.
func (b *Balancer) Replanned() <-chan struct{} { return b.replanned }

// JoinedBefore reports whether this worker last joined before t.
func (b *Balancer) JoinedBefore(t time.Time) bool { return b.JoinedAt() < t.Sub(b.start) }

var _ interface {
	kgo.GroupBalancer
	kgo.ConsumerBalancerBalance
} = (*Balancer)(nil)

// ProtocolName names the balancer in the group.
func (b *Balancer) ProtocolName() string { return ProtocolName }

// IsCooperative is true: partitions that do not move are not interrupted.
func (b *Balancer) IsCooperative() bool { return true }

// Now is the time since the balancer was made.
func (b *Balancer) Now() time.Duration { return time.Since(b.start) }

// JoinedAt is when this worker joined last; before it did, when the balancer was made.
func (b *Balancer) JoinedAt() time.Duration { return time.Duration(b.joined.Load()) }

// JoinGroupMetadata returns this worker's join data: what it owns, and how far its images are.
func (b *Balancer) JoinGroupMetadata(topics []string, current map[string][]int32, generation int32) []byte {
	b.joined.Store(int64(b.Now())) // before reading the images: later changes are not in them
	meta := kmsg.NewConsumerMemberMetadata()
	meta.Version, meta.Topics, meta.Generation = consumerVersion, topics, generation
	if owned := current[b.m.Topic]; len(owned) > 0 {
		o := kmsg.NewConsumerMemberMetadataOwnedPartition()
		o.Topic, o.Partitions = b.m.Topic, owned
		meta.OwnedPartitions = append(meta.OwnedPartitions, o)
	}
	b.asked.Store(b.leaving.Load())
	j := joinData{
		address: b.m.Address, public: b.m.Public, incarnation: b.m.Incarnation, leaving: b.asked.Load(),
		requests: b.requests.Load(),
	}
	if b.m.Serves != nil {
		j.serves = b.m.Serves()
	}
	if b.m.Images != nil {
		j.images = imagesOf(b.m.Images())
	}
	meta.UserData = j.encode()
	return meta.AppendTo(nil)
}

// ParseSyncAssignment reads this member's assignment and publishes the notice in it.
func (b *Balancer) ParseSyncAssignment(assignment []byte) (map[string][]int32, error) {
	var a kmsg.ConsumerMemberAssignment
	if err := a.ReadFrom(assignment); err != nil {
		return nil, fmt.Errorf("assignment of partitions: %w", err)
	}
	n, err := DecodeNotice(a.UserData)
	if err != nil {
		return nil, err
	}
	b.publish(n)
	if b.asked.Load() {
		b.replanOnce.Do(func() { close(b.replanned) })
	}
	assigned := make(map[string][]int32, len(a.Topics))
	for _, t := range a.Topics {
		assigned[t.Topic] = t.Partitions
	}
	return assigned, nil
}

// MemberBalancer reads the members' join data.
func (b *Balancer) MemberBalancer(
	members []kmsg.JoinGroupResponseMember,
) (kgo.GroupMemberBalancer, map[string]struct{}, error) {
	consumers, err := kgo.NewConsumerBalancer(b, members)
	if err != nil {
		return nil, nil, fmt.Errorf("members of group %s: %w", b.m.Group, err)
	}
	return consumers, consumers.MemberTopics(), nil
}

// joined is a candidate under its name in the group.
type joined struct {
	broker.Candidate

	id string
}

// Balance is called on the group's leader.
func (b *Balancer) Balance(of *kgo.ConsumerBalancer, topics map[string]int32) kgo.IntoSyncAssignment {
	members, err := b.candidates(of)
	if partitions := topics[b.m.Topic]; err == nil &&
		(partitions < 1 || partitions > maxPartitions || partitions < b.m.Partitions) {
		err = fmt.Errorf("the number of partitions of topic %s, as far as this client knows, is %d; it must be between %d and %d",
			b.m.Topic, partitions, max(b.m.Partitions, 1), maxPartitions)
	}
	if err == nil && len(members) > maxWorkers {
		err = fmt.Errorf("the number of members of group %s is %d; the limit is %d", b.m.Group, len(members), maxWorkers)
	}
	if err != nil {
		of.SetError(err)
		return nil
	}
	candidates, ids := make([]broker.Candidate, len(members)), make([]string, len(members))
	for i, m := range members {
		candidates[i], ids[i] = m.Candidate, m.id
	}
	table := broker.Plan(candidates, b.partitions(topics), b.m.Standbys, of.Info().Generation)
	return b.assignments(Notice{Generation: table.Generation, Table: table, IDs: ids})
}

// partitions returns how many partitions are assigned: those that hold data, else all.
func (b *Balancer) partitions(topics map[string]int32) int {
	if b.m.Partitions > 0 {
		return int(b.m.Partitions)
	}
	return int(topics[b.m.Topic])
}

// candidates returns the members in the order of a table.
func (b *Balancer) candidates(of *kgo.ConsumerBalancer) ([]joined, error) {
	var members []joined
	var errs []error
	of.EachMember(func(m *kmsg.JoinGroupResponseMember, meta *kmsg.ConsumerMemberMetadata) {
		j, err := decodeJoinData(meta.UserData)
		name := memberName(m.InstanceID, m.MemberID)
		if err != nil {
			errs = append(errs, fmt.Errorf("member %s of group %s: %w", name, b.m.Group, err))
		}
		c := joined{id: m.MemberID, Candidate: broker.Candidate{
			Member: broker.Member{
				Name: name, Address: j.address, Incarnation: j.incarnation, Public: j.public, Serves: j.serves,
				New: meta.Generation < 0,
			},
			Generation: meta.Generation, Images: j.images, Leaving: j.leaving,
		}}
		for _, o := range meta.OwnedPartitions {
			if o.Topic == b.m.Topic {
				c.Owned = append(c.Owned, o.Partitions...)
			}
		}
		members = append(members, c)
	})
	slices.SortStableFunc(members, func(a, b joined) int { return a.Compare(b.Candidate) })
	return members, errors.Join(errs...)
}

// memberName is the worker's name: members are static.
func memberName(instance *string, id string) string {
	if instance != nil {
		return *instance
	}
	return id
}

// assignments gives each member its partitions and the table; if all copies exceed the budget, only
// the first member gets the table.
func (b *Balancer) assignments(n Notice) syncPlan {
	owned := make([][]int32, len(n.IDs))
	for p, owner := range n.Table.Owners {
		if owner >= 0 {
			owned[owner] = append(owned[owner], int32(p))
		}
	}
	whole, short := n.Encode(), Notice{Generation: n.Generation}.Encode()
	everywhere := len(whole)*len(n.IDs) <= b.budget
	plan := make(syncPlan, len(n.IDs))
	for i, id := range n.IDs {
		a := kmsg.NewConsumerMemberAssignment()
		if len(owned[i]) > 0 {
			t := kmsg.NewConsumerMemberAssignmentTopic()
			t.Topic, t.Partitions = b.m.Topic, owned[i]
			a.Topics = append(a.Topics, t)
		}
		a.UserData = short
		if everywhere || i == 0 {
			a.UserData = whole
		}
		plan[i] = kmsg.NewSyncGroupRequestGroupAssignment()
		plan[i].MemberID, plan[i].MemberAssignment = id, a.AppendTo(nil)
	}
	return plan
}

type syncPlan []kmsg.SyncGroupRequestGroupAssignment

// IntoSyncAssignment returns the plan as it is.
func (p syncPlan) IntoSyncAssignment() []kmsg.SyncGroupRequestGroupAssignment { return p }
