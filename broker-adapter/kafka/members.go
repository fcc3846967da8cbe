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

// described is what the coordinator says of a group.
type described struct {
	// stable: it is not being balanced. While it is, members are known by their names only.
	stable  bool
	members []broker.Member
	// ids are those of the members, in the same order.
	ids []string
	// notice is the newest that was given out, with its table: an empty one when there are no members, nil when it is not known.
	notice *notice
}

// Members returns the workers of a group, by name. It needs no membership. A group that does not exist has none. A worker that
// died stays in the group until its session times out, or until it is evicted. The address is "" while the group is being
// balanced for long.
func (l *Log) Members(ctx context.Context, group string) ([]broker.Member, error) {
	what := "members of group " + group
	ctx, cancel := l.within(ctx)
	defer cancel()
	for attempt := 1; ; attempt++ {
		g, err := l.describeGroup(ctx, group)
		if err != nil {
			return nil, l.requestError(what, err)
		}
		if !g.stable && attempt < balancingTries && pause(ctx, retry.Pause(attempt)) {
			continue
		}
		return g.members, nil
	}
}

func (l *Log) describeGroup(ctx context.Context, group string) (described, error) {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = []string{group}
	resp, err := request(ctx, l, l.admin, req.RequestWith)
	if err != nil {
		l.admin.ForceMetadataRefresh() // which is what makes the client doubt that a coordinator that it cannot reach is one
		return described{}, err
	}
	if len(resp.Groups) != 1 {
		return described{}, fmt.Errorf("broker described %d groups instead of one", len(resp.Groups))
	}
	g := &resp.Groups[0]
	if g.ErrorCode == kerr.GroupIDNotFound.Code || g.State == "Dead" {
		return membersOf(&kmsg.DescribeGroupsResponseGroup{}), nil
	}
	if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
		return described{}, err
	}
	if g.Protocol != "" && g.Protocol != protocolName {
		return described{}, fmt.Errorf("the group is balanced by %q instead of %q: it is used by something other than millrace workers of this release",
			g.Protocol, protocolName)
	}
	return membersOf(g), nil
}

func membersOf(g *kmsg.DescribeGroupsResponseGroup) described {
	d := described{stable: g.State != "PreparingRebalance" && g.State != "CompletingRebalance"}
	slices.SortFunc(g.Members, func(a, b kmsg.DescribeGroupsResponseGroupMember) int {
		return strings.Compare(memberName(a.InstanceID, a.MemberID), memberName(b.InstanceID, b.MemberID))
	})
	if len(g.Members) == 0 {
		d.notice = &notice{table: &broker.Table{}}
	}
	for i := range g.Members {
		m := &g.Members[i]
		member := broker.Member{Name: memberName(m.InstanceID, m.MemberID)}
		meta := kmsg.NewConsumerMemberMetadata()
		if meta.ReadFrom(m.ProtocolMetadata) == nil { // empty while the group is being balanced
			if j, err := decodeJoinData(meta.UserData); err == nil {
				member.Address, member.Incarnation, member.Public, member.Serves = j.address, j.incarnation, j.public, j.serves
			}
		}
		d.members, d.ids = append(d.members, member), append(d.ids, m.MemberID)
		var a kmsg.ConsumerMemberAssignment
		if a.ReadFrom(m.MemberAssignment) != nil {
			continue
		}
		if n, err := decodeNotice(a.UserData); err == nil && n.table != nil && (d.notice == nil || n.generation > d.notice.generation) {
			d.notice = &n
		}
	}
	return d
}
