package kafka

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// Rehearsal is a member of a group that somebody plays without brokers: with the balancer and the bytes of a real one. It is what
// the simulation of large groups is made of. It belongs to one goroutine.
type Rehearsal struct {
	balancer *balancer
	got      notice
}

// Rehearse returns a member that has not joined yet.
func Rehearse(m broker.Membership) *Rehearsal {
	r := &Rehearsal{balancer: &balancer{m: m, budget: tablesBudget, start: time.Now()}}
	r.balancer.publish = func(n notice) { r.got = n }
	return r
}

// Protocol is what the member joins with: the balancer's name and its metadata, given what the member owns as of a generation.
func (r *Rehearsal) Protocol(owned []int32, generation int32) (name string, metadata []byte) {
	topic := r.balancer.m.Topic
	return protocolName, r.balancer.JoinGroupMetadata([]string{topic}, map[string][]int32{topic: owned}, generation)
}

// Lead balances the group as its leader does.
func (r *Rehearsal) Lead(members []kmsg.JoinGroupResponseMember, partitions, generation int32) ([]kmsg.SyncGroupRequestGroupAssignment, error) {
	of, err := kgo.NewConsumerBalancer(r.balancer, members)
	if err != nil {
		return nil, err
	}
	of.SetBalanceInfo(kgo.BalanceInfo{Generation: generation})
	plan, err := of.BalanceOrError(map[string]int32{r.balancer.m.Topic: partitions})
	if err != nil {
		return nil, err
	}
	return plan.IntoSyncAssignment(), nil
}

// Take reads what the member is given. The table is nil where it does not travel with every assignment: then the member looks it
// up, see LookUp.
func (r *Rehearsal) Take(assignment []byte) (owned []int32, table *broker.Table, err error) {
	topics, err := r.balancer.ParseSyncAssignment(assignment)
	if err != nil {
		return nil, nil, err
	}
	return topics[r.balancer.m.Topic], r.got.table, nil
}

// LookUp finds the table in what the coordinator says of a group; nil when it is not there.
func LookUp(g *kmsg.DescribeGroupsResponseGroup) *broker.Table {
	if n := membersOf(g).notice; n != nil {
		return n.table
	}
	return nil
}
