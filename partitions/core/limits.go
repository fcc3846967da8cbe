package core

import (
	"cmp"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/internal/settings"
)

// Limits bound what one partition holds. A zero field has its default; fields with a name tag are
// settings.
type Limits struct {
	// MaxWaitingEntity and MaxWaiting bound the commands that wait for one entity and for the
	// partition.
	MaxWaitingEntity int `name:"max-waiting-entity" default:"128" min:"1" process:"worker" help:"commands that may wait for one entity"`
	MaxWaiting       int `name:"max-waiting" default:"4096" min:"1" help:"commands that may wait in one partition"`
	// MaxCommit and MaxCommitRecords bound what one command may store: see group.counted.
	MaxCommit        int `name:"max-commit" default:"900KiB" unit:"bytes" min:"1" help:"largest sum of what one command stores, with 180 bytes beside each record; its id and its answer do not count; the topic must take 124 KiB more (max.message.bytes)"`
	MaxCommitRecords int `name:"max-commit-records" default:"1000" min:"1" process:"worker" help:"largest number of records that one command stores"`
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
	PassivateAfter time.Duration `name:"passivate-after" default:"30s" min:"1ns" process:"worker" help:"idle time after which an entity leaves memory, unless its type says otherwise"`
	// ActiveMemory is what active entities of all partitions may hold before the least recently used
	// ones are passivated, ActiveBytes the share of one partition. 0: an equal share.
	ActiveMemory int `name:"active-memory" default:"256MiB" unit:"bytes" min:"1" process:"worker" help:"memory for active entities; the least recently used are passivated beyond it"`
	ActiveBytes  int
	// AckTimeout is how long the log may stay silent before the ownership is given up.
	AckTimeout time.Duration `default:"30s"`
	// ReleaseTimeout bounds an orderly release.
	ReleaseTimeout time.Duration `default:"2s"`
	// CloseTimeout is how long a function may take to end a session in order.
	CloseTimeout time.Duration `default:"10s"`
	// DedupWindow is how long a command id is remembered, by log time.
	DedupWindow time.Duration `name:"dedup-window" default:"24h" min:"2m" process:"worker" help:"how long a command id is remembered, at least 2m: as long as workers repeat what they forward"`
	// MovePatience is how long a command waits for a partition to have an active owner: for one to be
	// named, and for that one to be ready. It is shorter than the time for which an owner remembers a
	// command that was forwarded to it (routedWindow).
	MovePatience time.Duration `name:"move-patience" default:"15s" min:"1ns" max:"1m" help:"how long a command waits for a partition to have an owner that is ready"`
	// ContractCheck is the interval at which the topic's settings are checked again.
	ContractCheck time.Duration `name:"contract-check" default:"1m" min:"1ns" process:"worker" help:"how often the journal's topic settings are looked at again"`
}

// recordOverhead is what a topic must take beyond the largest commit: room for what routing adds to
// it, for the engine's own records, and for small commands beside a large one.
const recordOverhead = 124 << 10

// RecordBytes is what the topic must take in one append, as broker.Size counts, so that every
// command within the limits fits.
func (l Limits) RecordBytes() int { return l.MaxCommit + recordOverhead }

// WithDefaults returns the limits with every zero field set, for a single partition.
func (l Limits) WithDefaults() Limits { return l.Among(1) }

// Among returns the limits of each partition of a worker, with every zero field set.
func (l Limits) Among(partitions int32) Limits {
	settings.Fill(&l)
	l.AppendBytes = cmp.Or(l.AppendBytes, l.RecordBytes())
	l.AppendRecords = cmp.Or(l.AppendRecords, max(8192, l.MaxCommitRecords))
	l.ActiveBytes = cmp.Or(l.ActiveBytes, max(l.ActiveMemory/int(partitions), 1))
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
