package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// When the broker compacts a log, it keeps the last batch without records. The client library skips
// such a batch without returning anything, so a reader would wait although the log goes on.

// gap fetches from the leader at an offset. If the batches there have no records, it returns the
// offset after them, and the end of the log. It returns the offset itself if there are records, or
// no batches: then the log may end there, or the leader does not return them yet.
func (l *Log) gap(ctx context.Context, p broker.Partition, offset int64) (next, end int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	leader, err := l.presentLeader(ctx, p)
	if err != nil {
		return offset, 0, err
	}
	resp, err := request(ctx, l, l.admin.Broker(int(leader.node)),
		fetchAt(p, leader, offset, l.opts.FetchBytes).RequestWith)
	if err != nil {
		return offset, 0, err
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return offset, 0, err
	}
	if len(resp.Topics) == 0 {
		return offset, 0, nil // a broker without news may leave the partition out
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return offset, 0, fmt.Errorf("broker sent %d topics instead of one partition", len(resp.Topics))
	}
	found, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		KeepControlRecords: true, Offset: offset, Topic: p.Topic, Partition: p.ID,
	},
		&resp.Topics[0].Partitions[0], kgo.DefaultDecompressor(), nil)
	if found.Err != nil || len(found.Records) > 0 {
		return offset, 0, found.Err
	}
	return max(next, offset), found.HighWatermark, nil
}

func fetchAt(p broker.Partition, leader leadership, offset int64, bytes int) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes = int32(bytes) //nolint:gosec // validated
	req.SessionEpoch = -1       // no session
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = p.Topic, leader.topicID
	tp := kmsg.NewFetchRequestTopicPartition()
	tp.Partition, tp.CurrentLeaderEpoch, tp.FetchOffset, tp.PartitionMaxBytes = p.ID, leader.epoch, offset, req.MaxBytes
	t.Partitions = append(t.Partitions, tp)
	req.Topics = append(req.Topics, t)
	return req
}

// passGap moves a reader that gets nothing past offsets without records, if there are any, and
// returns a batch without records. If the request fails, the reader goes on as before.
func (r *reader) passGap(ctx context.Context, wasAtEnd bool) (broker.Batch, bool) {
	if wasAtEnd || !r.atEnd { // only once each time that nothing comes before the end
		return broker.Batch{}, false
	}
	next, end, err := r.log.gap(ctx, r.part, r.next)
	if err != nil || next <= r.next {
		return broker.Batch{}, false
	}
	r.next, r.read = next, true
	r.records = r.records[:0]
	return broker.Batch{Next: next, End: max(end, next)}, true
}
