package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/internal/plural"
)

// partition is the queue of appends to one partition, from the call to the delivered result.
//
// While its topic is being looked up, appends wait at the tail; then they are sent in order.
// Results are delivered from the head.
type partition struct {
	log *Log
	id  broker.Partition

	mu    sync.Mutex
	queue []*pending
	// unsent is how many at the tail wait for the look-up of the topic.
	unsent int
	// delivering: a goroutine is running the callback of the head.
	delivering bool
	// producer has all sent appends of this queue; it changes only while the queue is empty.
	producer *producer
	// failed is set by an append that failed and cleared when the queue is empty; until then all
	// appends fail.
	failed error
}

// partition returns the queue of a partition. Queues are never removed: there are as many as
// partitions written to.
func (l *Log) partition(id broker.Partition) *partition {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.partitions[id]
	if p == nil {
		p = &partition{log: l, id: id}
		l.partitions[id] = p
	}
	return p
}

// add puts an append at the tail, and sends it as soon as its topic is known. Holding the lock
// while sending keeps the records of an append together.
func (p *partition) add(a *pending) {
	a.part = p
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = append(p.queue, a)
	t := p.log.topics.cached(p.id.Topic)
	if p.unsent > 0 || !t.has(p.id.ID) {
		if p.unsent++; p.unsent == 1 {
			p.log.tasks.Go(p.resolve) // ends with the look-up; Close waits for this open append
		}
		return
	}
	p.send(a, t)
	if a.finished {
		p.log.tasks.Go(p.deliver) // never from inside Append; Close waits for this open append
	}
}

// resolve looks the topic up and sends what waits for it.
func (p *partition) resolve() {
	t, err := p.log.topics.partition(context.Background(), p.id) // ends with the Log
	p.mu.Lock()
	waiting := p.queue[len(p.queue)-p.unsent:]
	p.unsent = 0
	for _, a := range waiting {
		if err != nil {
			p.refuse(a, err)
		} else {
			p.send(a, t)
		}
	}
	p.mu.Unlock()
	p.deliver()
}

// send gives an append to the producer, or refuses it. The caller holds the lock.
func (p *partition) send(a *pending, t *topic) {
	if err := p.refusal(a, t); err != nil {
		p.refuse(a, err)
		return
	}
	a.from = p.producer
	for i := range a.records {
		a.from.client.Produce(context.Background(), &a.records[i], a.answer) // never blocks: our own buffer is smaller
	}
}

// refusal returns why an append must not be sent; if it may be sent, p.producer is set.
func (p *partition) refusal(a *pending, t *topic) error {
	switch {
	case a.refusal != nil:
		return a.refusal
	case p.failed != nil:
		return fmt.Errorf("%w: %w", errBehind, p.failed)
	case len(a.records) == 0:
		return errors.New("there are no records")
	case len(a.records) > p.log.opts.BufferRecords:
		return fmt.Errorf("%w: %s, the buffer takes %d", broker.ErrTooLarge, plural.Of(len(a.records), "record"),
			p.log.opts.BufferRecords)
	case t.compacted && a.keyless: // the broker would refuse the whole batch
		return broker.ErrNoKey
	case a.size > t.maxBytes:
		return fmt.Errorf("%w: %s with %d bytes, topic %s takes %d (max.message.bytes, or the largest commit if that is less)",
			broker.ErrTooLarge, plural.Of(len(a.records), "record"), a.size, p.id.Topic, t.maxBytes)
	}
	if p.producer == nil {
		var err error
		if p.producer, err = p.log.producer(); err != nil {
			return err
		}
	}
	if p.producer.stopped.Load() { // its open appends will fail, and this one may depend on them
		return errBehind
	}
	return nil
}

// refuse finishes an append that was not sent. The caller holds the lock and starts the delivery.
func (p *partition) refuse(a *pending, err error) {
	a.result = broker.AppendResult{Base: -1, Last: -1, Err: notWritten(p.id, err)}
	p.complete(a)
}

// finish takes the result of an append that was sent.
func (p *partition) finish(a *pending) {
	p.mu.Lock()
	p.complete(a)
	p.mu.Unlock()
	p.deliver()
}

// complete makes a result ready for delivery. The caller holds the lock.
func (p *partition) complete(a *pending) {
	a.finished = true
	c := &p.log.counters
	switch err := a.result.Err; {
	case err == nil:
		c.appends.Add(1)
		c.records.Add(int64(len(a.records)))
	case p.failed == nil && !errors.Is(err, broker.ErrTooLarge) && !errors.Is(err, broker.ErrNoKey):
		p.failed = err
		fallthrough
	default:
		c.appendErrors.Add(1)
	}
	p.log.buffer.release(len(a.records), a.size)
	c.bytesOpen.Add(-int64(a.size))
}

// deliver runs the callbacks of all finished appends at the head. Of several concurrent calls one
// does all the work.
func (p *partition) deliver() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.delivering {
		return
	}
	p.delivering = true
	for len(p.queue) > 0 && p.queue[0].finished {
		a := p.queue[0]
		p.mu.Unlock()
		a.done(a.result)
		p.mu.Lock()
		p.queue[0] = nil
		p.queue = p.queue[1:] // only now: appends made during the callback are still behind it
		p.log.counters.appendsOpen.Add(-1)
		p.log.open.Done()
	}
	p.delivering = false
	if len(p.queue) == 0 {
		p.failed, p.producer = nil, nil
	}
}
