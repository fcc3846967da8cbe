package partitions

import (
	"context"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/internal/tracing"
	"github.com/millrace-io/millrace/partitions/core"
)

// This file performs the core's effects on the sessions of entities with the function.

// prompt wakes a caller to run the function, unless it left.
func (p *Partition) prompt(ctx context.Context, call *core.Call) {
	if call.Command.Timer != nil {
		switch superseded, err := p.superseded(call); {
		case err != nil:
			p.core.Decided(
				call, nil, nil,
				entities.Errorf(entities.Unavailable, entities.NotApplied, "look up timer %q: %w", call.Command.Timer.Name, err),
			)
			return
		case superseded:
			p.core.Superseded(call)
			return
		}
	}
	w := waiterOf(call)
	w.at, w.behind = p.core.Now().Log, nil
	if !w.run() {
		p.core.Withdrawn(call)
		return
	}
	// A timer that cannot be run has no caller to wake: it is given up when it is its turn, so that it
	// comes after the commands before it.
	if timer := call.Command.Timer; timer != nil && timer.Err != nil {
		w.set(core.PhaseDecided)
		p.core.CannotRun(call)
		return
	}
	if ahead, ok := call.Session().(entities.Ahead); ok && !ended(ahead) {
		if ahead.Ready() {
			p.ready(ctx, call)
			return
		}
		w.behind = p.behind(call, ahead.Room())
	}
	w.wake <- struct{}{}
}

// ready takes the decision about a command that was announced, without waking its caller for it.
func (p *Partition) ready(ctx context.Context, call *core.Call) {
	wait := waiterOf(call)
	outcome, err := p.handle(ctx, call.Session(), call.Command, time.Unix(0, wait.at))
	wait.set(core.PhaseDecided)
	var failure *entities.Error
	if err != nil {
		failure = entities.AsError(err)
	}
	p.core.Decided(call, nil, outcome, failure)
}

// behind returns the commands that the function may have at a time: the one whose turn it is, and
// those that wait behind it. Their callers can no longer leave. The list ends before a timer, which
// is checked when its turn comes, and before a traced call, whose span measures its own time.
func (p *Partition) behind(call *core.Call, room int) []entities.Invocation {
	waiting := call.Behind()
	if room < 2 || len(waiting) == 0 || p.traced(call) {
		return nil
	}
	at := time.Unix(0, p.core.Now().Log)
	invs := make([]entities.Invocation, 1, min(room, 1+len(waiting)))
	invs[0] = announced(call, at)
	for _, next := range waiting[:cap(invs)-1] {
		if next.Command.Timer != nil || p.traced(next) || !(mutation.On(mutation.Announced) || waiterOf(next).run()) {
			break
		}
		invs = append(invs, announced(next, at))
	}
	if len(invs) == 1 {
		return nil
	}
	return invs
}

func announced(call *core.Call, at time.Time) entities.Invocation {
	deadline, _ := waiterOf(call).ctx.Deadline()
	return entities.Invocation{Command: call.Command, Time: at, Deadline: deadline}
}

// traced reports whether spans measure the stages of a call. Such a call takes the longer way, on
// which each stage begins and ends on the caller's goroutine.
func (p *Partition) traced(call *core.Call) bool {
	return p.tracer != nil && tracing.Sampled(call.Command.TraceParent)
}

// reopen closes the session of an entity, if it has one, and opens another one.
func (p *Partition) reopen(ent *core.Entity, session entities.Session, incarnation uint64) {
	service, key := ent.Type.Service, ent.Key
	p.tasks.call(func() {
		if session != nil {
			p.closeSession(session)
		}
		opening, err := p.openSession(context.Background(), service, key)
		if !p.post(inOpened{entity: ent, incarnation: incarnation, opening: opening, err: err}) && opening != nil {
			p.closeSession(opening.Session)
		}
	})
}

// closeSession ends a session in order. It waits for the function, so it never runs on the loop.
func (p *Partition) closeSession(s entities.Session) {
	ctx, cancel := context.WithTimeout(context.Background(), p.limits.CloseTimeout)
	defer cancel()
	s.Close(ctx)
}
