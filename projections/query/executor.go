package query

import (
	"context"
	"fmt"
	"time"
)

// Executor reads rows, where they are.
type Executor interface {
	// Partitions is how many the journal has.
	Partitions() int32
	// PartitionOf returns the partition of an entity id.
	PartitionOf(entity string) int32
	// Open waits until the rows of a partition include everything before Scan.Reach, at most until
	// ctx ends, and reads them at one moment. The error is a *NotHereError if no replica has the
	// dataset, or that of ctx.
	Open(ctx context.Context, scan *Scan) (Rows, error)
	// Changes waits until records from an offset on have changed rows within the bounds of a scan, or
	// until wait is over, and returns these rows as they are now, each once. The error is a
	// *NotHereError if no replica has the dataset, a *GapError if the changes since the offset are
	// not kept, or that of ctx.
	Changes(ctx context.Context, scan *Scan, from int64, wait time.Duration) (*Changes, error)
}

// Changes are rows that have changed.
type Changes struct {
	At At
	// Through is the offset before which all changes are told: ask from there next. It may lie
	// before At.Position.
	Through int64
	Rows    []Change
}

// Change is a row that has changed.
type Change struct {
	// Key is its key tuple.
	Key []byte
	// Row is the message as it is now; nil if it is not within the bounds. Stale: its entity is
	// parked.
	Row   []byte
	Stale bool
}

// GapError: changes since an offset are not kept.
type GapError struct {
	Partition int32
	// Text says since when they are.
	Text string
}

// Error says since when they are kept.
func (e *GapError) Error() string { return e.Text }

// Table is what a scan reads.
type Table uint8

// The tables of a dataset.
const (
	// ByKey are the visible rows, by key.
	ByKey Table = iota
	// ByIndex are the entries of an index with their rows.
	ByIndex
	// Groups are those of an aggregate.
	Groups
)

// Scan names what is read of one partition. It names the dataset: an Executor never chooses it.
type Scan struct {
	Dataset   uint32
	Partition int32
	Table     Table
	// Number is that of the index or of the aggregate.
	Number uint16
	// Lower and Upper bound the tuples: Lower <= tuple < Upper. Upper is nil for no bound. The tuple
	// of an index is that of its fields and the row's key.
	Lower, Upper []byte
	// Reverse returns the greatest tuple first.
	Reverse bool
	// Limit is how many entries are probably wanted: a first batch. Next goes on beyond it.
	Limit int
	// Reach is the offset before which all records must be in the rows; 0 for whatever is there.
	Reach int64
}

// Rows are what a scan returns, at one moment. They belong to one goroutine.
type Rows interface {
	// At says which moment.
	At() At
	// Next returns the next entry, nil behind the last one. It is valid until the next call.
	Next(ctx context.Context) (*Entry, error)
	Close()
}

// At is how far the rows of a partition were folded when they were read.
type At struct {
	// Worker is the name of the worker that has them.
	Worker string
	// Position is the offset up to which records are in the rows, End the newest end of the log that
	// the worker knows of.
	Position, End int64
	// Age is how long ago the rows were known to be current.
	Age time.Duration
}

// Entry is a row, or the group of an aggregate.
type Entry struct {
	// Tuple is what the entry is sorted by: the key, the fields of an index with the key behind them,
	// or the fields of a group.
	Tuple []byte
	// Row is the message of a row. Stale: its entity is parked.
	Row   []byte
	Stale bool
	// Count and Sums are those of a group; the sums are in the order of the definition.
	Count int64
	Sums  []Sum
}

// Sum is a sum of 128 bits in two's complement.
type Sum struct {
	High int64
	Low  uint64
}

// NotHereError: no replica of a partition can answer from the dataset now.
type NotHereError struct {
	Partition int32
	// State is that of the dataset: BUILDING, PAUSED, STOPPED, UNSUPPORTED. Progress says how far it
	// is, or why it does not go on.
	State, Progress string
}

// Error says which partition, and how far it is.
func (e *NotHereError) Error() string {
	text := fmt.Sprintf("partition %d of the projection is %s", e.Partition, e.State)
	if e.Progress != "" {
		text += " (" + e.Progress + ")"
	}
	return text
}

// Freshness knows how far the owners of partitions are.
type Freshness interface {
	// Confirm asks the owner of a partition. Everything that was committed before the call lies
	// before next.
	Confirm(ctx context.Context, partition int32) (next int64, err error)
	// Confirmed returns the last answer of the owner and when it was asked; ok is false if it never
	// answered.
	Confirmed(partition int32) (next int64, asked time.Time, ok bool)
}
