package core

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

// TestTranscripts plays the transcripts under testdata to a real core. Each shows a rule of the log
// protocol. A paragraph is one turn of the loop: its lines are inputs, named after the methods of
// core. Below them are the core's effects, in order, and after -- its state, if it has changed. An
// answer must belong to an effect of the core that has no answer yet, so that a transcript cannot
// show what never happens. Batches, calls and sessions are numbered from 1.
//
//	standby [single]                    a new core; single: a lock keeps other writers out
//	active [single] [inflight=] [fill=] [memory=]
//	                                    one that owns the partition as 1/7 (epoch and nonce), by a claim at offset 0
//	assigned | revoked | lost           what membership says
//	caught-up next= [owner=] nonce=     the log was folded up to next
//	claim-acked base= | error=          the log's answer to the claim; base=-1: it did not say where
//	read-back next= owner=              who owns the partition, once the claim is folded
//	waited                              the pause before another attempt is over
//	submitted key= [id=] [text=] [source=] [consistency=]
//	                                    a command; the store knows what was committed under its id, or from its source
//	decided call= [events=] [effect=] [size=] | error=
//	                                    the function's decision; size is that of the session from now on
//	withdrawn call=                     the caller left
//	acked batch= base= [last=] | error= [not-written]
//	gap-read <kind>=<owner>... | error= the records in the gap; foreign: one without envelope
//	passivated key=                     a session was closed in order
//	outbox-loaded [offset= to=]         the store has this effect open; nothing: it has none
//	delivered offset= [error=]          the answer of an effect's target; error: it could not be reached
//	ticked [after=]                     the clock, after a while
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &scene{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.take(newLine(t, d.Pos, d.Cmd, d.CmdArgs))
			for text := range strings.Lines(d.Input) {
				name, args, err := datadriven.ParseLine(text)
				if err != nil {
					d.Fatalf(t, "%v", err)
				}
				s.take(newLine(t, d.Pos, name, args))
			}
			if fault := combination(s.core); fault != "" {
				d.Fatalf(t, "%s", fault)
			}
			return s.perform(t)
		})
	})
}

// scene is a core, and what surrounds it as far as a transcript needs it.
type scene struct {
	core    *Core
	calls   []*Call
	batches []*Batch
	opened  int
	// asked holds, by name, what the core has asked for and has no answer to yet.
	asked map[string]Emitted
	// sessions are those on which the calls run.
	sessions map[*Call]*stagedSession
	// stored and sequences are what a store would have: of commands with a name, and of entities.
	stored    map[commandID]materializer.Stored
	sequences map[entities.Key]uint64
	out       strings.Builder
	shown     string
}

// stagedSession is the session of a function whose decisions stand in the transcript.
type stagedSession struct {
	entities.Session

	number, size int
}

func (s *stagedSession) Size() int { return s.size }

func (s *scene) begin(c *Core, l *line) {
	*s = scene{
		core: c, asked: map[string]Emitted{}, sessions: map[*Call]*stagedSession{},
		stored: map[commandID]materializer.Stored{}, sequences: map[entities.Key]uint64{},
	}
	c.now = Now{Mono: time.Second, Log: int64(time.Hour)}
	c.limits.Inflight = int(l.number("inflight", int64(c.limits.Inflight)))
	c.limits.FillBytes = int(l.number("fill", int64(c.limits.FillBytes)))
	c.limits.ActiveBytes = int(l.number("memory", int64(c.limits.ActiveBytes)))
}

