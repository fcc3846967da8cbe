package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/kafka/balance"
)

// rerebalancingTries is how often a group that rebalances is asked again; then members are returned
// as they are.
const rebalancingTries = 20

// Members returns the workers of a group, by name. It needs no membership. A group that does not
// exist has none. A worker that died stays in the group until its session times out, or until it is
// evicted. The address is "" if the group rebalances for long.
func (l *Log) Members(ctx context.Context, group string) ([]broker.Member, error) {
	what := "members of group " + group
	ctx, cancel := l.within(ctx)
	defer cancel()
	for attempt := 1; ; attempt++ {
		g, err := l.describeGroup(ctx, group)
		if err != nil {
			return nil, l.requestError(what, err)
		}
		if !g.Stable && attempt < rebalancingTries && pause(ctx, retry.Pause(attempt)) {
			continue
		}
		return g.Members, nil
	}
}

func (l *Log) describeGroup(ctx context.Context, group string) (balance.Description, error) {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = []string{group}
	resp, err := request(ctx, l, l.admin, req.RequestWith)
	if err != nil {
		l.admin.ForceMetadataRefresh() // makes the client look for another coordinator
		return balance.Description{}, err
	}
	if len(resp.Groups) != 1 {
		return balance.Description{}, fmt.Errorf("broker described %d groups instead of one", len(resp.Groups))
	}
	g := &resp.Groups[0]
	if g.ErrorCode == kerr.GroupIDNotFound.Code || g.State == "Dead" {
		return balance.Describe(&kmsg.DescribeGroupsResponseGroup{}), nil
	}
	if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
		return balance.Description{}, err
	}
	if g.Protocol != "" && g.Protocol != balance.ProtocolName {
		return balance.Description{},
			fmt.Errorf("the group uses the balancer %q instead of %q: its members are not millrace workers of this release",
				g.Protocol, balance.ProtocolName)
	}
	return balance.Describe(g), nil
}
