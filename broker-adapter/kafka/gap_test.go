package kafka

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// emptyBatch is what compaction leaves of the last batch of a log: the offsets, and no records.
func emptyBatch(first int64, offsets int32) []byte {
	b := (&kmsg.RecordBatch{
		FirstOffset: first, Length: 49, Magic: 2, LastOffsetDelta: offsets - 1, ProducerID: -1, ProducerEpoch: -1,
		FirstSequence: -1,
	}).AppendTo(nil)
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// TestTheLastRecordsAreCompactedAway: a reader passes offsets at the end of the log that have no
// record, instead of waiting for them.
func TestTheLastRecordsAreCompactedAway(t *testing.T) {
	for _, from := range []int64{0, 2} {
		cluster := fake(t, 1)
		l := openFake(t, cluster)
		p := newTestTopic(t, l, 1)
		mustAppend(t, l, p, text("0"), text("1"))
		mustAppend(t, l, p, text("2"), text("3"))
		compactFrom(cluster, 2)
		r := newReader(t, l, p, from)
		next := from
		for next < 4 {
			batch, err := r.Next(deadline(t))
			if err != nil {
				t.Fatal(err)
			}
			next += int64(len(batch.Records))
			if len(batch.Records) == 0 {
				if next != 2 || batch.Next != 4 || batch.End != 4 {
					t.Fatalf("read up to offset %d, then a batch that goes on at %d of %d; want 4 of 4", next, batch.Next, batch.End)
				}
				next = batch.Next
			}
		}
		mustAppend(t, l, p, text("4"))
		batch, err := r.Next(deadline(t))
		if err != nil || batch.Records[0].Offset != 4 {
			t.Fatalf("after the gap: %+v, %v", batch, err)
		}
		for _, offset := range []int64{0, 4, 5} { // there are records, and 5 is the end
			if next, _, err := l.gap(t.Context(), p, offset); err != nil || next != offset {
				t.Errorf("at offset %d: a gap up to %d, %v", offset, next, err)
			}
		}
	}
}

// compactFrom removes the records at an offset and the next one.
func compactFrom(cluster *kfake.Cluster, offset int64) {
	cluster.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		asked := req.(*kmsg.FetchRequest) //nolint:forcetypeassert // by its key
		if len(asked.Topics) != 1 || len(asked.Topics[0].Partitions) != 1 {
			return nil, nil, false
		}
		at := asked.Topics[0].Partitions[0].FetchOffset
		if at > offset+1 {
			return nil, nil, false
		}
		if at < offset { // one record at a time, so that a fetch does not go on beyond
			asked.Topics[0].Partitions[0].PartitionMaxBytes = 1
			asked.MaxBytes = 1
			return nil, nil, false
		}
		resp := asked.ResponseKind().(*kmsg.FetchResponse) //nolint:forcetypeassert // by its key
		topic := kmsg.NewFetchResponseTopic()
		topic.Topic, topic.TopicID = asked.Topics[0].Topic, asked.Topics[0].TopicID
		part := kmsg.NewFetchResponseTopicPartition()
		part.HighWatermark, part.LastStableOffset, part.RecordBatches = offset+2, offset+2, emptyBatch(offset, 2)
		topic.Partitions = append(topic.Partitions, part)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
}
