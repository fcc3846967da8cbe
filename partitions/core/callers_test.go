package core

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

// TestCallersMayLeaveAtAnyMoment drives the real core with callers that send, send again under the
// same id, and leave, while functions refuse, crash and end their sessions, the log fails, and the
// partition is revoked and assigned. In the end every call has one answer, and every entity answers
// a new command.
func TestCallersMayLeaveAtAnyMoment(t *testing.T) {
	for seed := uint64(1); seed <= 3000 && !t.Failed(); seed++ {
		newCrowd(t, seed).run()
	}
}

// TestTheTurnOfAFollowerThatLeft is the shortest case: two calls under one id wait, the second
// leaves, then the first.
func TestTheTurnOfAFollowerThatLeft(t *testing.T) {
	c := newCrowd(t, 0)
	c.recover()
	slow := c.submit("a", "")
	first, again := c.submit("a", "x"), c.submit("a", "x")
	c.turn()
	for _, call := range []*attendee{again, first} {
		c.leave(call)
		c.turn()
	}
	c.decide(slow, 1)
	c.turn()
	c.ack(nil)
	c.turn()
	c.end()
}

// TestAFollowerIsDecidedAnewToo: an id is free, because its command was taken back, or its window
// is over. Two calls under it wait, and the first leaves. The second does not get what is stored
// under the id. Found by simulation: the forward of its decision waited for a caller that did not
// come.
func TestAFollowerIsDecidedAnewToo(t *testing.T) {
	failure := entities.Errorf(entities.FunctionFailed, entities.NotApplied, "crashed")
	for name, stored := range map[string]materializer.Stored{
		"taken back":  {Answer: record.EncodeAnswer(&entities.Outcome{Failure: failure})},
		"window over": {Answer: record.EncodeAnswer(&entities.Outcome{Reply: reply("old")}), LogTime: -int64(48 * time.Hour)},
	} {
		c := newCrowd(t, 0)
		c.recover()
		slow := c.submit("a", "")
		stored.PayloadHash = seated(withID(textCommand("a"), "x")).hash
		c.stored[seated(withID(textCommand("a"), "x")).commandID()] = stored
		first, again := c.submit("a", "x"), c.submit("a", "x")
		c.turn()
		c.leave(first)
		c.turn()
		c.decide(slow, 1)
		c.turn()
		c.ack(nil)
		c.recover()
		done, err := again.Committed()
		if err != nil || done.Repeated || done.Outcome.Reply == nil || string(done.Outcome.Reply.Payload.Value) != "done" {
			t.Errorf("%s: the follower is told %+v, %v; want what it was decided", name, done, err)
		}
		c.end()
	}
}

// attendee is a caller, and the result of its call.
type attendee struct {
	*Call
	*seat

	number int
	// turn is set while the function has the command.
	turn    bool
	answers int
	left    bool
	// denied is how many calls there were when its caller got "not applied".
	denied int
}

// crowd is a core, the callers of its partition, and a log and functions that follow a seed.
type crowd struct {
	t     *testing.T
	seed  uint64
	rng   *rand.Rand
	core  *Core
	calls []*attendee
	byKey map[*Call]*attendee
	// script lists what has happened.
	script []string
	// asked are effects that have no answer yet.
	asked []Emitted
	log   []*Batch
	// stored are the ids that are committed, sessions those that are open.
	stored   map[commandID]materializer.Stored
	sessions map[entities.Session]bool
	offset   int64
	epoch    uint64
}

func newCrowd(t *testing.T, seed uint64) *crowd {
	limits := Limits{MaxWaitingEntity: 4}.WithDefaults()
	c := &crowd{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 7)),
		core: New(Config{Worker: "w", Limits: limits, Single: seed%2 == 0}), byKey: map[*Call]*attendee{},
		stored: map[commandID]materializer.Stored{}, sessions: map[entities.Session]bool{},
	}
	c.core.Assigned(false)
	c.turn()
	return c
}

func (c *crowd) note(format string, args ...any) {
	c.script = append(c.script, fmt.Sprintf(format, args...))
}

