package embedded

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// topicRow is a topic as stored. Number is in every key of its records, so that a key is short; it
// is never used again. ID is random: a topic that is made anew under its name is another one.
type topicRow struct {
	Name           string `json:"name"`
	Number         uint32 `json:"number"`
	ID             string `json:"id"`
	Partitions     int32  `json:"partitions"`
	Compacted      bool   `json:"compacted,omitempty"`
	MaxRecordBytes int    `json:"max_record_bytes"`
}

func newTopicRow(spec broker.TopicSpec, number uint32) topicRow {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never returns an error
	row := topicRow{
		Name: spec.Name, Number: number, ID: hex.EncodeToString(id[:]),
		Partitions: spec.Partitions, Compacted: spec.Compacted, MaxRecordBytes: spec.MaxRecordBytes,
	}
	setDefault(&row.MaxRecordBytes, DefaultMaxRecordBytes)
	return row
}

// topic is a topic in memory. It lives as long as the log, through every reopening, so that what
// was acknowledged is compared with what the files have then.
type topic struct {
	// topicRow is as the topic was found or created; only limit changes later.
	topicRow
	// limit is MaxRecordBytes as it is now. The committer raises it.
	limit      atomic.Int64
	partitions []*partition
}

// partition is what the committer and readers share about one partition.
type partition struct {
	topic *topic
	id    int32
	// next is the offset that the next record gets. Only the committer touches it.
	next int64
	// tombstone is the key row of the partition's last record, if that is a tombstone of a
	// compacted topic; else nil. Only the committer touches it.
	tombstone []byte
	// end is what the committer has acknowledged; readers stop there.
	end   atomic.Int64
	moved notifier
}

func newTopic(row topicRow) *topic {
	t := &topic{topicRow: row, partitions: make([]*partition, row.Partitions)}
	t.limit.Store(int64(row.MaxRecordBytes))
	for id := range row.Partitions {
		t.partitions[id] = &partition{topic: t, id: id}
	}
	return t
}

func (p *partition) address() broker.Partition {
	return broker.Partition{Topic: p.topic.Name, ID: p.id}
}

// publish moves the end and wakes readers.
func (p *partition) publish(end int64) {
	p.end.Store(end)
	p.moved.broadcast()
}

// lastEnd reads the end of the partition from the database, and the key row of its last record if
// that is a tombstone.
func (p *partition) lastEnd(db *pebble.DB) (end int64, tombstone []byte, err error) {
	number, id := p.topic.Number, p.id
	iter, err := db.NewIter(&pebble.IterOptions{
		LowerBound: recordKey(number, id, 0), UpperBound: recordKey(number, id+1, 0),
	})
	if err != nil {
		return 0, nil, err
	}
	if iter.SeekLT(recordKey(number, id+1, 0)) {
		end = recordOffset(iter.Key()) + 1
		if p.topic.Compacted {
			tombstone, err = p.tombstoneRow(iter)
		}
	}
	return end, tombstone, firstError(err, iter.Close())
}

// tombstoneRow returns the key row of the record under the iterator if that is a tombstone. One
// that cannot be decoded is left alone: its readers report it.
func (p *partition) tombstoneRow(iter *pebble.Iterator) ([]byte, error) {
	value, err := iter.ValueAndErr()
	if err != nil {
		return nil, err
	}
	d, r := decoder{names: map[string]string{}}, broker.Record{}
	if d.decode(iter.Key(), value, &r) != nil || r.Value != nil {
		return nil, nil //nolint:nilerr // its readers report it
	}
	return newestKey(p.topic.Number, p.id, r.Key), nil
}

// topicTable finds topics by name. Only the committer adds to it.
type topicTable struct {
	mu     sync.RWMutex
	byName map[string]*topic
}

func (t *topicTable) get(name string) *topic {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byName[name]
}

func (t *topicTable) add(tp *topic) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byName[tp.Name] = tp
}

// partition finds a partition; the error is ErrUnknownTopic.
func (t *topicTable) partition(p broker.Partition) (*partition, error) {
	tp := t.get(p.Topic)
	if tp == nil {
		return nil, fmt.Errorf("topic %s: %w", p.Topic, broker.ErrUnknownTopic)
	}
	if p.ID < 0 || p.ID >= tp.Partitions {
		return nil, fmt.Errorf("topic %s, partition %d of %d: %w", p.Topic, p.ID, tp.Partitions, broker.ErrUnknownTopic)
	}
	return tp.partitions[p.ID], nil
}

// load reads topics and the end of every partition from the database.
func (t *topicTable) load(db *pebble.DB) error {
	iter, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{topicPrefix}, UpperBound: []byte{topicPrefix + 1}})
	if err != nil {
		return err
	}
	var rows []topicRow
	for ok := iter.First(); ok; ok = iter.Next() {
		var row topicRow
		if err := json.Unmarshal(iter.Value(), &row); err != nil {
			_ = iter.Close()
			return fmt.Errorf("row of topic %s: %w: %w", iter.Key()[1:], ErrCorrupt, err)
		}
		rows = append(rows, row)
	}
	if err := iter.Close(); err != nil {
		return err
	}
	for _, row := range rows {
		if err := t.loadTopic(db, row); err != nil {
			return err
		}
	}
	return nil
}

// loadTopic reads the ends of one topic. They may be above what was acknowledged, never below.
func (t *topicTable) loadTopic(db *pebble.DB, row topicRow) error {
	tp := t.get(row.Name)
	known := tp != nil
	if !known {
		tp = newTopic(row)
	}
	for _, p := range tp.partitions {
		end, tombstone, err := p.lastEnd(db)
		if err != nil {
			return fmt.Errorf("end of topic %s, partition %d: %w", row.Name, p.id, err)
		}
		if acknowledged := p.end.Load(); end < acknowledged {
			return fmt.Errorf("topic %s, partition %d ends at %d, %d was acknowledged: %w; %s",
				row.Name, p.id, end, acknowledged, broker.ErrRegressed, restoreAdvice)
		}
		p.next, p.tombstone = end, tombstone
		p.publish(end)
	}
	if !known {
		t.add(tp)
	}
	return nil
}

// nextNumber returns an unused topic number. Topics are never deleted.
func (t *topicTable) nextNumber() uint32 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var last uint32
	for _, tp := range t.byName {
		last = max(last, tp.Number)
	}
	return last + 1
}
