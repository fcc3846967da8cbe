package simlog

import (
	"context"
	"errors"
	"fmt"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

const (
	// maxBatch is how many records one Next returns at most.
	maxBatch = 512
	// scribble is the byte with which lent records are overwritten.
	scribble = 0xdb
)

// reader reads one partition for one client.
type reader struct {
	client    *Client
	partition broker.Partition
	next      int64
	lent      []broker.Record
	closed    bool
}

// Read opens a reader.
func (c *Client) Read(p broker.Partition, from int64) (broker.Reader, error) {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	if c.closed {
		return nil, c.closedError("read")
	}
	if _, _, err := c.world.partition(p); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return &reader{client: c, partition: p, next: from}, nil
}

// Next waits for the next records.
func (r *reader) Next(ctx context.Context) (broker.Batch, error) {
	r.takeBack()
	for {
		batch, changed, err := r.peek(ctx)
		if err != nil {
			return broker.Batch{}, fmt.Errorf("read topic %s, partition %d, offset %d: %w", r.partition.Topic,
				r.partition.ID, r.next, err)
		}
		if batch.Next > r.next {
			r.next, r.lent = batch.Next, batch.Records
			return batch, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// peek returns the records that exist now, or a channel that is closed at the next change.
func (r *reader) peek(ctx context.Context) (broker.Batch, <-chan struct{}, error) {
	w := r.client.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.closed {
		return broker.Batch{}, nil, errors.New("reader is closed")
	}
	if r.client.closed {
		return broker.Batch{}, nil, broker.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return broker.Batch{}, nil, err
	}
	_, part, err := w.partition(r.partition)
	if err != nil {
		return broker.Batch{}, nil, err
	}
	if r.next < part.start || r.next > part.end() {
		return broker.Batch{}, nil, fmt.Errorf("%w: the log reaches from %d to %d", broker.ErrOutOfRange, part.start,
			part.end())
	}
	end := r.client.shownEnd(r.partition, part)
	batch := broker.Batch{Next: r.next, End: end}
	for offset := r.next; offset < end && len(batch.Records) < maxBatch; offset++ {
		if !part.gone[offset] {
			batch.Records = append(batch.Records, cloneRecord(&part.records[offset-part.start]))
		}
		batch.Next = offset + 1
	}
	return batch, w.changed, nil
}

// takeBack overwrites the records of the last batch, which were lent until now.
func (r *reader) takeBack() {
	for i := range r.lent {
		spoil(r.lent[i].Key)
		spoil(r.lent[i].Value)
		for j := range r.lent[i].Headers {
			spoil(r.lent[i].Headers[j].Value)
		}
		r.lent[i] = broker.Record{Offset: -1}
	}
	r.lent = nil
}

func spoil(b []byte) {
	for i := range b {
		b[i] = scribble
	}
}

// Close ends the reader.
func (r *reader) Close() error {
	r.takeBack()
	r.client.world.mu.Lock()
	defer r.client.world.mu.Unlock()
	r.closed = true
	return nil
}
