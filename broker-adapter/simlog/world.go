package simlog

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/internal/clock"
)

// Options configures a World.
type Options struct {
	// Manual: the test moves every append; see the package comment.
	Manual bool
	// ManualAssignments: nothing is assigned except by World.Assign.
	ManualAssignments bool
	// SingleProcess is what the method of that name returns.
	SingleProcess bool
	// Clock gives append times. Nil: the machine's.
	Clock clock.Clock
}

// World is one simulated log that several clients share.
type World struct {
	opts Options

	mu     sync.Mutex
	topics map[string]*topicLog
	// made counts topics, so that a topic made again gets another id.
	made   int
	ops    map[int]*op
	nextOp int
	groups map[string]*group
	// generation counts rebalances, of all groups.
	generation int32
	// changed is closed and replaced at every change that a goroutine may wait for.
	changed chan struct{}
}

type topicLog struct {
	spec       broker.TopicSpec
	id         string
	partitions []*partitionLog
	violations []broker.Violation
}

// partitionLog holds the records from start on.
type partitionLog struct {
	start   int64
	records []broker.Record
	// gone are offsets whose records were removed.
	gone map[int64]bool
}

func (p *partitionLog) end() int64 { return p.start + int64(len(p.records)) }

// New makes an empty world.
func New(o Options) *World {
	if o.Clock == nil {
		o.Clock = clock.Wall{}
	}
	return &World{
		opts: o, topics: map[string]*topicLog{}, ops: map[int]*op{}, nextOp: 1,
		groups: map[string]*group{}, changed: make(chan struct{}),
	}
}

// wake wakes all waiters. The lock is held.
func (w *World) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// partition finds a partition; the error is ErrUnknownTopic. The lock is held.
func (w *World) partition(p broker.Partition) (*topicLog, *partitionLog, error) {
	t := w.topics[p.Topic]
	if t == nil || p.ID < 0 || int(p.ID) >= len(t.partitions) {
		return nil, nil, fmt.Errorf("topic %s, partition %d: %w", p.Topic, p.ID, broker.ErrUnknownTopic)
	}
	return t, t.partitions[p.ID], nil
}

// mustPartition is partition for the test's own calls. The lock is held.
func (w *World) mustPartition(p broker.Partition) *partitionLog {
	_, part, err := w.partition(p)
	if err != nil {
		panic(fmt.Sprintf("simlog: %v", err))
	}
	return part
}

// create makes a topic unless it exists. The lock is held.
func (w *World) create(spec broker.TopicSpec) {
	if w.topics[spec.Name] != nil {
		return
	}
	w.made++
	t := &topicLog{spec: spec, id: fmt.Sprintf("%s#%d", spec.Name, w.made)}
	for range spec.Partitions {
		t.partitions = append(t.partitions, &partitionLog{})
	}
	w.topics[spec.Name] = t
	w.wake()
}

// write adds copies of records to the end and returns the first offset. The lock is held.
func (w *World) write(p *partitionLog, records []broker.Record) int64 {
	base, now := p.end(), w.opts.Clock.Now()
	for i := range records {
		r := cloneRecord(&records[i])
		r.Offset, r.Time = p.end(), now
		p.records = append(p.records, r)
	}
	w.wake()
	return base
}

// Inject writes records of a foreign producer and returns the offset of the first.
func (w *World) Inject(p broker.Partition, records ...broker.Record) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.write(w.mustPartition(p), records)
}

// Truncate cuts the tail, so that the log ends at the given offset: it lost what it had
// acknowledged.
func (w *World) Truncate(p broker.Partition, end int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	part := w.mustPartition(p)
	if end < part.start || end > part.end() {
		panic(fmt.Sprintf("simlog: truncate %v to %d: it reaches from %d to %d", p, end, part.start, part.end()))
	}
	part.records = part.records[:end-part.start]
	maps.DeleteFunc(part.gone, func(offset int64, _ bool) bool { return offset >= end })
	w.wake()
}

// Trim cuts the front, so that the log starts at the given offset.
func (w *World) Trim(p broker.Partition, start int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	part := w.mustPartition(p)
	if start < part.start || start > part.end() {
		panic(fmt.Sprintf("simlog: trim %v to %d: it reaches from %d to %d", p, start, part.start, part.end()))
	}
	part.records = slices.Clone(part.records[start-part.start:])
	part.start = start
	w.wake()
}

// Remove deletes the records from one offset up to another, as compaction or a damaged segment
// would. Their offsets are not used again.
func (w *World) Remove(p broker.Partition, from, until int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	part := w.mustPartition(p)
	if from < part.start || until > part.end() {
		panic(fmt.Sprintf("simlog: remove %d to %d of %v: it reaches from %d to %d", from, until, p, part.start, part.end()))
	}
	if part.gone == nil {
		part.gone = map[int64]bool{}
	}
	for offset := from; offset < until; offset++ {
		part.gone[offset] = true
	}
	w.wake()
}

// Change changes the record at an offset, as damage that no checksum covers would.
func (w *World) Change(p broker.Partition, offset int64, change func(*broker.Record)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	part := w.mustPartition(p)
	change(&part.records[offset-part.start])
	w.wake()
}

// Recreate deletes a topic and creates it again: empty, with another id.
func (w *World) Recreate(topic string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.topics[topic]
	if t == nil {
		panic(fmt.Sprintf("simlog: recreate %s: no such topic", topic))
	}
	delete(w.topics, topic)
	w.create(t.spec)
}

// Grow adds empty partitions to a topic, as kafka-topics.sh --alter does.
func (w *World) Grow(topic string, partitions int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.topics[topic]
	for int32(len(t.partitions)) < partitions { //nolint:gosec // a number of partitions
		t.partitions = append(t.partitions, &partitionLog{})
	}
	t.spec.Partitions = partitions
	w.wake()
}

// Violate makes Describe report these violations of the topic; none to take them back.
func (w *World) Violate(topic string, violations ...broker.Violation) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.topics[topic]
	if t == nil {
		panic(fmt.Sprintf("simlog: violate %s: no such topic", topic))
	}
	t.violations = violations
}

// Limit changes what one append to a topic may have, as an operator does on a cluster.
func (w *World) Limit(topic string, bytes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.topics[topic].spec.MaxRecordBytes = bytes
	w.wake()
}

// Records returns copies of all records of a partition.
func (w *World) Records(p broker.Partition) []broker.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	part := w.mustPartition(p)
	all := make([]broker.Record, 0, len(part.records))
	for i := range part.records {
		if !part.gone[part.start+int64(i)] {
			all = append(all, cloneRecord(&part.records[i]))
		}
	}
	return all
}

// cloneRecord copies a record; nil and empty stay apart.
func cloneRecord(r *broker.Record) broker.Record {
	c := *r
	c.Key, c.Value = slices.Clone(r.Key), slices.Clone(r.Value)
	c.Headers = slices.Clone(r.Headers)
	for i := range c.Headers {
		c.Headers[i].Value = slices.Clone(c.Headers[i].Value)
	}
	return c
}
