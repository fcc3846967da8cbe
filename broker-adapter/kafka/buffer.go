package kafka

import "sync"

// buffer bounds what waits for an acknowledgement, in records and bytes. An append that is larger
// than the bound by itself is admitted when the buffer is empty.
type buffer struct {
	maxRecords, maxBytes int

	mu             sync.Mutex
	room           *sync.Cond
	records, bytes int
	closed         bool
}

func newBuffer(records, bytes int) *buffer {
	b := &buffer{maxRecords: records, maxBytes: bytes}
	b.room = sync.NewCond(&b.mu)
	return b
}

// acquire waits for space. It returns false if the buffer is closed.
func (b *buffer) acquire(records, bytes int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.closed && b.records > 0 && (b.records+records > b.maxRecords || b.bytes+bytes > b.maxBytes) {
		b.room.Wait()
	}
	if b.closed {
		return false
	}
	b.records += records
	b.bytes += bytes
	return true
}

// release gives space back when the brokers have answered, whatever the answer is. All that wait
// are woken: a small append may fit where the first one in line does not.
func (b *buffer) release(records, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.records -= records
	b.bytes -= bytes
	b.room.Broadcast()
}

func (b *buffer) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.room.Broadcast()
}
