package partitions

import (
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
)

// effectKind says what the loop has to do.
type effectKind uint8

const (
	// doCatchUp: read the log to its end, or handedOver to the release of its owner, and fold it. Comes back as CaughtUp or Failed.
	doCatchUp effectKind = iota
	// doClaim: append batch, which holds the claim. Comes back as ClaimAcked.
	doClaim
	// doReadBack: fold up to and including offset. Comes back as ReadBack or Failed.
	doReadBack
	// doWait: pause before another attempt; attempt counts from 1. Comes back as Waited.
	doWait
	// doInvoke: let the caller run the function: call, on session, or on a new one when session is nil. Comes back as Decided
	// or Withdrawn.
	doInvoke
	// doOpen: close session, if there is one, then open another for entity ahead of its next command. Comes back as Opened.
	doOpen
	// doClose: close session and tell nobody.
	doClose
	// doPassivate: close session, then Passivated.
	doPassivate
	// doAppend: send batch. Comes back as Acked.
	doAppend
	// doCommit: apply batch to the store, then answer its calls. A failure comes back as ApplyFailed.
	doCommit
	// doAnswer: give call its answer now.
	doAnswer
	// doReadGap: read the records from the core's next offset up to (not including) offset. Comes back as GapRead.
	doReadGap
	// doSkip: fold gap, records that are no-ops.
	doSkip
	// doSend: send delivery, and tell the target of progress. Comes back as Delivered.
	doSend
	// doLoadOutbox: look at attempt open effects from offset on. Comes back as OutboxLoaded; doSweepOutbox as OutboxSwept.
	doLoadOutbox
	doSweepOutbox
	// doLoadOpen: read attempt offsets of open effects from offset on. Comes back as OpenLoaded.
	doLoadOpen
	// doLoadTimers: read at most attempt timers behind alarm. Comes back as TimersLoaded.
	doLoadTimers
	// doSearchTimers: read at most attempt timers behind alarm, whose entity type is searched for. Comes back as TimersFound.
	doSearchTimers
	// doFire: run the command of alarm. Comes back as Fired.
	doFire
	// doSweep: remove alarm's entry from the index.
	doSweep
	// doFollow: keep the image fresh until something else is asked of the reader. doRest: leave it as it is.
	doFollow
	doRest
	// doHalt: mark the store: the partition has halted, and offsets below offset are used.
	doHalt
	// doSurvey: look at log and store for repair. Comes back as Surveyed.
	doSurvey
	// doRestore: fold the log up to offset for repair, and find what is to be written next. Comes back as Restored.
	doRestore
	// doStartOver: forget the partition's rows. Comes back as StartedOver. doResume: keep them, and go on. Comes back as Resumed.
	doStartOver
	doResume
	// doLoadRefusals: read which refusals are kept. Comes back as RefusalsLoaded. doDropRefusals: attempt of them were given up,
	// because there were too many.
	doLoadRefusals
	doDropRefusals
	// doResolved: tell the operator that the log has what was asked for about effects or refusals.
	doResolved
	// doRepaired: tell the operator of repair what came of it.
	doRepaired
	// doReleased: tell the manager that the partition is released.
	doReleased
)

// effect is one thing to do; which fields count depends on kind.
type effect struct {
	kind effectKind
	// incarnation is the ownership that asked for it.
	incarnation uint64

	call    *Call
	entity  *entity
	session entities.Session
	batch   *batch
	offset  int64
	attempt int
	gap     []materializer.GapRecord
	// handedOver: the owner is about to release the partition.
	handedOver bool

	delivery *delivery
	progress entities.Progress
	alarm    *alarm
	repair   *repair

	resolution *resolution
}

// Call is one submitted command on its way through the core. Its fields belong to the loop until the answer is given.
type Call struct {
	cmd *entities.Command
	// hash is of method and payload; only where the command has an id.
	hash uint64
	// stored is what the dedup table says about the command's id, or about its source; nil for nothing. settled is which effects its
	// source is known to be done with.
	stored  *materializer.Stored
	settled entities.Progress

	entity      *entity
	incarnation uint64
	// came is when it began to wait for the partition to become active.
	came    time.Duration
	outcome *entities.Outcome
	err     *entities.Error
	// next is the offset behind the call's records, or behind everything it depends on.
	next int64
	// followers wait for the same command; first is the call that this one follows.
	followers []*Call
	// shared: the call has, or had, followers that get the same decision, or is one of them.
	shared   bool
	first    *Call
	finished bool
	// checked: an owner has looked for other attempts at the command, in its store and among what is under way, and found none; or it
	// follows one of which that is so.
	checked bool
	// wrote: it has records in its batch. effects of them, from entry firstEffect on and then from that offset on, are effects
	// and the forward; progress is which effects of the partition were done when it was committed.
	wrote       bool
	effects     int
	firstEffect int64
	progress    entities.Progress
	// gaveUp is why the function's failure on a timer was the last one: its only effect is the timer's command, to be parked.
	gaveUp *entities.Error
	// timers are the names of those that it changed.
	timers []string
	// forward is, of a call that only brings what a forward was answered, the offset of the forward's record; else 0, where a claim
	// stands.
	forward int64
	// parked: the store says that this forward waits for an operator.
	parked bool
	// superseded: the timer that it stands for does not count any more.
	superseded bool

	// wait is how the loop and the caller's goroutine meet (submit.go); the core never looks at it.
	wait meeting
}

// commandID names a command for deduplication.
type commandID struct {
	key       entities.Key
	principal string
	id        string
	source    entities.SourceID
}

// named says whether the command takes effect at most once under some name.
func (c *Call) named() bool { return c.cmd.ID != "" || c.cmd.Source != nil }

func (c *Call) commandID() commandID {
	if c.cmd.Source != nil {
		return commandID{source: c.cmd.Source.ID()}
	}
	return commandID{key: c.cmd.Key, principal: c.cmd.Principal, id: c.cmd.ID}
}

// batch is a run of decided commands: their records, and the calls that are answered once those are committed.
type batch struct {
	incarnation uint64
	entries     []materializer.Entry
	// bytes is what the entries count in an append; only of batches that collect what is decided.
	bytes int
	// calls are answered when the batch is committed, in order. Those that wrote nothing have no entries in it.
	calls []*Call
	// settles are what its settled records say, timers are those that it sets.
	settles []settles
	timers  []pendingTimer
	sentAt  time.Duration
	acked   bool
	result  broker.AppendResult

	// records and buf are the encoded form, the loop's.
	records []broker.Record
	headers []broker.Header
	buf     []byte
}

func (b *batch) empty() bool { return len(b.entries) == 0 && len(b.calls) == 0 }

func (b *batch) reset() {
	clear(b.entries)
	clear(b.calls)
	clear(b.records)
	*b = batch{entries: b.entries[:0], calls: b.calls[:0], timers: b.timers[:0], records: b.records[:0], headers: b.headers[:0], buf: b.buf[:0]}
}

// Now is the time as the core gets it.
type Now struct {
	// Mono counts from some moment in this process.
	Mono time.Duration
	// Log is the log time in nanoseconds since the Unix epoch.
	Log int64
}
