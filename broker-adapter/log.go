package broker

import (
	"context"
	"errors"
	"time"
)

// Errors that callers test with errors.Is. Implementations wrap them with topic, partition and
// offset.
var (
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("log is closed")
	// ErrTooLarge: the records are above the topic's limit. Nothing was written.
	ErrTooLarge = errors.New("records exceed the topic's size limit")
	// ErrLimitLowered: the log refused records within the limit that Describe returned last;
	// Describe returns the new one. The outcome is unknown.
	ErrLimitLowered = errors.New("the topic takes less than before")
	// ErrUnknownTopic: no such topic or partition.
	ErrUnknownTopic = errors.New("unknown topic or partition")
	// ErrOutOfRange: the position is before the first record or after the end, as confirmed by the
	// present leader.
	ErrOutOfRange = errors.New("offset out of range")
	// ErrRegressed: the log has lost records that were read before.
	ErrRegressed = errors.New("log went backwards")
	// ErrNoKey: a record without a key was appended to a compacted topic. Nothing was written.
	ErrNoKey = errors.New("a compacted topic takes only records with a key")
	// ErrNotWritten: the log has stored nothing of this append. It is wrapped together with the
	// cause.
	ErrNotWritten = errors.New("nothing was written")
	// ErrUnreachable: no broker answered.
	ErrUnreachable = errors.New("log is unreachable")
)

// Header is one named value of a record, in addition to its value.
type Header struct {
	Key   string
	Value []byte
}

// Record is what is appended and read. Appended records are lent until the result arrives; read
// records are lent until the next call of the same Reader.
type Record struct {
	// Key is nil for a record without one. A Value of nil in a compacted topic is a tombstone.
	Key     []byte
	Value   []byte
	Headers []Header
	// Offset and Time (the log's own append time) are set on records that were read.
	Offset int64
	Time   time.Time
}

// Header returns the value of the first header with this key, nil when there is none.
func (r *Record) Header(key string) []byte {
	for i := range r.Headers {
		if r.Headers[i].Key == key {
			return r.Headers[i].Value
		}
	}
	return nil
}

// Partition addresses one partition of one topic.
type Partition struct {
	Topic string
	ID    int32
}

// AppendResult is the acknowledgement of one Append.
type AppendResult struct {
	// Base is the offset of the first record, Last that of the last one. With a single writer
	// Last-Base+1 is the number of records; with several, their records may be interleaved.
	Base, Last int64
	Err        error
}

// Batch is a run of records as read.
type Batch struct {
	Records []Record
	// Next is the offset at which reading continues, after the last record. Offsets between the two
	// have no record and never will.
	Next int64
	// End is the last known end of the log: the offset that the next record will get. It may be too
	// low, as from an isolated former leader.
	End int64
}

// Reader reads one partition in order. It belongs to one goroutine.
type Reader interface {
	// Next waits for the next records, until ctx ends. It returns at least one record, or an error,
	// or a batch without records whose Next is after the requested offset: these offsets are used
	// and have no record. Records below the end of the log are returned without waiting for more.
	Next(ctx context.Context) (Batch, error)
	// Close releases the reader. Next must not be running.
	Close() error
}

// TopicSpec describes a topic to create.
type TopicSpec struct {
	Name       string
	Partitions int32
	// Compacted topics keep the newest record of each key, at its offset, and may lose the older
	// ones at any time; all others keep everything forever. A tombstone, a record whose value is
	// nil, deletes its key: it may go as well, as soon as the older records of the key have gone,
	// whether or not a reader has come to it. So readers must not need tombstones, or records that
	// newer ones of their key replaced. Records without a key are refused with ErrNoKey.
	Compacted bool
	// MaxRecordBytes bounds one Append, as Size counts it.
	MaxRecordBytes int
}

// TopicInfo is what the log says about a topic.
type TopicInfo struct {
	Name       string
	Partitions int32
	// ID changes when the topic is deleted and created again.
	ID string
	// MaxAppendBytes bounds one Append, as Size counts it, and MaxAppendRecords the number of its
	// records; 0: no bound. A larger one fails with ErrTooLarge.
	MaxAppendBytes, MaxAppendRecords int
	// Durability is a sentence about what an acknowledgement guarantees, as shown by banner and
	// status.
	Durability string
	// Violations lists settings that break the contract of millrace, each with its remedy. Empty:
	// none.
	Violations []Violation
}

// Violation is a setting of a topic that breaks the contract.
type Violation struct {
	Setting string
	Found   string
	Wanted  string
	// Remedy is a command that fixes it, or a sentence that says how.
	Remedy string
}

