package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// This file is one command's way through a session: send (begin, fill), await, outcome, leave.
// ahead.go has commands whose way begins before their turn.

// Handle lets the function decide about one command.
func (s *session) Handle(_ context.Context, inv entities.Invocation) (*entities.Outcome, error) {
	m := s.service.Method(inv.Method)
	if m == nil {
		return nil, unknownMethod(s.service, inv.Method)
	}
	s.remote.stats.commands.Add(1)
	out, err := s.handle(m, inv)
	s.remote.stats.decided(out, err)
	return out, err
}

func (s *session) handle(m *discovery.Method, inv entities.Invocation) (*entities.Outcome, error) {
	s.watch.Reset(s.remote.options.FunctionTimeout)
	defer s.watch.Stop()
	if fault := s.enter(); fault != nil {
		return nil, fault
	}
	if len(s.sent) == 0 {
		if err := s.send(inv); err != nil {
			return nil, s.abandon(err)
		}
	}
	sent := s.sent[0]
	s.sent = slices.Delete(s.sent, 0, 1)
	if sent.command != inv.Command { // the function's memory has what will never be decided
		fault := entities.Errorf(entities.Internal, entities.NotApplied,
			"%s: the function was sent %s, and the engine asks about %s", s.key, sent.command.Method, inv.Method)
		s.finish(fault)
		return nil, fault
	}
	a, fault := s.await()
	if fault != nil && errors.Is(fault, errGaveUp) {
		return nil, entities.Errorf(entities.Deadline, entities.NotApplied,
			"the deadline of the call passed while the function worked: it gave up the command: nothing was applied")
	}
	if fault != nil {
		return nil, fault
	}
	out, err := s.outcome(m, sent.at, a)
	if err != nil {
		fault := functionFailed(fmt.Sprintf("%s: %s: %s", s.kind.texts().reply, m.FullName, err), nil)
		s.finish(fault)
		return nil, fault
	}
	s.leave()
	return out, nil
}

// leave ends a command that went well. If the function ended the stream right after its answer,
// this is when that shows.
func (s *session) leave() {
	s.mu.Lock()
	s.busy = false
	over := s.fault != nil
	s.mu.Unlock()
	if over {
		s.endedByFunction()
	}
}

// enter begins what leave ends. Only a command that was sent before has business with a session
// that has ended: its answer may have arrived first.
func (s *session) enter() *entities.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil && len(s.sent) == 0 {
		return functionFailed(s.service.Kind.Spec().Terminated, s.fault)
	}
	s.busy = true
	return nil
}

// sentCommand is a command under way, and the time that the function was given.
type sentCommand struct {
	command *entities.Command
	at      time.Time
}

// send sends the function a command.
func (s *session) send(inv entities.Invocation) error {
	id := s.begin()
	s.fill(id, inv)
	s.messages.command(&s.command)
	err := s.channel.send(s.messages)
	s.payload.Value = nil // an idle session need not hold it
	if err != nil {
		s.unbegin(id)
		return err
	}
	s.sent = append(s.sent, sentCommand{command: inv.Command, at: inv.Time})
	return nil
}

// begin numbers the next command.
func (s *session) begin() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	if s.running == idle {
		s.running, s.began = s.lastID, time.Now()
	}
	return s.lastID
}

// unbegin takes the number of a command back that was not sent.
func (s *session) unbegin(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID--
	if s.running == id {
		s.running = idle
	}
}

// fill writes the command into the message that is sent. Entities get no metadata but the trace
// context of a call that has one: the protocol's tests compare whole messages.
func (s *session) fill(id int64, inv entities.Invocation) {
	s.payload.TypeUrl, s.payload.Value = inv.Payload.TypeURL, inv.Payload.Value
	s.command.EntityId = s.key.ID
	s.command.Id = id
	s.command.Name = inv.Method
	s.command.Payload = &s.payload
	s.command.Metadata = metadataToWire(traced(nil, inv.TraceParent))
	if s.remote.announced(cloudstate.MillraceExtension_MILLRACE_COMMAND_CONTEXT) {
		s.command.Context = contextOf(inv)
	}
}

// contextOf is what a function of ours learns about a command beyond the protocol.
func contextOf(inv entities.Invocation) *cloudstate.CommandContext {
	c := &cloudstate.CommandContext{
		CommandId: asText(inv.ID), Principal: asText(inv.Principal),
		Metadata: metadataToWire(traced(inv.Metadata, inv.TraceParent)), Timers: true, Refusals: true,
	}
	if !inv.Time.IsZero() {
		c.TimeUnixNanos = inv.Time.UnixNano()
	}
	if !inv.Deadline.IsZero() {
		c.TimeoutNanos = max(1, int64(time.Until(inv.Deadline)))
	}
	return c
}

// await returns the answer to the running command, or why there will be none. It does not end with
// the caller: the function has the command, and others wait behind it.
func (s *session) await() (*answer, *entities.Error) {
	select {
	case a := <-s.answers:
		return a, nil
	case <-s.done:
	}
	select {
	case a := <-s.answers: // it came just before the end
		return a, nil
	default:
		return nil, s.reason()
	}
}

// outcome puts an answer into the engine's words and checks it.
func (s *session) outcome(m *discovery.Method, now time.Time, a *answer) (*entities.Outcome, error) {
	out := &entities.Outcome{Effects: effectsOf(a.effects), Timers: s.timersOf(a.timers)}
	setAction(out, a.action, s.remote.announced(cloudstate.MillraceExtension_MILLRACE_FAILURE_CODE))
	s.kind.outcome(a, out)
	if dropBesideRefusal(out) {
		s.remote.warnOfRefusal(m)
	}
	if err := s.checkTimers(out, now); err != nil {
		return nil, err
	}
	if err := s.kind.check(out, s.remote.options.MaxCommitRecords); err != nil {
		return nil, err
	}
	if err := checkEffects(out, s.service); err != nil {
		return nil, err
	}
	s.remote.warnOfReply(m, out.Reply)
	s.bytes.Store(s.kind.weigh(s.bytes.Load(), out))
	return out, nil
}

// checkTimers says why the timers that a remote function sets cannot be: its field is ours, and
// counts only from one that knows of it.
func (s *session) checkTimers(out *entities.Outcome, now time.Time) error {
	if len(out.Timers) > 0 && !s.remote.announced(cloudstate.MillraceExtension_MILLRACE_COMMAND_CONTEXT) {
		return errTimersUnannounced
	}
	return checkTimers(out, s.service, s.key, now)
}