func (c *crowd) wrong(format string, args ...any) {
	c.t.Helper()
	if !c.t.Failed() {
		c.t.Errorf("seed %d: %s\n%s", c.seed, fmt.Sprintf(format, args...), strings.Join(c.script, "\n"))
	}
}

func (c *crowd) run() {
	c.recover()
	for range 150 {
		c.step()
		if c.rng.IntN(3) > 0 { // several inputs may be one turn of the loop
			c.turn()
		}
	}
	c.end()
}

// step is one thing that happens.
func (c *crowd) step() {
	some := func(of func(*attendee) bool) *attendee {
		var able []*attendee
		for _, a := range c.calls {
			if of(a) {
				able = append(able, a)
			}
		}
		if len(able) == 0 {
			return nil
		}
		return able[c.rng.IntN(len(able))]
	}
	switch n := c.rng.IntN(34); {
	case n < 10:
		id := ""
		if c.rng.IntN(4) > 0 {
			id = fmt.Sprint(len(c.calls) / 6 * 2) // several calls share one
		}
		c.submit([]string{"a", "b"}[c.rng.IntN(2)], id)
	case n < 15:
		if a := some(func(a *attendee) bool { return !a.left && a.answers == 0 }); a != nil {
			c.leave(a)
		}
	case n < 21:
		if a := some(func(a *attendee) bool { return a.turn }); a != nil {
			c.decide(a, c.rng.IntN(9))
		}
	case n < 25:
		c.ack(nil)
	case n == 25:
		c.ack([]error{errors.New("timed out"), broker.ErrNotWritten}[c.rng.IntN(2)])
	case n == 26:
		c.note("revoked or assigned")
		if c.core.assigned {
			c.core.Revoked()
		} else {
			c.core.Assigned(false)
		}
	case n == 27:
		if c.rng.IntN(2) == 0 {
			c.note("lost")
			c.core.Lost()
		}
	case n == 28:
		c.core.now.Mono += time.Duration(c.rng.IntN(3000)) * time.Millisecond
		c.core.Ticked()
	default:
		c.reply(c.rng.IntN(4) == 0)
	}
}

func (c *crowd) submit(id, command string) *attendee {
	c.turn() // as the loop does before it asks the store
	cmd := withID(textCommand(id), command)
	call := seated(cmd)
	a := &attendee{Call: call, seat: call.Caller.(*seat), number: len(c.calls)}
	c.calls = append(c.calls, a)
	c.byKey[a.Call] = a
	c.note("call %d to %s, id %q", a.number, id, command)
	if stored, known := c.stored[a.commandID()]; known && a.Named() {
		a.Stored = &stored
	}
	c.core.Submitted(a.Call)
	return a
}

func textCommand(id string) *entities.Command { return command(id, "do") }

func (c *crowd) leave(a *attendee) {
	was := a.step(Phase.Leave)
	if !was.MayLeave() {
		return
	}
	a.left = true
	c.note("call %d leaves in phase %d", a.number, was)
	if was == PhaseQueued && c.core.single {
		c.deny(a)
	}
	if was != PhaseDecided {
		c.core.Withdrawn(a.Call)
	}
}

// deny notes that a caller got "not applied" for its command. That is wrong if the command was
// applied, or is later, by an earlier attempt.
func (c *crowd) deny(a *attendee) {
	if !a.Named() {
		return
	}
	c.note("call %d was not applied, its caller is told", a.number)
	a.denied = len(c.calls)
	if _, known := c.stored[a.commandID()]; known {
		c.wrong("call %d was not applied, and its id is in the store", a.number)
	}
}

