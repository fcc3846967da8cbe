package core

import (
	"errors"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

// Call is a submitted command on its way through the core. Its fields belong to the loop until it
// is answered, except while the caller's goroutine runs the function: from Invoke to Decided or
// SessionEnded the loop leaves the call, and the session of its entity, alone.
type Call struct {
	Command *entities.Command
	// hash covers method and payload; it is set only if the command has an id.
	hash uint64
	// Stored is the row of the dedup table for the command's id or source; nil if there is none.
	// settled tells which effects its source is done with.
	Stored  *materializer.Stored
	Settled entities.Progress

	entity      *Entity
	incarnation uint64
	// came is when the call began to wait for the partition to become active.
	came    time.Duration
	Outcome *entities.Outcome
	Err     *entities.Error
	// Next is the offset after the call's records, or after everything that it depends on.
	Next int64
	// followers wait for the same command; first is the call that this one follows.
	followers []*Call
	// shared: the call has, or had, followers that get the same decision, or is one of them.
	shared   bool
	first    *Call
	finished bool
	// checked: an owner has looked for other attempts at the command, in its store and among the calls
	// under way, and found none. A follower takes it from the call that it follows.
	checked bool
	// wrote: the call has records in its batch. effects is how many of them are effects and the
	// forward; they begin at entry firstEffect, later at that offset. progress is which effects of the
	// partition were done when the call was committed.
	wrote       bool
	Effects     int
	FirstEffect int64
	progress    entities.Progress
	// gaveUp is the error for which a timer was given up: the only effect of the call is the timer's
	// command, to be parked.
	gaveUp *entities.Error
	// timers are the names of the timers that the call changed.
	timers []string
	// Forward is set for a call that only stores the answer to a forward: the offset of the forward's
	// record. Otherwise it is 0, where a claim stands.
	Forward int64
	// Parked: in the store, this forward waits for an operator.
	Parked bool
	// superseded: the timer that it stands for no longer counts.
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

// Fail answers a call with an error.
func (c *Call) Fail(err *entities.Error) { c.finished, c.Outcome, c.Err = true, nil, err }

// commandID names a command for deduplication.
type commandID struct {
	key       entities.Key
	principal string
	id        string
	source    entities.SourceID
}

// Named reports whether the command takes effect at most once under some name.
func (c *Call) Named() bool { return c.Command.ID != "" || c.Command.Source != nil }

func (c *Call) commandID() commandID {
	if c.Command.Source != nil {
		return commandID{source: c.Command.Source.ID()}
	}
	return commandID{key: c.Command.Key, principal: c.Command.Principal, id: c.Command.ID}
}

// check notes that the owner has looked for other attempts at a call's command and found none.
func (c *Call) check() {
	c.checked = true
	c.Caller.Alone()
}

// verified reports whether the call's error holds for the command, and not only for this attempt at
// it. A worker that has lost the partition does not know what the next owner did.
func (c *Call) verified() bool {
	return c.checked && c.Err.Outcome == entities.NotApplied && c.Err.Reason != entities.Moved
}

// remembers reports whether a command that stored nothing still leaves a record. An effect or timer
// is sent again until its record is settled: a refusal must not become an acceptance. A command
// that was forwarded under an id must not be forwarded twice.
func (c *Call) remembers() bool {
	return c.Command.Source != nil || (c.Command.ID != "" && c.Outcome.Forward != nil)
}

// Session returns the session of the call's entity, on which the function runs; nil if one has to
// be opened.
func (c *Call) Session() entities.Session { return c.entity.session }

// Behind returns the calls that wait for their turn at the entity.
func (c *Call) Behind() []*Call { return c.entity.queue }

// FromMemory reports whether the function answered from the state in memory and wrote nothing.
func (c *Call) FromMemory() bool {
	return c.Outcome != nil && !c.wrote && c.Forward == 0 && c.Stored == nil
}

// ErrSuperseded ends the command of a timer that was cancelled or set again.
var ErrSuperseded = errors.New("the timer was cancelled or set anew")

// Committed returns the result of an answered call. Errors are *entities.Error, or ErrSuperseded.
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
	done := entities.Committed{
		Outcome: c.Outcome, Next: c.Next, FirstEffect: -1, Forward: -1, Progress: c.progress, Shared: c.shared,
	}
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

// commandHash distinguishes a repeated command from another one under the same id.
func commandHash(cmd *entities.Command) uint64 {
	d := xxhash.New()
	_, _ = d.WriteString(cmd.Service)
	_, _ = d.WriteString("/")
	_, _ = d.WriteString(cmd.Method)
	_, _ = d.Write([]byte{0})
	_, _ = d.Write(cmd.Payload.Value)
	return d.Sum64()
}
