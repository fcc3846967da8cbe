package partitions

import (
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/materializer"
)

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

	// records, headers and buf are the encoded form.
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

// This file is the part of the core that brings decisions to the log and back: pure, like core.go.

// unwritten holds the answer of a command that wrote nothing until it is covered: everything decided before it is
// committed, and, where others may write, an append that was sent after it is acknowledged.
func (c *core) unwritten(call *Call) {
	if call.cmd.Consistency == entities.Local {
		c.answer(call)
		return
	}
	last := c.lastClosed()
	if mutation.On(mutation.Barrier) && len(c.open.entries) == 0 && last == nil {
		c.answer(call)
		return
	}
	if c.mustConfirm(call) || len(c.open.entries) > 0 {
		c.open.calls = append(c.open.calls, call)
		return
	}
	if last != nil {
		last.calls = append(last.calls, call)
		return
	}
	c.answer(call)
}

// lastClosed is the last batch that gets no more records: one that waits to be sent, else the last that was sent; nil: there is none.
func (c *core) lastClosed() *batch {
	switch {
	case len(c.full) > 0:
		return c.full[len(c.full)-1]
	case len(c.sent) > 0:
		return c.sent[len(c.sent)-1]
	default:
		return nil
	}
}

// mustConfirm says whether the log has to confirm the ownership before an answer that wrote nothing may leave.
func (c *core) mustConfirm(call *Call) bool {
	switch {
	case c.single:
		return false
	case call.cmd.Consistency == entities.Eventual:
		return false
	case call.cmd.Consistency == entities.Bounded:
		return c.now.Mono-c.confirmed > call.cmd.Bound
	case call.cmd.Consistency == entities.AtLeast:
		return c.next < call.cmd.AfterIn(c.partition)
	default:
		return true
	}
}

func (c *core) answer(call *Call) {
	call.next = c.next
	c.finish(call)
}

// write puts the records of a decided command into the open batch, as one group: that its timer has fired, what changed,
// timers, effects, and last the forward, where a repeat finds it. A command that is too large changes nothing.
//
// A caller who gave an id asked for the answer to be kept: it counts like a record. Under another name it is kept if there is room.
func (c *core) write(e *entity, call *Call) *entities.Error {
	out := call.outcome
	if c.outsized(call) {
		out = &entities.Outcome{}
	}
	start, timers, ordinal, position := len(c.open.entries), len(c.open.timers), c.ordinal, e.position
	g := group{core: c, entity: e, call: call, cause: c.cause(call.cmd.Source), start: start}
	err := g.records(out)
	entries := c.open.entries[start:]
	size := 0
	if err == nil {
		g.tellProgress(entries)
		size = complete(entries, call)
		if size > c.limits.MaxCommit && call.named() && !call.hasOwnID() {
			last := &entries[len(entries)-1]
			size -= last.Size()
			last.Envelope.Answer = record.EncodeAnswer(unkept(call.outcome, e.key.String(), len(last.Envelope.Answer), c.limits.MaxCommit))
			size += last.Size()
		}
		if size > c.limits.MaxCommit || len(entries) > c.limits.MaxCommitRecords {
			err = errCommitTooLarge(e.key, size, len(entries), &c.limits)
		}
	}
	if err != nil {
		clear(entries)
		c.open.entries, c.open.timers = c.open.entries[:start], c.open.timers[:timers]
		c.ordinal, e.position = ordinal, position
		c.unchangeTimers(call)
		return err
	}
	c.added(start, timers, size)
	call.wrote = true
	call.effects = len(out.Effects) // of what was recorded
	if out.Forward != nil {
		call.effects++
	}
	call.firstEffect = int64(len(c.open.entries) - call.effects)
	c.open.calls = append(c.open.calls, call)
	if mutation.On(mutation.Durable) {
		c.emit(effect{kind: doAnswer, call: call})
	}
	e.uncommitted++
	c.weigh(e)
	return nil
}

// outsized says whether a command with an id that a router gave stored nothing and forwarded more than a commit takes. Without the
// id it would leave no record: now it leaves one that says that it must not run again.
func (c *core) outsized(call *Call) bool {
	const room = 4096 // for keys and names
	out := call.outcome
	return out.Forward != nil && !out.Wrote() && entities.IsRouted(call.cmd.ID) && len(out.Forward.Payload.Value)+room > c.limits.MaxCommit
}