// take passes an input to the core.
func (s *scene) take(l *line) {
	c := s.core
	switch l.name {
	case "standby":
		s.begin(New(Config{Worker: "w", Limits: Limits{}.WithDefaults(), Single: l.has("single")}), l)
	case "active":
		s.begin(activeCore(l.t, l.has("single")), l)
	case "assigned":
		c.Assigned(false)
	case "revoked":
		c.Revoked()
	case "lost":
		c.Lost()
	case "caught-up":
		s.answered(l, "catch-up")
		c.CaughtUp(l.owner(l.text("owner", "0/0")), l.number("next", 0), uint64(l.number("nonce", 0)), nil)
	case "claim-acked":
		c.ClaimAcked(s.answered(l, "claim").Incarnation, l.result(1))
	case "read-back":
		c.ReadBack(s.answered(l, "read-back").Incarnation, l.owner(l.text("owner", "0/0")), l.number("next", 0), 0)
	case "waited":
		c.Waited(s.answered(l, "pause").Incarnation)
	case "submitted":
		s.submit(l)
	case "decided":
		s.decide(l)
	case "withdrawn":
		c.Withdrawn(s.calls[l.number("call", 0)-1])
	case "acked":
		b := s.answered(l, "batch %d", l.number("batch", 0)).Do.(Append).Batch
		c.Acked(b, l.result(len(b.Entries)))
	case "gap-read":
		e := s.answered(l, "gap")
		gap, err := l.gap()
		if err == nil && int64(len(gap)) != e.Do.(ReadGap).Until-c.next {
			l.fatalf("the gap has %d records", e.Do.(ReadGap).Until-c.next)
		}
		for i := range gap {
			gap[i].Record.Offset = c.next + int64(i)
		}
		c.GapRead(e.Incarnation, gap, err)
	case "passivated":
		e := s.answered(l, "passivation of %s", l.text("key", ""))
		c.Passivated(e.Do.(Passivate).Entity, e.Incarnation)
	case "outbox-loaded":
		s.answered(l, "outbox")
		var (
			effects []*Delivery
			open    []int64
		)
		if key := l.text("to", ""); key != "" {
			open = append(open, l.number("offset", 0))
			effects = append(effects, &Delivery{
				Offset: open[0], Effect: entities.SideEffect{Target: entities.Target{Method: key}},
			})
		}
		c.OpenLoaded(open, false)
		c.OutboxLoaded(effects, c.next, false)
	case "delivered":
		s.deliver(l)
	case "ticked":
		after, err := time.ParseDuration(l.text("after", "0s"))
		if err != nil {
			l.fatalf("%v", err)
		}
		c.now.Mono += after
		c.now.Log += int64(after)
		c.Ticked()
	default:
		l.fatalf("unknown input")
	}
	l.end()
}

func (s *scene) submit(l *line) {
	cmd := withID(command(l.text("key", ""), l.text("text", "do")), l.text("id", ""))
	if source := l.text("source", ""); source != "" {
		partition, offset := l.pair(source)
		cmd.Source = &entities.Source{Generation: 1, Partition: uint16(partition), Offset: offset}
	}
	for name := l.text("consistency", "strong"); cmd.Consistency.String() != name; cmd.Consistency++ {
		if cmd.Consistency == entities.Eventual {
			l.fatalf("no transcript shows %s", name)
		}
	}
	call := &Call{Caller: &seat{}, Command: cmd}
	if cmd.ID != "" {
		call.hash = commandHash(cmd)
	}
	if stored, known := s.stored[call.commandID()]; known && call.Named() {
		call.Stored = &stored
	}
	s.calls = append(s.calls, call)
	s.core.Submitted(call)
}

func (s *scene) decide(l *line) {
	call := s.answered(l, "call %d", l.number("call", 0)).Do.(Invoke).Call
	session := s.sessions[call]
	var opening *Opening
	if call.Session() == nil {
		opening = &Opening{Session: session, Loaded: entities.Loaded{Sequence: s.sequences[call.Command.Key]}}
	}
	session.size = int(l.number("size", int64(session.size)))
	if message := l.text("error", ""); message != "" {
		s.core.Decided(call, opening, nil, entities.Errorf(entities.FunctionFailed, entities.NotApplied, "%s", message))
		return
	}
	out := &entities.Outcome{Reply: reply("done"), Events: make([]entities.Payload, l.number("events", 0))}
	if key := l.text("effect", ""); key != "" {
		out.Effects = []entities.SideEffect{{Target: entities.Target{Method: key}}}
	}
	s.core.Decided(call, opening, out, nil)
}