// decide is the function's decision.
func (c *crowd) decide(a *attendee, verdict int) {
	session := a.Session()
	a.turn = false
	var opening *Opening
	if session == nil {
		session = &stagedSession{number: len(c.sessions), size: 1}
		c.sessions[session] = true
		opening = &Opening{Session: session}
	} else if verdict == 0 {
		c.note("session of call %d has ended", a.number)
		a.left = a.step(Phase.Requeued) == PhaseForsaken
		c.core.SessionEnded(a.Call)
		return
	}
	a.at = PhaseDecided
	c.note("call %d is decided: %d", a.number, verdict)
	out := &entities.Outcome{Reply: reply("done")}
	switch verdict {
	case 0, 1, 2, 3:
		out.Events = make([]entities.Payload, 1)
	case 4:
		out = &entities.Outcome{Restart: true, Reply: reply("done")}
	case 5:
		c.core.Decided(a.Call, opening, nil, entities.Errorf(entities.FunctionFailed, entities.NotApplied, "crashed"))
		return
	case 6:
		out.Events = []entities.Payload{{Value: make([]byte, 1<<20)}} // more than a command may store
	case 8:
		c.core.Decided(a.Call, opening, nil, entities.Errorf(entities.Deadline, entities.NotApplied, "given up"))
		return
	default:
	}
	c.core.Decided(a.Call, opening, out, nil)
}

// ack answers the oldest append.
func (c *crowd) ack(err error) {
	if len(c.log) == 0 {
		return
	}
	b := c.log[0]
	c.log = c.log[1:]
	c.note("the log answers: %v", err)
	if err != nil && !errors.Is(err, broker.ErrNotWritten) && b.Incarnation == c.core.incarnation && c.rng.IntN(2) == 0 {
		c.note("it has them all the same")
		for i := range b.Entries {
			b.Entries[i].Offset = c.offset
			c.offset++
		}
		c.store(b)
	}
	if err != nil || b.Incarnation != c.core.incarnation { // what a fenced owner sent has not arrived
		c.core.Acked(b, broker.AppendResult{Base: -1, Last: -1, Err: err})
		return
	}
	base := c.offset
	c.offset += int64(len(b.Entries))
	c.core.Acked(b, broker.AppendResult{Base: base, Last: c.offset - 1})
}

// reply answers an effect of the core.
func (c *crowd) reply(fails bool) {
	if len(c.asked) == 0 {
		return
	}
	i := c.rng.IntN(len(c.asked))
	e := c.asked[i]
	c.asked = slices.Delete(c.asked, i, i+1)
	owner := record.Owner{Epoch: c.epoch, Nonce: c.epoch}
	switch do := e.Do.(type) {
	case CatchUp:
		if fails {
			c.core.Failed(e.Incarnation, errors.New("the log cannot be read"))
			return
		}
		c.core.CaughtUp(owner, c.offset, c.epoch+1, nil)
	case AppendClaim:
		if fails || e.Incarnation != c.core.incarnation {
			c.core.ClaimAcked(e.Incarnation, broker.AppendResult{Err: errors.New("refused")})
			return
		}
		c.epoch++
		c.offset++
		c.core.ClaimAcked(e.Incarnation, broker.AppendResult{Base: c.offset - 1, Last: c.offset - 1})
	case FoldClaim:
		for _, call := range c.core.waiting { // as the loop does
			if stored, known := c.stored[call.commandID()]; known && call.Named() {
				call.Stored = &stored
			}
		}
		c.core.ReadBack(e.Incarnation, owner, c.offset, 0)
	case Pause:
		c.core.Waited(e.Incarnation)
	case Open:
		opening := &Opening{Session: &stagedSession{number: len(c.sessions), size: 1}}
		c.sessions[opening.Session] = true
		c.core.Opened(do.Entity, e.Incarnation, opening, nil)
	case Passivate:
		c.core.Passivated(do.Entity, e.Incarnation)
	default:
		c.t.Fatalf("effect %T has no answer", do)
	}
}

