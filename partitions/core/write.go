package core

import (
	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/materializer"
)

// The records of a decision.
//
//	W1  The records of one command are one group, which is in one append.
//	W2  What the log would not take in one append goes in several, in the order in which it was
//	    decided. (cut)
//	W3  A command that is too large changes nothing.

// write puts the records of a decided command into the open batch, as one group: that its timer has
// fired, state changes, timers, effects, and last the forward, where a repeat finds it. A command
// that is too large changes nothing.
//
// A caller that gave an id asked for the answer to be kept, so the answer counts like a record. For
// a command with another name it is kept if there is room.
func (c *Core) write(e *Entity, call *Call) *entities.Error {
	out := call.Outcome
	if c.outsized(call) {
		out = &entities.Outcome{}
	}
	start, timers, ordinal, position := len(c.open.Entries), len(c.open.timers), c.ordinal, e.position
	g := group{core: c, entity: e, call: call, cause: c.cause(call.Command.Source), start: start}
	err := g.records(out)
	entries := c.open.Entries[start:]
	size := 0
	if err == nil {
		g.tellProgress(entries)
		size = closeGroup(entries, call)
		if size > c.limits.MaxCommit && call.Named() && !call.hasOwnID() {
			last := &entries[len(entries)-1]
			size -= last.Size()
			last.Envelope.Answer = record.EncodeAnswer(unkept(
				call.Outcome, e.Key.String(), len(last.Envelope.Answer), c.limits.MaxCommit,
			))
			size += last.Size()
		}
		if size > c.limits.MaxCommit || len(entries) > c.limits.MaxCommitRecords {
			err = errCommitTooLarge(e.Key, size, len(entries), &c.limits)
		}
	}
	if err != nil {
		clear(entries)
		c.open.Entries, c.open.timers = c.open.Entries[:start], c.open.timers[:timers]
		c.ordinal, e.position = ordinal, position
		c.unchangeTimers(call)
		return err
	}
	c.added(start, timers, size)
	call.wrote = true
	call.Effects = len(out.Effects) // of what was recorded
	if out.Forward != nil {
		call.Effects++
	}
	call.FirstEffect = int64(len(c.open.Entries) - call.Effects)
	c.open.Calls = append(c.open.Calls, call)
	if mutation.On(mutation.Durable) {
		c.emit(Answer{call})
	}
	e.uncommitted++
	c.weigh(e)
	return nil
}

// outsized reports whether a command whose id was given by a router stored nothing and forwarded
// more than a commit takes. Without the id it would leave no record; now it leaves one that keeps
// it from running again.
func (c *Core) outsized(call *Call) bool {
	const room = 4096 // for keys and names
	out := call.Outcome
	return out.Forward != nil && !out.Wrote() && entities.IsRouted(call.Command.ID) &&
		len(out.Forward.Payload.Value)+room > c.limits.MaxCommit
}

// closeGroup makes a group of the records of a command, and returns their size in an append.
func closeGroup(entries []materializer.Entry, call *Call) int {
	if call.Named() {
		last := &entries[len(entries)-1].Envelope
		last.Answer, last.PayloadHash = encodeAnswer(call), call.hash
	}
	size := 0
	for i := range entries {
		if len(entries) > 1 {
			entries[i].Envelope.Index, entries[i].Envelope.Count = uint32(i), uint32(len(entries)) //nolint:gosec // bounded by MaxCommitRecords
		}
		size += entries[i].Size()
	}
	return size
}

// put adds one record that belongs to no command, or a group of them, to the open batch. It may
// begin another batch.
func (c *Core) put(entries ...materializer.Entry) {
	start, size := len(c.open.Entries), 0
	for i := range entries {
		size += entries[i].Size()
	}
	c.open.Entries = append(c.open.Entries, entries...)
	c.added(start, len(c.open.timers), size)
}

