package node

import (
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/millrace-io/millrace/internal/observe"
)

const (
	// noticeDelay is how long the same event of other partitions is waited for.
	noticeDelay = 100 * time.Millisecond
	// maxNotices bounds the events that wait.
	maxNotices = 256
)

// notices logs what happens to several partitions at once as one line: a rebalance, a log that does
// not answer, or a halt may concern all of them.
type notices struct {
	logger *slog.Logger

	mu      sync.Mutex
	waiting []*notice
}

// notice is an event, with the partitions that it concerns.
type notice struct {
	event
	partitions []int32
}

// event is what a notice says beside its partitions. From and to are empty for an alarm.
type event struct{ from, to, why string }

// add logs an event of a partition, after noticeDelay.
func (n *notices) add(partition int32, e event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range n.waiting {
		if w.event == e {
			w.partitions = append(w.partitions, partition)
			return
		}
	}
	if len(n.waiting) == maxNotices {
		n.write()
	}
	if len(n.waiting) == 0 {
		time.AfterFunc(noticeDelay, n.flush)
	}
	n.waiting = append(n.waiting, &notice{e, []int32{partition}})
}

// flush logs what waits.
func (n *notices) flush() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.write()
}

func (n *notices) write() {
	for _, w := range n.waiting {
		var attrs []any
		if len(w.partitions) == 1 {
			attrs = append(attrs, observe.Partition, w.partitions[0])
		} else {
			slices.Sort(w.partitions)
			attrs = append(attrs, observe.Partitions, slices.Compact(w.partitions))
		}
		if w.to == "" {
			n.logger.Warn("partition alarm", append(attrs, observe.Error, w.why)...)
			continue
		}
		n.logger.Warn("partition changed state", append(attrs, "from", w.from, "to", w.to, observe.Cause, w.why)...)
	}
	n.waiting = nil
}