func (s *scene) deliver(l *line) {
	offset := l.number("offset", 0)
	s.answered(l, "delivery of %d", offset)
	if message := l.text("error", ""); message != "" {
		s.core.Delivered(offset, nil, entities.Errorf(entities.Unavailable, entities.NotApplied, "%s", message))
		return
	}
	s.core.Delivered(offset, nil, nil)
}

// await remembers that the core waits for an answer.
func (s *scene) await(e Emitted, format string, args ...any) {
	s.asked[fmt.Sprintf(format, args...)] = e
}

// answered returns the effect that an input answers.
func (s *scene) answered(l *line, format string, args ...any) Emitted {
	what := fmt.Sprintf(format, args...)
	e, asked := s.asked[what]
	if !asked {
		l.fatalf("the core does not wait for an answer about: %s", what)
	}
	delete(s.asked, what)
	return e
}

// perform flushes, as the loop does at the end of a turn, and prints the core's effects.
func (s *scene) perform(t *testing.T) string {
	t.Helper()
	c := s.core
	c.Flush()
	for _, e := range c.effects {
		s.show(t, e)
	}
	c.effects = nil
	if now := s.state(); now != s.shown {
		s.sayf("%s", now)
		s.shown = now
	}
	if s.out.Len() == 0 {
		s.sayf("nothing")
	}
	defer s.out.Reset()
	return s.out.String()
}

func (s *scene) sayf(format string, args ...any) { _, _ = fmt.Fprintf(&s.out, format+"\n", args...) }

func (s *scene) state() string {
	c := s.core
	line := fmt.Sprintf("-- %s, next %d", c.state, c.next)
	if c.owner != (record.Owner{}) {
		line += fmt.Sprintf(", owner %d/%d", c.owner.Epoch, c.owner.Nonce)
	}
	for _, part := range []struct {
		what string
		n    int
	}{
		{"batches under way", len(c.sent)},
		{"full batches wait", len(c.full)},
		{"calls in the open batch", len(c.open.Calls)},
		{"calls wait for the claim", len(c.waiting)},
	} {
		if part.n > 0 {
			line += fmt.Sprintf(", %s: %d", part.what, part.n)
		}
	}
	return line
}

// show prints one effect of the core.
func (s *scene) show(t *testing.T, e Emitted) {
	t.Helper()
	switch do := e.Do.(type) {
	case CatchUp:
		s.sayf("read the log to its end")
		s.await(e, "catch-up")
	case AppendClaim:
		s.append(do.Batch)
		s.await(e, "claim")
	case FoldClaim:
		s.sayf("read the log back up to and including %d", do.Offset)
		s.await(e, "read-back")
	case Pause:
		s.sayf("pause before retry %d", do.Attempt)
		s.await(e, "pause")
	case Invoke:
		s.invoke(do.Call)
		s.await(e, "call %d", s.called(do.Call))
	case Close:
		s.sayf("close session %d", numberOf(do.Session))
	case Passivate:
		s.sayf("passivate %s: close session %d in order", do.Entity.Key.ID, numberOf(do.Session))
		s.await(e, "passivation of %s", do.Entity.Key.ID)
	case Append:
		s.append(do.Batch)
		s.await(e, "batch %d", len(s.batches))
	case Commit:
		s.commit(do.Batch)
	case Answer:
		s.answer(do.Call)
	case ReadGap:
		s.sayf("read the gap from %d to %d", do.From, do.Until-1)
		s.await(e, "gap")
	case Skip:
		s.sayf("skip %d records that change nothing", len(do.Gap))
	case Send:
		s.sayf("send the effect of offset %d to %s; effects below %d are done%s",
			do.Offset, do.Delivery.Effect.Target.Method, do.Progress.Through, except(do.Progress.Open))
		s.await(e, "delivery of %d", do.Offset)
	case LoadOutbox:
		s.sayf("load open effects from the store")
		s.await(e, "outbox")
	case LoadRefusals:
		s.sayf("load refusals from the store")
		s.core.RefusalsLoaded(nil)
	case LoadOpen: // together with the effects
	case LoadTimers:
		s.sayf("load timers from the store")
		s.await(e, "timers")
	case MarkHalted:
		s.sayf("halt, and remember that offsets below %d are used", do.Next)
	case ReportReleased:
		s.sayf("say that the partition is released")
	default:
		t.Fatalf("no transcript shows effect %T", do)
	}
}

