//go:build !race

package core

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
)

// scenario bounds what may happen, and how often.
type scenario struct {
	name                 string
	workers, log, claims int
	ops, tries, reads    int
	// calls is how many commands a worker may hold, inflight how many batches it may have under
	// way.
	calls, inflight int
	// how many times: a process dies, an answer of the log is lost, the owner loses patience, the
	// log refuses an append.
	crashes, losses, silences, refusals int
	// how many times: a client library sends again what was written, writes in the wrong order,
	// splits an append.
	duplicates, reorders, splits int
	// how many times: a partition is revoked, taken away, assigned again; a session is passivated.
	revokes, takeaways, passivations int
	// cuts: the log loses its tail. refill: others may then write until the old length is reached.
	cuts   int
	refill bool
	// unseen: the search must find a violation, one that the protocol is known not to detect.
	unseen bool
	// pairs: an increment is two events. values: the counter is a value entity. identified (0 or
	// 1): commands have ids.
	pairs, values bool
	identified    int
	// early: commands may be submitted before the worker is active. late: acknowledgements of ended
	// ownerships arrive.
	early, late bool

	records  records
	commands []*entities.Command
	readings []*entities.Command
	answers  map[[2]uint8]*entities.Outcome
}

const readMark = 0x80

// prepare makes what all states share.
func (s *scenario) prepare() {
	s.records, s.answers = records{}, map[[2]uint8]*entities.Outcome{}
	kind := entities.EventSourced
	if s.values {
		kind = entities.Value
	}
	typ := &entities.EntityType{Service: "counters", Name: counterKey.Type, Kind: kind}
	for t := range tryOf(s.ops, 0) {
		cmd := &entities.Command{Type: typ, Key: counterKey, Payload: entities.Payload{Value: []byte{byte(t)}}}
		if s.identified > 0 {
			cmd.ID = fmt.Sprint(t.op())
		}
		s.commands = append(s.commands, cmd)
	}
	for r := range s.reads {
		s.readings = append(s.readings, &entities.Command{
			Type: typ, Key: counterKey, Payload: entities.Payload{Value: []byte{readMark + byte(r)}},
		})
	}
}

func (s *scenario) reading(value uint8) *entities.Outcome {
	return s.outcome(readMark, value, func(*entities.Outcome) {})
}

func (s *scenario) increment(t try, value uint8) *entities.Outcome {
	return s.outcome(uint8(t), value, func(o *entities.Outcome) {
		p := entities.Payload{Value: []byte{byte(t), value}}
		switch {
		case s.values:
			o.StateAction, o.State = entities.StateUpdated, p
		case s.pairs:
			o.Events = []entities.Payload{p, p}
		default:
			o.Events = []entities.Payload{p}
		}
	})
}

func (s *scenario) outcome(who, value uint8, write func(*entities.Outcome)) *entities.Outcome {
	key := [2]uint8{who, value}
	o, known := s.answers[key]
	if !known {
		o = &entities.Outcome{Reply: &entities.Reply{Payload: entities.Payload{TypeURL: "v", Value: []byte{value}}}}
		write(o)
		s.answers[key] = o
	}
	return o
}

// fate is what the caller of a command knows.
type fate uint8

const (
	unsent fate = iota
	waiting
	answered
	notApplied
	unknown
)

// call is a command from the view of its caller. floor is what was acknowledged when a read began.
type call struct {
	fate         fate
	value, floor uint8
}

// world is one state of the whole model. A step copies what it changes; workers and log are shared
// between states.
type world struct {
	s       *scenario
	log     []*logged
	workers []*worker
	tries   [maxOps * maxTries]call
	reads   [maxReads]call
	spent   budget
	// cutAt is where the log ended when it had lost its tail.
	cutAt int64
	// valid is the fold of the log, fault what must never happen and has.
	valid folded
	fault string
	// notes are taken when a trace is written.
	notes *[]string
}

// budget counts what the scenario allows a number of times.
type budget struct {
	crashes, losses, silences, refusals, duplicates, reorders, splits, revokes, takeaways, passivations, cuts int
}

func newWorld(s *scenario) *world {
	x := &world{s: s}
	for i := range s.workers {
		w := newWorker(s, i)
		x.workers = append(x.workers, w)
		w.core.Assigned(false)
		x.perform(w)
	}
	return x
}

func (x *world) clone(i int) (*world, *worker) {
	n := *x
	n.workers = slices.Clone(x.workers)
	n.workers[i] = x.workers[i].clone()
	return &n, n.workers[i]
}

func (x *world) blame(format string, args ...any) {
	if x.fault == "" {
		x.fault = fmt.Sprintf(format, args...)
	}
}

func (x *world) note(format string, args ...any) {
	if x.notes != nil {
		*x.notes = append(*x.notes, fmt.Sprintf(format, args...))
	}
}

