//go:build !race

package core

import (
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/materializer"
)

// kind is what an action does. Small, because every state remembers the one that led to it.
type kind uint8

const (
	actCatchUp kind = iota
	actTake
	actTakeLost
	actTakeAgain
	actTakePart
	actRefuse
	actSwap
	actReceive
	actReadGap
	actIncrement
	actRead
	actCrash
	actSilence
	actPassivate
	actRevoke
	actAssign
	actLose
	actCut
)

// action is one step that the world can take: by a worker, on an argument.
type action struct {
	kind        kind
	worker, arg uint8
}

func (a action) String() string {
	name := string(rune('A' + a.worker))
	return map[kind]string{
		actCatchUp:   name + " catches up and claims",
		actTake:      "the log takes the oldest request of " + name,
		actTakeLost:  "the log takes the oldest request of " + name + " and its answer gets lost",
		actTakeAgain: "the log takes the oldest request of " + name + " and will get it again",
		actTakePart:  "the log takes the first record of the oldest request of " + name,
		actRefuse:    "the log refuses the oldest request of " + name,
		actSwap:      "the log takes two requests of " + name + " in the wrong order",
		actReceive:   name + " receives an answer of the log",
		actReadGap:   name + " has read the gap",
		actIncrement: fmt.Sprintf("a client sends %s to %s", try(a.arg), name),
		actRead:      fmt.Sprintf("a client sends read %d to %s", a.arg, name),
		actCrash:     name + " crashes and starts again",
		actSilence:   name + " has waited too long for the log",
		actPassivate: name + " passivates what is idle",
		actRevoke:    "the partition is revoked from " + name,
		actAssign:    "the partition is assigned to " + name + " again",
		actLose:      "the partition is taken away from " + name,
		actCut:       fmt.Sprintf("the log loses its last %d records", a.arg),
	}[a.kind]
}

// actions lists what can happen next, always in the same order.
func (x *world) actions(to []action) []action {
	s := x.s
	for i, w := range x.workers {
		may := func(k kind, ok bool) {
			if ok {
				to = append(to, action{kind: k, worker: uint8(i)})
			}
		}
		c := w.core
		may(actCatchUp, w.catchingUp && x.claims() < s.claims)
		to = x.sendings(to, uint8(i))
		if len(w.net) > 0 {
			r := &w.net[0]
			awaited := !r.orphan && r.incarnation == c.incarnation
			room := x.room(w, len(r.records))
			may(actTake, room)
			may(actTakeLost, room && awaited && x.spent.losses < s.losses)
			may(actTakeAgain, room && x.spent.duplicates < s.duplicates)
			may(actTakePart, room && len(r.records) > 1 && x.spent.splits < s.splits)
			may(actRefuse, awaited && x.spent.refusals < s.refusals)
			may(actSwap, x.spent.reorders < s.reorders && x.swappable(w))
		}
		may(actReceive, len(w.replies) > 0)
		may(actReadGap, w.gapUntil >= 0)
		may(actCrash, x.spent.crashes < s.crashes && c.state != CatchingUp && c.state != Standby)
		may(actSilence, x.spent.silences < s.silences && len(c.sent) > 0)
		may(actPassivate, x.spent.passivations < s.passivations && len(c.idle) > 0 && c.idle[0].first != nil)
		may(actRevoke, x.spent.revokes < s.revokes && c.assigned)
		may(actLose, x.spent.takeaways < s.takeaways && c.assigned)
		may(actAssign, !c.assigned)
	}
	if x.spent.cuts < s.cuts {
		for n := 1; n <= min(2, len(x.log)); n++ {
			to = append(to, action{kind: actCut, arg: uint8(n)})
		}
	}
	return to
}

func (x *world) claims() (n int) {
	for _, w := range x.workers {
		n += w.claims
	}
	return n
}

// room reports whether the log may take so many records of a worker. After a cut, others do not
// fill up what was lost, unless the scenario allows it: a record at a lost offset then differs from
// the lost one only by its content.
func (x *world) room(w *worker, records int) bool {
	end := len(x.log) + records
	if end > x.s.log {
		return false
	}
	if x.spent.cuts == 0 || x.s.refill {
		return true
	}
	own := !w.net[0].orphan && w.net[0].incarnation == w.core.incarnation
	for _, other := range x.workers {
		if seen := other.seen(); seen > x.cutAt && (other != w || !own) && end >= int(seen) {
			return false
		}
	}
	return true
}

