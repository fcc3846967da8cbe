package core

import (
	"errors"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

// Call is one submitted command on its way through the core. Its fields belong to the loop until
// the answer is given.
type Call struct {
	Command *entities.Command
	// hash is of method and payload; only where the command has an id.
	hash uint64
	// Stored is what the dedup table says about the command's id, or about its source; nil for
	// nothing. settled is which effects its source is known to be done with.
	Stored  *materializer.Stored
	Settled entities.Progress

	entity      *Entity
	incarnation uint64
	// came is when it began to wait for the partition to become active.
	came    time.Duration
	Outcome *entities.Outcome
	Err     *entities.Error
	// Next is the offset behind the call's records, or behind everything it depends on.
	Next int64
	// followers wait for the same command; first is the call that this one follows.
	followers []*Call
	// shared: the call has, or had, followers that get the same decision, or is one of them.
	shared   bool
	first    *Call
	finished bool
	// checked: an owner has looked for other attempts at the command, in its store and among what
	// is under way, and found none; or it follows one of which that is so.
	checked bool
	// wrote: it has records in its batch. effects of them, from entry firstEffect on and then from
	// that offset on, are effects and the forward; progress is which effects of the partition were
	// done when it was committed.
	wrote       bool
	Effects     int
	FirstEffect int64
	progress    entities.Progress
	// gaveUp is why the function's failure on a timer was the last one: its only effect is the
	// timer's command, to be parked.
	gaveUp *entities.Error
	// timers are the names of those that it changed.
	timers []string
	// Forward is, of a call that only brings what a forward was answered, the offset of the
	// forward's record; else 0, where a claim stands.
	Forward int64
	// Parked: the store says that this forward waits for an operator.
	Parked bool
	// superseded: the timer that it stands for does not count any more.
	superseded bool

	// Caller is the goroutine that waits for the answer.
	Caller Caller
}

// Begin makes a call of a command.
func (c *Call) Begin(cmd *entities.Command, caller Caller) {
	c.Command, c.Caller = cmd, caller
	if cmd.ID != "" {
		c.hash = commandHash(cmd)
	}
}

// Fail gives a call an error for its answer.
func (c *Call) Fail(err *entities.Error) { c.finished, c.Outcome, c.Err = true, nil, err }

// commandID names a command for deduplication.
type commandID struct {
	key       entities.Key
	principal string
	id        string
	source    entities.SourceID
}

// Named says whether the command takes effect at most once under some name.
func (c *Call) Named() bool { return c.Command.ID != "" || c.Command.Source != nil }

func (c *Call) commandID() commandID {
	if c.Command.Source != nil {
		return commandID{source: c.Command.Source.ID()}
	}
	return commandID{key: c.Command.Key, principal: c.Command.Principal, id: c.Command.ID}
}

// check notes that the owner has looked for other attempts at a call's command, and has found none.
func (c *Call) check() {
	c.checked = true
	c.Caller.Alone()
}

// verified says whether the call's error is true of the command, and not only of this attempt at
// it. A worker that the partition has left does not know what its next owner did.
func (c *Call) verified() bool {
	return c.checked && c.Err.Outcome == entities.NotApplied && c.Err.Reason != entities.Moved
}

// remembers says whether a command that stored nothing leaves a record all the same. What followed
// from another record is asked for again until that is settled: a refusal must not become an
// acceptance. And what was forwarded under an id must not be forwarded twice.
func (c *Call) remembers() bool {
	return c.Command.Source != nil || (c.Command.ID != "" && c.Outcome.Forward != nil)
}

// hasOwnID says whether the caller gave the command an id.
func (c *Call) hasOwnID() bool { return c.Command.ID != "" && !entities.IsRouted(c.Command.ID) }

// Session is the one of the call's entity, on which the function is to run; nil: one has to be
// opened.
func (c *Call) Session() entities.Session { return c.entity.session }

// Behind are the calls that wait for their turn at the entity.
func (c *Call) Behind() []*Call { return c.entity.queue }

// FromMemory says whether the answer is what the function said of the state in memory, and nothing
// was written.
func (c *Call) FromMemory() bool {
	return c.Outcome != nil && !c.wrote && c.Forward == 0 && c.Stored == nil
}

// ErrSuperseded ends the command of a timer that was cancelled or set anew.
var ErrSuperseded = errors.New("the timer was cancelled or set anew")

// Committed returns what the caller is told, once the call is answered. Errors are *entities.Error,
// or ErrSuperseded.
func (c *Call) Committed() (entities.Committed, error) {
	switch {
	case c.Err != nil && c.verified():
		err := *c.Err // others share it
		err.Checked = true
		return entities.Committed{}, &err
	case c.Err != nil:
		return entities.Committed{}, c.Err
	case c.superseded:
		return entities.Committed{}, ErrSuperseded
	}
	done := entities.Committed{Outcome: c.Outcome, Next: c.Next, FirstEffect: -1, Forward: -1, Progress: c.progress, Shared: c.shared}
	if c.Stored != nil {
		outcome, wrote, err := record.DecodeAnswer(c.Stored.Answer)
		if err != nil {
			return entities.Committed{}, entities.Errorf(entities.Internal, entities.Unknown, "%s: %w", c.Command.Key, err)
		}
		done.Outcome, done.Wrote, done.Repeated, done.Forward = outcome, wrote, true, c.Stored.Offset
		return done, nil
	}
	if c.Effects > 0 {
		done.FirstEffect = c.FirstEffect
		done.Forward = c.FirstEffect + int64(len(c.Outcome.Effects))
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
