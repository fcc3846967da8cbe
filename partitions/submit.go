package partitions

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/tracing"
	"github.com/millrace-io/millrace/materializer"
)

// The phases of a call, for the caller's goroutine and the loop to agree on.
const (
	// phaseQueued: the function has not seen it; the caller may leave. No other attempt at the command is known.
	phaseQueued = iota
	// phaseUnchecked is phaseQueued of a command with a name, while another attempt may have taken effect or still can: no owner has
	// looked for one yet, or there is one.
	phaseUnchecked
	// phaseRunning: it is the caller's turn to run the function, or the function has been sent the command ahead of its turn.
	phaseRunning
	// phaseDecided: the function has decided; the answer waits for the log.
	phaseDecided
	// phaseAnswered: the answer is there.
	phaseAnswered
	// phaseLeft: the caller is gone.
	phaseLeft
)

// meeting is where the caller's goroutine and the loop meet.
type meeting struct {
	phase atomic.Int32
	// wake has room for the two signals that a caller can get: your turn, and your answer.
	wake    chan struct{}
	session entities.Session
	at      int64
	// behind are the commands to announce to the session, the call's own one first.
	behind []entities.Invocation
}

// errSuperseded ends the command of a timer that was cancelled or set anew.
var errSuperseded = errors.New("the timer was cancelled or set anew")

// Submit runs a command on its entity and returns what was decided, after it is durable. The function runs on the calling
// goroutine. When ctx ends before the function's turn, nothing is applied; when it ends later, the outcome is unknown. Errors are
// *entities.Error, and speak of this attempt.
func (p *Partition) Submit(ctx context.Context, cmd *entities.Command) (entities.Committed, error) {
	ctx, span := p.tracer.Begin(ctx, tracing.Internal, "partition", cmd.TraceParent)
	if span == nil {
		return p.await(ctx, cmd)
	}
	span.SetInt("millrace.partition", int64(p.id))
	done, err := p.await(ctx, cmd.WithTraceParent(span.Parent()))
	span.End(err)
	return done, err
}

func newCall(cmd *entities.Command) *Call {
	call := &Call{cmd: cmd}
	call.wait.wake = make(chan struct{}, 2)
	if call.named() {
		call.wait.phase.Store(phaseUnchecked)
	}
	if cmd.ID != "" {
		call.hash = commandHash(cmd)
	}
	return call
}

// await is Submit below its span: a part of it for the time in the queue, for the function, and for the log.
func (p *Partition) await(ctx context.Context, cmd *entities.Command) (_ entities.Committed, err error) {
	_, part := p.tracer.Begin(ctx, tracing.Internal, "queue", cmd.TraceParent)
	if part != nil {
		defer func() { part.End(err) }()
	}
	if p.waiting.Add(1) > int64(p.limits.MaxWaiting) {
		p.waiting.Add(-1)
		return entities.Committed{}, errPartitionBusy(p.id, p.limits.MaxWaiting)
	}
	defer p.waiting.Add(-1)
	call := newCall(cmd)
	if !p.submit(input{kind: inSubmitted, call: call}) {
		return entities.Committed{}, entities.PartitionMoved(p.id, "the worker is stopping")
	}
	done := ctx.Done()
	for {
		select {
		case <-call.wait.wake:
			if call.wait.phase.Load() == phaseAnswered {
				return call.committed()
			}
			part.End(nil)
			p.invoke(ctx, call)
			_, part = p.tracer.Begin(ctx, tracing.Internal, "log", cmd.TraceParent)
			done = ctx.Done()
		case <-done:
			if err := p.leave(ctx, call); err != nil {
				return entities.Committed{}, err
			}
			done = nil // the loop was quicker: wait for its signal
		}
	}
}

// Position returns the offset behind everything that is committed, as of some moment after the call. It is as strong as a read:
// a former owner that does not know it yet gives no answer.
func (p *Partition) Position(ctx context.Context) (int64, error) {
	call := &Call{cmd: &entities.Command{}}
	call.wait.wake = make(chan struct{}, 1)
	if !p.post(input{kind: inPosition, call: call}) {
		return 0, entities.PartitionMoved(p.id, "the worker is stopping")
	}
	select {
	case <-call.wait.wake:
		if call.err != nil {
			return 0, call.err
		}
		return call.next, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx) // whoever answers finds room for the signal
	}
}

// leave gives a call up, if that is still possible.
func (p *Partition) leave(ctx context.Context, call *Call) error {
	reason := entities.Cancelled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		reason = entities.Deadline
	}
	phase, left := call.wait.leave()
	switch {
	case !left:
		return nil
	case phase == phaseDecided:
		return entities.Errorf(reason, entities.Unknown,
			"the call ended while the log had not answered: it is not known whether the command on %s took effect; send it again under the same command id", call.cmd.Key)
	default:
		p.post(input{kind: inWithdrawn, call: call})
		err := entities.Errorf(reason, entities.NotApplied, "the call ended before %s had its turn: nothing was applied", call.cmd.Key)
		err.Checked = phase == phaseQueued && call.named() && p.core.single // elsewhere there may be another owner, of which this one hears from the log
		return err
	}
}

// leave ends a call on behalf of its caller, and says in which phase. It is not possible while the function has the command.
func (m *meeting) leave() (phase int32, left bool) {
	for {
		phase = m.phase.Load()
		if phase != phaseQueued && phase != phaseUnchecked && phase != phaseDecided {
			return phase, false
		}
		if m.phase.CompareAndSwap(phase, phaseLeft) {
			return phase, true
		}
	}
}

// run gives a call its turn, unless its caller has left.
func (m *meeting) run() bool {
	return m.phase.CompareAndSwap(phaseQueued, phaseRunning) || m.phase.CompareAndSwap(phaseUnchecked, phaseRunning) || m.phase.Load() == phaseRunning
}

