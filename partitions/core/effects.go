package core

import (
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
)

// Emitted is an effect, and the ownership that asked for it: its result belongs to that ownership,
// and is ignored when that has ended.
type Emitted struct {
	Incarnation uint64
	Do          Effect
}

// Effect is one thing that the core asks its partition to do. The types below are all that exist.
// Their names are imperatives; the inputs, which are methods of Core, say what has happened.
// Those that every command needs hold a single pointer, so that converting them to an Effect does
// not allocate.
//
//sumtype:decl
type Effect interface{ effect() }

// Effects on the way to ownership and back.
type (
	// CatchUp reads the log to its end, or with HandedOver to the release of its owner, and folds
	// it. CaughtUp or Failed answers.
	CatchUp struct{ HandedOver bool }
	// AppendClaim appends a batch that holds the claim. ClaimAcked answers.
	AppendClaim struct{ *Batch }
	// FoldClaim folds up to and including the claim at an offset. ReadBack or Failed answers.
	FoldClaim struct{ Offset int64 }
	// Pause waits before another attempt; Attempt counts from 1. Waited answers.
	Pause struct{ Attempt int }
	// Follow keeps the image fresh until the reader gets another task.
	Follow struct{}
	// Rest leaves the image as it is.
	Rest struct{}
	// MarkHalted marks the store: the partition has halted, and offsets below Next are used.
	MarkHalted struct {
		Next int64
		Why  error
	}
	// ReportReleased tells the manager that the partition is released.
	ReportReleased struct{}
)

// Effects for commands and sessions.
type (
	// Invoke lets the caller run the function: on the session of the call's entity, or on a new one if
	// that is nil. Decided, SessionEnded or Withdrawn answers.
	Invoke struct{ *Call }
	// Answer answers a call now.
	Answer struct{ *Call }
	// Open closes Ending, if there is one, then opens another session for an entity ahead of its
	// next command. Opened answers.
	Open struct {
		Entity *Entity
		Ending entities.Session
	}
	// Close closes a session. Nothing answers.
	Close struct{ Session entities.Session }
	// Passivate closes the session of an idle entity. Passivated answers.
	Passivate struct {
		Entity  *Entity
		Session entities.Session
	}
)

// Effects on the log and the store.
type (
	// Append sends a batch. Acked answers.
	Append struct{ *Batch }
	// Commit applies a batch to the store, then answers its calls. ApplyFailed answers if that fails.
	Commit struct{ *Batch }
	// ReadGap reads the records from From up to, not including, Until. GapRead answers.
	ReadGap struct{ From, Until int64 }
	// Skip folds records that are no-ops.
	Skip struct{ Gap []materializer.GapRecord }
)

// Effects for effects on other entities, and for timers.
type (
	// Send sends an effect to its target, with the progress for the target. Delivered answers.
	Send struct{ *Delivery }
	// LoadOutbox reads up to Limit open effects from offset From on. OutboxLoaded answers.
	LoadOutbox struct {
		From  int64
		Limit int
	}
	// SweepOutbox reads effects that have left memory, as LoadOutbox does. OutboxSwept answers.
	SweepOutbox struct {
		From  int64
		Limit int
	}
	// LoadOpen reads up to Limit offsets of open effects from offset From on. OpenLoaded answers.
	LoadOpen struct {
		From  int64
		Limit int
	}
	// LoadRefusals reads the offsets of the refusals that are kept. RefusalsLoaded answers.
	LoadRefusals struct{}
	// DropRefusals reports that the oldest refusals were dropped because there were too many.
	DropRefusals struct{ Count int }
	// ReportResolved tells the operator whether the log has the resolution of effects or refusals.
	ReportResolved struct{ *Resolution }
	// LoadTimers reads at most Limit timers after After. TimersLoaded answers.
	LoadTimers struct {
		After materializer.Due
		Limit int
	}
	// SearchTimers reads at most Limit timers after After, to find those of one entity type.
	// TimersFound answers.
	SearchTimers struct {
		After materializer.Due
		Limit int
	}
	// Fire runs the command of a timer. Fired answers.
	Fire struct{ *Timer }
	// Sweep removes a timer's entry from the index.
	Sweep struct{ *Timer }
)

// Effects for a repair.
type (
	// Survey examines log and store. Surveyed answers.
	Survey struct{ *Repair }
	// Restore folds the log up to Until, and finds what is to be written next. Restored answers.
	Restore struct {
		Repair *Repair
		Until  int64
	}
	// StartOver drops the partition's rows. StartedOver answers.
	StartOver struct{ *Repair }
	// Resume keeps them, and goes on. StartedOver answers.
	Resume struct{}
	// ReportRepaired tells the operator the result of a repair.
	ReportRepaired struct{ *Repair }
)

func (CatchUp) effect()        {}
func (AppendClaim) effect()    {}
func (FoldClaim) effect()      {}
func (Pause) effect()          {}
func (Follow) effect()         {}
func (Rest) effect()           {}
func (MarkHalted) effect()     {}
func (ReportReleased) effect() {}
func (Invoke) effect()         {}
func (Answer) effect()         {}
func (Open) effect()           {}
func (Close) effect()          {}
func (Passivate) effect()      {}
func (Append) effect()         {}
func (Commit) effect()         {}
func (ReadGap) effect()        {}
func (Skip) effect()           {}
func (Send) effect()           {}
func (LoadOutbox) effect()     {}
func (SweepOutbox) effect()    {}
func (LoadOpen) effect()       {}
func (LoadRefusals) effect()   {}
func (DropRefusals) effect()   {}
func (ReportResolved) effect() {}
func (LoadTimers) effect()     {}
func (SearchTimers) effect()   {}
func (Fire) effect()           {}
func (Sweep) effect()          {}
func (Survey) effect()         {}
func (Restore) effect()        {}
func (StartOver) effect()      {}
func (Resume) effect()         {}
func (ReportRepaired) effect() {}