// seen is the offset after everything that the worker knows, or will know when it has read its
// mail.
func (w *worker) seen() int64 {
	next := w.fold.next
	for _, b := range w.core.sent {
		if b.acked && b.Result.Err == nil {
			next = max(next, b.Result.Last+1)
		}
	}
	for _, r := range w.replies {
		if r.result.Err == nil {
			next = max(next, r.result.Last+1)
		}
	}
	return next
}

func (x *world) swappable(w *worker) bool {
	if len(w.net) < 2 {
		return false
	}
	for _, r := range w.net[:2] {
		if r.claim || r.orphan || r.incarnation != w.core.incarnation || r.base >= 0 {
			return false
		}
	}
	return x.room(w, len(w.net[0].records)+len(w.net[1].records))
}

// sendings lists the commands that clients may send to a worker: each increment in its turn, and
// again while it is not known to be applied.
func (x *world) sendings(to []action, i uint8) []action {
	w := x.workers[i]
	c := w.core
	listening := c.state == Active || c.state == Suspect || (x.s.early && c.assigned && c.state != Halted)
	if !listening || x.held(c) >= x.s.calls {
		return to
	}
	for op := range x.s.ops {
		last := -1
		for k := range x.s.tries {
			if x.tries[tryOf(op, k)].fate != unsent {
				last = k
			}
		}
		if last < 0 {
			to = append(to, action{actIncrement, i, uint8(tryOf(op, 0))})
			break // the increments are alike: the next one only when this one was sent
		}
		if last+1 < x.s.tries && x.tries[tryOf(op, last)].fate != answered {
			to = append(to, action{actIncrement, i, uint8(tryOf(op, last+1))})
		}
	}
	for r := range x.s.reads {
		if x.reads[r].fate == unsent {
			to = append(to, action{actRead, i, uint8(r)})
			break
		}
	}
	return to
}

// held counts the commands that a core has not answered.
func (x *world) held(c *Core) int {
	n := len(c.waiting) + len(c.open.Calls)
	for _, b := range c.sent {
		n += len(b.Calls)
	}
	for e := c.all.first; e != nil; e = e.next {
		n += len(e.queue)
	}
	return n
}

// step returns the state after an action. It leaves x alone.
func (x *world) step(a action) *world {
	n, w := x.clone(int(a.worker))
	c := w.core
	switch a.kind {
	case actCatchUp:
		n.catchUp(w)
	case actTake, actTakeLost, actTakeAgain, actTakePart, actRefuse, actSwap:
		n.taking(w, a.kind)
		n.stuck(w)
		return n
	case actReceive:
		n.receive(w)
	case actReadGap:
		gap, err := n.gap(c.next, w.gapUntil)
		w.gapUntil = -1
		c.GapRead(c.incarnation, gap, err)
	case actIncrement:
		n.tries[a.arg] = call{fate: waiting}
		n.submit(w, &Call{Caller: stays{}, Command: n.s.commands[a.arg], hash: 1 + uint64(try(a.arg).op())})
	case actRead:
		n.reads[a.arg] = call{fate: waiting, floor: n.acknowledged()}
		n.submit(w, &Call{Caller: stays{}, Command: n.s.readings[a.arg]})
	case actCrash:
		n.spent.crashes++
		n.crash(w)
	case actSilence:
		n.spent.silences++
		c.now.Mono = 1
		c.Ticked()
		c.now.Mono = 0
	case actPassivate:
		n.spent.passivations++
		c.Ticked()
	case actRevoke:
		n.spent.revokes++
		w.leaving = true
		c.Revoked()
	case actAssign:
		c.Assigned(false)
	case actLose:
		n.spent.takeaways++
		c.Lost()
	case actCut:
		n.cut(int(a.arg))
		return n
	}
	n.perform(w)
	return n
}

// catchUp folds from what is stored to the end of the log.
func (x *world) catchUp(w *worker) {
	c := w.core
	w.catchingUp = false
	end := int64(len(x.log))
	if w.store.next > end {
		// The first time this may come from an old leader; the second time it has lasted long enough.
		c.now.Mono = min(c.goneSince, 1)
		c.Failed(c.incarnation, broker.ErrRegressed)
		c.now.Mono = 0
		return
	}
	w.fold = w.store
	w.fold.read(x.log, end)
	if x.lost(w) {
		return
	}
	w.saved()
	c.CaughtUp(w.fold.rule.Current, end, w.nonce()+1, nil)
}

