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

// ProtocolName sets our groups apart: a consumer with another balancer cannot join one by mistake.
const ProtocolName = "millrace-3"

// consumerVersion is that of the consumer protocol whose fields we fill: with the generation of the partitions owned.
const consumerVersion = 3

// Balancer is what broker.Plan has decided, in the cooperative protocol. Other than that protocol has
// it, a partition that moves is given to its next owner in the same balancing that takes it from the
// last one: who may write is decided in the log. The group's client calls the methods that
// kgo.GroupBalancer has, from one goroutine; the others may be called from any.
type Balancer struct {
	m broker.Membership
	// budget is what all copies of the table may take together.
	budget int
	// wishes counts the balancings that this worker asked for, joined is when it joined last, in nanoseconds since start.
	wishes atomic.Uint64
	joined atomic.Int64
	start  time.Time
	// leaving: this worker hands over what it owns. asked: it said so when it joined last; heard is closed when that has led to a
	// table.
	leaving, asked atomic.Bool
	heard          chan struct{}
	hearOnce       sync.Once
	// publish gets every notice that comes with an assignment. It must not block.
	publish func(Notice)
}

// New returns a balancer for a member that has not joined yet. All copies of a table may take budget
// bytes. publish gets every notice that comes with an assignment; it must not block.
func New(m broker.Membership, budget int, publish func(Notice)) *Balancer {
	return &Balancer{m: m, budget: budget, start: time.Now(), publish: publish, heard: make(chan struct{})}
}

// Ask makes the next join data differ from the last ones: nothing else makes a group balance.
func (b *Balancer) Ask() { b.wishes.Add(1) }

// Leave has the next join data say that this worker hands over what it owns. Heard is closed when that
// has led to a table.
func (b *Balancer) Leave() { b.leaving.Store(true) }

// Heard is closed when a balancing knew that this worker leaves.
func (b *Balancer) Heard() <-chan struct{} { return b.heard }

// JoinedBefore says whether this worker has not joined since a moment.
func (b *Balancer) JoinedBefore(t time.Time) bool { return b.JoinedAt() < t.Sub(b.start) }

var _ interface {
	kgo.GroupBalancer
	kgo.ConsumerBalancerBalance
} = (*Balancer)(nil)

// ProtocolName names the balancer in the group.
func (b *Balancer) ProtocolName() string { return ProtocolName }

// IsCooperative is true: what stays is not interrupted.
func (b *Balancer) IsCooperative() bool { return true }

// Now is the time since the balancer was made.
func (b *Balancer) Now() time.Duration { return time.Since(b.start) }

// JoinedAt is when this worker joined last; before it did, when the balancer was made.
func (b *Balancer) JoinedAt() time.Duration { return time.Duration(b.joined.Load()) }

// JoinGroupMetadata says what this worker owns, and how far its images are.
func (b *Balancer) JoinGroupMetadata(topics []string, current map[string][]int32, generation int32) []byte {
	b.joined.Store(int64(b.Now())) // before the images are looked at: what changes later is not in them
	meta := kmsg.NewConsumerMemberMetadata()
	meta.Version, meta.Topics, meta.Generation = consumerVersion, topics, generation
	if owned := current[b.m.Topic]; len(owned) > 0 {
		o := kmsg.NewConsumerMemberMetadataOwnedPartition()
		o.Topic, o.Partitions = b.m.Topic, owned
		meta.OwnedPartitions = append(meta.OwnedPartitions, o)
	}
	b.asked.Store(b.leaving.Load())
	j := joinData{address: b.m.Address, public: b.m.Public, incarnation: b.m.Incarnation, leaving: b.asked.Load(), wishes: b.wishes.Load()}
	if b.m.Serves != nil {
		j.serves = b.m.Serves()
	}
	if b.m.Images != nil {
		j.images = imagesOf(b.m.Images())
	}
	meta.UserData = j.encode()
	return meta.AppendTo(nil)
}

// ParseSyncAssignment reads this member's assignment and what comes beside it.
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
		b.hearOnce.Do(func() { close(b.heard) })
	}
	assigned := make(map[string][]int32, len(a.Topics))
	for _, t := range a.Topics {
		assigned[t.Topic] = t.Partitions
	}
	return assigned, nil
}

// MemberBalancer reads what the members say.
func (b *Balancer) MemberBalancer(members []kmsg.JoinGroupResponseMember) (kgo.GroupMemberBalancer, map[string]struct{}, error) {
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
	if partitions := topics[b.m.Topic]; err == nil && (partitions < 1 || partitions > maxPartitions || partitions < b.m.Partitions) {
		err = fmt.Errorf("topic %s has %d partitions as far as this client knows; between %d and %d can be balanced", b.m.Topic, partitions, max(b.m.Partitions, 1), maxPartitions)
	}
	if err == nil && len(members) > maxWorkers {
		err = fmt.Errorf("group %s has %d members; %d can be balanced", b.m.Group, len(members), maxWorkers)
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

// partitions is how many are balanced: those that hold data, else all.
func (b *Balancer) partitions(topics map[string]int32) int {
	if b.m.Partitions > 0 {
		return int(b.m.Partitions)
	}
	return int(topics[b.m.Topic])
}

// candidates are the members in the order of a table.
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
			Member:     broker.Member{Name: name, Address: j.address, Incarnation: j.incarnation, Public: j.public, Serves: j.serves, New: meta.Generation < 0},
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

// assignments give each member its partitions, and the table: to all, or to the first where it would be too much.
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
