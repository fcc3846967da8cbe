package materializer

import "errors"

// ErrCorrupt: the store's files are damaged or from a newer version. It is a cache: delete it and
// it is rebuilt.
var ErrCorrupt = errors.New("store is damaged")

// ErrUnfoldable: a valid record of the log means nothing to this version's fold. Skipping it would
// lose data in silence.
var ErrUnfoldable = errors.New("record cannot be folded")

// Rows takes the rows that a fold produces. Keys and values are copied before the call returns.
type Rows interface {
	// Put sets a row.
	Put(key, value []byte) error
	// Delete removes a row; an absent one is no error.
	Delete(key []byte) error
}

// Discard takes rows that are not kept.
type Discard struct{}

// Put forgets the row.
func (Discard) Put(_, _ []byte) error { return nil }

// Delete does nothing.
func (Discard) Delete([]byte) error { return nil }

// Reader reads rows as of one moment.
type Reader interface {
	// Get returns the row's value, or nil when there is no such row. The value is the caller's own.
	Get(key []byte) ([]byte, error)
	// Scan calls yield for the rows with lower <= key < upper in key order, until yield returns
	// false. Key and value are valid only during the call.
	Scan(lower, upper []byte, yield func(key, value []byte) bool) error
}

// Batch collects rows that become visible and durable together.
type Batch interface {
	Rows
	// Commit applies the batch. Afterwards the batch is empty and may be used again.
	Commit() error
	// Close releases the batch; what was not committed is dropped.
	Close() error
}

// Row is one row of an ingest.
type Row struct {
	Key, Value []byte
	// Delete makes it the removal of the row.
	Delete bool
}

// Store holds rows in key order. After a crash it opens as an exact prefix of the batches that were
// committed, in order.
type Store interface {
	Reader
	NewBatch() Batch
	// Snapshot returns a view of the present rows. It must be closed.
	Snapshot() Snapshot
	// Ingest adds rows that next yields in strictly ascending key order, all at once; next returns
	// false at the end. The ingest is durable when it returns, and so is every batch that was
	// committed before it.
	Ingest(next func() (Row, bool)) error
	// DropRange removes all rows with lower <= key < upper, at once and durably.
	DropRange(lower, upper []byte) error
	// Flush makes everything that was committed durable.
	Flush() error
	// Size returns the bytes on disk (or in memory, for a store without a disk).
	Size() uint64
	Close() error
}

// Snapshot is a Reader of one moment.
type Snapshot interface {
	Reader
	Close() error
}
