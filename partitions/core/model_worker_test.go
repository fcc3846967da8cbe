//go:build !race

package core

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/materializer"
)

var (
	counterKey = entities.Key{Type: "counter", ID: "c"}

	errNoAnswer = errors.New("no answer")
	errRefused  = errors.Join(errors.New("not now"), broker.ErrNotWritten)
)

// handle is the session of the modelled function. Handles alternate, so that a closed one differs
// from its successor.
type handle uint8

func (handle) Handle(context.Context, entities.Invocation) (*entities.Outcome, error) {
	return nil, errors.New("the model decides by itself")
}
func (handle) Close(context.Context)  {}
func (handle) Ended() <-chan struct{} { return nil }
func (handle) Size() int              { return 1 }

// request is an append under way from a worker to the log.
type request struct {
	records []*logged
	// incarnation is the batch's. The requests of a process that crashed, and releases, have no
	// waiting core.
	incarnation   uint64
	claim, orphan bool
	// base is where its first record went, when the client library has split it; else -1.
	base int64
}

// acknowledgement is a result under way from the log to a worker.
type acknowledgement struct {
	incarnation uint64
	claim       bool
	result      broker.AppendResult
}

// worker is a real core, and a model of what surrounds it: store, function, and the connections to
// the log.
type worker struct {
	name string
	core *Core
	// store is what a restart finds, fold what the rows hold. They differ while a group is open.
	store, fold folded
	// session is the function's last one, memory its counter.
	session handle
	closed  bool
	memory  uint8
	net     []request
	replies []acknowledgement
	// what the core waits for, beside acknowledgements.
	catchingUp bool
	gapUntil   int64
	claims     int
	// leaving: it was revoked and has not reported its release.
	leaving bool
	// cut: the log has lost records that this worker has folded.
	cut bool
}

func newWorker(s *scenario, i int) *worker {
	w := &worker{name: string(rune('A' + i)), gapUntil: -1}
	w.start(s)
	return w
}

// start starts a process: its memory is empty, and it is assigned.
func (w *worker) start(s *scenario) {
	limits := Limits{
		MaxWaitingEntity: 8, MaxCommit: 1 << 20, MaxCommitRecords: 8, AppendBytes: 2 << 20,
		AppendRecords: 8192, ActiveBytes: 1 << 20,
		Inflight: s.inflight, FillBytes: 1,
	}
	w.core = New(Config{Worker: w.name, Limits: limits})
}

func (w *worker) clone() *worker {
	n := *w
	n.core = cloneCore(w.core)
	n.net = slices.Clone(w.net)
	n.replies = slices.Clone(w.replies)
	return &n
}

// nonce is different for every claim of every worker.
func (w *worker) nonce() uint64 { return uint64(w.name[0]-'A'+1)<<8 | uint64(w.claims) }

// perform flushes and performs the core's effects until there are no more, as Partition and loop
// do.
func (x *world) perform(w *worker) {
	c := w.core
	c.Flush()
	for done, settled := 0, 0; done < len(c.effects); {
		fresh := c.effects[settled:]
		settled = len(c.effects)
		for i := range fresh {
			x.apply(w, fresh[i].Do)
		}
		for ; done < settled; done++ {
			x.do(w, c.effects[done])
		}
		c.Flush()
	}
	c.effects = nil
	w.catchingUp = w.catchingUp && c.state == CatchingUp
	if c.state != Suspect {
		w.gapUntil = -1
	}
	if !x.s.late {
		w.replies = slices.DeleteFunc(w.replies, func(r acknowledgement) bool { return r.incarnation != c.incarnation })
	}
	if fault := combination(c); fault != "" {
		x.blame("%s: %s", w.name, fault)
	}
	x.stuck(w)
}

