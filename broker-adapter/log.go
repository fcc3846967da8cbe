package broker

import (
	"context"
	"errors"
	"time"
)

// Errors that callers branch on. Implementations wrap them with topic, partition and offset.
var (
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("log is closed")
	// ErrTooLarge: the records are above the topic's limit. Nothing was written.
	ErrTooLarge = errors.New("records exceed the topic's size limit")
	// ErrLimitLowered: the log refused records that are within the limit that Describe told last. Describe tells the new
	// one. The outcome is unknown.
	ErrLimitLowered = errors.New("the topic takes less than before")
	// ErrUnknownTopic: no such topic or partition.
	ErrUnknownTopic = errors.New("unknown topic or partition")
	// ErrOutOfRange: the position lies before the first or beyond the last record, after the present leader was asked.
	ErrOutOfRange = errors.New("offset out of range")
	// ErrRegressed: the log lost records that it had shown before.
	ErrRegressed = errors.New("log went backwards")
	// ErrNotWritten: the log is known not to have stored anything of this append. It is joined to the error that says why.
	ErrNotWritten = errors.New("nothing was written")
	// ErrUnreachable: no broker answers.
	ErrUnreachable = errors.New("log is unreachable")
)

// Header is one named value beside a record's value.
type Header struct {
	Key   string
	Value []byte
}

// Record is what is appended and read. Appended records are lent until the result arrives; read records are lent until
// the next call of the same Reader.
type Record struct {
	// Key is nil for a record without one.
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
	// Base is the offset of the first record, Last that of the last one. With a lone writer Last-Base+1 is the number of
	// records; a log that is shared may interleave, and then it is more.
	Base, Last int64
	Err        error
}

// Batch is a run of records as read.
type Batch struct {
	Records []Record
	// Next is where reading goes on: beyond the last record. Offsets between the two have no record, and never will.
	Next int64
	// End is the end of the log as last heard: the offset that the next record will get. An isolated former leader may
	// answer with the past.
	End int64
}

// Reader reads one partition in order. It belongs to one goroutine.
type Reader interface {
	// Next waits for the next records, until ctx ends. It returns at least one record, or an error, or a batch without records whose
	// Next is beyond the offset that was asked for: the log has given these offsets away, and has nothing there. Records below the end
	// of the log are returned without waiting for more.
	Next(ctx context.Context) (Batch, error)
	// Close releases the reader. Next must not be running.
	Close() error
}

// TopicSpec describes a topic to create.
type TopicSpec struct {
	Name       string
	Partitions int32
	// Compacted topics keep the newest record of each key; all others keep everything for ever.
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
	// MaxAppendBytes is what one Append may have, as Size counts it, MaxAppendRecords how many records; 0: there is no bound.
	// Anything above fails with ErrTooLarge.
	MaxAppendBytes, MaxAppendRecords int
	// Durability says in a sentence what an acknowledgement promises, as shown in banner and status.
	Durability string
	// Violations lists settings that break the contract of millrace, each with its remedy. Empty: none.
	Violations []Violation
}

// Violation is a setting of a topic that breaks the contract.
type Violation struct {
	Setting string
	Found   string
	Wanted  string
	// Remedy is a command or a sentence that mends it.
	Remedy string
}

// Membership describes this worker to the other workers of its app.
type Membership struct {
	// Group names the app's group, Worker this worker (a static member), Address where peers reach it.
	Group   string
	Worker  string
	Address string
	// Public is where callers reach this worker, told to all members; "" keeps it to itself.
	Public string
	// Incarnation is a random number that sets this process apart from earlier ones of the same worker.
	Incarnation uint64
	// Topic is the one whose partitions are assigned.
	Topic string
	// Partitions is how many of them are, the first ones; 0: all. A topic may have more than hold data.
	Partitions int32
	// Standbys is how many workers beside the owner should follow each partition.
	Standbys int
	// Serves says what this worker serves, told to all members; a few hundred bytes at most. It is asked when the group balances, by a goroutine of
	// the log, and must not block. Nil: it says nothing.
	Serves func() string
	// Images says, for each partition that this worker owns or follows, how far its image is behind the end of the log, in
	// records. It is asked when the group balances, by a goroutine of the log, and must not block. Nil: no images.
	Images func() map[int32]int64
}

