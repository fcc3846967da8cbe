package core

import (
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
)

// effectKind says what the loop has to do.
type effectKind uint8

const (
	// DoCatchUp: read the log to its end, or handedOver to the release of its owner, and fold it. Comes back as CaughtUp or Failed.
	DoCatchUp effectKind = iota
	// DoClaim: append batch, which holds the claim. Comes back as ClaimAcked.
	DoClaim
	// DoReadBack: fold up to and including offset. Comes back as ReadBack or Failed.
	DoReadBack
	// DoWait: pause before another attempt; attempt counts from 1. Comes back as Waited.
	DoWait
	// DoInvoke: let the caller run the function: call, on session, or on a new one when session is nil. Comes back as Decided
	// or Withdrawn.
	DoInvoke
	// DoOpen: close session, if there is one, then open another for entity ahead of its next command. Comes back as Opened.
	DoOpen
	// DoClose: close session and tell nobody.
	DoClose
	// DoPassivate: close session, then Passivated.
	DoPassivate
	// DoAppend: send batch. Comes back as Acked.
	DoAppend
	// DoCommit: apply batch to the store, then answer its calls. A failure comes back as ApplyFailed.
	DoCommit
	// DoAnswer: give call its answer now.
	DoAnswer
	// DoReadGap: read the records from the core's next offset up to (not including) offset. Comes back as GapRead.
	DoReadGap
	// DoSkip: fold gap, records that are no-ops.
	DoSkip
	// DoSend: send delivery, and tell the target of progress. Comes back as Delivered.
	DoSend
	// DoLoadOutbox: look at attempt open effects from offset on. Comes back as OutboxLoaded; doSweepOutbox as OutboxSwept.
	DoLoadOutbox
	DoSweepOutbox
	// DoLoadOpen: read attempt offsets of open effects from offset on. Comes back as OpenLoaded.
	DoLoadOpen
	// DoLoadTimers: read at most attempt timers behind alarm. Comes back as TimersLoaded.
	DoLoadTimers
	// DoSearchTimers: read at most attempt timers behind alarm, whose entity type is searched for. Comes back as TimersFound.
	DoSearchTimers
	// DoFire: run the command of alarm. Comes back as Fired.
	DoFire
	// DoSweep: remove alarm's entry from the index.
	DoSweep
	// DoFollow: keep the image fresh until something else is asked of the reader. doRest: leave it as it is.
	DoFollow
	DoRest
	// DoHalt: mark the store: the partition has halted, and offsets below offset are used.
	DoHalt
	// DoSurvey: look at log and store for repair. Comes back as Surveyed.
	DoSurvey
	// DoRestore: fold the log up to offset for repair, and find what is to be written next. Comes back as Restored.
	DoRestore
	// DoStartOver: forget the partition's rows. Comes back as StartedOver. doResume: keep them, and go on. Comes back as Resumed.
	DoStartOver
	DoResume
	// DoLoadRefusals: read which refusals are kept. Comes back as RefusalsLoaded. doDropRefusals: attempt of them were given up,
	// because there were too many.
	DoLoadRefusals
	DoDropRefusals
	// DoResolved: tell the operator that the log has what was asked for about effects or refusals.
	DoResolved
	// DoRepaired: tell the operator of repair what came of it.
	DoRepaired
	// DoReleased: tell the manager that the partition is released.
	DoReleased
)

// Effect is one thing to do; which fields count depends on kind.
type Effect struct {
	Kind effectKind
	// Incarnation is the ownership that asked for it.
	Incarnation uint64

	Call    *Call
	Entity  *Entity
	Session entities.Session
	Batch   *Batch
	Offset  int64
	Attempt int
	Gap     []materializer.GapRecord
	// HandedOver: the owner is about to release the partition.
	HandedOver bool

	Delivery *Delivery
	Progress entities.Progress
	Timer    *Timer
	Repair   *Repair

	Resolution *Resolution
}