// apply brings committed batches and skipped records into the store.
func (x *world) apply(w *worker, e Effect) {
	switch do := e.(type) {
	case Skip:
		for i := range do.Gap {
			r := &do.Gap[i].Record
			verdict := w.fold.step(x.s.records.of(&materializer.Entry{Envelope: do.Gap[i].Envelope, Value: r.Value}), r.Offset)
			// A build that passes over own records must be detected by what callers see.
			if verdict != record.Void && !mutation.On(mutation.Gap) {
				x.blame("%s skips a record that counts, at offset %d", w.name, r.Offset)
			}
		}
		w.saved()
	case Commit:
		for i := range do.Entries {
			// What the store makes of it is compared by the answers: a broken build must be detected by what
			// callers see.
			w.fold.step(x.s.records.of(&do.Entries[i]), do.Entries[i].Offset)
		}
		w.saved()
		if x.spent.cuts > 0 && !x.holds(do.Batch) {
			w.cut = true // its records were lost before their acknowledgement came
		}
		if w.cut && do.Result.Base >= x.cutAt && x.holds(do.Batch) {
			x.blame("%s answers although the log has lost what it answered for before", w.name)
		}
		for _, call := range do.Calls {
			x.answer(w, call)
		}
	default:
	}
}

// holds reports whether a batch stands in the log at the acknowledged offset. After a cut, one that
// was acknowledged before and is lost does not.
func (x *world) holds(b *Batch) bool {
	for i := range b.Entries {
		at := b.Entries[i].Offset
		if at >= int64(len(x.log)) || x.log[at] != x.s.records.of(&b.Entries[i]) {
			return false
		}
	}
	return true
}

// saved moves what a restart finds, unless a group is open.
func (w *worker) saved() {
	if !w.fold.rule.Open() {
		w.store = w.fold
	}
}

func (x *world) do(w *worker, e Emitted) {
	c := w.core
	switch do := e.Do.(type) {
	case CatchUp:
		w.catchingUp = true
	case Pause:
		c.Waited(e.Incarnation)
	case AppendClaim:
		w.claims++
		x.send(w, do.Batch, true)
	case Append:
		x.send(w, do.Batch, false)
	case FoldClaim:
		x.readBack(w, do.Offset)
	case Invoke:
		x.decide(w, do.Call)
	case Answer:
		x.answer(w, do.Call)
	case ReadGap:
		w.gapUntil = do.Until
	case Close:
		w.closed = w.closed || do.Session == w.session
	case Passivate:
		w.closed = true
		c.Passivated(do.Entity, e.Incarnation)
	case ReportReleased:
		x.released(w)
	case LoadOutbox:
		c.OutboxLoaded(nil, 0, false)
	case LoadOpen:
		c.OpenLoaded(nil, false)
	case LoadRefusals:
		c.RefusalsLoaded(nil)
	case LoadTimers:
		c.TimersLoaded(nil, false)
	case MarkHalted: // a modelled operator leaves the store alone
	case Open, Send, SweepOutbox, SearchTimers, DropRefusals, Fire, Sweep, Survey, Restore, StartOver, Resume,
		ReportRepaired, ReportResolved, Follow, Rest:
		x.blame("%s asks for what nothing in the model needs: effect %T", w.name, do)
	case Commit, Skip: // apply has done it
	}
}

func (x *world) send(w *worker, b *Batch, claim bool) {
	r := request{incarnation: b.Incarnation, claim: claim, base: -1}
	for i := range b.Entries {
		r.records = append(r.records, x.s.records.of(&b.Entries[i]))
	}
	w.net = append(w.net, r)
	x.note("%s sends %s", w.name, r)
}

