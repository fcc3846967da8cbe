package host

import (
	"time"

	"github.com/millrace-io/millrace/internal/settings"
)

// Settings say how long a function may keep callers waiting, and how its sessions are carried. A
// time of zero means its default.
type Settings struct {
	// FunctionWait is how long a command waits for an unreachable function: one that restarts,
	// or is not attached yet.
	FunctionWait time.Duration `name:"function-wait" default:"10s" min:"1ns" help:"how long a command waits for an unreachable function"`
	// FunctionTimeout is how long a remote function may take for one command of an entity, for one
	// unary action, and for taking in one message of a replay. After it the session is ended. An
	// in-process function is not timed: nothing could stop it.
	FunctionTimeout time.Duration `name:"function-timeout" default:"30s" min:"1ns" process:"worker" help:"maximum time of the function for one command"`
	// SharedStream carries the sessions of all entities on one stream where the function can;
	// otherwise each has its own.
	SharedStream bool `name:"shared-stream" default:"true" process:"worker" help:"carry the sessions of all entities on one stream if the function supports it; false: one Cloudstate stream per entity"`
}

// Options bound what functions may do.
type Options struct {
	Settings
	// MaxMessageBytes is the largest message taken from a remote function. 0: its default.
	MaxMessageBytes int `default:"12MiB" unit:"bytes"`
	// MaxCommitRecords is the largest number of events of one command. 0: as many as the caller
	// takes.
	MaxCommitRecords int
	Hooks            Hooks
}

func (o Options) withDefaults() Options {
	settings.Fill(&o)
	o.Hooks = o.Hooks.withDefaults()
	return o
}
