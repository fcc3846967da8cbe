package kafkaserver

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Layout is what brokers say about all partitions of all topics.
type Layout struct {
	// Partitions is their number, 0 when nobody answered.
	Partitions int
	// Leads is how many each broker leads, InSync of how many it has everything, by node.
	Leads, InSync map[int32]int
}

const layoutTimeout = time.Second

// AskLayout asks a broker. One that is stopped may be the one that is asked: then the layout is empty.
func AskLayout(ctx context.Context, client *kgo.Client) Layout {
	l := Layout{Leads: map[int32]int{}, InSync: map[int32]int{}}
	ctx, cancel := context.WithTimeout(ctx, layoutTimeout)
	defer cancel()
	resp, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, client)
	if err != nil {
		return l
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			l.Partitions++
			l.Leads[p.Leader]++
			for _, id := range p.ISR {
				l.InSync[id]++
			}
		}
	}
	return l
}

// AllInSync says whether each of some brokers has all that the leaders have, so that any of them may go without anything being refused.
func (l Layout) AllInSync(servers []*Server) bool {
	for _, s := range servers {
		if l.InSync[int32(s.node)] != l.Partitions { //nolint:gosec // a small number
			return false
		}
	}
	return l.Partitions > 0
}
