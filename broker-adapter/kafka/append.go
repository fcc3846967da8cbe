package kafka

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// pending is one Append without a delivered result.
type pending struct {
	part *partition
	// from is the producer that got the records.
	from    *producer
	records []kgo.Record
	size    int
	keyless bool
	done    func(broker.AppendResult)
	// refusal, if set, is why the records are not sent.
	refusal error

	// unanswered counts records; touched, like result until finished, on the producer client's one
	// goroutine for answers.
	unanswered int
	result     broker.AppendResult
	// finished: result may be delivered as soon as those before it are. Guarded by partition.mu.
	finished bool
}

// Append hands records to the producer. It blocks only while the buffer is full. Callbacks must not
// wait for an Append.
func (l *Log) Append(p broker.Partition, records []broker.Record, done func(broker.AppendResult)) {
	a := &pending{
		records: toKafka(p, records), size: broker.Size(records), keyless: broker.LacksKey(records), done: done,
		unanswered: len(records),
	}
	if !l.enter(&l.open) {
		// As always, the result comes from another goroutine. It ends with the callback; no call
		// waits for it.
		go done(broker.AppendResult{Err: closedError(fmt.Sprintf("append to %s/%d", p.Topic, p.ID))})
		return
	}
	if !l.buffer.acquire(len(records), a.size) { // closed meanwhile
		a.records, a.size, a.refusal = nil, 0, broker.ErrClosed
	}
	l.counters.appendsOpen.Add(1)
	l.counters.bytesOpen.Add(int64(a.size))
	l.partition(p).add(a)
}

func toKafka(p broker.Partition, records []broker.Record) []kgo.Record {
	out := make([]kgo.Record, len(records))
	for i := range records {
		r := &records[i]
		out[i] = kgo.Record{Topic: p.Topic, Partition: p.ID, Key: r.Key, Value: r.Value}
		if len(r.Headers) > 0 {
			out[i].Headers = make([]kgo.RecordHeader, len(r.Headers))
			for j, h := range r.Headers {
				out[i].Headers[j] = kgo.RecordHeader{Key: h.Key, Value: h.Value}
			}
		}
	}
	return out
}

// answer takes the client's answer for one record. All records of an append are answered in order;
// the last one completes it.
func (a *pending) answer(r *kgo.Record, err error) {
	if err == nil && r.Offset < 0 {
		err = errNoOffset
	}
	switch {
	case err != nil && a.result.Err == nil:
		a.result.Err = err
	case r == &a.records[0]:
		a.result.Base = r.Offset
	}
	if a.unanswered--; a.unanswered > 0 {
		return
	}
	a.result.Last = r.Offset
	if err := a.result.Err; err != nil {
		a.fail(err)
	}
	a.part.finish(a)
}

// fail sets the error of an append that was sent, and stops its producer if need be.
func (a *pending) fail(err error) {
	l := a.part.log
	if stopsProducer(err) {
		l.retire(a.from)
	}
	if errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.UnknownTopicOrPartition) ||
		errors.Is(err, kerr.UnknownTopicID) {
		l.topics.forget(a.part.id.Topic) // the cached topic is out of date
	}
	a.result = broker.AppendResult{Base: -1, Last: -1, Err: appendError(a.part.id, err, l.isClosed())}
}