// check notes that the owner has looked for other attempts at a call's command, and has found none.
func (c *Call) check() {
	c.checked = true
	c.wait.phase.CompareAndSwap(phaseUnchecked, phaseQueued)
}

// verified says whether the call's error is true of the command, and not only of this attempt at it. A worker that the partition has left
// does not know what its next owner did.
func (c *Call) verified() bool {
	return c.checked && c.err.Outcome == entities.NotApplied && c.err.Reason != entities.Moved
}

// decide notes that all that is left to do about a call is to answer it. It returns false when the caller has left.
func (c *Call) decide() bool {
	for {
		phase := c.wait.phase.Load()
		if phase == phaseLeft || c.wait.phase.CompareAndSwap(phase, phaseDecided) {
			return phase != phaseLeft
		}
	}
}

// accompany notes that there is another attempt at a call's command.
func (c *Call) accompany() { c.wait.phase.CompareAndSwap(phaseQueued, phaseUnchecked) }

// invoke lets the function decide, on the caller's goroutine. The caller's cancellation does not reach the function: half a
// decision would cost the entity its session, and with it everyone else's place.
func (p *Partition) invoke(ctx context.Context, call *Call) {
	ctx = context.WithoutCancel(ctx)
	session := call.wait.session
	in := input{kind: inDecided, call: call}
	switch {
	case session == nil:
		in.opening, in.err = p.openSession(ctx, call.cmd.Type.Service, call.cmd.Key)
		if in.err == nil {
			session = in.opening.Session
		}
	case ended(session):
		in.kind = inSessionEnded
		call.wait.phase.Store(phaseUnchecked) // the loop knows better
		if !p.submit(in) {
			p.abandoned(call, session)
		}
		return
	}
	if call.wait.behind != nil {
		session.(entities.Ahead).Announce(call.wait.behind) //nolint:errcheck,forcetypeassert // that is who they are for
		call.wait.behind = nil
	}
	if in.err == nil {
		outcome, err := p.handle(ctx, session, call.cmd, time.Unix(0, call.wait.at))
		in.outcome = outcome
		if err != nil {
			in.err = entities.AsError(err)
		}
	}
	call.wait.phase.Store(phaseDecided)
	if !p.submit(in) {
		p.abandoned(call, session)
	}
}

// handle lets the function decide.
func (p *Partition) handle(ctx context.Context, session entities.Session, cmd *entities.Command, at time.Time) (*entities.Outcome, error) {
	ctx, span := p.tracer.Begin(ctx, tracing.Client, "function", cmd.TraceParent)
	outcome, err := session.Handle(ctx, entities.Invocation{Command: cmd.WithTraceParent(span.Parent()), Time: at})
	span.End(err)
	return outcome, err
}

// abandoned ends a call whose loop is gone.
func (p *Partition) abandoned(call *Call, session entities.Session) {
	if session != nil {
		ctx, cancel := context.WithTimeout(context.Background(), p.limits.ReleaseTimeout)
		defer cancel()
		session.Close(ctx)
	}
	call.outcome, call.err = nil, entities.PartitionMoved(p.id, "the worker is stopping")
	call.wait.phase.Store(phaseAnswered)
	call.wait.wake <- struct{}{}
}

func ended(s entities.Session) bool {
	select {
	case <-s.Ended():
		return true
	default:
		return false
	}
}

// openSession begins an entity's conversation from what is stored.
func (p *Partition) openSession(ctx context.Context, service string, key entities.Key) (*Opening, *entities.Error) {
	opening := &Opening{}
	view := materializer.Partition{Rows: p.store, Address: p.address}
	session, err := p.functions.Open(ctx, service, key, func(context.Context) (entities.Loaded, error) {
		loaded, err := view.Load(key)
		opening.Loaded = loaded
		return loaded, err
	})
	if failure, ok := errors.AsType[*entities.Error](err); ok {
		return nil, failure
	}
	if err != nil { // the store: no command has run
		return nil, entities.Errorf(entities.Unavailable, entities.NotApplied, "load %s: %w: nothing was applied", key, err)
	}
	opening.Session = session
	p.stats.activated.Add(1)
	return opening, nil
}

func (c *Call) committed() (entities.Committed, error) {
	switch {
	case c.err != nil && c.verified():
		err := *c.err // others share it
		err.Checked = true
		return entities.Committed{}, &err
	case c.err != nil:
		return entities.Committed{}, c.err
	case c.superseded:
		return entities.Committed{}, errSuperseded
	}
	done := entities.Committed{Outcome: c.outcome, Next: c.next, FirstEffect: -1, Forward: -1, Progress: c.progress, Shared: c.shared}
	if c.stored != nil {
		outcome, wrote, err := record.DecodeAnswer(c.stored.Answer)
		if err != nil {
			return entities.Committed{}, entities.Errorf(entities.Internal, entities.Unknown, "%s: %w", c.cmd.Key, err)
		}
		done.Outcome, done.Wrote, done.Repeated, done.Forward = outcome, wrote, true, c.stored.Offset
		return done, nil
	}
	if c.effects > 0 {
		done.FirstEffect = c.firstEffect
		done.Forward = c.firstEffect + int64(len(c.outcome.Effects))
	}
	return done, nil
}

// commandHash tells a repeated command from another one under the same id.
func commandHash(cmd *entities.Command) uint64 {
	d := xxhash.New()
	_, _ = d.WriteString(cmd.Service)
	_, _ = d.WriteString("/")
	_, _ = d.WriteString(cmd.Method)
	_, _ = d.Write([]byte{0})
	_, _ = d.Write(cmd.Payload.Value)
	return d.Sum64()
}
