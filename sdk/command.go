package sdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"
)

// call is what every command has.
type call struct {
	ctx      context.Context //nolint:containedctx // a command lives exactly as long as its handler runs
	service  *Service
	entityID string
	inv      Invocation
	effects  []Effect
	// done is set when the handler has returned.
	done bool
}

// Context ends with the caller's deadline, or when nobody waits any more, and carries the trace of the call.
func (c *call) Context() context.Context { return c.ctx }

// ID returns the caller's command id, "" when there is none.
func (c *call) ID() string { return c.inv.ID }

// Principal returns who calls, "" when that is not known.
func (c *call) Principal() string { return c.inv.Principal }

// Metadata returns what the caller sent with the call, keys in lower case.
func (c *call) Metadata() Metadata { return c.inv.Metadata }

// Time returns the log time of the command. Use it instead of time.Now: a repeated test sees the same.
func (c *call) Time() time.Time { return c.inv.Time }

// Logger returns a logger that names the service, the method and the entity.
func (c *call) Logger() *slog.Logger {
	logger := slog.Default().With("service", c.service.name(), "method", c.inv.Method)
	if c.entityID != "" {
		logger = logger.With("entity", c.service.key(c.entityID))
	}
	return logger
}

// Effect sends a command to a method of the same function when this command has succeeded and is durable, exactly once at
// the target. Effects are sent in order. A refused command of an entity has none; those of a refused action are sent. When the
// target refuses, the refusal is kept for an operator, unless [OnRefused] or [IgnoreRefusal] says otherwise.
func (c *call) Effect(method string, in proto.Message, options ...EffectOption) {
	c.mustRun("Effect")
	target, err := newTarget(method, in)
	if err != nil {
		panic(fmt.Errorf("cmd.Effect: %w", err))
	}
	effect := Effect{Target: target}
	for _, option := range options {
		option(&effect)
	}
	if err := c.service.checkRefusal(&effect); err != nil {
		panic(fmt.Errorf("cmd.Effect to %s: %w", method, err))
	}
	c.effects = append(c.effects, effect)
}

// mustRun stops code that kept a command longer than its handler ran: what it does could never take effect.
func (c *call) mustRun(what string) {
	if c.done {
		panic(fmt.Errorf("cmd.%s after the handler of %s returned: a command must not be kept, or used by another goroutine", what, c.inv.Method))
	}
}

// takeEffects returns the effects since the last call.
func (c *call) takeEffects() []Effect {
	effects := c.effects
	c.effects = nil
	return effects
}

// crash describes a handler's end without a decision.
func (c *call) crash(err error) error {
	crash := &CrashError{Service: c.service.name(), Method: c.inv.Method, Cause: err}
	if c.entityID != "" {
		crash.Entity = c.service.key(c.entityID)
	}
	if p, ok := errors.AsType[*panicError](err); ok {
		crash.Stack = p.stack
	}
	return crash
}

// key names an entity of the service as people see it.
func (s *Service) key(entityID string) string { return s.persistenceID + "/" + entityID }

// entityCall is what every command of an entity has.
type entityCall struct {
	call
	timers []Timer
}

// EntityID returns the id of the entity.
func (c *entityCall) EntityID() string { return c.entityID }

// Command is a command of an event-sourced entity.
type Command struct {
	entityCall
	emitter emitter
}

// emitter applies an event to the image that the command is for.
type emitter interface{ emit(event proto.Message) }

// Emit makes an event part of the decision and applies it at once: the next statement sees the changed state. The event is
// encoded here; changing the message later changes nothing that is stored. The events of a command are stored together.
func (c *Command) Emit(event proto.Message) {
	c.mustRun("Emit")
	c.emitter.emit(event)
}

// ValueCommand is a command of a value entity whose state is a message of type S.
type ValueCommand[S proto.Message] struct {
	entityCall
	state  S
	action StateAction
}

// State returns the value as this command sees it: what is stored, or what Update gave it. It is nil before the first
// Update and after Delete; the generated getters of a nil message return defaults. The message is a copy for this command:
// changing it has no effect without Update.
func (c *ValueCommand[S]) State() S { return c.state }

// Update replaces the value. It is encoded when the handler returns. The last Update or Delete of a command counts.
func (c *ValueCommand[S]) Update(state S) {
	c.mustRun("Update")
	if isNil(state) {
		panic(errors.New("cmd.Update(nil): use cmd.Delete to remove the value"))
	}
	c.state, c.action = state, StateUpdated
}

// Delete removes the value. The entity lives on without one, and a later Update sets it again.
func (c *ValueCommand[S]) Delete() {
	c.mustRun("Delete")
	var none S
	c.state, c.action = none, StateDeleted
}

// ActionCommand is a call of an action.
type ActionCommand struct{ call }

// StreamCommand is a call of an action whose answer streams. Beside the messages that the handler sends, an element may be
// a forward or a refusal. Effects go out with the next element, or with the end of the call.
type StreamCommand struct {
	ActionCommand
	send func(Decision) error
}

// SendForward makes the answer of another method the next element. It returns an error when the message is not what
// the method takes, or when the caller is gone.
func (c *StreamCommand) SendForward(method string, in proto.Message) error {
	target, err := newTarget(method, in)
	if err != nil {
		return fmt.Errorf("cmd.SendForward: %w", err)
	}
	return c.element(Decision{Forward: &target})
}

// SendRefusal makes a refusal, as made by [Refuse], the next element. A worker ends the call there; returning the refusal
// from the handler says the same more simply.
func (c *StreamCommand) SendRefusal(refusal error) error {
	decision, err := conclude(nil, refusal)
	if err != nil || decision.Refusal == nil {
		return fmt.Errorf("cmd.SendRefusal: %w is not a refusal: make one with sdk.Refuse", refusal)
	}
	return c.element(decision)
}

// element sends a decision with the effects that wait for one.
func (c *StreamCommand) element(decision Decision) error {
	c.mustRun("Send")
	decision.Effects = c.takeEffects()
	if err := c.send(decision); err != nil {
		return &lineError{err}
	}
	return nil
}
