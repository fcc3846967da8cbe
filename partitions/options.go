package partitions

import (
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
)

// Limits bound what one partition holds. The zero value of a field means its default.
type Limits struct {
	// WaitingPerEntity and Waiting bound the commands that wait for one entity and for the partition.
	WaitingPerEntity, Waiting int
	// CommitBytes and CommitRecords bound what one command may store; bytes are counted as broker.Size counts records.
	CommitBytes, CommitRecords int
	// AppendBytes and AppendRecords bound one append, which holds the records of many commands. The manager lowers them, and with
	// them those of a command, to what the topic takes.
	AppendBytes, AppendRecords int
	// Inflight is how many batches may be on their way to the log; FillBytes how large a batch must be to go out while
	// another one is.
	Inflight, FillBytes int
	// PassivateAfter is the idle time after which an entity leaves memory, for types that say nothing.
	PassivateAfter time.Duration
	// ActiveBytes is the memory that active entities of the partition may hold before the least recently used ones go.
	ActiveBytes int
	// AckTimeout is how long the log may stay silent before the ownership is given up.
	AckTimeout time.Duration
	// DrainTimeout bounds an orderly release.
	DrainTimeout time.Duration
	// CloseTimeout is how long a function may take to end a session in order.
	CloseTimeout time.Duration
	// DedupWindow is how long a command id is remembered, by log time.
	DedupWindow time.Duration
	// MovePatience is how long a command waits for a partition to have an active owner: for one to be named, and for that one to be ready.
	MovePatience time.Duration
}

// WithDefaults returns the limits with every zero field set.
func (l Limits) WithDefaults() Limits {
	set(&l.WaitingPerEntity, 128)
	set(&l.Waiting, 4096)
	set(&l.CommitBytes, 900<<10)
	set(&l.CommitRecords, 1000)
	set(&l.AppendBytes, max(1<<20, l.CommitBytes+broker.AppendOverhead))
	set(&l.AppendRecords, max(8192, l.CommitRecords))
	set(&l.Inflight, 5)
	set(&l.FillBytes, 16<<10)
	set(&l.PassivateAfter, 30*time.Second)
	set(&l.ActiveBytes, 16<<20)
	set(&l.AckTimeout, 30*time.Second)
	set(&l.DrainTimeout, 2*time.Second)
	set(&l.CloseTimeout, 10*time.Second)
	set(&l.DedupWindow, 24*time.Hour)
	set(&l.MovePatience, 15*time.Second)
	return l
}

// within returns the limits, lowered to what a topic takes: a command that fits must never be one that the log refuses.
func (l Limits) within(topic broker.TopicInfo) Limits {
	if topic.MaxAppendBytes > 0 {
		l.AppendBytes = min(l.AppendBytes, topic.MaxAppendBytes)
	}
	if topic.MaxAppendRecords > 0 {
		l.AppendRecords = min(l.AppendRecords, topic.MaxAppendRecords)
	}
	l.CommitBytes, l.CommitRecords = min(l.CommitBytes, l.AppendBytes-broker.AppendOverhead), min(l.CommitRecords, l.AppendRecords)
	return l
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

const (
	// tick is how often a partition looks at its clock: timers, retries, passivation, watchdog.
	tick = 100 * time.Millisecond
	// expireEvery is how often dedup rows outside the window are removed.
	expireEvery = time.Minute
	// routedWindow is how long a command id is remembered that a router gave: longer than any router tries.
	routedWindow = 2 * time.Minute
	// entityOverhead is what the core holds of an active entity in memory, roughly.
	entityOverhead = 256
)
