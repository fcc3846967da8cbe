package kafka

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// producer is one idempotent session. Once the broker contradicts it, it is stopped and never used
// again.
type producer struct {
	client  *kgo.Client
	stopped atomic.Bool
	once    sync.Once
}

// close fails what is open and ends the client. It may be called more than once; every call waits
// for the end.
func (p *producer) close() { p.once.Do(p.client.Close) }

func (l *Log) newProducer() (*producer, error) {
	client, err := kgo.NewClient(l.fresh().producerOptions(l.topics.batchBytes)...)
	if err != nil {
		return nil, fmt.Errorf("kafka producer: %w", err)
	}
	return &producer{client: client}, nil
}

// producer returns the session for partitions without open appends; it makes a new one in place of
// one that is stopped.
func (l *Log) producer() (*producer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, broker.ErrClosed
	}
	if l.current.stopped.Load() {
		fresh, err := l.newProducer()
		if err != nil {
			return nil, err
		}
		l.current = fresh
	}
	return l.current, nil
}

// retire ends a session that the broker contradicts. Its open appends fail.
func (l *Log) retire(p *producer) {
	if p.stopped.Swap(true) {
		return
	}
	l.counters.producersStopped.Add(1)
	l.tasks.Go(p.close) // this is the client's own goroutine; Close waits for the open append
}
