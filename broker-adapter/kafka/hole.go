package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// This file finds out why a reader gets nothing although the log goes on. A cleaner that compacts a log keeps its last batch, without
// records: the client passes over it without a word.

// hole asks the leader for what is at an offset. It returns the offset behind the batches that the leader has from there on if there is no
// record in them, and the end of the log; the offset itself if there are records, or nothing at all: then the log may have come to its end,
// or the leader does not show yet what it has.
func (l *Log) hole(ctx context.Context, p broker.Partition, offset int64) (next, end int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	leader, err := l.presentLeader(ctx, p)
	if err != nil {
		return offset, 0, err
	}
	resp, err := request(ctx, l, l.admin.Broker(int(leader.node)), fetchAt(p, leader, offset, l.opts.FetchBytes).RequestWith)
	if err != nil {
		return offset, 0, err
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return offset, 0, err
	}
	if len(resp.Topics) == 0 {
		return offset, 0, nil // a broker that has nothing new may leave the partition out
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return offset, 0, fmt.Errorf("broker sent %d topics instead of one partition", len(resp.Topics))
	}
	found, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{KeepControlRecords: true, Offset: offset, Topic: p.Topic, Partition: p.ID},
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

// passHole moves a reader that gets nothing behind offsets that have no record, if that is why. The caller is told by a batch without
// records. An error of the question is none of the reader, which goes on as before.
func (r *reader) passHole(ctx context.Context, wasAtEnd bool) (broker.Batch, bool) {
	if wasAtEnd || !r.atEnd { // only once for each time that nothing comes where more was to be expected
		return broker.Batch{}, false
	}
	next, end, err := r.log.hole(ctx, r.part, r.next)
	if err != nil || next <= r.next {
		return broker.Batch{}, false
	}
	r.next, r.read = next, true
	r.records = r.records[:0]
	return broker.Batch{Next: next, End: max(end, next)}, true
}
