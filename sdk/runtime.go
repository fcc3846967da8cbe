package sdk

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// This file is for runtimes: programs that host services. Authors of functions do not need it.
//
// A runtime calls Check, asks each service for its Spec, and then drives entities (NewEntity) or
// calls (Call). Messages travel as Payloads; the runtime stores and carries them without looking
// inside. Server is one such runtime, for the Cloudstate protocol; the worker is another.

// Payload is a message in its encoded form.
type Payload struct {
	// TypeURL names the type as in google.protobuf.Any, for example
	// type.googleapis.com/shop.v1.ItemAdded.
	TypeURL string
	Value   []byte
}

// Metadata is an ordered list of entries; a key may occur more than once. Keys are in lower case.
type Metadata []MetadataEntry

// MetadataEntry is one key with a text or, where IsBinary is set, a binary value.
type MetadataEntry struct {
	Key      string
	Text     string
	Binary   []byte
	IsBinary bool
}

// Get returns the first text value of a key, and "" when there is none.
func (m Metadata) Get(key string) string {
	for i := range m {
		if m[i].Key == key && !m[i].IsBinary {
			return m[i].Text
		}
	}
	return ""
}

// Invocation is one command as a runtime hands it to a service.
type Invocation struct {
	// Method is the bare name of the method.
	Method string
	// Payload is the request; its type URL is ignored. It is empty for a call whose input streams.
	Payload Payload
	// ID is the caller's command id, empty when there is none.
	ID        string
	Principal string
	Metadata  Metadata
	// Time is the log time of the command.
	Time time.Time
}

// Target is a command for another method of the same function.
type Target struct {
	// Service is the full name of the service, Method the bare name of its method.
	Service, Method string
	Payload         Payload
}

// FullMethod returns the name of the method as its generated constant has it.
func (t *Target) FullMethod() string { return "/" + t.Service + "/" + t.Method }

// Effect is a command that is sent because another one succeeded.
type Effect struct {
	Target
	Synchronous bool
	// OnRefused is the bare name of the method of the asking service that learns of a refusal;
	// empty: the refusal is kept for an operator. IgnoreRefusal says that nothing is kept of it.
	// Only entities have effects with either.
	OnRefused     string
	IgnoreRefusal bool
}

// StateAction is what a command did to a value.
type StateAction uint8

// The actions on a value.
const (
	StateKept StateAction = iota
	StateUpdated
	StateDeleted
)

// Decision is what a service decided about one command. At most one of Reply, Forward and Refusal
// is set; none means that the caller gets no message.
type Decision struct {
	// Events are to be stored together, in this order; event-sourced entities only. Empty with a
	// Refusal.
	Events []Payload
	// Snapshot is the state after the last of Events, set when one is due.
	Snapshot *Payload
	// StateAction and State are the change of a value. Kept with a Refusal.
	StateAction StateAction
	State       Payload

	Reply   *Payload
	Forward *Target
	Refusal *Refusal
	// Effects are to be sent in this order. With a Refusal only actions have any.
	Effects []Effect
	// Timers are changes of the entity's timers, in this order. None with a Refusal.
	Timers []Timer
	// Restart says that the entity's image is ahead of what is stored: drop the entity and build
	// another one.
	Restart bool
}

// Entity is the memory image of one entity, with the code that decides for it. One goroutine at a
// time may use it. After an error of any method, and after a Decision with Restart, it must not be
// used: build another one from what is stored. Snapshot and value that were loaded, and what a
// Decision holds, are shared between entity and runtime: neither changes them. The payload of an
// event or of a command is only read during the call.
type Entity interface {
	// Load sets the stored state, before anything else: the value, or a snapshot and the sequence
	// of the last event in it. Nil: there is none.
	Load(state *Payload, sequence uint64) error
	// Apply replays the next event after Load. Sequences have no gaps.
	Apply(sequence uint64, event Payload) error
	// Handle lets the entity decide about a command. The error is a *CrashError.
	Handle(ctx context.Context, inv Invocation) (Decision, error)
	// Snapshot returns the state in its stored form: a snapshot, or the value. Nil when there is
	// none, because the service has no SnapshotEvery or the value was not set.
	Snapshot() (*Payload, error)
	// Image returns the state as the handlers have it, for tools and tests; it must not be changed.
	Image() any
	// Size estimates the memory that the entity holds, in bytes.
	Size() int
}

// Spec is what a runtime has to know of a service.
type Spec struct {
	Kind Kind
	// Service describes the proto service.
	Service protoreflect.ServiceDescriptor
	// PersistenceID is empty for actions.
	PersistenceID string
	// PassivateAfter is 0 when the runtime decides.
	PassivateAfter time.Duration
}

// Spec describes the service. It is complete when Check finds nothing.
func (s *Service) Spec() Spec {
	return Spec{Kind: s.kind, Service: s.descriptor, PersistenceID: s.persistenceID, PassivateAfter: s.passivateAfter}
}

// NewEntity returns an entity without any state. The error says that the service did not pass
// Check, is an action, or could not make a new state.
func (s *Service) NewEntity(id string) (Entity, error) {
	if len(s.problems) > 0 {
		return nil, Check(s)
	}
	if s.newEntity == nil {
		return nil, fmt.Errorf("sdk: %s has no entities", s)
	}
	return s.newEntity(id)
}

// CrashError says that a handler ended without a decision: by a panic, or by an error that is
// neither a refusal nor a forward. Nothing of the command counts.
type CrashError struct {
	// Service is the full name of the service, Method the bare name of its method.
	Service, Method string
	// Entity is type/id, empty for actions.
	Entity string
	Cause  error
	// Stack is where a panic happened; nil when the handler returned an error.
	Stack []byte
}

// Error says what crashed, and why.
func (e *CrashError) Error() string {
	if e.Entity == "" {
		return fmt.Sprintf("%s/%s: %v", e.Service, e.Method, e.Cause)
	}
	return fmt.Sprintf("%s/%s of %s: %v", e.Service, e.Method, e.Entity, e.Cause)
}

// Unwrap returns the cause.
func (e *CrashError) Unwrap() error { return e.Cause }

// Stack returns where the user's code panicked, nil where err does not come from a panic.
func Stack(err error) []byte {
	if p, ok := errors.AsType[*panicError](err); ok {
		return p.stack
	}
	return nil
}

// panicError is a recovered panic.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// trap is deferred around the user's code.
func trap(err *error) {
	if v := recover(); v != nil {
		*err = &panicError{value: v, stack: debug.Stack()}
	}
}