// Membership describes this worker to the other workers of its app.
type Membership struct {
	// Group is the name of the app's group, Worker that of this worker (a static member), Address
	// where other workers reach it.
	Group   string
	Worker  string
	Address string
	// Public is where callers reach this worker, as told to all members; "": not told.
	Public string
	// Incarnation is a random number that distinguishes this process from earlier ones of the same
	// worker.
	Incarnation uint64
	// Topic is the one whose partitions are assigned.
	Topic string
	// Partitions is how many of them are assigned, from 0 on; 0: all. A topic may have more
	// partitions than hold data.
	Partitions int32
	// Standbys is how many workers besides the owner should follow each partition.
	Standbys int
	// Serves returns what this worker serves, as told to all members; a few hundred bytes at most.
	// A goroutine of the log calls it at each rebalance; it must not block. Nil: nothing is told.
	Serves func() string
	// Images returns, for each partition that this worker owns or follows, how far its image is
	// behind the end of the log, in records. A goroutine of the log calls it at each rebalance; it
	// must not block. Nil: no images.
	Images func() map[int32]int64
}

// Member returns this worker as it appears in a table.
func (m Membership) Member() Member {
	member := Member{Name: m.Worker, Address: m.Address, Incarnation: m.Incarnation, Public: m.Public}
	if m.Serves != nil {
		member.Serves = m.Serves()
	}
	return member
}

// AssignmentEvent is a hint about who should own partitions. Safety never depends on it.
type AssignmentEvent struct {
	// Table is who owns and follows what as of the rebalance that led to this event; nil: as
	// before. An event may have nothing else. A table comes before the partitions that it assigns.
	Table *Table
	// Assigned partitions are to be taken and Revoked ones to be released; Lost ones have another
	// owner already. The previous owner of an assigned partition may not have released it yet.
	Assigned, Revoked, Lost []int32
	// Done must be called when Revoked partitions have been released; it may be nil.
	Done func()
	// Err, if set, ends the membership: another process replaced this one, or the group cannot be
	// used.
	Err error
}

// Group is implemented by logs that several workers share. It is about the group as a whole, beyond
// one's own membership.
type Group interface {
	// Watch calls on with the table of a group, now and after each change, one at a time, until ctx
	// ends; then it returns nil. It needs no membership. A group without members has an empty
	// table. Errors are passed to failed, and Watch goes on.
	Watch(ctx context.Context, group, topic string, on func(*Table), failed func(error)) error
	// Refresh makes Watch ask at once, because its last table is known to be out of date. It does not
	// wait.
	Refresh()
	// Evict removes a worker whose process is dead from its group, so that its partitions move at
	// once instead of after its session. It returns false if the worker has restarted since, as
	// another incarnation, or is gone.
	Evict(ctx context.Context, group string, dead Member) (bool, error)
	// Rebalance requests a rebalance of the group that this worker is a member of, because its
	// images have changed. Without a membership it does nothing.
	Rebalance()
}

// Log is the ordered durable log.
type Log interface {
	// Append adds records to a partition as one batch and calls done once with the result, from a
	// goroutine of the log. It does not wait for the log; it blocks only while the implementation's
	// own bounded buffer is full.
	Append(p Partition, records []Record, done func(AppendResult))
	// Read opens a reader at an offset. If the offset is after the end or before the start, the
	// first Next returns ErrOutOfRange.
	Read(p Partition, from int64) (Reader, error)
	// Expedite makes readers get records as soon as the log has them, until the returned function
	// is called, once. At other times a log may delay records for a reader at the end, so that more
	// come at once.
	Expedite() (end func())
	// Start returns the offset of the oldest record that the log has; if it has none, that of the
	// next one.
	Start(ctx context.Context, p Partition) (int64, error)
	// End returns the offset that the next record will get.
	End(ctx context.Context, p Partition) (int64, error)
	// Describe returns the properties of a topic and its contract violations; ErrUnknownTopic if it
	// does not exist.
	Describe(ctx context.Context, topic string) (TopicInfo, error)
	// Create creates a topic with the contract's settings. An existing one is not an error. It is
	// not changed; only the embedded log, whose topics have no other administrator, raises the
	// limit of a topic whose MaxRecordBytes is below the spec's.
	Create(ctx context.Context, spec TopicSpec) error
	// CreateCommand returns shell commands by which an operator creates the topic instead.
	CreateCommand(spec TopicSpec) string
	// Assignments joins the group and calls on for every event, one at a time, until ctx ends; then
	// it leaves the group and returns nil. Before it leaves, a log may assign this worker's
	// partitions to others and ask for their release. It returns an error if the membership ended
	// for another reason.
	Assignments(ctx context.Context, m Membership, on func(AssignmentEvent)) error
	// SingleProcess reports whether a lock guarantees that no other process can write: then reads
	// need no barrier.
	SingleProcess() bool
	// Close stops everything and waits for it.
	Close() error
}
