package embedded

import (
	"sync"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// request is a call of Append for the committer. Its records are lent by the caller until done is
// called.
type request struct {
	partition *partition
	records   []broker.Record
	bytes     int
	done      func(broker.AppendResult)
	// result has Err set from the start when the append was refused; it is still delivered in
	// order.
	result broker.AppendResult
}

// queue holds the requests for the committer, bounded in bytes and number. Any goroutine puts, the
// committer takes.
type queue struct {
	mu      sync.Mutex
	space   sync.Cond
	waiting []request
	spare   []request
	bytes   int
	// closing admits all that wait for space; sealed refuses new requests.
	closing, sealed bool

	maxBytes, maxCount int
	// ready holds a token while the queue is not empty.
	ready chan struct{}
}

func newQueue(maxBytes, maxCount int) *queue {
	q := &queue{maxBytes: maxBytes, maxCount: maxCount, ready: make(chan struct{}, 1)}
	q.space.L = &q.mu
	return q
}

// put adds a request, waiting while the queue is full. It returns false when the queue is sealed:
// then it was not added.
func (q *queue) put(r request) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.full(r.bytes) && !q.closing {
		q.space.Wait()
	}
	if q.sealed {
		return false
	}
	q.waiting = append(q.waiting, r)
	q.bytes += r.bytes
	q.signal()
	return true
}

// full reports whether bytes more do not fit. A single request always fits.
func (q *queue) full(bytes int) bool {
	return len(q.waiting) >= q.maxCount || len(q.waiting) > 0 && q.bytes+bytes > q.maxBytes
}

func (q *queue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take moves requests of up to maxBytes in all, at least one, into the slice it returns, which is
// valid until the next take. It does not wait.
func (q *queue) take(maxBytes int) []request {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.spare) // release the callers' records
	q.spare = q.spare[:0]
	defer q.space.Broadcast()
	if q.bytes <= maxBytes {
		q.waiting, q.spare = q.spare, q.waiting
		q.bytes = 0
		return q.spare
	}
	n, bytes := 1, q.waiting[0].bytes
	for n < len(q.waiting) && bytes+q.waiting[n].bytes <= maxBytes {
		bytes += q.waiting[n].bytes
		n++
	}
	q.spare = append(q.spare, q.waiting[:n]...)
	rest := copy(q.waiting, q.waiting[n:])
	clear(q.waiting[rest:])
	q.waiting = q.waiting[:rest]
	q.bytes -= bytes
	if rest > 0 {
		q.signal()
	}
	return q.spare
}

// close admits all that wait for space and makes ready fire, so that the committer can empty and
// seal the queue.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closing = true
	q.space.Broadcast()
}

// sealIfEmpty refuses later requests if the queue is empty, and reports whether it did.
func (q *queue) sealIfEmpty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sealed = len(q.waiting) == 0
	return q.sealed
}

// depth returns the number of waiting requests and their bytes.
func (q *queue) depth() (appends, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting), q.bytes
}
