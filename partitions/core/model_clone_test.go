//go:build !race

package core

import (
	"encoding/binary"
	"slices"

	"github.com/millrace-io/millrace/entities"
)

// cloner copies a core and everything that it points to and may change. Equal pointers within it
// stay equal.
type cloner struct {
	calls    [][2]*Call
	entities [][2]*Entity
}

func cloneCore(c *Core) *Core {
	var to cloner
	n := *c
	n.entities = make(map[entities.Key]*Entity, len(c.entities))
	n.all, n.idle = entityList{}, nil
	for e := c.all.first; e != nil; e = e.next {
		copied := to.entity(e)
		n.all.add(copied)
		n.entities[e.Key] = copied
	}
	for _, l := range c.idle {
		copied := &idleList{after: l.after}
		for e := l.first; e != nil; e = e.idleNext {
			copied.add(to.entity(e))
		}
		n.idle = append(n.idle, copied)
	}
	n.ids = make(map[commandID]*Call, len(c.ids))
	for id, call := range c.ids {
		n.ids[id] = to.call(call)
	}
	n.waiting = to.list(c.waiting)
	n.open = to.batch(c.open)
	n.full = nil
	for _, b := range c.full {
		n.full = append(n.full, to.batch(b))
	}
	n.sent = make([]*Batch, len(c.sent))
	for i, b := range c.sent {
		n.sent[i] = to.batch(b)
	}
	n.spare, n.effects = nil, nil
	return &n
}

func (to *cloner) entity(e *Entity) *Entity {
	if e == nil {
		return nil
	}
	for _, pair := range to.entities {
		if pair[0] == e {
			return pair[1]
		}
	}
	n := *e
	n.prev, n.next, n.idle, n.idlePrev, n.idleNext = nil, nil, nil, nil, nil
	to.entities = append(to.entities, [2]*Entity{e, &n})
	n.running = to.call(e.running)
	n.queue = to.list(e.queue)
	return &n
}

func (to *cloner) call(c *Call) *Call {
	if c == nil {
		return nil
	}
	for _, pair := range to.calls {
		if pair[0] == c {
			return pair[1]
		}
	}
	n := &Call{
		Caller: c.Caller, Command: c.Command, hash: c.hash, Found: Found{Stored: c.Stored}, incarnation: c.incarnation,
		Result: Result{Outcome: c.Outcome, Err: c.Err, Next: c.Next}, finished: c.finished, wrote: c.wrote,
	}
	to.calls = append(to.calls, [2]*Call{c, n})
	n.entity = to.entity(c.entity)
	n.followers, n.first = to.list(c.followers), to.call(c.first)
	return n
}

func (to *cloner) list(calls []*Call) []*Call {
	if len(calls) == 0 {
		return nil
	}
	n := make([]*Call, len(calls))
	for i, c := range calls {
		n[i] = to.call(c)
	}
	return n
}

func (to *cloner) batch(b *Batch) *Batch {
	return &Batch{
		Incarnation: b.Incarnation, Entries: slices.Clone(b.Entries), bytes: b.bytes, Calls: to.list(b.Calls),
		SentAt: b.SentAt, acked: b.acked, Result: b.Result,
	}
}

// encoder writes the part of a state that determines its future. Two states with equal bytes behave
// alike.
type encoder struct {
	buf []byte
	s   *scenario
}

func (e *encoder) num(n uint64) { e.buf = binary.AppendUvarint(e.buf, n) }
func (e *encoder) count(n int)  { e.num(uint64(n)) }

func (e *encoder) bit(b ...bool) {
	var n byte
	for i := range b {
		if b[i] {
			n |= 1 << i
		}
	}
	e.buf = append(e.buf, n)
}

// core leaves out what nothing reads (reasons, the number of attempts) and the number of the
// incarnation: it is only compared with itself, and what was begun under an earlier one is encoded
// as ignored.
func (e *encoder) core(c *Core) {
	e.buf = append(e.buf, byte(c.state))
	e.bit(c.assigned, c.releasing, c.halted != nil, c.goneSince != 0)
	e.num(c.owner.Epoch)
	e.num(c.owner.Nonce)
	e.num(uint64(c.next))
	e.num(c.ordinal)
	e.count(len(c.entities))
	for ent := c.all.first; ent != nil; ent = ent.next {
		e.entity(c, ent)
	}
	for op := range e.s.ops * e.s.identified {
		e.bit(c.ids[commandID{key: counterKey, id: e.s.commands[tryOf(op, 0)].ID}] != nil)
	}
	e.calls(c, c.waiting)
	e.batch(c, c.open)
	e.count(len(c.full))
	for _, b := range c.full {
		e.batch(c, b)
	}
	e.count(len(c.sent))
	for _, b := range c.sent {
		e.batch(c, b)
	}
}

func (e *encoder) entity(c *Core, ent *Entity) {
	h, _ := ent.session.(handle)
	e.num(uint64(h))
	e.num(ent.position.Sequence)
	e.count(ent.uncommitted)
	e.bit(ent.running != nil, ent.opening, ent.passivating, ent.reopen, ent.idle != nil)
	e.calls(c, ent.queue)
}

func (e *encoder) calls(c *Core, calls []*Call) {
	e.count(len(calls))
	for _, call := range calls {
		e.buf = append(e.buf, call.Command.Payload.Value...)
		e.bit(
			call.incarnation == c.incarnation, call.finished, call.Outcome != nil, call.Stored != nil,
			len(call.followers) > 0, call.wrote,
		)
		if call.Outcome != nil {
			e.buf = append(e.buf, call.Outcome.Reply.Payload.Value...)
		}
		if len(call.followers) > 0 {
			e.calls(c, call.followers)
		}
	}
}

func (e *encoder) batch(c *Core, b *Batch) {
	e.bit(b.Incarnation == c.incarnation, b.acked)
	e.count(len(b.Entries))
	for i := range b.Entries {
		e.num(uint64(e.s.records.of(&b.Entries[i]).number))
	}
	e.calls(c, b.Calls)
	if b.acked {
		e.result(b.Result.Base, b.Result.Last, b.Result.Err)
	}
}

func (e *encoder) result(base, last int64, err error) {
	e.bit(err != nil, notWritten(err))
	e.num(uint64(base))
	e.num(uint64(last))
}

func (e *encoder) log(log []*logged) {
	e.count(len(log))
	for _, l := range log {
		e.num(uint64(l.number))
	}
}

func (e *encoder) folded(f *folded) {
	e.num(uint64(f.next))
	e.num(f.rule.Current.Epoch)
	e.num(f.rule.Current.Nonce)
	e.num(f.rule.Ordinal)
	e.bit(f.rule.Open())
	e.buf = append(e.buf, f.count)
	e.num(f.sequence)
	e.buf = append(e.buf, f.values[:e.s.ops]...)
	e.buf = append(e.buf, f.tries[:e.s.ops]...)
}
