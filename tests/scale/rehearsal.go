package main

import (
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/kafka/balance"
)

// rehearsal is a member of a group without brokers: it has a real balancer and real encodings. It
// belongs to one goroutine.
type rehearsal struct {
	topic    string
	balancer *balance.Balancer
	got      balance.Notice
}

// rehearse returns a member that has not joined yet.
func rehearse(m broker.Membership) *rehearsal {
	r := &rehearsal{topic: m.Topic}
	r.balancer = balance.New(m, balance.TablesBudget, func(n balance.Notice) { r.got = n })
	return r
}

// protocol returns what the member joins with: the balancer's name and its metadata, given what the
// member owns as of a generation.
func (r *rehearsal) protocol(owned []int32, generation int32) (name string, metadata []byte) {
	return balance.ProtocolName, r.balancer.JoinGroupMetadata([]string{r.topic}, map[string][]int32{r.topic: owned},
		generation)
}

// lead computes the assignments as the group's leader does.
func (r *rehearsal) lead(members []kmsg.JoinGroupResponseMember, partitions,
	generation int32,
) ([]kmsg.SyncGroupRequestGroupAssignment, error) {
	of, err := kgo.NewConsumerBalancer(r.balancer, members)
	if err != nil {
		return nil, err
	}
	of.SetBalanceInfo(kgo.BalanceInfo{Generation: generation})
	plan, err := of.BalanceOrError(map[string]int32{r.topic: partitions})
	if err != nil {
		return nil, err
	}
	return plan.IntoSyncAssignment(), nil
}

// take reads the member's assignment. The table is nil if not every assignment has it: then the
// member looks it up, see lookUp.
func (r *rehearsal) take(assignment []byte) (owned []int32, table *broker.Table, err error) {
	topics, err := r.balancer.ParseSyncAssignment(assignment)
	if err != nil {
		return nil, nil, err
	}
	return topics[r.topic], r.got.Table, nil
}

// lookUp finds the table in the coordinator's description of a group; nil if it is not there.
func lookUp(g *kmsg.DescribeGroupsResponseGroup) *broker.Table {
	if n := balance.Describe(g).Notice; n != nil {
		return n.Table
	}
	return nil
}