// lost reports whether the log has lost records by what it has, and halts the worker that has
// folded it. A log that has lost nothing must never look like that.
func (x *world) lost(w *worker) bool {
	if w.fold.lost == "" {
		return false
	}
	if x.spent.cuts == 0 {
		x.blame("%s finds a loss, and nothing is lost: %s", w.name, w.fold.lost)
	}
	w.fold = w.store
	w.core.Failed(w.core.incarnation, fmt.Errorf("%w", materializer.ErrLost))
	return true
}

func (x *world) submit(w *worker, call *Call) {
	x.lookup(w, call)
	w.core.Submitted(call)
}

// crash drops what is in memory. Requests stay on their way, but no process gets their result.
func (x *world) crash(w *worker) {
	for i := range w.net {
		w.net[i].orphan = true
	}
	w.replies, w.catchingUp, w.gapUntil = nil, false, -1
	w.session, w.closed, w.memory = 0, false, 0
	w.fold = w.store
	w.leaving = false
	w.start(x.s)
	w.core.Assigned(false)
}

// taking lets the log handle the oldest request of a worker.
func (x *world) taking(w *worker, k kind) {
	r := w.net[0]
	switch k {
	case actTakeAgain:
		x.spent.duplicates++
		x.append(r.records...)
		return
	case actTakePart:
		x.spent.splits++
		at := x.append(r.records[0])
		if r.base < 0 {
			r.base = at
		}
		r.records = r.records[1:]
		w.net[0] = r
		return
	case actSwap:
		x.spent.reorders++
		second := w.net[1]
		later := x.append(second.records...)
		x.reply(w, &r, x.append(r.records...), nil)
		x.reply(w, &second, later, nil)
		w.net = w.net[2:]
		return
	case actRefuse:
		x.spent.refusals++
		x.note("the log refuses %s", r)
		x.reply(w, &r, -1, errRefused)
	case actTakeLost:
		x.spent.losses++
		x.append(r.records...)
		x.reply(w, &r, -1, errNoAnswer)
	default:
		x.reply(w, &r, x.append(r.records...), nil)
	}
	w.net = w.net[1:]
}

func (x *world) reply(w *worker, r *request, base int64, err error) {
	if r.orphan || r.incarnation == unanswered || (!x.s.late && r.incarnation != w.core.incarnation) {
		return
	}
	last := base + int64(len(r.records)) - 1
	if r.base >= 0 && err == nil {
		base = r.base
	}
	w.replies = append(w.replies, acknowledgement{
		incarnation: r.incarnation, claim: r.claim, result: broker.AppendResult{Base: base, Last: last, Err: err},
	})
}

// receive gives a worker the oldest acknowledgement. They arrive in the order of sending.
func (x *world) receive(w *worker) {
	c := w.core
	r := w.replies[0]
	w.replies = w.replies[1:]
	if r.claim {
		c.ClaimAcked(r.incarnation, r.result)
		return
	}
	b := &Batch{Incarnation: r.incarnation}
	if r.incarnation == c.incarnation {
		b = c.sent[slices.IndexFunc(c.sent, func(b *Batch) bool { return !b.acked })]
	}
	c.Acked(b, r.result)
}

// gap returns the records between two offsets of the log.
func (x *world) gap(from, until int64) ([]materializer.GapRecord, error) {
	if until > int64(len(x.log)) {
		return nil, broker.ErrOutOfRange
	}
	var gap []materializer.GapRecord
	for at := from; at < until; at++ {
		l := x.log[at]
		g := materializer.GapRecord{Record: broker.Record{Offset: at}, Envelope: l.env}
		if l.hasData {
			g.Record.Value = []byte{l.try, l.value}
		}
		gap = append(gap, g)
	}
	return gap, nil
}

// cut takes records from the end of the log.
func (x *world) cut(n int) {
	x.spent.cuts++
	x.log = x.log[:len(x.log)-n]
	x.cutAt = int64(len(x.log))
	x.valid = folded{}
	x.valid.read(x.log, int64(len(x.log)))
	for i, w := range x.workers {
		if w.fold.next > x.cutAt {
			x.workers[i] = w.clone()
			x.workers[i].cut = true
		}
	}
}

// stays is a caller that does not leave.
type stays struct{}

func (stays) Alone()        {}
func (stays) Accompanied()  {}
func (stays) Decided() bool { return true }
