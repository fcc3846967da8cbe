package entities

import (
	"context"
	"time"
)

// Loaded is the stored state of an entity, as of everything that was committed for it.
type Loaded struct {
	// Sequence is that of the last stored event; 0 when there is none. Event-sourced entities only.
	Sequence uint64
	// State is the newest value or snapshot, nil when there is none: never stored, or deleted.
	// StateSequence is that of the last event in a snapshot.
	State         *Payload
	StateSequence uint64
	// Events calls yield for each event after State, in order, and stops at yield's first error,
	// which it returns. Nil when there are none. Payloads are valid only during the call.
	Events func(yield func(Event) error) error
}

// Loader reads the stored state of one entity. The engine guarantees that nothing is in flight for
// the entity meanwhile.
type Loader func(ctx context.Context) (Loaded, error)

// Session is the conversation with the user function about one active entity. The engine calls
// Handle for one command at a time, and neither Handle nor Close after Close.
type Session interface {
	// Handle makes the function decide about one command. It returns when the function has decided,
	// also if ctx ends before: that is told to the function, which may give the command up. Every
	// *Error means that the session has ended: its memory may be ahead of what is stored. The engine
	// calls Close and opens another session for the next command. The reasons Cancelled and Deadline
	// mean that the function gave the command up because ctx had ended; they concern this command
	// only.
	Handle(ctx context.Context, inv Invocation) (*Outcome, error)
	// Close ends the conversation and waits for the function to end it, too; when ctx ends it
	// aborts.
	Close(ctx context.Context)
	// Ended is closed if the function ends the conversation while no command is running. It may be
	// nil if that cannot happen.
	Ended() <-chan struct{}
	// Size estimates the memory that the session holds, in bytes.
	Size() int
}

// Ahead is a Session that takes commands before their turn, so that the round trips of consecutive
// commands to the function overlap. The engine announces commands in the order in which it calls
// Handle for them, and leaves none out as long as it uses the session. None of these methods
// overlaps with another, or with Handle and Close.
type Ahead interface {
	Session
	// Room returns how many commands Announce takes now, the next one included. Below two there is
	// no point in announcing.
	Room() int
	// Announce sends commands to the function. Those that it does not send are sent by Handle.
	Announce(invs []Invocation)
	// Ready reports whether the next command was announced and decided by the function, so that
	// Handle does not wait.
	Ready() bool
}

// EntityType is what the engine needs to know about one stateful service.
type EntityType struct {
	Service string
	// Name is the persistence id, the Type of its Keys.
	Name string
	Kind Kind
	// PassivateAfter is the idle time after which a session is closed; 0 means the configured
	// default.
	PassivateAfter time.Duration
}
