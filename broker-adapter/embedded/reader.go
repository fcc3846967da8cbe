package embedded

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// Bounds of one batch as read.
const (
	maxBatchRecords = 1024
	maxBatchBytes   = 1 << 20
)

var (
	// errAway: the database is closed; the committer is about to open it again.
	errAway         = errors.New("log is being opened again")
	errMissing      = errors.New("record is missing")
	errReaderClosed = errors.New("reader is closed")
)

// reader reads one partition. It has an iterator only while it is behind the end, so that an idle
// reader pins no old tables.
type reader struct {
	log       *Log
	partition *partition
	next      int64

	decoder decoder
	rows    []byte
	records []broker.Record

	// mu guards what follows against the committer, which closes the iterator before the database.
	mu     sync.Mutex
	iter   *pebble.Iterator
	closed bool
}

// Read opens a reader at an offset.
func (l *Log) Read(p broker.Partition, from int64) (broker.Reader, error) {
	if l.isClosed() {
		return nil, fmt.Errorf("read from log in %s: %w", l.opts.Dir, broker.ErrClosed)
	}
	part, err := l.topics.partition(p)
	if err != nil {
		return nil, err
	}
	r := &reader{log: l, partition: part, next: from, decoder: decoder{names: map[string]string{}}}
	l.readersMu.Lock()
	defer l.readersMu.Unlock()
	l.readers[r] = struct{}{}
	return r, nil
}

// suspendReaders closes every reader's iterator. Log.current is nil already, so no reader opens
// another.
func (l *Log) suspendReaders() {
	l.readersMu.Lock()
	defer l.readersMu.Unlock()
	for r := range l.readers {
		r.mu.Lock()
		r.dropIterator()
		r.mu.Unlock()
	}
}

// Next waits for the next records, also while the log is closed after a disk failure.
func (r *reader) Next(ctx context.Context) (broker.Batch, error) {
	for {
		if err := r.check(ctx); err != nil {
			return broker.Batch{}, r.errorf(err)
		}
		if end := r.partition.end.Load(); r.next < end {
			batch, err := r.scan(end)
			if !errors.Is(err, errAway) {
				return batch, err
			}
		}
		moved, back := r.partition.moved.changed(), r.log.back.changed()
		if r.readable() {
			continue // it changed meanwhile
		}
		select {
		case <-moved:
		case <-back:
		case <-r.log.closing:
		case <-ctx.Done():
		}
	}
}

// check returns why the reader cannot read, if it cannot.
func (r *reader) check(ctx context.Context) error {
	if r.log.isClosed() {
		return broker.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		if failure := r.log.Stats(); failure.State == StateFailed {
			return fmt.Errorf("%w (%w)", err, failure.LastError)
		}
		return err
	}
	if end := r.partition.end.Load(); r.next < 0 || r.next > end {
		return fmt.Errorf("%w: the log ends at %d", broker.ErrOutOfRange, end)
	}
	return nil
}

func (r *reader) readable() bool {
	db := r.log.current.Load()
	return db != nil && db.fs.failure() == nil && r.next < r.partition.end.Load()
}

func (r *reader) errorf(err error) error {
	return fmt.Errorf("read topic %s, partition %d, offset %d: %w", r.partition.topic.Name, r.partition.id, r.next, err)
}

// scan reads up to one batch below end. The error is errAway when there is no database to read.
func (r *reader) scan(end int64) (broker.Batch, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return broker.Batch{}, r.errorf(errReaderClosed)
	}
	db := r.log.current.Load()
	if db == nil {
		return broker.Batch{}, errAway
	}
	err := r.collect(db, end)
	if err != nil || !r.iter.Valid() {
		r.dropIterator()
	}
	if err == nil {
		return broker.Batch{Records: r.records, Next: r.next, End: r.partition.end.Load()}, nil
	}
	if db.fs.failure() != nil {
		return broker.Batch{}, errAway // what was read may exist in memory only
	}
	if len(r.records) > 0 {
		// Return what comes before the bad record; the next call fails.
		return broker.Batch{Records: r.records, Next: r.next, End: r.partition.end.Load()}, nil
	}
	return broker.Batch{}, corruptRecord(r.log.opts.Dir, r.partition.address(), r.next, err)
}

// collect fills r.records from the iterator and moves r.next past them. The error belongs to the
// record at r.next.
func (r *reader) collect(db *database, end int64) error {
	clear(r.records)
	r.rows, r.records, r.decoder.headers = r.rows[:0], r.records[:0], r.decoder.headers[:0]
	if r.iter == nil {
		if err := r.openIterator(db, end); err != nil {
			return err
		}
	}
	for r.iter.Valid() && len(r.records) < maxBatchRecords && len(r.rows) < maxBatchBytes {
		if err := r.add(); err != nil {
			return err
		}
		r.iter.Next()
	}
	if err := r.iter.Error(); err != nil {
		return err
	}
	switch {
	case len(r.records) > 0:
	case r.partition.topic.Compacted: // all of them were superseded since end was read
		r.next = end
	default:
		return errMissing
	}
	return nil
}

// openIterator starts at r.next and stops at end, which the committer has acknowledged.
func (r *reader) openIterator(db *database, end int64) error {
	number, id := r.partition.topic.Number, r.partition.id
	iter, err := db.NewIter(&pebble.IterOptions{
		LowerBound: recordKey(number, id, r.next), UpperBound: recordKey(number, id, end),
	})
	if err != nil {
		return err
	}
	r.iter = iter
	iter.First()
	return nil
}

// add copies the row under the iterator and decodes the copy.
func (r *reader) add() error {
	key := r.iter.Key()
	if len(key) != recordKeySize {
		return fmt.Errorf("%w: key %x", errMalform, key)
	}
	if !r.partition.topic.Compacted && recordOffset(key) != r.next {
		return fmt.Errorf("%w: the next one has offset %d", errMissing, recordOffset(key))
	}
	value, err := r.iter.ValueAndErr()
	if err != nil {
		return err
	}
	first := len(r.rows)
	r.rows = append(r.rows, value...)
	var record broker.Record
	if err := r.decoder.decode(key, r.rows[first:len(r.rows):len(r.rows)], &record); err != nil {
		return err
	}
	r.records = append(r.records, record)
	r.next = record.Offset + 1
	return nil
}

func (r *reader) dropIterator() {
	if r.iter != nil {
		_ = r.iter.Close() // its error was checked after reading
		r.iter = nil
	}
}

// Close releases the reader.
func (r *reader) Close() error {
	r.mu.Lock()
	r.dropIterator()
	r.closed = true
	r.mu.Unlock()
	r.log.readersMu.Lock()
	defer r.log.readersMu.Unlock()
	delete(r.log.readers, r)
	return nil
}
