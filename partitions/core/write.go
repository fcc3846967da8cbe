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
//	W4  Whether a command is too large depends on what it stores, not on how it came: its id, its
//	    trace, what it is an effect of, the timer that fired and the answer that is kept do not
//	    count. (counted)

// recordCharge is what a record counts beside its key, payload, type, target and timer: at least
// what it takes in an append, with every number at its longest.
const recordCharge = 180

// routingBytes and routingRecords are how much larger than what counts a group is at most, except
// for the payload of a recurring timer: ids, trace, cause and kept answer of one record, the record
// of a timer that fired, and that timer's next time.
const (
	routingBytes   = 8 << 10
	routingRecords = 2
)

// write puts the records of a decided command into the open batch, as one group: that its timer has
// fired, state changes, timers, effects, and last the forward, where a repeat finds it. A command
// that is too large changes nothing. The answer of a command with a name is kept if there is room.
func (c *Core) write(e *Entity, call *Call) *entities.Error {
	out := call.Outcome
	start, timers, ordinal, position := len(c.open.Entries), len(c.open.timers), c.ordinal, e.position
	g := group{core: c, entity: e, call: call, cause: c.cause(call.Command.Source), start: start, renewed: -1}
	err := g.records(out)
	size := 0
	if err == nil {
		size, err = g.close()
	}
	if err != nil {
		clear(c.open.Entries[start:])
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

// close makes a group of the records of a command, and returns their size in an append.
func (g *group) close() (int, *entities.Error) {
	entries, l := g.core.open.Entries[g.start:], &g.core.limits
	stored, records := g.counted(entries)
	if stored > l.MaxCommit || records > l.MaxCommitRecords {
		return 0, errCommitTooLarge(g.entity.Key, stored, records, l)
	}
	g.tellProgress(entries)
	g.keepAnswer(&entries[len(entries)-1].Envelope, stored)
	size := 0
	for i := range entries {
		if len(entries) > 1 {
			entries[i].Envelope.Index, entries[i].Envelope.Count = uint32(i), uint32(len(entries)) //nolint:gosec // bounded by AppendRecords
		}
		size += entries[i].Size()
	}
	room := l.AppendBytes - broker.AppendOverhead
	if size > room {
		size = nameOnce(entries)
	}
	if size > room || len(entries) > l.AppendRecords {
		return 0, errCommitTooLarge(g.entity.Key, size, len(entries), l)
	}
	return size, nil
}

// counted returns the bytes and the records of a command that count.
func (g *group) counted(entries []materializer.Entry) (bytes, records int) {
	for i := range entries {
		env := &entries[i].Envelope
		if env.Kind == record.TimerFired || env.Kind == record.Answered || i == g.renewed {
			continue
		}
		records++
		bytes += counted(&entries[i])
	}
	if f := g.call.Outcome.Forward; f != nil && bytes > g.core.limits.MaxCommit {
		bytes -= len(entries[len(entries)-1].Envelope.Target) - len(record.EncodeForward(f, nil))
	}
	if mutation.On(mutation.Counted) {
		bytes += len(entries) * len(g.call.Command.ID)
	}
	return bytes, records
}

func counted(e *materializer.Entry) int {
	return recordCharge + len(e.Key) + len(e.Value) + len(e.Envelope.TypeURL) + len(e.Envelope.TypeName()) +
		len(e.Envelope.Target) + len(e.Envelope.Timer)
}

// forwardTooLarge refuses a forward of a command that stores nothing, and has no name, where the
// forward would be too large under a name, which needs a record of it.
func (c *Core) forwardTooLarge(e *Entity, call *Call) *entities.Error {
	f := call.Outcome.Forward
	if f == nil || (len(f.Metadata) == 0 && len(f.Payload.Value) < c.limits.MaxCommit/2) {
		return nil
	}
	entry := materializer.Entry{Key: e.keyBytes, Value: f.Payload.Value}
	entry.Envelope.TypeURL, entry.Envelope.Target = f.Payload.TypeURL, record.EncodeForward(f, nil)
	if n := counted(&entry); n > c.limits.MaxCommit {
		return errCommitTooLarge(e.Key, n, 1, &c.limits)
	}
	return nil
}

// keepAnswer puts the answer of a command with a name into the last record of its group, or where
// the answer is too large what a repeat gets instead.
func (g *group) keepAnswer(last *record.Envelope, stored int) {
	if !g.call.Named() {
		return
	}
	last.Answer, last.PayloadHash = record.EncodeAnswer(g.call.Outcome), g.call.hash
	if n, limit := len(last.Answer), g.core.limits.MaxCommit; stored+n > limit {
		last.Answer = record.EncodeAnswer(unkept(g.call.Outcome, g.entity.Key.String(), n, limit))
	}
}

// nameOnce leaves the name of a command, and what it follows from, to the last of its records,
// which is where they are read, and returns the size of all.
func nameOnce(entries []materializer.Entry) int {
	size := entries[len(entries)-1].Size()
	for i := range entries[:len(entries)-1] {
		env := &entries[i].Envelope
		env.CommandID, env.Principal, env.TraceParent, env.Cause = "", "", "", nil
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
	// renewed is which record sets the timer that fired for its next time; -1: none.
	renewed int
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
		g.renewed = len(g.core.open.Entries) - g.start
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