// Member is this worker as a table has it.
func (m Membership) Member() Member {
	member := Member{Name: m.Worker, Address: m.Address, Incarnation: m.Incarnation, Public: m.Public}
	if m.Serves != nil {
		member.Serves = m.Serves()
	}
	return member
}

// AssignmentEvent is a hint about who should own partitions. Safety never depends on it.
type AssignmentEvent struct {
	// Table is who owns and follows what as of the balancing that led to this event; nil: as before. An event may bring nothing
	// else. It comes before what it assigns.
	Table *Table
	// Assigned partitions are to be taken, Revoked ones to be released in order, Lost ones are owned by someone else already. What
	// is assigned may still have to be released by its owner in the table before.
	Assigned, Revoked, Lost []int32
	// Done must be called when Revoked partitions have been released; it may be nil.
	Done func()
	// Err, when set, ends the membership: another worker took this one's place, or the group cannot be used.
	Err error
}

// Group is what a log that several workers share knows of them, beyond their own membership.
type Group interface {
	// Watch calls on with the table of a group, now and whenever it has changed, one at a time, until ctx ends; then it returns
	// nil. It needs no membership. A group without members has an empty table. An error is told to failed, and it goes on.
	Watch(ctx context.Context, group, topic string, on func(*Table), failed func(error)) error
	// Look makes Watch ask at once: what it said last does not hold any more. It does not wait.
	Look()
	// Evict takes a worker whose process is dead out of its group, so that its partitions move at once instead of after its
	// session. A worker that has come back since, as another incarnation, or is gone, is left alone: then it returns false.
	Evict(ctx context.Context, group string, dead Member) (bool, error)
	// Rebalance asks for a balancing of the group that this worker is a member of, because its images have changed. Without
	// a membership it does nothing.
	Rebalance()
}

// Log is the ordered durable log.
type Log interface {
	// Append adds records to a partition as one batch and calls done once with the result, from a goroutine of the log.
	// It does not wait for the log; it blocks only while the implementation's own bounded buffer is full.
	Append(p Partition, records []Record, done func(AppendResult))
	// Read opens a reader at an offset. An offset beyond the end or before the start makes the first Next return ErrOutOfRange.
	Read(p Partition, from int64) (Reader, error)
	// Hurry has readers get records as soon as the log has them, until the returned function is called, once. At other times a log
	// may let records wait a moment for a reader that has come to the end, so that more come with them.
	Hurry() (end func())
	// Start returns the offset of the oldest record that the log still has; that of the next one if it has none.
	Start(ctx context.Context, p Partition) (int64, error)
	// End returns the offset that the next record will get, as last heard from the leader.
	End(ctx context.Context, p Partition) (int64, error)
	// Describe returns what the log says about a topic, contract violations included; ErrUnknownTopic when it is missing.
	Describe(ctx context.Context, topic string) (TopicInfo, error)
	// Create creates a topic with the contract's settings. An existing one is not an error. It is left alone; only the
	// embedded log, whose topics have no other administrator, raises the limit of one whose MaxRecordBytes is below the spec's.
	Create(ctx context.Context, spec TopicSpec) error
	// CreateCommand returns shell commands by which an operator creates the topic instead.
	CreateCommand(spec TopicSpec) string
	// Assignments joins the group and calls on for every event, one at a time, until ctx ends; then it leaves in order and
	// returns nil. A log may find successors for this worker's partitions among the others first, and ask for the release of these while
	// it does. It returns an error when the membership ended otherwise.
	Assignments(ctx context.Context, m Membership, on func(AssignmentEvent)) error
	// SingleProcess is true when a lock guarantees that no other process can write: then answers that wrote nothing need no
	// barrier.
	SingleProcess() bool
	// Close stops everything and waits for it.
	Close() error
}
