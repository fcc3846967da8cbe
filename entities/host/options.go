package host

import "time"

// Defaults of Options.
const (
	DefaultReadyTimeout    = 10 * time.Second
	DefaultHandleTimeout   = 30 * time.Second
	DefaultMaxMessageBytes = 12 << 20
	DefaultMaxEvents       = 1000
)

// Options bound what functions may do. A zero field means its default.
type Options struct {
	// ReadyTimeout is how long a command waits for a function that is not there: one that restarts, or is not attached yet.
	ReadyTimeout time.Duration
	// HandleTimeout is how long a remote function may take for one command of an entity, for one unary action, and for taking
	// in one message of a replay. After it the session is ended. An in-process function is not timed: nothing could stop it.
	HandleTimeout time.Duration
	// MaxMessageBytes is the largest message taken from a remote function.
	MaxMessageBytes int
	// MaxEvents is the largest number of events of one command.
	MaxEvents int
	Hooks     Hooks
}

func (o Options) withDefaults() Options {
	if o.ReadyTimeout == 0 {
		o.ReadyTimeout = DefaultReadyTimeout
	}
	if o.HandleTimeout == 0 {
		o.HandleTimeout = DefaultHandleTimeout
	}
	if o.MaxMessageBytes == 0 {
		o.MaxMessageBytes = DefaultMaxMessageBytes
	}
	if o.MaxEvents == 0 {
		o.MaxEvents = DefaultMaxEvents
	}
	o.Hooks = o.Hooks.withDefaults()
	return o
}