// complete makes a group of the records of a command, and returns what they count in an append.
func complete(entries []materializer.Entry, call *Call) int {
	if call.named() {
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

// added counts what was put into the open batch, from entry start and timer timers on. Where the log would not take that in one
// append with what was there before, the open batch is closed without it and another one begins with it: the records of a command
// stay together, and the order is as before. The answers that the closed batch holds need nothing that comes later.
func (c *core) added(start, timers, size int) {
	b := c.open
	fits := broker.AppendOverhead+b.bytes+size <= c.limits.AppendBytes && len(b.entries) <= c.limits.AppendRecords
	if fits || start == 0 || mutation.On(mutation.Cut) {
		b.bytes += size
		return
	}
	next := c.newBatch()
	next.entries, next.bytes = append(next.entries, b.entries[start:]...), size
	for _, t := range b.timers[timers:] {
		t.entry -= start
		next.timers = append(next.timers, t)
	}
	clear(b.entries[start:])
	b.entries, b.timers = b.entries[:start], b.timers[:timers]
	c.full, c.open = append(c.full, b), next
}

// group adds the records of one command to the open batch, from entry start on.
type group struct {
	core   *core
	entity *entity
	call   *Call
	cause  *record.Cause
	start  int
}

func (g *group) records(out *entities.Outcome) *entities.Error {
	e, timer := g.entity, g.call.cmd.Timer
	if timer != nil {
		g.fired(timer)
	}
	changes := &g.core.changes
	*changes, e.position = materializer.AppendChanges((*changes)[:0], e.typ.Kind, e.position, out)
	for i := range *changes {
		ch := &(*changes)[i]
		env := g.add(ch.Kind, ch.Payload)
		env.Sequence, env.PreviousSnapshot = ch.Sequence, ch.PreviousSnapshot
	}
	clear(*changes)
	if timer != nil && timer.Schedule != "" {
		if err := g.again(); err != nil {
			return errSchedule(e.key, err)
		}
	}
	for i := range out.Timers {
		if err := g.change(&out.Timers[i]); err != nil {
			return errSchedule(e.key, err)
		}
	}
	for i := range out.Effects {
		effect := &out.Effects[i]
		g.add(record.Effect, effect.Payload).Target = record.EncodeEffect(effect, onRefused(g.call.cmd, effect), false)
	}
	switch {
	case out.Forward != nil:
		g.add(record.Effect, out.Forward.Payload).Target = record.EncodeForward(out.Forward, askerOf(g.entity.keyBytes, g.call))
	case len(g.core.open.entries) == g.start:
		g.add(record.Answered, entities.Payload{})
	}
	return nil
}

func (g *group) add(kind record.Kind, p entities.Payload) *record.Envelope {
	c := g.core
	c.ordinal++
	c.open.entries = append(c.open.entries, materializer.Entry{Key: g.entity.keyBytes, Value: p.Value, Envelope: record.Envelope{
		Kind: kind, Epoch: c.owner.Epoch, Nonce: c.owner.Nonce, Ordinal: c.ordinal, LogTime: c.now.Log,
		TypeURL: p.TypeURL, Cause: g.cause,
		CommandID: g.call.cmd.ID, Principal: g.call.cmd.Principal, TraceParent: g.call.cmd.TraceParent,
	}})
	return &c.open.entries[len(c.open.entries)-1].Envelope
}

// tellProgress leaves the exceptions of the source's progress to the last of a group's records, which
// is where they are read.
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
func (c *core) unchangeTimers(call *Call) {
	for _, name := range call.timers {
		if call.entity.timers[name]--; call.entity.timers[name] == 0 {
			delete(call.entity.timers, name)
		}
	}
	call.timers = nil
}

// Flush sends what may go: batches that are closed as soon as there is room, then the open one, at once when nothing is on its
// way, otherwise when it is full enough.
func (c *core) Flush() {
	if c.state != Active && c.state != Draining {
		return
	}
	if n := c.outbox.unsaid(); n > 0 && c.state == Active && (c.settleNow || n >= settleBatch || len(c.open.entries) > 0) {
		c.settleEffects()
	}
	c.settleNow = false
	for len(c.full) > 0 && len(c.sent) < c.limits.Inflight {
		b := c.full[0]
		c.full[0] = nil
		c.full = c.full[1:]
		c.send(b)
	}
	if len(c.full) > 0 {
		return
	}
	if c.open.empty() {
		c.drained()
		return
	}
	if len(c.sent) > 0 && (c.open.bytes < c.limits.FillBytes || len(c.sent) >= c.limits.Inflight) {
		return
	}
	b := c.open
	if len(b.entries) == 0 {
		b.entries = append(b.entries, c.control(record.Barrier))
	}
	c.open = c.newBatch()
	c.send(b)
}

func (c *core) send(b *batch) {
	b.sentAt, b.incarnation = c.now.Mono, c.incarnation
	c.sent = append(c.sent, b)
	c.emit(effect{kind: doAppend, batch: b})
}

func (c *core) control(kind record.Kind) materializer.Entry {
	c.ordinal++
	return materializer.Entry{Envelope: record.Envelope{Kind: kind, Epoch: c.owner.Epoch, Nonce: c.owner.Nonce, Ordinal: c.ordinal, LogTime: c.now.Log}}
}

// encode returns the records of a batch as the log takes them. The envelopes stand one behind the other in one buffer.
func (b *batch) encode() []broker.Record {
	n := len(b.entries)
	b.records = append(b.records[:0], make([]broker.Record, n)...)
	b.headers = append(b.headers[:0], make([]broker.Header, n)...)
	ends := make([]int, 0, 64)
	for i := range b.entries {
		b.buf = b.entries[i].Envelope.Append(b.buf)
		ends = append(ends, len(b.buf))
	}
	start := 0
	for i, end := range ends {
		b.headers[i] = broker.Header{Key: record.HeaderKey, Value: b.buf[start:end:end]}
		b.records[i] = broker.Record{Key: b.entries[i].Key, Value: b.entries[i].Value, Headers: b.headers[i : i+1 : i+1]}
		start = end
	}
	return b.records
}

func (c *core) newBatch() *batch {
	if n := len(c.spare); n > 0 {
		b := c.spare[n-1]
		c.spare = c.spare[:n-1]
		return b
	}
	return &batch{}
}

// Recycle takes a batch back that nobody holds any more.
func (c *core) Recycle(b *batch) {
	const kept, entries = 8, 4096
	if len(c.spare) < kept && cap(b.entries) <= entries {
		b.reset()
		c.spare = append(c.spare, b)
	}
}

// Acked takes the log's answer to a batch. Answers of one ownership arrive in the order of sending.
func (c *core) Acked(b *batch, result broker.AppendResult) {
	if b.incarnation != c.incarnation {
		return
	}
	b.acked, b.result = true, result
	c.settle()
}

// settle works off the acknowledgements at the head of the queue: rules 1 to 4 of the log protocol, section 4.
func (c *core) settle() {
	switch c.state {
	case Passing:
		c.passed()
		return
	case Repairing:
		c.repairAcked()
		return
	default:
	}
	for len(c.sent) > 0 && c.sent[0].acked && (c.state == Active || c.state == Draining) {
		b := c.sent[0]
		r := b.result
		want := int64(len(b.entries))
		switch {
		case r.Err != nil:
			c.fence("the log did not take an append: "+r.Err.Error(), false)
		case mutation.On(mutation.Contiguity) || (r.Base == c.next && r.Last-r.Base+1 == want):
			c.commit(b)
		case r.Base > c.next && mutation.On(mutation.GapScan):
			c.fence("the log holds records of others", false)
		case r.Base > c.next:
			c.state = Suspect
			c.emit(effect{kind: doReadGap, offset: r.Base})
		case r.Base == c.next:
			c.fence("the log holds something between the records of an append", false)
		case r.Base < 0:
			c.fence(errNoOffset.Error(), false)
		default:
			c.Halt(errWentBack(c.partition, r.Base, c.next))
		}
	}
	c.drained()
}

func (c *core) commit(b *batch) {
	c.sent[0] = nil
	c.sent = c.sent[1:]
	for i := range b.entries {
		b.entries[i].Offset = b.result.Base + int64(i)
	}
	c.next, c.confirmed = b.result.Last+1, b.sentAt
	c.emit(effect{kind: doCommit, batch: b})
	c.keepEffects(b)
	for _, call := range b.calls {
		call.next = c.next
		c.release(call)
		if call.wrote {
			c.unchangeTimers(call)
			e := call.entity
			e.uncommitted--
			if e.uncommitted == 0 {
				c.advance(e)
			}
		}
	}
	for i := range b.timers {
		b.timers[i].due.Offset = b.entries[b.timers[i].entry].Offset
		c.setTimer(b.timers[i].due)
	}
	for i := range b.settles {
		c.refusalsCommitted(b, &b.settles[i])
		c.settled(b.settles[i])
	}
	c.pump()
	if len(b.timers) > 0 {
		c.fire()
	}
}

// keepEffects takes the effects of a committed batch into the outbox, those of commands and the core's own. Those that a
// caller waits for, the caller sends; what their targets are told of progress is known when all of the batch are in the outbox.
func (c *core) keepEffects(b *batch) {
	for _, call := range b.calls {
		if call.effects == 0 {
			continue
		}
		call.firstEffect = b.entries[call.firstEffect].Offset
		for i := range call.effects {
			d := &delivery{offset: call.firstEffect + int64(i), from: call.cmd.Key}
			if i < len(call.outcome.Effects) {
				d.effect = call.outcome.Effects[i]
				d.onRefused = onRefused(call.cmd, &d.effect)
			} else {
				d.forward = true
				d.effect = entities.SideEffect{Target: *call.outcome.Forward, Synchronous: true}
				d.asker = askerOf(call.entity.keyBytes, call)
			}
			if d.effect.Synchronous {
				d.state = deliveryHeld
			}
			if call.gaveUp != nil {
				d.state = deliveryParked
			}
			c.keep(d)
			if call.gaveUp != nil {
				c.parkTimer(d, call)
			}
		}
	}
	for i := range b.settles {
		for _, told := range b.settles[i].told {
			told.delivery.offset = b.entries[told.entry].Offset
			c.keep(told.delivery)
		}
	}
	for _, call := range b.calls {
		if call.effects > 0 {
			call.progress = c.progress()
		}
	}
}

// onRefused is the method that learns of a refusal of an effect, as service/method; empty for none.
func onRefused(cmd *entities.Command, e *entities.SideEffect) string {
	if e.OnRefused == "" {
		return ""
	}
	return cmd.Service + "/" + e.OnRefused
}

// GapRead takes the records that stand where the core expected its own. Rule 2: no-ops are passed over, anything else ends
// the ownership.
func (c *core) GapRead(incarnation uint64, gap []materializer.GapRecord, err error) {
	if incarnation != c.incarnation || c.state != Suspect {
		return
	}
	if err != nil {
		c.fence("records of others could not be read: "+err.Error(), false)
		return
	}
	next := c.next
	for i := range gap {
		env := &gap[i].Envelope
		if offset := gap[i].Record.Offset; offset != next {
			c.Halt(materializer.Hole(next, offset))
			return
		}
		next++
		switch {
		case gap[i].Foreign:
		case env.Kind == record.Claim && c.owner.YieldsTo(env.Epoch):
			c.fence("another worker has claimed it", true)
			return
		case (record.Owner{Epoch: env.Epoch, Nonce: env.Nonce}) == c.owner && !mutation.On(mutation.Gap):
			c.fence("the log holds an own record twice or out of order", false)
			return
		}
	}
	if base := c.sent[0].result.Base; next != base {
		c.Halt(materializer.Hole(next, base))
		return
	}
	c.emit(effect{kind: doSkip, gap: gap})
	c.next = c.sent[0].result.Base
	c.state = Active
	if c.releasing {
		c.state = Draining
	}
	c.settle()
}

// ApplyFailed says that the store did not take a committed batch. The log has it: nothing is lost, and nothing is known to
// the callers.
func (c *core) ApplyFailed(why error) {
	if c.state == Active || c.state == Suspect || c.state == Draining || c.state == Passing {
		c.fence("the store did not take a commit: "+why.Error(), false)
	}
}
