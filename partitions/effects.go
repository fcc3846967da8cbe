package partitions

import (
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
	repair   *Repair

	resolution *resolution
}
