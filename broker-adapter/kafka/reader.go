package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// defaultShareAfter is how long a reader keeps a client of its own at least. A reader for a claim
// is done before that.
const defaultShareAfter = time.Second

// reader reads one partition: with a client of its own while it catches up, and in the tail,
// together with readers of other partitions, when it has reached the end. After an error it uses a
// client of its own again. All fields except those under mu belong to the goroutine that calls
// Next.
type reader struct {
	log  *Log
	part broker.Partition
	what string
	// topicID is the topic's at the first Next.
	topicID [16]byte
	// next is the offset to read next, epoch that of the leader who wrote the record before it, -1
	// for none; read means that this reader has returned records below next.
	next  int64
	epoch int32
	read  bool
	// atEnd: the last fetch reached the end. since is when its own client was made, or could not
	// join the tail.
	atEnd bool
	since time.Time
	// err, once set, is final.
	err error
	// records and headers are lent to the caller until the next Next.
	records []broker.Record
	headers []broker.Header
	// attempt counts fetches in a row that brought nothing but errors.
	attempt int

	mu sync.Mutex
	// client is nil until the first Next, and while there is an inbox. interrupted is set by Close
	// of the Log.
	client      *kgo.Client
	inbox       *inbox
	interrupted bool
}

// Read opens a reader. It sends no request: the first Next checks the position and the topic.
func (l *Log) Read(p broker.Partition, from int64) (broker.Reader, error) {
	r := &reader{log: l, part: p, next: from, epoch: -1, what: fmt.Sprintf("read %s/%d", p.Topic, p.ID)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, closedError(r.what)
	}
	l.readers[r] = struct{}{}
	return r, nil
}

// Next returns the records of one fetch. An error of the fetch is handled before its records.
func (r *reader) Next(ctx context.Context) (broker.Batch, error) {
	if r.err == nil && r.client == nil && r.inbox == nil {
		if err := r.start(ctx); err != nil {
			return broker.Batch{}, err
		}
	}
	for r.err == nil {
		if err := ctx.Err(); err != nil {
			return broker.Batch{}, fmt.Errorf("%s: %w", r.what, err)
		}
		wasAtEnd := r.atEnd
		found, err := r.poll(ctx)
		if r.err != nil {
			break
		}
		if err != nil && (len(found.records) == 0 || !transient(err)) {
			if err := r.handle(ctx, err); err != nil {
				return broker.Batch{}, err
			}
			continue
		}
		r.attempt = 0
		if len(found.records) > 0 {
			return r.batch(found)
		}
		if batch, passed := r.passGap(ctx, wasAtEnd); passed {
			return batch, nil
		}
	}
	return broker.Batch{}, r.err
}

// poll waits for the next fetch, of its own client or of the tail.
func (r *reader) poll(ctx context.Context) (fetched, error) {
	if r.inbox == nil && r.atEnd && time.Since(r.since) >= r.log.shareAfter {
		r.share()
	}
	if r.inbox != nil {
		found, err := r.inbox.take(ctx)
		if !errors.Is(err, errLeft) {
			return found, err
		}
		if err := r.reopen(); err != nil {
			return fetched{}, err
		}
	}
	quiet, cancel := context.WithTimeout(ctx, max(r.log.shareAfter, time.Millisecond))
	defer cancel()
	found, err := collect(r.client.PollFetches(quiet))
	if found.count == 0 && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		r.atEnd = true // nothing came
		return fetched{}, nil
	}
	return found, err
}

// share moves the reader to the tail, if the tail takes it, and closes its own client.
func (r *reader) share() {
	in := r.log.tail.join(r.part, r.next, r.epoch)
	if in == nil {
		r.since = time.Now()
		return
	}
	r.mu.Lock()
	old := r.client
	r.client, r.inbox = nil, in
	if r.interrupted {
		in.close()
	}
	r.mu.Unlock()
	old.Close()
}

// start checks the position and the topic, and makes the client.
func (r *reader) start(ctx context.Context) error {
	ctx, cancel := r.log.within(ctx)
	defer cancel()
	t, err := r.log.topics.partition(ctx, r.part)
	if err != nil {
		return r.log.requestError(r.what, err)
	}
	if r.next < 0 {
		return r.final(fmt.Errorf("%w: offset %d", broker.ErrOutOfRange, r.next))
	}
	r.topicID = t.id
	return r.reopen()
}

// reopen replaces the client by one that starts at next.
func (r *reader) reopen() error {
	from := kgo.NewOffset().At(r.next).WithEpoch(r.epoch)
	client, err := kgo.NewClient(r.log.fresh().readerOptions(r.part.Topic, r.part.ID, from)...)
	if err != nil {
		return r.final(err)
	}
	r.mu.Lock()
	old, in, interrupted := r.client, r.inbox, r.interrupted
	if !interrupted {
		r.client, r.inbox = client, nil
		r.since, r.atEnd = time.Now(), false
	}
	r.mu.Unlock()
	if in != nil {
		in.close()
	}
	if interrupted {
		old = client
	}
	if old != nil {
		old.Close()
	}
	if interrupted {
		return r.final(broker.ErrClosed)
	}
	return nil
}

// final ends the reader with an error.
func (r *reader) final(err error) error {
	r.err = fmt.Errorf("%s: %w", r.what, err)
	return r.err
}

// fetched is the result of one poll: records of one partition in offset order, in parts.
type fetched struct {
	records [][]*kgo.Record
	count   int
	end     int64
}

// collect separates records from the first error.
func collect(fetches kgo.Fetches) (found fetched, err error) {
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if p.Err != nil && (err == nil || transient(err)) { // a permanent error wins over a transient one
			err = p.Err
		}
		if len(p.Records) > 0 {
			found.records = append(found.records, p.Records)
			found.count += len(p.Records)
		}
		found.end = max(found.end, p.HighWatermark)
	})
	return found, err
}

