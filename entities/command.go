package entities

import "time"

// Payload is a message of the user's in its encoded form; the engine stores and carries it without looking inside.
type Payload struct {
	// TypeURL names the type as in google.protobuf.Any, for example type.googleapis.com/shop.v1.ItemAdded.
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

// Get returns the first text value of a key, and "" when there is none. Keys are compared as they are: in lower case.
func (m Metadata) Get(key string) string {
	for i := range m {
		if m[i].Key == key && !m[i].IsBinary {
			return m[i].Text
		}
	}
	return ""
}

// Consistency says how an answer is held back before it leaves.
type Consistency uint8

const (
	// Strong answers are covered by the log: everything decided before them is durable.
	Strong Consistency = iota
	// Local answers of commands that wrote nothing come from the owner's memory, which may be ahead of the log or, on an
	// owner that was paused, behind it.
	Local
)

// Command is one call, on its way to an entity or an action.
type Command struct {
	// Service is the full name of the protobuf service, Method the bare name of its method.
	Service string
	Method  string
	// Type is the entity type that it is for, Key the entity; nil and zero for actions.
	Type    *EntityType
	Key     Key
	Payload Payload
	// Metadata is what the caller sent with the call.
	Metadata Metadata
	// ID is the caller's command id (Idempotency-Key, millrace-command-id), scoped by entity and principal. Empty: none.
	ID string
	// Principal is who calls; empty until security is configured.
	Principal   string
	Consistency Consistency
	// TraceParent is the W3C trace context of the call, empty when there is none.
	TraceParent string
}

// Reply is an answer to a caller.
type Reply struct {
	Payload  Payload
	Metadata Metadata
	// Token tells where in the log the answer stands, as callers get it. Empty for actions.
	Token string
	// NoPayload marks an answer without a message: the function said nothing to the caller.
	NoPayload bool
}

// Target is a command of another entity or action of the same user function.
type Target struct {
	Service  string
	Method   string
	Payload  Payload
	Metadata Metadata
}

// SideEffect is a command that is sent because another one succeeded. A Synchronous one is awaited before the caller is
// answered.
type SideEffect struct {
	Target
	Synchronous bool
}

// Snapshot is the state of an event-sourced entity after the event with this sequence.
type Snapshot struct {
	Sequence uint64
	State    Payload
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
	Reply   *Reply
	Forward *Target
	Failure *Error
	// Effects are sent after everything above is durable, in this order.
	Effects []SideEffect
	// Restart asks for the entity's memory image to be rebuilt from what is stored; Events are dropped.
	Restart bool
}

// Wrote says whether the outcome changes stored state.
func (o *Outcome) Wrote() bool {
	return !o.Restart && (len(o.Events) > 0 || o.StateAction != StateKept)
}

// Invocation is a command as a user function gets it.
type Invocation struct {
	*Command
	// Time is the log time of the command: the same on every replay.
	Time time.Time
}
