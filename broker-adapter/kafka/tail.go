package kafka

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/internal/mutation"
)

const (
	// inboxBytes and inboxesBytes bound what waits for one reader of the tail and for all of them.
	// A reader above the bound goes on with a client of its own.
	inboxBytes   = 1 << 20
	inboxesBytes = 64 << 20
	// defaultRest is the pause after a fetch that returned records. One fetch from each broker then
	// gets all records of that time: for a broker, a fetch costs much more than its records.
	defaultRest = 20 * time.Millisecond
)

// errLeft tells a reader to go on with a client of its own.
var errLeft = errors.New("the reader has left the tail")

// tail is the client that all readers at the end of their partitions share: one connection to each
// broker, and one fetch at a time on it, however many partitions a worker follows. Its goroutine
// runs from the first reader until close.
type tail struct {
	log *Log

	mu sync.Mutex // guards what follows, and all inboxes
	// client is nil before the first reader.
	client  *kgo.Client
	inboxes map[broker.Partition]*inbox
	// fed is, for each partition that the client ever read, the offset from which on it may have
	// records. A reader at a lower offset is not taken: it would miss the records between.
	fed map[broker.Partition]int64
	// bytes is the size of what is in all inboxes.
	bytes  int
	closed bool
	// urgent counts active calls of expedite. woken holds one signal that there is another.
	urgent int
	woken  chan struct{}
	// resting: nothing is taken from the client until the pause is over.
	resting bool
}

// inbox holds the records that the tail has for one reader.
type inbox struct {
	tail *tail
	part broker.Partition
	// news holds one signal that the inbox has changed.
	news  chan struct{}
	found fetched
	err   error
	bytes int
	// left: nothing more is added.
	left bool
}

func newTail(l *Log) *tail {
	return &tail{
		log: l, inboxes: map[broker.Partition]*inbox{}, fed: map[broker.Partition]int64{}, woken: make(chan struct{}, 1),
	}
}

// join adds a reader at an offset; epoch is the leader epoch of the record before it. Nil: the tail
// does not take the reader.
func (t *tail) join(p broker.Partition, next int64, epoch int32) *inbox {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.inboxes[p] != nil || next < t.fed[p] && !mutation.On(mutation.Tail) || !t.begin() {
		return nil
	}
	in := &inbox{tail: t, part: p, news: make(chan struct{}, 1)}
	t.inboxes[p], t.fed[p] = in, next
	t.client.AddConsumePartitions(
		map[string]map[int32]kgo.Offset{p.Topic: {p.ID: kgo.NewOffset().At(next).WithEpoch(epoch)}})
	return in
}

// begin makes the client, once. The lock is held.
func (t *tail) begin() bool {
	if t.client != nil {
		return true
	}
	if !t.log.enter(&t.log.tasks) {
		return false
	}
	client, err := kgo.NewClient(t.log.opts.tailOptions()...)
	if err != nil {
		t.log.tasks.Done()
		return false
	}
	t.client = client
	go func() { // ends with close; the Log waits for it
		defer t.log.tasks.Done()
		t.run(client)
	}()
	return true
}

// run delivers fetches to the inboxes.
func (t *tail) run(client *kgo.Client) {
	for quiet := 0; ; {
		fetches := client.PollFetches(t.log.ctx)
		if t.log.ctx.Err() != nil || fetches.IsClientClosed() {
			return
		}
		if quiet++; t.deliver(fetches) {
			quiet = 0
			t.rest()
		}
		if quiet > 0 { // transient errors
			pause(t.log.ctx, retry.Pause(quiet))
		}
	}
}

// rest returns when the next fetch is due: after the pause, or when expedite is called.
func (t *tail) rest() {
	over := time.NewTimer(t.log.rest)
	defer over.Stop()
	defer t.setResting(false)
	for !t.expedited() {
		t.setResting(true)
		select {
		case <-t.woken:
		case <-over.C:
			return
		case <-t.log.ctx.Done():
			return
		}
	}
}