func (s *scene) invoke(call *Call) {
	session, open := call.Session().(*stagedSession)
	if open {
		s.sayf("invoke call %d on %s, in session %d", s.called(call), call.Command.Key.ID, session.number)
	} else {
		s.opened++
		session = &stagedSession{number: s.opened, size: 1000}
		s.sayf("invoke call %d on %s, in a new session %d", s.called(call), call.Command.Key.ID, s.opened)
	}
	s.sessions[call] = session
}

// append prints a batch. Claims are numbered like the others, and answered by another input.
func (s *scene) append(b *Batch) {
	s.batches = append(s.batches, b)
	owner, records := record.Owner{}, make([]string, len(b.Entries))
	for i := range b.Entries {
		env := &b.Entries[i].Envelope
		owner = record.Owner{Epoch: env.Epoch, Nonce: env.Nonce}
		records[i] = strings.ToLower(strings.TrimPrefix(env.Kind.String(), "KIND_"))
		if key := keyOf(b.Entries[i].Key); key.ID != "" {
			records[i] += " of " + key.ID
		}
		if env.Sequence > 0 {
			records[i] += fmt.Sprintf(" #%d", env.Sequence)
		}
	}
	s.sayf("append batch %d as %d/%d: %s", len(s.batches), owner.Epoch, owner.Nonce, strings.Join(records, ", "))
}

func (s *scene) commit(b *Batch) {
	s.sayf("commit batch %d: offsets %d to %d",
		slices.Index(s.batches, b)+1, b.Entries[0].Offset, b.Entries[len(b.Entries)-1].Offset)
	for i := range b.Entries {
		env, key := &b.Entries[i].Envelope, keyOf(b.Entries[i].Key)
		s.sequences[key] = max(s.sequences[key], env.Sequence)
		if len(env.Answer) == 0 {
			continue
		}
		id := commandID{key: key, principal: env.Principal, id: env.CommandID}
		if cause := env.Cause; cause != nil {
			id = commandID{source: entities.SourceID{
				Generation: uint16(cause.Generation), Partition: uint16(cause.Partition), Offset: int64(cause.Offset),
			}}
		}
		s.stored[id] = materializer.Stored{
			PayloadHash: env.PayloadHash, Offset: b.Entries[i].Offset, LogTime: env.LogTime, Answer: env.Answer,
		}
	}
	for _, call := range b.Calls { // as the loop does when the store has the batch
		s.answer(call)
	}
}

func (s *scene) answer(call *Call) {
	n := s.called(call)
	switch {
	case call.Err != nil:
		s.sayf("answer call %d: %s: %s", n, call.Err.Outcome, call.Err.Message)
	case call.Stored != nil:
		s.sayf("answer call %d: the answer that is stored with offset %d", n, call.Stored.Offset)
	default:
		s.sayf("answer call %d: done, on what the log has below %d", n, call.Next)
	}
}

func except(open []int64) string {
	if len(open) == 0 {
		return ""
	}
	return fmt.Sprintf(" but for %v", open)
}

func (s *scene) called(call *Call) int { return slices.Index(s.calls, call) + 1 }

func numberOf(session entities.Session) int { return session.(*stagedSession).number }

func keyOf(b []byte) entities.Key {
	typ, id, _ := strings.Cut(string(b), "/")
	return entities.Key{Type: typ, ID: id}
}
