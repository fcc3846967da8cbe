package kafkaserver

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Layout summarizes all partitions of all topics, as reported by brokers.
type Layout struct {
	// Partitions is their number, 0 if no broker answered.
	Partitions int
	// Leads is how many partitions each broker leads, InSync for how many it is in sync, by node.
	Leads, InSync map[int32]int
}

const layoutTimeout = time.Second

// AskLayout asks a broker. If that one is stopped, the layout is empty.
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

// AllInSync reports whether each of the servers is in sync for all partitions, so that any of them
// may stop without failed appends.
func (l Layout) AllInSync(servers []*Server) bool {
	for _, s := range servers {
		if l.InSync[int32(s.node)] != l.Partitions { //nolint:gosec // a small number
			return false
		}
	}
	return l.Partitions > 0
}
