package kafka

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/kafka/balance"
)

// Log is broker.Log on a Kafka cluster. All methods may be called from any goroutine.
type Log struct {
	opts Options
	// admin serves everything but records.
	admin    *kgo.Client
	topics   *topics
	buffer   *buffer
	counters counters
	// brokers is the number of brokers in the last answer about the cluster.
	brokers atomic.Int32

	// refresh holds one request that Watch polls at once.
	refresh chan struct{}

	// ctx ends when Close begins.
	ctx  context.Context //nolint:containedctx // the Log's own lifetime
	stop context.CancelFunc

	mu     sync.Mutex
	closed bool
	// partitions holds the queues of appends; current is the producer for partitions without open
	// appends.
	partitions map[broker.Partition]*partition
	current    *producer
	readers    map[*reader]struct{}
	// tail serves readers that are at the end; shareAfter and rest are defaultShareAfter and
	// defaultRest except in tests.
	tail       *tail
	shareAfter time.Duration
	rest       time.Duration
	// memberships are the running ones; members holds the ids of each group's last table.
	memberships map[*membership]struct{}
	members     map[string]memberIDs
	// budget is balance.TablesBudget except in tests.
	budget int

	// open counts appends without a delivered result, tasks goroutines of the Log and Assignments
	// calls, requests those of the admin client.
	open, tasks, requests sync.WaitGroup
}

var _ broker.Log = (*Log)(nil)

// Open connects to a cluster. It returns when a broker has answered; when none does within
// OpenTimeout the error is broker.ErrUnreachable and says what to check.
func Open(o Options) (*Log, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	o.hung = newHung(o)
	l := &Log{
		opts:        o,
		buffer:      newBuffer(o.BufferRecords, o.BufferBytes),
		partitions:  map[broker.Partition]*partition{},
		readers:     map[*reader]struct{}{},
		memberships: map[*membership]struct{}{},
		members:     map[string]memberIDs{},
		budget:      balance.TablesBudget,
		shareAfter:  defaultShareAfter,
		rest:        defaultRest,
	}
	l.tail = newTail(l)
	l.topics = newTopics(l)
	l.ctx, l.stop = context.WithCancel(context.Background())
	var err error
	if l.admin, err = kgo.NewClient(o.clientOptions()...); err != nil {
		l.stop()
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	if err = l.waitForBroker(); err == nil {
		l.current, err = l.newProducer()
	}
	if err != nil {
		l.stop()
		l.admin.Close()
		l.requests.Wait()
		return nil, err
	}
	return l, nil
}

// waitForBroker asks until a broker answers: the cluster may be starting.
func (l *Log) waitForBroker() error {
	ctx, cancel := context.WithTimeout(l.ctx, l.opts.OpenTimeout)
	defer cancel()
	var last error
	for attempt := 1; ; attempt++ {
		n, err := l.countBrokers(ctx)
		if err == nil {
			l.brokers.Store(int32(n)) //nolint:gosec // a number of brokers
			return nil
		}
		if last == nil || ctx.Err() == nil { // the last error before the deadline says more than the deadline
			last = err
		}
		if !pause(ctx, retry.Pause(attempt)) {
			expect := "that they accept plaintext connections without authentication"
			if l.opts.TLS != nil || l.opts.SASL != nil {
				expect = "that TLS and SASL are set as they expect"
			}
			return fmt.Errorf("%w: no Kafka broker answered within %v at %s: %w; check that the addresses are right, that the "+
				"brokers run and can be reached from here, and %s",
				broker.ErrUnreachable, l.opts.OpenTimeout, strings.Join(l.opts.Brokers, ", "), last, expect)
		}
	}
}

// pause waits, and returns false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Expedite keeps the tail from pausing.
func (l *Log) Expedite() (end func()) { return l.tail.expedite() }

// SingleProcess is false: any client of the cluster may write.
func (l *Log) SingleProcess() bool { return false }

// enter adds a call to wg unless the Log is closed. Each added call ends with wg.Done.
func (l *Log) enter(wg *sync.WaitGroup) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	wg.Add(1)
	return true
}

func (l *Log) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// Close stops everything and waits for it. Open appends fail with broker.ErrClosed, with unknown
// outcome. A second Close returns broker.ErrClosed.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return broker.ErrClosed
	}
	l.closed = true
	producer, readers := l.current, l.readers
	l.current, l.readers = nil, nil
	l.mu.Unlock()

	l.stop() // ends look-ups and memberships
	l.buffer.close()
	producer.close()
	for r := range readers {
		r.interrupt()
	}
	l.tail.close()
	l.open.Wait()
	l.tasks.Wait()
	l.admin.Close() // after the tasks: memberships leave through it
	l.requests.Wait()
	return nil
}

// closedError is what a call gets after Close.
func closedError(what string) error { return fmt.Errorf("%s: %w", what, broker.ErrClosed) }

// within derives the context of a request: it ends with the caller's and with the Log.
func (l *Log) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	release := context.AfterFunc(l.ctx, cancel)
	return ctx, func() { release(); cancel() }
}

// requestError returns the error of a request; after Close it is broker.ErrClosed, whatever failed.
func (l *Log) requestError(what string, err error) error {
	if err != nil && l.ctx.Err() != nil {
		return closedError(what)
	}
	return requestError(what, err)
}
