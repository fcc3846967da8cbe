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
	// Iterator returns an iterator over the rows with lower <= key < upper as they are now; an empty
	// bound is no bound. It must be closed. An error shows when the iterator is used.
	Iterator(lower, upper []byte) Iterator
}

// Iterator goes over rows in the order of their keys, in both directions. It shows the rows of the
// moment at which it was made, even after its snapshot was closed, until it is closed itself or the
// store is. It stands at a row, before the first one or behind the last one; a new one stands at
// neither end: Next goes to the first row then, and Prev to the last. It belongs to one goroutine.
type Iterator interface {
	// First, Last, Next and Prev move and return whether the iterator stands at a row then. Where
	// there is no further row it stands behind the last one (First, Next) or before the first one
	// (Last, Prev), and stays there until it is moved the other way.
	First() bool
	Last() bool
	Next() bool
	Prev() bool
	// SeekGE moves to the first row whose key is not below the given one, SeekLT to the last row
	// whose key is below it. Both stay within the bounds.
	SeekGE(key []byte) bool
	SeekLT(key []byte) bool
	// Key and Value are those of the row, nil where the iterator stands at none. They must not be
	// changed, and are valid until the next move.
	Key() []byte
	Value() []byte
	// Error returns why the iterator cannot be used: fs.ErrClosed after a move when it or the store
	// was closed, or what was wrong when a row was read. No move succeeds after an error.
	Error() error
	// Close releases the iterator and returns its Error. It may be called again.
	Close() error
}

// Batch collects rows that become visible and durable together.
type Batch interface {
	Rows
	// Commit applies the batch. Afterwards the batch is empty and may be used again.
	Commit() error
	// Close releases the batch; what was not committed is dropped.
	Close() error
}

// IndexedBatch is a Batch that can be read before it is committed: it shows its own rows over those
// of the store, as both are when it is asked. Commit and Close end its iterators.
type IndexedBatch interface {
	Batch
	Reader
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
	// NewIndexedBatch returns a batch that can be read. Writing to it costs more.
	NewIndexedBatch() IndexedBatch
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