// transient reports whether the client recovers from a fetch error by itself.
func transient(err error) bool {
	return kerr.IsRetriable(err) || kgo.IsRetryableBrokerErr(err)
}

// handle decides what an error of a fetch means. It returns nil when reading goes on.
func (r *reader) handle(ctx context.Context, err error) error {
	loss, lost := errors.AsType[*kgo.ErrDataLoss](err)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", r.what, ctx.Err())
	case errors.Is(err, kgo.ErrClientClosed):
		return r.final(broker.ErrClosed)
	case lost:
		return r.final(fmt.Errorf("%w: read up to offset %d, the log went on from %d", broker.ErrRegressed,
			loss.ConsumedTo, loss.ResetTo))
	case errors.Is(err, kerr.OffsetOutOfRange):
		return r.locate(ctx)
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		if err := r.checkTopic(ctx); err != nil {
			return err
		}
		return r.wait(ctx)
	case transient(err):
		return r.wait(ctx)
	default: // such as a missing permission. The client may have dropped records: the next call makes a new one
		return errors.Join(requestError(r.what, err), r.reopen())
	}
}

// wait counts a fetch that is to be repeated and pauses before it.
func (r *reader) wait(ctx context.Context) error {
	r.log.counters.fetchRetries.Add(1)
	r.attempt++
	pause(ctx, retry.Pause(r.attempt)) // the caller's loop checks ctx
	return nil
}

// checkTopic ends the reader when its topic is gone.
func (r *reader) checkTopic(ctx context.Context) error {
	ctx, cancel := r.log.within(ctx)
	defer cancel()
	meta, err := r.log.metadata(ctx, r.part.Topic)
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		r.log.topics.forget(r.part.Topic)
		return r.final(broker.ErrUnknownTopic)
	case err == nil && meta.TopicID != r.topicID:
		r.log.topics.forget(r.part.Topic)
		return r.final(fmt.Errorf("%w: the topic was deleted and created again, its id is %s and was %s",
			broker.ErrRegressed, idText(meta.TopicID), idText(r.topicID)))
	}
	return nil // it exists, or that cannot be known now
}

// locate decides what an offset out of range means: the broker that said so may be a former leader,
// so it asks the present leader for the bounds of the partition, until it has an answer or ctx
// ends.
func (r *reader) locate(ctx context.Context) error {
	ctx, cancel := r.log.within(ctx)
	defer cancel()
	for attempt := 1; ; attempt++ {
		leader, start, end, err := r.log.bounds(ctx, r.part)
		switch {
		case err != nil:
			if !pause(ctx, retry.Pause(attempt)) {
				return r.log.requestError(r.what, fmt.Errorf("%w; asked because offset %d is out of range: %w", ctx.Err(),
					r.next, err))
			}
			continue
		case leader.topicID != r.topicID:
			return r.checkTopic(ctx)
		case r.next < start:
			return r.final(fmt.Errorf("%w: offset %d lies before the first, %d", broker.ErrOutOfRange, r.next, start))
		case r.next > end && r.read:
			return r.final(fmt.Errorf("%w: read up to offset %d, the log ends at %d", broker.ErrRegressed, r.next, end))
		case r.next > end:
			return r.final(fmt.Errorf("%w: offset %d lies beyond the end, %d", broker.ErrOutOfRange, r.next, end))
		}
		r.log.counters.staleLeaders.Add(1)
		return r.reopen()
	}
}

// batch converts fetched records to the port's form, in reused memory.
func (r *reader) batch(found fetched) (broker.Batch, error) {
	r.records, r.headers = r.records[:0], r.headers[:0]
	bytes := 0
	for _, run := range found.records {
		for _, k := range run {
			if k.Offset < r.next {
				return broker.Batch{}, r.final(fmt.Errorf("%w: offset %d came after %d", broker.ErrRegressed, k.Offset, r.next-1))
			}
			r.next, r.epoch = k.Offset+1, k.LeaderEpoch
			bytes += len(k.Key) + len(k.Value)
			r.records = append(r.records, broker.Record{
				Key: k.Key, Value: k.Value, Headers: r.convertHeaders(k.Headers), Offset: k.Offset, Time: k.Timestamp,
			})
		}
	}
	r.read, r.atEnd = true, r.next >= found.end
	r.log.counters.recordsRead.Add(int64(found.count))
	r.log.counters.bytesRead.Add(int64(bytes))
	// the end from a former leader may be too low
	return broker.Batch{Records: r.records, Next: r.next, End: max(found.end, r.next)}, nil
}

func (r *reader) convertHeaders(headers []kgo.RecordHeader) []broker.Header {
	if len(headers) == 0 {
		return nil
	}
	first := len(r.headers)
	for _, h := range headers {
		r.headers = append(r.headers, broker.Header{Key: h.Key, Value: h.Value})
	}
	return r.headers[first:len(r.headers):len(r.headers)] // earlier ones stay valid when the slice grows
}

// interrupt wakes a running Next, for Close of the Log.
func (r *reader) interrupt() {
	r.mu.Lock()
	r.interrupted = true
	client, in := r.client, r.inbox
	r.mu.Unlock()
	if client != nil {
		client.Close()
	}
	if in != nil {
		in.close()
	}
}

// Close ends the reader's client.
func (r *reader) Close() error {
	r.log.mu.Lock()
	_, mine := r.log.readers[r]
	delete(r.log.readers, r)
	r.log.mu.Unlock()
	if mine {
		r.interrupt()
	}
	return nil
}
