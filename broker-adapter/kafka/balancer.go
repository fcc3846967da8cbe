package kafka

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// protocolName sets our groups apart: a consumer with another balancer cannot join one by mistake.
const protocolName = "millrace-1"

// balancer is cooperative-sticky that carries addresses: each member's goes in front of the sticky user data when it joins,
// and whoever leads the group puts the whole routing table into every assignment.
type balancer struct {
	kgo.GroupBalancer

	topic   string
	address string
	// publish gets every table that an assignment brings. It must not block.
	publish func(*RoutingTable)
}

func newBalancer(topic, address string, publish func(*RoutingTable)) *balancer {
	return &balancer{GroupBalancer: kgo.CooperativeStickyBalancer(), topic: topic, address: address, publish: publish}
}

// ProtocolName names the balancer in the group.
func (b *balancer) ProtocolName() string { return protocolName }

// JoinGroupMetadata adds the address to what the sticky balancer says.
func (b *balancer) JoinGroupMetadata(topics []string, current map[string][]int32, generation int32) []byte {
	inner := b.GroupBalancer.JoinGroupMetadata(topics, current, generation)
	meta := kmsg.NewConsumerMemberMetadata()
	if err := meta.ReadFrom(inner); err != nil {
		return inner // cannot be: it was written just now. The leader refuses members without an address
	}
	meta.UserData = append(appendText(nil, b.address), meta.UserData...)
	return meta.AppendTo(nil)
}

// ParseSyncAssignment reads this member's assignment and the table beside it.
func (b *balancer) ParseSyncAssignment(assignment []byte) (map[string][]int32, error) {
	assigned, table, err := parseAssignment(assignment)
	if err != nil {
		return nil, err
	}
	b.publish(table)
	return assigned, nil
}

func parseAssignment(assignment []byte) (map[string][]int32, *RoutingTable, error) {
	var a kmsg.ConsumerMemberAssignment
	if err := a.ReadFrom(assignment); err != nil {
		return nil, nil, fmt.Errorf("assignment of partitions: %w", err)
	}
	assigned := make(map[string][]int32, len(a.Topics))
	for _, t := range a.Topics {
		assigned[t.Topic] = t.Partitions
	}
	table, err := decodeTable(a.UserData)
	return assigned, table, err
}

// MemberBalancer takes the addresses off, and lets the sticky balancer see what it knows.
func (b *balancer) MemberBalancer(members []kmsg.JoinGroupResponseMember) (kgo.GroupMemberBalancer, map[string]struct{}, error) {
	stripped := slices.Clone(members)
	workers := make(map[string]worker, len(members))
	for i := range stripped {
		address, meta, err := splitMetadata(stripped[i].ProtocolMetadata)
		if err != nil {
			return nil, nil, fmt.Errorf("member %s of the group: %w", memberName(&stripped[i]), err)
		}
		workers[stripped[i].MemberID] = worker{name: memberName(&stripped[i]), address: address}
		stripped[i].ProtocolMetadata = meta.AppendTo(nil)
	}
	inner, topics, err := b.GroupBalancer.MemberBalancer(stripped)
	if err != nil {
		return nil, nil, err
	}
	sticky, ok := inner.(kgo.GroupMemberBalancerOrError)
	if !ok {
		return nil, nil, fmt.Errorf("sticky balancer is a %T", inner)
	}
	return &balancing{GroupMemberBalancerOrError: sticky, topic: b.topic, workers: workers}, topics, nil
}

// splitMetadata returns a member's address and what the sticky balancer has written.
func splitMetadata(joined []byte) (string, kmsg.ConsumerMemberMetadata, error) {
	meta := kmsg.NewConsumerMemberMetadata()
	if err := meta.ReadFrom(joined); err != nil {
		return "", meta, fmt.Errorf("join data: %w", err)
	}
	d := decoder{rest: meta.UserData}
	address := d.text()
	if d.err != nil {
		return "", meta, errors.New("join data carry no address")
	}
	meta.UserData = d.rest
	return address, meta, nil
}

// memberName is the worker's name: members are static.
func memberName(m *kmsg.JoinGroupResponseMember) string {
	if m.InstanceID != nil {
		return *m.InstanceID
	}
	return m.MemberID
}

// balancing is one balancing of the group, by its leader.
type balancing struct {
	kgo.GroupMemberBalancerOrError

	topic   string
	workers map[string]worker
}

// BalanceOrError assigns, and adds the table to every assignment.
func (b *balancing) BalanceOrError(topics map[string]int32) (kgo.IntoSyncAssignment, error) {
	into, err := b.GroupMemberBalancerOrError.BalanceOrError(topics)
	if err != nil {
		return nil, err
	}
	plan := into.IntoSyncAssignment()
	assignments := make([]kmsg.ConsumerMemberAssignment, len(plan))
	for i := range plan {
		if err := assignments[i].ReadFrom(plan[i].MemberAssignment); err != nil {
			return nil, fmt.Errorf("plan of the sticky balancer: %w", err)
		}
	}
	table := b.table(plan, assignments, topics[b.topic]).encode()
	for i := range plan {
		assignments[i].UserData = table
		plan[i].MemberAssignment = assignments[i].AppendTo(nil)
	}
	return syncPlan(plan), nil
}

// table collects who gets what. A partition that is on its way between workers has no owner until the next balancing.
func (b *balancing) table(plan []kmsg.SyncGroupRequestGroupAssignment, assignments []kmsg.ConsumerMemberAssignment, partitions int32) *RoutingTable {
	order := make([]int, len(plan))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		return cmp.Compare(b.workers[plan[i].MemberID].name, b.workers[plan[j].MemberID].name)
	})
	t := &RoutingTable{owners: make([]uint16, partitions)}
	for n, i := range order[:min(len(order), maxWorkers)] {
		t.workers = append(t.workers, b.workers[plan[i].MemberID])
		for _, assigned := range assignments[i].Topics {
			for _, p := range assigned.Partitions {
				if assigned.Topic == b.topic && p < partitions {
					t.owners[p] = uint16(n + 1)
				}
			}
		}
	}
	return t
}

type syncPlan []kmsg.SyncGroupRequestGroupAssignment

// IntoSyncAssignment returns the plan as it is.
func (p syncPlan) IntoSyncAssignment() []kmsg.SyncGroupRequestGroupAssignment { return p }
