package kafka

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/internal/plural"
)

// topic is what appends and readers need to know of a topic. It is immutable; a newer look-up
// replaces it.
type topic struct {
	id         [16]byte
	partitions int32
	// maxBytes bounds one append: max.message.bytes, but not more than Options.MaxRecordBytes. So
	// the client's batches stay valid when an operator lowers a setting that is above what the
	// contract asks for.
	maxBytes int
	// compacted topics refuse records without a key.
	compacted bool
}

func (t *topic) has(id int32) bool { return t != nil && id >= 0 && id < t.partitions }

// topics caches topics. Concurrent look-ups of one topic are merged.
type topics struct {
	log *Log

	mu      sync.Mutex
	known   map[string]*topic
	lookUps map[string]*lookUp
}

// lookUp is a look-up under way; done is closed when the result is there.
type lookUp struct {
	done  chan struct{}
	topic *topic
	err   error
}

func newTopics(l *Log) *topics {
	return &topics{log: l, known: map[string]*topic{}, lookUps: map[string]*lookUp{}}
}

// cached returns a topic, nil if it was not looked up yet.
func (ts *topics) cached(name string) *topic {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.known[name]
}

// batchBytes is the size limit of a topic's batches for the producer client.
func (ts *topics) batchBytes(name string) int32 {
	limit := ts.log.opts.MaxRecordBytes
	if t := ts.cached(name); t != nil {
		limit = t.maxBytes
	}
	return int32(min(max(limit, minBatchBytes), maxBatchBytes))
}

// partition returns the topic of a partition, if that exists.
func (ts *topics) partition(ctx context.Context, p broker.Partition) (*topic, error) {
	t := ts.cached(p.Topic)
	if t.has(p.ID) {
		return t, nil
	}
	t, err := ts.lookUp(ctx, p.Topic)
	if err != nil {
		return nil, err
	}
	if !t.has(p.ID) {
		return nil, fmt.Errorf("%w: topic %s has %s, there is no %d", broker.ErrUnknownTopic, p.Topic,
			plural.Of(t.partitions, "partition"), p.ID)
	}
	return t, nil
}

// lookUp asks the brokers, or waits for a look-up in progress.
func (ts *topics) lookUp(ctx context.Context, name string) (*topic, error) {
	if !ts.log.enter(&ts.log.tasks) {
		return nil, broker.ErrClosed
	}
	l, mine := ts.join(name)
	if mine {
		go func() { // ends with its requests or when the Log closes; Close waits for it
			defer ts.log.tasks.Done()
			ts.resolve(name, l)
		}()
	} else {
		ts.log.tasks.Done()
	}
	select {
	case <-l.done:
		return l.topic, l.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// join returns the look-up in progress of a topic, or a new one that the caller has to do.
func (ts *topics) join(name string) (l *lookUp, mine bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if l = ts.lookUps[name]; l != nil {
		return l, false
	}
	l = &lookUp{done: make(chan struct{})}
	ts.lookUps[name] = l
	return l, true
}

func (ts *topics) resolve(name string, l *lookUp) {
	ctx, cancel := context.WithTimeout(ts.log.ctx, ts.log.opts.RequestTimeout)
	defer cancel()
	t, err := ts.ask(ctx, name)
	if ts.log.ctx.Err() != nil {
		err = broker.ErrClosed
	}
	l.topic, l.err = t, requestError("look up topic "+name, err)
	ts.mu.Lock()
	defer ts.mu.Unlock()
	delete(ts.lookUps, name)
	if err == nil {
		ts.known[name] = t
	}
	close(l.done)
}

func (ts *topics) ask(ctx context.Context, name string) (*topic, error) {
	meta, err := ts.log.metadata(ctx, name)
	if err != nil {
		return nil, err
	}
	configs, err := ts.log.configs(ctx, name)
	if err != nil {
		return nil, err
	}
	return newTopic(ts.log.opts, meta.TopicID, len(meta.Partitions), configs), nil
}

func newTopic(o Options, id [16]byte, partitions int, configs map[string]setting) *topic {
	limit, err := strconv.Atoi(configs[maxMessageBytes].value)
	if err != nil {
		limit = maxBatchBytes // the broker decides
	}
	return &topic{
		id: id, partitions: int32(partitions), //nolint:gosec // a number of partitions
		maxBytes:  min(limit, o.MaxRecordBytes),
		compacted: strings.Contains(configs[cleanupPolicy].value, compactPolicy),
	}
}

// learn replaces a topic by a newer look-up.
func (ts *topics) learn(name string, t *topic) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.known[name] = t
}

// forget drops a topic, so that the next use lookUps it up again.
func (ts *topics) forget(name string) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	delete(ts.known, name)
}

func idText(id [16]byte) string { return hex.EncodeToString(id[:]) }
