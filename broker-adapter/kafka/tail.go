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
	// inboxBytes and inboxesBytes bound what waits for one reader of the tail and for all of them. Whoever is above reads on with a
	// client of its own.
	inboxBytes   = 1 << 20
	inboxesBytes = 64 << 20
	// defaultRest is the pause after something was handed out. What came meanwhile comes with one fetch from each broker, for which a
	// fetch costs much more than its records do.
	defaultRest = 20 * time.Millisecond
)

// errLeft tells a reader that it has to read on by itself.
var errLeft = errors.New("the reader has left the tail")

// tail is the one client with which all readers wait that have come to the end of their partitions: one connection to each broker,
// and one fetch at a time on it, however many partitions a worker follows. Its goroutine runs from the first reader until close.
type tail struct {
	log *Log

	mu sync.Mutex // guards what follows, and all inboxes
	// client is nil before the first reader.
	client  *kgo.Client
	inboxes map[broker.Partition]*inbox
	// fed is from where on the client may still have records of a partition that it was to read at any time. A reader that stands
	// before it is not taken: it would miss what lies between.
	fed map[broker.Partition]int64
	// bytes is the size of what is in all inboxes.
	bytes  int
	closed bool
	// hurries counts those who cannot wait for the tail to have rested. woken has room for one sign that there is one more.
	hurries int
	woken   chan struct{}
	// resting: nothing is taken from the client until the rest is over.
	resting bool
}

// inbox holds what the tail has for one reader.
type inbox struct {
	tail *tail
	part broker.Partition
	// news has room for one sign that something has changed.
	news  chan struct{}
	found fetched
	err   error
	bytes int
	// left: nothing is added any more.
	left bool
}

func newTail(l *Log) *tail {
	return &tail{log: l, inboxes: map[broker.Partition]*inbox{}, fed: map[broker.Partition]int64{}, woken: make(chan struct{}, 1)}
}

// join lets a reader wait here that stands at an offset, behind a record of an epoch. Nil: it has to go on alone.
func (t *tail) join(p broker.Partition, next int64, epoch int32) *inbox {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.inboxes[p] != nil || next < t.fed[p] && !mutation.On(mutation.Tail) || !t.begin() {
		return nil
	}
	in := &inbox{tail: t, part: p, news: make(chan struct{}, 1)}
	t.inboxes[p], t.fed[p] = in, next
	t.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{p.Topic: {p.ID: kgo.NewOffset().At(next).WithEpoch(epoch)}})
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
	go func() { // ends with close, the Log waits for it
		defer t.log.tasks.Done()
		t.run(client)
	}()
	return true
}

// run hands out what comes.
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
		if quiet > 0 { // errors that the client mends by itself
			pause(t.log.ctx, retry.Pause(quiet))
		}
	}
}

// rest returns when it is time for the next fetch: somebody is in a hurry, or more may have come.
func (t *tail) rest() {
	over := time.NewTimer(t.log.rest)
	defer over.Stop()
	defer t.setResting(false)
	for !t.hurried() {
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

func (t *tail) hurried() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hurries > 0
}

// hurry wakes the tail and keeps it awake until end is called.
func (t *tail) hurry() (end func()) {
	t.mu.Lock()
	t.hurries++
	t.mu.Unlock()
	select {
	case t.woken <- struct{}{}:
	default: // it has been told
	}
	return func() {
		t.mu.Lock()
		t.hurries--
		t.mu.Unlock()
	}
}

// deliver says whether anything was for somebody.
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
	switch grave := p.Err != nil && (!transient(p.Err) || errors.Is(p.Err, kerr.UnknownTopicOrPartition) || errors.Is(p.Err, kerr.UnknownTopicID)); {
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
	default: // it has been told
	}
}

// leave ends the feeding of an inbox. What it has may still be taken. The lock is held.
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

// close is leave for the reader, who takes nothing any more.
func (in *inbox) close() {
	in.tail.mu.Lock()
	defer in.tail.mu.Unlock()
	in.leave()
	in.empty()
}

// empty forgets what is in the inbox. The lock is held.
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

// close ends the client, and lets every reader go.
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
