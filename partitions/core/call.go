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
	// What came: the command, and the goroutine that waits for the answer. hash covers method and
	// payload; it is set only if the command has an id.
	Command *entities.Command
	Caller  Caller
	hash    uint64
	// Forward is set for a call that only stores the answer to a forward: the offset of the forward's
	// record. Otherwise it is 0, where a claim stands.
	Forward int64

	Found
	Result

	// The rest is the call's way through the core. incarnation is that of the ownership that admitted
	// it; came is when it began to wait for the partition to become active.
	entity      *Entity
	incarnation uint64
	came        time.Duration
	// followers wait for the same command; first is the call that this one follows.
	followers []*Call
	first     *Call
	// shared: the call has, or had, followers that get the same decision, or is one of them.
	shared   bool
	finished bool
	// wrote: the call has records in its batch.
	wrote bool
	// timers are the names of the timers that the call changed.
	timers []string
	// gaveUp is the error for which a timer was given up: the only effect of the call is the timer's
	// command, to be parked.
	gaveUp *entities.Error
	// superseded: the timer that it stands for no longer counts.
	superseded bool
}

// Found is what the store has about a call's command when the call comes.
type Found struct {
	// Stored is the row of the dedup table for the command's id or source; nil if there is none, or if
	// it does not count.
	Stored *materializer.Stored
	// Settled is which effects the command's source is done with.
	Settled entities.Progress
	// Parked: the forward whose answer the call brings waits for an operator.
	Parked bool
}

// Result is what a call is answered with. Those that follow a call get its result.
type Result struct {
	Outcome *entities.Outcome
	Err     *entities.Error
	// Next is the offset after the call's records, or after everything that it depends on.
	Next int64
	// Effects is how many of the call's records are effects and the forward. They begin at entry
	// FirstEffect of the batch and, once it is committed, at that offset. progress is which effects of
	// the partition were done then.
	Effects     int
	FirstEffect int64
	progress    entities.Progress
	// checked: an owner has looked for other attempts at the command, in its store and among the calls
	// under way, and found none.
	checked bool
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
var ErrSuperseded = errors.New("the timer was cancelled or replaced")

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