// turn performs the core's effects, as the loop does.
func (c *crowd) turn() {
	c.core.Flush()
	if fault := combination(c.core); fault != "" {
		c.wrong("%s", fault)
	}
	for i := 0; i < len(c.core.effects); i++ {
		e := c.core.effects[i]
		switch do := e.Do.(type) {
		case CatchUp, AppendClaim, FoldClaim, Pause:
			c.asked = append(c.asked, e)
		case Open:
			delete(c.sessions, do.Ending)
			c.asked = append(c.asked, e)
		case Passivate:
			delete(c.sessions, do.Session)
			c.asked = append(c.asked, e)
		case Invoke:
			if !c.byKey[do.Call].step(Phase.Run).MayRun() {
				c.core.Withdrawn(do.Call)
				break
			}
			c.byKey[do.Call].turn = true
		case Close:
			delete(c.sessions, do.Session)
		case Append:
			if do.Incarnation != unanswered {
				c.log = append(c.log, do.Batch)
			} else {
				c.offset++
			}
		case Commit:
			c.commit(do.Batch)
		case Answer:
			c.answer(do.Call)
		case LoadOutbox:
			c.core.OutboxLoaded(nil, 0, false)
		case LoadOpen:
			c.core.OpenLoaded(nil, false)
		case LoadTimers:
			c.core.TimersLoaded(nil, false)
		case LoadRefusals:
			c.core.RefusalsLoaded(nil)
		case ReportReleased:
		default:
			c.t.Fatalf("effect %T is not expected", do)
		}
	}
	c.core.effects = c.core.effects[:0]
}

func (c *crowd) commit(b *Batch) {
	c.store(b)
	for _, call := range b.Calls {
		c.answer(call)
	}
}

// store commits a batch.
func (c *crowd) store(b *Batch) {
	for i := range b.Entries {
		if env := &b.Entries[i].Envelope; env.CommandID != "" {
			id := commandID{key: keyOf(b.Entries[i].Key), id: env.CommandID}
			if _, twice := c.stored[id]; twice {
				c.wrong("id %q of %s is stored twice", id.id, id.key)
			}
			c.stored[id] = materializer.Stored{
				PayloadHash: env.PayloadHash, Offset: b.Entries[i].Offset, LogTime: env.LogTime, Answer: env.Answer,
			}
		}
	}
	for _, call := range b.Calls {
		for _, a := range c.calls {
			if a.Named() && call.wrote && a.commandID() == call.commandID() && a.denied > c.byKey[call].number {
				c.wrong("call %d was not applied, and call %d applies it", a.number, c.byKey[call].number)
			}
		}
	}
}

// answer does what Partition.complete does.
func (c *crowd) answer(call *Call) {
	a := c.byKey[call]
	if a.left {
		return
	}
	a.answers++
	if a.answers > 1 {
		c.wrong("call %d is answered %d times", a.number, a.answers)
	}
	a.at = PhaseAnswered
	if _, err := call.Committed(); err != nil && entities.AsError(err).Checked {
		c.deny(a)
	}
}

// recover makes every step succeed until nothing is left to do.
func (c *crowd) recover() {
	for range 1000 {
		c.turn()
		if !c.core.assigned {
			c.core.Assigned(false)
			c.turn()
		}
		before := len(c.asked) + len(c.log)
		c.reply(false)
		c.ack(nil)
		for _, a := range c.calls {
			if a.turn {
				c.decide(a, 7)
				before++
			}
		}
		c.turn()
		if before == 0 && c.core.state == Active {
			return
		}
	}
	c.wrong("the partition is %s, and does not come to rest", c.core.state)
}

// end checks that no call was forgotten.
func (c *crowd) end() {
	c.t.Helper()
	c.recover()
	for _, a := range c.calls {
		if !a.left && a.answers == 0 {
			c.wrong("call %d has no answer", a.number)
		}
	}
	for _, key := range []string{"a", "b"} {
		fresh := c.submit(key, "")
		c.recover()
		if fresh.answers != 1 || fresh.Err != nil {
			c.wrong("a fresh command on %s has %d answers, error %v", key, fresh.answers, fresh.Err)
		}
	}
	core, open := c.core, 0
	for e := core.all.first; e != nil; e = e.next {
		if !e.quiet() {
			c.wrong("%s is not quiet", e.Key)
		}
		if e.session != nil {
			open++
		}
	}
	if len(core.ids) > 0 || len(core.waiting) > 0 {
		c.wrong("%d ids and %d waiting calls are left", len(core.ids), len(core.waiting))
	}
	if len(c.sessions) != open {
		c.wrong("%d sessions are open, and the core knows %d", len(c.sessions), open)
	}
}