// added counts what was put into the open batch, from entry start and timer timers on. If the log
// would not take that in one append with what was there before, the open batch is closed without it
// and another one begins with it: the records of a command stay together, and the order stays the
// same. The answers in the closed batch depend on nothing that comes later.
func (c *Core) added(start, timers, size int) {
	b := c.open
	fits := broker.AppendOverhead+b.bytes+size <= c.limits.AppendBytes && len(b.Entries) <= c.limits.AppendRecords
	if fits || start == 0 || mutation.On(mutation.Cut) {
		b.bytes += size
		return
	}
	next := c.newBatch()
	next.Entries, next.bytes = append(next.Entries, b.Entries[start:]...), size
	for _, t := range b.timers[timers:] {
		t.entry -= start
		next.timers = append(next.timers, t)
	}
	clear(b.Entries[start:])
	b.Entries, b.timers = b.Entries[:start], b.timers[:timers]
	c.full, c.open = append(c.full, b), next
}

// group adds the records of one command to the open batch, from entry start on.
type group struct {
	core   *Core
	entity *Entity
	call   *Call
	cause  *record.Cause
	start  int
}

func (g *group) records(out *entities.Outcome) *entities.Error {
	e, timer := g.entity, g.call.Command.Timer
	if timer != nil {
		g.fired(timer)
	}
	changes := &g.core.changes
	*changes, e.position = materializer.AppendChanges((*changes)[:0], e.Type.Kind, e.position, out)
	for i := range *changes {
		ch := &(*changes)[i]
		env := g.add(ch.Kind, ch.Payload)
		env.Sequence, env.PreviousSnapshot = ch.Sequence, ch.PreviousSnapshot
	}
	clear(*changes)
	if timer != nil && timer.Schedule != "" {
		if err := g.again(); err != nil {
			return errSchedule(e.Key, err)
		}
	}
	for i := range out.Timers {
		if err := g.change(&out.Timers[i]); err != nil {
			return errSchedule(e.Key, err)
		}
	}
	for i := range out.Effects {
		effect := &out.Effects[i]
		g.add(record.Effect, effect.Payload).Target = record.EncodeEffect(effect, onRefused(g.call.Command, effect), false)
	}
	switch {
	case out.Forward != nil:
		g.add(record.Effect, out.Forward.Payload).Target = record.EncodeForward(
			out.Forward, askerOf(g.entity.keyBytes, g.call),
		)
	case len(g.core.open.Entries) == g.start:
		g.add(record.Answered, entities.Payload{})
	}
	return nil
}

func (g *group) add(kind record.Kind, p entities.Payload) *record.Envelope {
	c := g.core
	c.ordinal++
	c.open.Entries = append(c.open.Entries, materializer.Entry{
		Key: g.entity.keyBytes, Value: p.Value,
		Envelope: record.Envelope{
			Kind: kind, Epoch: c.owner.Epoch, Nonce: c.owner.Nonce, Ordinal: c.ordinal, LogTime: c.now.Log,
			TypeURL: p.TypeURL, Cause: g.cause,
			CommandID: g.call.Command.ID, Principal: g.call.Command.Principal, TraceParent: g.call.Command.TraceParent,
		},
	})
	return &c.open.Entries[len(c.open.Entries)-1].Envelope
}

// onRefused returns the method for a refusal of an effect, as service/method; empty for none.
func onRefused(cmd *entities.Command, e *entities.SideEffect) string {
	if e.OnRefused == "" {
		return ""
	}
	return cmd.Service + "/" + e.OnRefused
}

// tellProgress puts the exceptions of the source's progress into the last of a group's records,
// which is where they are read.
func (g *group) tellProgress(entries []materializer.Entry) {
	if g.cause == nil || len(g.cause.Open) == 0 {
		return
	}
	brief := *g.cause
	brief.Open = nil
	for i := range entries[:max(len(entries)-1, 0)] {
		entries[i].Envelope.Cause = &brief
	}
}

// unchangeTimers forgets the changes of a call that are committed, or will never be.
func (c *Core) unchangeTimers(call *Call) {
	for _, name := range call.timers {
		if call.entity.timers[name]--; call.entity.timers[name] == 0 {
			delete(call.entity.timers, name)
		}
	}
	call.timers = nil
}

func (c *Core) control(kind record.Kind) materializer.Entry {
	c.ordinal++
	return materializer.Entry{Envelope: record.Envelope{
		Kind: kind, Epoch: c.owner.Epoch, Nonce: c.owner.Nonce, Ordinal: c.ordinal, LogTime: c.now.Log,
	}}
}
