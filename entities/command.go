package entities

import (
	"strings"
	"time"
)

// Payload is an encoded message of the user; the engine stores and forwards it without decoding it.
type Payload struct {
	// TypeURL names the type as in google.protobuf.Any, for example
	// type.googleapis.com/shop.v1.ItemAdded.
	TypeURL string
	Value   []byte
}

// Metadata is an ordered list of entries; a key may occur more than once.
type Metadata []MetadataEntry

// MetadataEntry is one key with a text or, where IsBinary is set, a binary value.
type MetadataEntry struct {
	Key      string
	Text     string
	Binary   []byte
	IsBinary bool
}

// Get returns the first text value of a key, and "" when there is none. Keys are in lower case.
func (m Metadata) Get(key string) string {
	for i := range m {
		if m[i].Key == key && !m[i].IsBinary {
			return m[i].Text
		}
	}
	return ""
}

// EventID is the key of a reply's metadata that names the reply in a stream of server-sent events.
// Browsers send it in Last-Event-ID when they connect again.
const EventID = "millrace-event-id"

// Consistency is the state that a read must answer from. Writes are always durable before they are
// answered.
type Consistency uint8

const (
	// Strong: the state includes everything that was answered before the command arrived.
	Strong Consistency = iota
	// Local: the owner's memory, which may be ahead of the log or, if the owner was paused, behind
	// it.
	Local
	// Eventual: any committed state.
	Eventual
	// Bounded: a committed state that was the newest no longer ago than Command.Bound.
	Bounded
	// AtLeast: a committed state that includes everything before Command.After.
	AtLeast
)

// Relaxed reports whether a follower of the partition may answer.
func (c Consistency) Relaxed() bool { return c >= Eventual }

// String returns the name as callers know it.
func (c Consistency) String() string {
	return [...]string{"strong", "local", "eventual", "bounded", "at_least"}[c]
}

// Command is one call of an entity or an action.
type Command struct {
	// Service is the full name of the protobuf service, Method the bare name of its method.
	Service string
	Method  string
	// Type is the entity type, Key the entity; nil and zero for actions.
	Type    *EntityType
	Key     Key
	Payload Payload
	// Metadata is what the caller sent with the call.
	Metadata Metadata
	// ID is the caller's command id (Idempotency-Key, millrace-command-id), scoped by entity and
	// principal. Empty: none.
	ID string
	// Source is set if the command follows from a record of this journal, as an effect or a
	// forward. It takes effect once.
	Source *Source
	// Timer is set if a timer of the entity has fired.
	Timer *TimerFiring
	// Principal is who calls; empty until security is configured.
	Principal   string
	Consistency Consistency
	// Bound is for Bounded, After for AtLeast: at most one position for each partition.
	Bound time.Duration
	After []Position
	// TraceParent is the W3C trace context of the call, empty when there is none.
	TraceParent string
}

// WithTraceParent returns the command as what a span causes: with its W3C trace context. Empty,
// there is no span, and it is the command itself.
func (c *Command) WithTraceParent(parent string) *Command {
	if parent == "" {
		return c
	}
	traced := *c
	traced.TraceParent = parent
	return &traced
}

// AfterIn returns what an AtLeast answer must include at least of a partition: everything before
// this offset.
func (c *Command) AfterIn(partition int32) int64 {
	for _, p := range c.After {
		if p.Partition == partition {
			return p.Next
		}
	}
	return 0
}

// RoutedPrefix begins the command ids that routers give to commands without one, so that they can
// be sent again if an answer is lost between two workers. Callers cannot use it: no header can
// contain it.
const RoutedPrefix = "\x01"

// RoutedWindow is how long an owner remembers the id that a router gave to a command: twice as long
// as any router tries.
const RoutedWindow = 2 * time.Minute

// IsRouted reports whether a router has given a command id.
func IsRouted(id string) bool { return strings.HasPrefix(id, RoutedPrefix) }

// Reply is an answer to a caller.
type Reply struct {
	Payload  Payload
	Metadata Metadata
	// Token is the position of the answer in the log, as callers get it. Empty for actions.
	Token string
	// NoPayload marks an answer without a message.
	NoPayload bool
	// Owner is where callers reach the worker that owns the entity, if the command was sent on to
	// it and the address is known; otherwise empty.
	Owner string
}

// Source is the address of the record from which a command follows: the id under which it takes
// effect once.
type Source struct {
	Generation, Partition uint16
	Offset                int64
	// Index numbers the commands that follow from the same record, from 0.
	Index uint32
	// Settled and Open are not part of the address: they are the progress of the source partition.
	Settled int64
	Open    []int64
}