// readBack folds up to the claim. The log below an offset never changes, so it does not matter when
// this is done.
func (x *world) readBack(w *worker, claim int64) {
	c := w.core
	if claim >= int64(len(x.log)) {
		c.Failed(c.incarnation, broker.ErrOutOfRange)
		return
	}
	w.fold.read(x.log, claim+1)
	if x.lost(w) {
		return
	}
	w.saved()
	for _, call := range c.waiting {
		x.lookup(w, call)
	}
	c.ReadBack(c.incarnation, w.fold.rule.Current, w.fold.next, 0)
	if c.state == Active {
		x.note("%s is active at offset %d with the counter at %d", w.name, w.fold.next, w.fold.count)
	} else {
		x.note("%s does not find itself the owner", w.name)
	}
}

func (x *world) lookup(w *worker, call *Call) {
	if call.Command.ID == "" {
		return
	}
	if d := w.fold.ids[opOf(call)]; d.known {
		call.Stored = &materializer.Stored{PayloadHash: call.hash, Offset: d.offset, Answer: []byte(d.answer)}
	}
}

// decide is the user function: it opens from what is stored, and goes on in memory.
func (x *world) decide(w *worker, call *Call) {
	var opening *Opening
	if call.Session() == nil {
		w.session, w.closed, w.memory = 3-max(w.session, 1), false, w.fold.count
		opening = &Opening{Session: w.session, Loaded: entities.Loaded{Sequence: w.fold.sequence}}
	} else if call.Session() != w.session || w.closed {
		x.blame("%s runs a command on a session that was closed", w.name)
	}
	if isRead(call) {
		w.core.Decided(call, opening, x.s.reading(w.memory), nil)
		return
	}
	w.memory++
	w.core.Decided(call, opening, x.s.increment(tryIn(call), w.memory), nil)
}

func (x *world) released(w *worker) {
	if !w.leaving {
		x.blame("%s says twice that it is released", w.name)
	}
	w.leaving = false
	if c := w.core; c.state == Active || c.state == Releasing || len(c.sent) > 0 {
		x.blame("%s says that it is released and goes on", w.name)
	}
	x.note("%s is released", w.name)
}

// stuck looks for a core that waits for an input that will never come.
func (x *world) stuck(w *worker) {
	c := w.core
	waits := slices.ContainsFunc(w.replies, func(r acknowledgement) bool { return r.incarnation == c.incarnation }) ||
		slices.ContainsFunc(w.net, func(r request) bool { return !r.orphan && r.incarnation == c.incarnation })
	switch {
	case c.state == CatchingUp && !w.catchingUp, c.state == Claiming && !waits,
		c.state == Suspect && w.gapUntil < 0, len(c.sent) > 0 && c.state != Suspect && !waits:
		x.blame("%s is %s and waits for nothing", w.name, c.state)
	case w.leaving && !waits && w.gapUntil < 0:
		x.blame("%s was revoked, is %s, and will never say that it is released", w.name, c.state)
	}
}

func isRead(call *Call) bool { return call.Command.Payload.Value[0] >= readMark }
func readIn(call *Call) int  { return int(call.Command.Payload.Value[0] - readMark) }
func tryIn(call *Call) try   { return try(call.Command.Payload.Value[0]) }
func opOf(call *Call) int    { return tryIn(call).op() }

func (r request) String() string {
	text := ""
	for i, l := range r.records {
		if i > 0 {
			text += ", "
		}
		text += l.String()
	}
	return text
}

func (l *logged) String() string {
	owner := fmt.Sprintf("(%d,%c%d)", l.epoch, 'A'+rune(l.nonce>>8)-1, l.nonce&0xff)
	if !l.hasData {
		name := map[record.Kind]string{record.Claim: "claim", record.Barrier: "barrier", record.Release: "release"}[l.kind]
		return name + owner
	}
	part := ""
	if l.count > 1 {
		part = fmt.Sprintf(" part %d/%d", l.index+1, l.count)
	}
	return fmt.Sprintf("%s=%d%s%s", try(l.try), l.value, part, owner)
}

func (t try) String() string {
	if t.first() {
		return fmt.Sprintf("increment %d", t.op())
	}
	return fmt.Sprintf("increment %d (try %d)", t.op(), t.number())
}