// append adds records to the log, never to one that another state has.
func (x *world) append(records ...*logged) (base int64) {
	base = int64(len(x.log))
	x.log = append(slices.Clip(x.log), records...)
	for i, l := range records {
		verdict := x.valid.step(l, base+int64(i))
		x.note("the log has %s at offset %d%s", l, base+int64(i), map[bool]string{true: ", void"}[verdict == record.Void])
	}
	return base
}

// answer is the answer to a caller.
func (x *world) answer(w *worker, c *Call) {
	done, err := c.Committed()
	var to *call
	var name string
	if isRead(c) {
		to, name = &x.reads[readIn(c)], fmt.Sprintf("read %d", readIn(c))
	} else {
		to, name = &x.tries[tryIn(c)], tryIn(c).String()
	}
	if to.fate != waiting {
		x.blame("%s answers %s twice", w.name, name)
	}
	if err == nil {
		to.fate, to.value = answered, done.Outcome.Reply.Payload.Value[0]
		x.note("%s answers %s: %d", w.name, name, to.value)
		return
	}
	to.fate = unknown
	if entities.AsError(err).Outcome == entities.NotApplied {
		to.fate = notApplied
	}
	x.note("%s answers %s: %v", w.name, name, err)
}

// acknowledged returns how many increments their callers know of.
func (x *world) acknowledged() (n uint8) {
	for op := range x.s.ops {
		for k := range x.s.tries {
			if x.tries[tryOf(op, k)].fate == answered {
				n++
				break
			}
		}
	}
	return n
}

// check returns what is wrong with a state, if anything.
func (x *world) check() string {
	if x.fault != "" || x.spent.cuts > 0 {
		return x.fault // once the log has lost records, the only requirement is that no worker answers that knows of them
	}
	if x.valid.fault != "" {
		return x.valid.fault
	}
	if x.valid.lost != "" {
		return "a loss is found, and nothing is lost: " + x.valid.lost
	}
	for op := range x.s.ops {
		for k := range x.s.tries {
			t := tryOf(op, k)
			switch c := x.tries[t]; {
			case c.fate == answered && x.valid.values[op] != c.value:
				return fmt.Sprintf("%s was answered %d, the fold says %d", t, c.value, x.valid.values[op])
			case c.fate == notApplied && x.valid.tries[op]&t.bit() != 0:
				return t.String() + " was answered \"not applied\", and counts"
			}
		}
	}
	for r := range x.s.reads {
		switch c := x.reads[r]; {
		case c.fate == answered && c.value < c.floor:
			return fmt.Sprintf("read %d was answered %d, %d were acknowledged before it began", r, c.value, c.floor)
		case c.fate == answered && c.value > x.valid.count:
			return fmt.Sprintf("read %d was answered %d, the fold reaches only %d", r, c.value, x.valid.count)
		}
	}
	return ""
}

// fingerprint is 128 bits of a hash of everything that determines the future of a state.
func (x *world) fingerprint(buf []byte) ([16]byte, []byte) {
	e := encoder{buf: buf[:0], s: x.s}
	e.log(x.log)
	for _, w := range x.workers {
		e.worker(w)
	}
	for op := range x.s.ops {
		for k := range x.s.tries {
			c := x.tries[tryOf(op, k)]
			e.buf = append(e.buf, byte(c.fate), c.value)
		}
	}
	for _, c := range x.reads[:x.s.reads] {
		e.buf = append(e.buf, byte(c.fate), c.value, c.floor)
	}
	e.num(uint64(x.cutAt))
	b := &x.spent
	for _, n := range [...]int{
		b.crashes, b.losses, b.silences, b.refusals, b.duplicates, b.reorders, b.splits, b.revokes, b.takeaways,
		b.passivations, b.cuts,
	} {
		e.count(n)
	}
	sum := sha256.Sum256(e.buf)
	return [16]byte(sum[:16]), e.buf
}

func (e *encoder) worker(w *worker) {
	e.core(w.core)
	e.folded(&w.store)
	e.folded(&w.fold)
	e.buf = append(e.buf, byte(w.session), w.memory)
	e.bit(w.closed, w.catchingUp, w.leaving, w.cut)
	e.num(uint64(w.gapUntil + 1))
	e.count(w.claims)
	e.count(len(w.net))
	for i := range w.net {
		r := &w.net[i]
		e.bit(r.incarnation == w.core.incarnation && !r.orphan, r.claim, r.orphan && e.s.late)
		e.num(uint64(r.base + 1))
		e.log(r.records)
	}
	e.count(len(w.replies))
	for i := range w.replies {
		r := &w.replies[i]
		e.bit(r.incarnation == w.core.incarnation, r.claim)
		e.result(r.result.Base, r.result.Last, r.result.Err)
	}
}