func (t *tail) setResting(is bool) {
	t.mu.Lock()
	t.resting = is
	t.mu.Unlock()
}

func (t *tail) expedited() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.urgent > 0
}

// expedite ends the pause, and keeps the tail from pausing until end is called.
func (t *tail) expedite() (end func()) {
	t.mu.Lock()
	t.urgent++
	t.mu.Unlock()
	select {
	case t.woken <- struct{}{}:
	default: // already signalled
	}
	return func() {
		t.mu.Lock()
		t.urgent--
		t.mu.Unlock()
	}
}

// deliver adds fetches to the inboxes and reports whether there was anything for a reader.
func (t *tail) deliver(fetches kgo.Fetches) (delivered bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		in := t.inboxes[broker.Partition{Topic: p.Topic, ID: p.Partition}]
		if in != nil && in.add(p) {
			delivered = true
		}
	})
	return delivered
}

// add puts what was fetched into the inbox. The lock is held.
func (in *inbox) add(p kgo.FetchTopicPartition) bool {
	t := in.tail
	switch grave := p.Err != nil && (!transient(p.Err) || errors.Is(p.Err, kerr.UnknownTopicOrPartition) ||
		errors.Is(p.Err, kerr.UnknownTopicID)); {
	case grave:
		in.err = p.Err
	case len(p.Records) == 0:
		return false
	}
	if n := len(p.Records); n > 0 {
		size := 0
		for _, r := range p.Records {
			size += len(r.Key) + len(r.Value)
		}
		in.found.records, in.found.count = append(in.found.records, p.Records), in.found.count+n
		in.bytes, t.bytes = in.bytes+size, t.bytes+size
		t.fed[in.part] = p.Records[n-1].Offset + 1
	}
	in.found.end = max(in.found.end, p.HighWatermark)
	if in.bytes > inboxBytes || t.bytes > inboxesBytes {
		in.leave()
	}
	in.wake()
	return true
}

func (in *inbox) wake() {
	select {
	case in.news <- struct{}{}:
	default: // already signalled
	}
}

// leave stops adding to an inbox. What it has may still be taken. The lock is held.
func (in *inbox) leave() {
	t := in.tail
	if in.left {
		return
	}
	in.left = true
	in.wake()
	if t.inboxes[in.part] == in {
		delete(t.inboxes, in.part)
		if !t.closed {
			t.client.RemoveConsumePartitions(map[string][]int32{in.part.Topic: {in.part.ID}})
		}
	}
}

// close removes the reader from the tail and drops what is in its inbox.
func (in *inbox) close() {
	in.tail.mu.Lock()
	defer in.tail.mu.Unlock()
	in.leave()
	in.empty()
}

// empty drops what is in the inbox. The lock is held.
func (in *inbox) empty() {
	in.tail.bytes -= in.bytes
	in.found, in.err, in.bytes = fetched{}, nil, 0
}

// take waits for records or an error of the partition; errLeft when there will be none.
func (in *inbox) take(ctx context.Context) (fetched, error) {
	for {
		in.tail.mu.Lock()
		found, err, left := in.found, in.err, in.left
		switch {
		case found.count > 0:
			in.empty()
			in.err = err // comes next
			err = nil
		case err != nil:
			in.empty()
		case left:
			err = errLeft
		}
		in.tail.mu.Unlock()
		if found.count > 0 || err != nil {
			return found, err
		}
		select {
		case <-in.news:
		case <-ctx.Done():
			return fetched{}, ctx.Err()
		}
	}
}

// close ends the client; all readers get errLeft.
func (t *tail) close() {
	t.mu.Lock()
	t.closed = true
	client := t.client
	for _, in := range t.inboxes {
		in.leave()
	}
	t.mu.Unlock()
	if client != nil {
		client.Close()
	}
}
