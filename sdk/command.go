package sdk

import (
	"context"
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

// Context ends with the caller's deadline, or when no caller waits any more, and carries the trace
// of the call. In a remote function the context of an entity's command ends with the deadline only.
// A handler that returns the context's error has given the command up: nothing is stored of it.
func (c *call) Context() context.Context { return c.ctx }

// ID returns the caller's command id, "" when there is none.
func (c *call) ID() string { return c.inv.ID }

// Principal returns who calls, "" when that is not known.
func (c *call) Principal() string { return c.inv.Principal }

// Metadata returns what the caller sent with the call, keys in lower case.
func (c *call) Metadata() Metadata { return c.inv.Metadata }

// Time returns the log time of the command. Use it instead of time.Now: a repeated test sees the
// same.
func (c *call) Time() time.Time { return c.inv.Time }

// Logger returns a logger that names the service, the method and the entity.
func (c *call) Logger() *slog.Logger {
	logger := slog.Default().With("service", c.service.name(), "method", c.inv.Method)
	if c.entityID != "" {
		logger = logger.With("entity", c.service.key(c.entityID))
	}
	return logger
}

// Effect sends a command to a method of the same function when this command has succeeded and is
// durable, exactly once at the target. Effects are sent in order. A refused command of an entity
// has none; those of a refused action are sent. When the target refuses, the refusal is kept for an
// operator, unless [OnRefused] or [IgnoreRefusal] says otherwise.
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

// mustRun stops code that kept a command longer than its handler ran: what it does could never take
// effect.
func (c *call) mustRun(what string) {
	if c.done {
		panic(fmt.Errorf(
			"cmd.%s after the handler of %s returned: a command must not be kept, or used by another goroutine", what,
			c.inv.Method))
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
	crash.Stack = Stack(err)
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
