package core

import (
	"cmp"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/internal/settings"
)

// Limits bound what the owner of one partition holds, and how long it waits. A zero field has its
// default; fields with a name tag are settings. What the manager and the router bound beside them
// is in partitions.Limits.
type Limits struct {
	// MaxWaitingEntity bounds the commands that wait for one entity.
	MaxWaitingEntity int `name:"max-waiting-entity" default:"128" min:"1" process:"worker" help:"maximum number of commands that wait for one entity"`
	// MaxCommit and MaxCommitRecords bound what one command may store: see group.counted.
	MaxCommit        int `name:"max-commit" default:"900KiB" unit:"bytes" min:"1" help:"maximum size of all records of one command, plus 180 bytes for each; command id and reply do not count; max.message.bytes of the topic must be at least 124 KiB larger"`
	MaxCommitRecords int `name:"max-commit-records" default:"1000" min:"1" process:"worker" help:"maximum number of records of one command"`
	// AppendBytes and AppendRecords bound one append, which holds the records of many commands. The
	// manager lowers them, and with them those of a command, to what the topic takes. 0: what
	// RecordBytes returns, and 8192 records or what one command may store.
	AppendBytes, AppendRecords int
	// Inflight is how many batches may be on their way to the log; FillBytes is how large a batch must
	// be to go out while another one is on its way.
	Inflight  int `default:"5"`
	FillBytes int `default:"16KiB" unit:"bytes"`
	// PassivateAfter is the idle time after which an entity leaves memory, for types that do not set
	// one.
	PassivateAfter time.Duration `name:"passivate-after" default:"30s" min:"1ns" process:"worker" help:"idle time after which an entity is passivated, unless its type sets one"`
	// ActiveBytes is what the active entities of the partition may hold before the least recently used
	// ones are passivated. 0: 256 MiB.
	ActiveBytes int
	// AckTimeout is how long the log may stay silent before the ownership is given up.
	AckTimeout time.Duration `default:"30s"`
	// ReleaseTimeout bounds an orderly release.
	ReleaseTimeout time.Duration `default:"2s"`
	// DedupWindow is how long a command id is remembered, by log time.
	DedupWindow time.Duration `name:"dedup-window" default:"24h" min:"2m" process:"worker" help:"how long command ids are remembered for deduplication, at least 2m"`
	// MovePatience is how long a command waits for a partition to have an active owner: for one to be
	// named, and for that one to be ready. It is shorter than the time for which an owner remembers a
	// command that was sent on to it (routedWindow).
	MovePatience time.Duration `name:"move-patience" default:"15s" min:"1ns" max:"1m" help:"how long a command waits for the partition to have a ready owner"`
}

// recordOverhead is what a topic must take beyond the largest commit: room for what routing adds to
// it, for the engine's own records, and for small commands beside a large one.
const recordOverhead = 124 << 10

// RecordBytes is what the topic must take in one append, as broker.Size counts, so that every
// command within the limits fits.
func (l Limits) RecordBytes() int { return l.MaxCommit + recordOverhead }

// WithDefaults returns the limits with every zero field set.
func (l Limits) WithDefaults() Limits {
	const activeBytes = 256 << 20
	settings.Fill(&l)
	l.ActiveBytes = cmp.Or(l.ActiveBytes, activeBytes)
	l.AppendBytes = cmp.Or(l.AppendBytes, l.RecordBytes())
	l.AppendRecords = cmp.Or(l.AppendRecords, max(8192, l.MaxCommitRecords))
	return l
}

// Within returns the limits, lowered to what a topic takes: the log must never refuse a command
// that is within the limits.
func (l Limits) Within(topic broker.TopicInfo) Limits {
	if topic.MaxAppendBytes > 0 {
		l.AppendBytes = min(l.AppendBytes, topic.MaxAppendBytes)
	}
	if topic.MaxAppendRecords > 0 {
		l.AppendRecords = min(l.AppendRecords, topic.MaxAppendRecords)
	}
	l.MaxCommit = min(l.MaxCommit, l.AppendBytes-broker.AppendOverhead-routingBytes)
	l.MaxCommitRecords = min(l.MaxCommitRecords, l.AppendRecords-routingRecords)
	return l
}
