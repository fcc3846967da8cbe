package core

import (
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/materializer"
)

// A batch holds what goes to the log in one append, and the calls that are answered when it is
// committed.

// Batch is a run of decided commands: their records, and the calls that are answered once those are
// committed.
type Batch struct {
	Incarnation uint64
	Entries     []materializer.Entry
	// bytes is the size of the entries in an append; only set while a batch collects commands.
	bytes int
	// Calls are answered when the batch is committed, in order. Those that wrote nothing have no
	// entries in it.
	Calls []*Call
	// settles holds the contents of its settled records, timers the timers that it sets.
	settles []settles
	timers  []pendingTimer
	SentAt  time.Duration
	acked   bool
	// Result is the log's answer, for Acked.
	Result broker.AppendResult

	// records, headers and buf are the encoded form.
	records []broker.Record
	headers []broker.Header
	buf     []byte
}

func (b *Batch) empty() bool { return len(b.Entries) == 0 && len(b.Calls) == 0 }

func (b *Batch) reset() {
	clear(b.Entries)
	clear(b.Calls)
	clear(b.records)
	*b = Batch{
		Entries: b.Entries[:0], Calls: b.Calls[:0], timers: b.timers[:0], records: b.records[:0], headers: b.headers[:0],
		buf: b.buf[:0],
	}
}

// Encode returns the records of a batch as the log takes them: each with its envelope, and behind
// it the name of its type if it has one. All headers lie in one buffer.
func (b *Batch) Encode() []broker.Record {
	n := len(b.Entries)
	b.records = append(b.records[:0], make([]broker.Record, n)...)
	b.headers = append(b.headers[:0], make([]broker.Header, 2*n)...)
	ends := make([]int, 0, 128)
	for i := range b.Entries {
		b.buf = b.Entries[i].Envelope.Append(b.buf)
		ends = append(ends, len(b.buf))
		b.buf = append(b.buf, b.Entries[i].Envelope.TypeName()...)
		ends = append(ends, len(b.buf))
	}
	start := 0
	for i := range b.Entries {
		envelope, end := ends[2*i], ends[2*i+1]
		headers := b.headers[2*i : 2*i+2 : 2*i+2]
		headers[0] = broker.Header{Key: record.HeaderKey, Value: b.buf[start:envelope:envelope]}
		headers[1] = broker.Header{Key: record.TypeHeader, Value: b.buf[envelope:end:end]}
		if envelope == end || mutation.On(mutation.TypeHeader) {
			headers = headers[:1:1]
		}
		b.records[i] = broker.Record{Key: b.Entries[i].Key, Value: b.Entries[i].Value, Headers: headers}
		start = end
	}
	return b.records
}

func (c *Core) newBatch() *Batch {
	if n := len(c.spare); n > 0 {
		b := c.spare[n-1]
		c.spare = c.spare[:n-1]
		return b
	}
	return &Batch{}
}

// Recycle takes back a batch that is no longer used.
func (c *Core) Recycle(b *Batch) {
	const kept, entries = 8, 4096
	if len(c.spare) < kept && cap(b.Entries) <= entries {
		b.reset()
		c.spare = append(c.spare, b)
	}
}
