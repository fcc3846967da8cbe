package kafka

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// balancingTries is how often a group that is being balanced is asked again; then members are returned as they are.
const balancingTries = 20

// Members returns the workers of a group with their addresses and partitions, by name. It needs no membership. A group that
// does not exist has none. A worker that died stays in the group until its session times out.
func (l *Log) Members(ctx context.Context, group string) ([]Member, error) {
	what := "members of group " + group
	ctx, cancel := l.within(ctx)
	defer cancel()
	for attempt := 1; ; attempt++ {
		g, err := l.describeGroup(ctx, group)
		if err != nil {
			return nil, l.requestError(what, err)
		}
		if g == nil {
			return nil, nil
		}
		settled := g.State != "PreparingRebalance" && g.State != "CompletingRebalance"
		if !settled && attempt < balancingTries && pause(ctx, retry.Pause(attempt)) {
			continue
		}
		return membersOf(g), nil
	}
}

func (l *Log) describeGroup(ctx context.Context, group string) (*kmsg.DescribeGroupsResponseGroup, error) {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = []string{group}
	resp, err := request(ctx, l, l.admin, req.RequestWith)
	if err != nil {
		return nil, err
	}
	if len(resp.Groups) != 1 {
		return nil, fmt.Errorf("broker described %d groups instead of one", len(resp.Groups))
	}
	g := &resp.Groups[0]
	if g.ErrorCode == kerr.GroupIDNotFound.Code || g.State == "Dead" {
		return nil, nil //nolint:nilnil // there is no such group
	}
	return g, kerr.ErrorForCode(g.ErrorCode)
}

func membersOf(g *kmsg.DescribeGroupsResponseGroup) []Member {
	members := make([]Member, 0, len(g.Members))
	for i := range g.Members {
		d := &g.Members[i]
		m := Member{Name: d.MemberID}
		if d.InstanceID != nil {
			m.Name = *d.InstanceID
		}
		if address, _, err := splitMetadata(d.ProtocolMetadata); err == nil { // empty while the group is being balanced
			m.Address = address
		}
		if assigned, _, err := parseAssignment(d.MemberAssignment); err == nil {
			for _, partitions := range assigned {
				m.Partitions = append(m.Partitions, partitions...)
			}
			slices.Sort(m.Partitions)
		}
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return members
}

// OtherWorkers returns the members of a worker's group that are not this worker. One that died without leaving is among
// them until its session times out (Options.SessionTimeout), so a caller that wants to be alone asks again after that.
func (l *Log) OtherWorkers(ctx context.Context, m broker.Membership) ([]Member, error) {
	members, err := l.Members(ctx, m.Group)
	return slices.DeleteFunc(members, func(o Member) bool { return o.Name == m.Worker }), err
}
