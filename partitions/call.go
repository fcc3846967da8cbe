package partitions

import (
	"errors"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

// Caller is the goroutine that waits for the answer of a call, as the core sees it: its phase, which that goroutine changes as well.
type Caller interface {
	// Alone: an owner has looked for other attempts at the command, and has found none.
	Alone()
	// Accompanied: there is another attempt at the command.
	Accompanied()
	// Decided: all that is left to do is to answer. It returns false when the caller has left.
	Decided() bool
}

// phase is where a call is, as far as its caller and the owner must agree on it. Its methods say what becomes of a phase; who has a Caller
// makes each step atomic.
type phase int32

const (
	// phaseQueued: the function has not seen it; the caller may leave. No other attempt at the command is known.
	phaseQueued phase = iota
	// phaseUnchecked is phaseQueued of a command with a name, while another attempt may have taken effect or still can: no owner has
	// looked for one yet, or there is one.
	phaseUnchecked
	// phaseRunning: it is the caller's turn to run the function, or the function has been sent the command ahead of its turn.
	phaseRunning
	// phaseDecided: the function has decided; the answer waits for the log.
	phaseDecided
	// phaseAnswered: the answer is there.
	phaseAnswered
	// phaseLeft: the caller is gone.
	phaseLeft
)

// mayRun says whether the function may have the command: its caller has not left.
func (p phase) mayRun() bool { return p == phaseQueued || p == phaseUnchecked || p == phaseRunning }

// mayLeave says whether the caller may leave. It may not while the function has the command.
func (p phase) mayLeave() bool { return p == phaseQueued || p == phaseUnchecked || p == phaseDecided }

func (p phase) alone() phase {
	if p == phaseUnchecked {
		return phaseQueued
	}
	return p
}

func (p phase) accompanied() phase {
	if p == phaseQueued {
		return phaseUnchecked
	}
	return p
}

func (p phase) run() phase {
	if p.mayRun() {
		return phaseRunning
	}
	return p
}

func (p phase) decided() phase {
	if p == phaseLeft {
		return p
	}
	return phaseDecided
}

func (p phase) leave() phase {
	if p.mayLeave() {
		return phaseLeft
	}
	return p
}

func (p phase) answered() phase {
	if p == phaseLeft {
		return p
	}
	return phaseAnswered
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

	// caller is the goroutine that waits for the answer.
	caller Caller
}

// begin makes a call of a command.
func (c *Call) begin(cmd *entities.Command, caller Caller) {
	c.cmd, c.caller = cmd, caller
	if cmd.ID != "" {
		c.hash = commandHash(cmd)
	}
}

// fail gives a call an error for its answer.
func (c *Call) fail(err *entities.Error) { c.finished, c.outcome, c.err = true, nil, err }

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

// check notes that the owner has looked for other attempts at a call's command, and has found none.
func (c *Call) check() {
	c.checked = true
	c.caller.Alone()
}

// verified says whether the call's error is true of the command, and not only of this attempt at it. A worker that the partition has left
// does not know what its next owner did.
func (c *Call) verified() bool {
	return c.checked && c.err.Outcome == entities.NotApplied && c.err.Reason != entities.Moved
}

// remembers says whether a command that stored nothing leaves a record all the same. What followed from another record is asked for
// again until that is settled: a refusal must not become an acceptance. And what was forwarded under an id must not be forwarded twice.
func (c *Call) remembers() bool {
	return c.cmd.Source != nil || (c.cmd.ID != "" && c.outcome.Forward != nil)
}

// hasOwnID says whether the caller gave the command an id.
func (c *Call) hasOwnID() bool { return c.cmd.ID != "" && !entities.IsRouted(c.cmd.ID) }

// fromMemory says whether the answer is what the function said of the state in memory, and nothing was written.
func (c *Call) fromMemory() bool {
	return c.outcome != nil && !c.wrote && c.forward == 0 && c.stored == nil
}

// errSuperseded ends the command of a timer that was cancelled or set anew.
var errSuperseded = errors.New("the timer was cancelled or set anew")

func (c *Call) committed() (entities.Committed, error) {
	switch {
	case c.err != nil && c.verified():
		err := *c.err // others share it
		err.Checked = true
		return entities.Committed{}, &err
	case c.err != nil:
		return entities.Committed{}, c.err
	case c.superseded:
		return entities.Committed{}, errSuperseded
	}
	done := entities.Committed{Outcome: c.outcome, Next: c.next, FirstEffect: -1, Forward: -1, Progress: c.progress, Shared: c.shared}
	if c.stored != nil {
		outcome, wrote, err := record.DecodeAnswer(c.stored.Answer)
		if err != nil {
			return entities.Committed{}, entities.Errorf(entities.Internal, entities.Unknown, "%s: %w", c.cmd.Key, err)
		}
		done.Outcome, done.Wrote, done.Repeated, done.Forward = outcome, wrote, true, c.stored.Offset
		return done, nil
	}
	if c.effects > 0 {
		done.FirstEffect = c.firstEffect
		done.Forward = c.firstEffect + int64(len(c.outcome.Effects))
	}
	return done, nil
}

// commandHash tells a repeated command from another one under the same id.
func commandHash(cmd *entities.Command) uint64 {
	d := xxhash.New()
	_, _ = d.WriteString(cmd.Service)
	_, _ = d.WriteString("/")
	_, _ = d.WriteString(cmd.Method)
	_, _ = d.Write([]byte{0})
	_, _ = d.Write(cmd.Payload.Value)
	return d.Sum64()
}
