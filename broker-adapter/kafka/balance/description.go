package balance

import (
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// Description is the state of a group as reported by its coordinator.
type Description struct {
	// Stable: the group is not rebalancing. While it is, members are known by their names only.
	Stable  bool
	Members []broker.Member
	// IDs are those of the members, in the same order.
	IDs []string
	// Notice is the newest notice, with its table; the table is empty if there are no members. Nil:
	// not known.
	Notice *Notice
}

// Describe decodes the coordinator's description of a group.
func Describe(g *kmsg.DescribeGroupsResponseGroup) Description {
	d := Description{Stable: g.State != "PreparingRebalance" && g.State != "CompletingRebalance"}
	slices.SortFunc(g.Members, func(a, b kmsg.DescribeGroupsResponseGroupMember) int {
		return strings.Compare(memberName(a.InstanceID, a.MemberID), memberName(b.InstanceID, b.MemberID))
	})
	if len(g.Members) == 0 {
		d.Notice = &Notice{Table: &broker.Table{}}
	}
	for i := range g.Members {
		m := &g.Members[i]
		member := broker.Member{Name: memberName(m.InstanceID, m.MemberID)}
		meta := kmsg.NewConsumerMemberMetadata()
		if meta.ReadFrom(m.ProtocolMetadata) == nil { // empty while the group rebalances
			if j, err := decodeJoinData(meta.UserData); err == nil {
				member.Address, member.Incarnation, member.Public, member.Serves = j.address, j.incarnation, j.public, j.serves
			}
		}
		d.Members, d.IDs = append(d.Members, member), append(d.IDs, m.MemberID)
		var a kmsg.ConsumerMemberAssignment
		if a.ReadFrom(m.MemberAssignment) != nil {
			continue
		}
		if n, err := DecodeNotice(a.UserData); err == nil && n.Table != nil &&
			(d.Notice == nil || n.Generation > d.Notice.Generation) {
			d.Notice = &n
		}
	}
	return d
}