// SourceID is the address alone; it is comparable.
type SourceID struct {
	Generation, Partition uint16
	Offset                int64
	Index                 uint32
}

// ID returns the address.
func (s Source) ID() SourceID { return SourceID{s.Generation, s.Partition, s.Offset, s.Index} }

// Is reports whether both are the same address.
func (s Source) Is(t Source) bool { return s.ID() == t.ID() }

// Progress returns the progress of the source partition.
func (s Source) Progress() Progress { return Progress{Through: s.Settled, Open: s.Open} }

// TimerFiring is a timer whose time has come.
type TimerFiring struct {
	Name string
	// Due is when it was due, in nanoseconds by the log's clock; Offset is that of the record that
	// set it.
	Due, Offset int64
	// Schedule is that of a recurring timer, otherwise empty.
	Schedule string
	// Target is the command as it was set.
	Target Target
	// Failures is how often the function has failed on it under the present owner.
	Failures int
	// Err is why the command can never run: the function no longer has the method, or the command
	// now belongs to another entity. Nil: it is run.
	Err *Error
}

// TimerChange sets or cancels a timer of the entity whose command asks for it.
type TimerChange struct {
	// Name is unique within the entity; setting a timer of the same name replaces it.
	Name string
	// Cancel cancels the timer; then all fields below are empty.
	Cancel bool
	// After is how long after the command's log time it is due. It is ignored with a Schedule.
	After time.Duration
	// Schedule makes it recurring: five fields as in cron(5), in UTC.
	Schedule string
	// Target is the command that the entity gets when it is due. Its Service is the entity's own.
	Target Target
}

// Target is a command to an entity or action of the same user function.
type Target struct {
	Service  string
	Method   string
	Payload  Payload
	Metadata Metadata
}

// SideEffect is a command that is sent because another one succeeded. A Synchronous one is awaited
// before the caller gets its answer.
type SideEffect struct {
	Target
	Synchronous bool
	// OnRefused is the bare name of a method of the sending entity's service. If the target
	// refuses, that entity gets the command, exactly once, with a millrace.effect.v1.Refused.
	// Empty: the refusal is kept for an operator.
	OnRefused string
	// IgnoreRefusal drops a refusal without keeping it. It excludes OnRefused.
	IgnoreRefusal bool
}

// Event is a stored event of an entity. Sequences are 1, 2, 3, ... for each entity.
type Event struct {
	Sequence uint64
	Payload  Payload
}

// StateAction is what a value entity's command did to the value.
type StateAction uint8

// The actions of a value entity.
const (
	StateKept StateAction = iota
	StateUpdated
	StateDeleted
)

// Outcome is what a user function decided about one command. Nothing of it is durable yet.
type Outcome struct {
	// Events are to be stored together, in this order. Event-sourced entities only.
	Events []Payload
	// Snapshot is the state after the last of Events; nil when the function offers none.
	Snapshot *Payload
	// StateAction and State are a value entity's change.
	StateAction StateAction
	State       Payload

	// At most one of Reply, Forward and Failure is set; none means that the caller gets no message.
	// With a Failure an entity's outcome may only have Restart, an action's only Effects.
	Reply   *Reply
	Forward *Target
	Failure *Error
	// Effects are sent after everything above is durable, in this order.
	Effects []SideEffect
	// Timers are changes of the entity's timers, in this order.
	Timers []TimerChange
	// Restart makes the engine rebuild the entity's memory image from what is stored; Events are
	// dropped.
	Restart bool
}

// Wrote reports whether the outcome has records: changed state, effects, timers. A forward has a
// record only together with others.
func (o *Outcome) Wrote() bool {
	return !o.Restart && (len(o.Events) > 0 || o.StateAction != StateKept || len(o.Effects) > 0 || len(o.Timers) > 0)
}

// Committed is a command's outcome once everything that it depends on is in the log.
type Committed struct {
	Outcome *Outcome
	// Repeated: the command took effect earlier, under the same id. Its effects are not sent again.
	Repeated bool
	// Wrote: a repeated command stored something in addition to its forward, whose answer is not
	// stored yet.
	Wrote bool
	// Shared: other attempts under the id, which came before it was committed, have this decision
	// as well.
	Shared bool
	// Next is the offset in the partition after everything that the outcome depends on.
	Next int64
	// FirstEffect is the offset of the record of the first effect, Forward that of the forward's;
	// -1 where there is none.
	FirstEffect, Forward int64
	// Progress says which of the partition's effects were done.
	Progress Progress
}

// Invocation is a command as a user function gets it.
type Invocation struct {
	*Command
	// Time is the log time of the command: the same on every replay.
	Time time.Time
	// Deadline is when the caller of an entity leaves, by the clock of this process; zero: never.
	Deadline time.Time
}
