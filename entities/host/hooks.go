package host

import (
	"crypto/rand"
	"strings"
	"sync/atomic"

	"github.com/millrace-io/millrace/entities"
)

// Hooks receive what an operator may want to see. Every field may be nil. They are called from many
// goroutines, may overlap, and must not block.
type Hooks struct {
	// OnWarning is called with a mistake in a function that is served all the same.
	OnWarning func(message string)
	// OnSessionFault is called with the reason why the session of an entity broke. The cause of err
	// has the function's text, Stack where it panicked.
	OnSessionFault func(key entities.Key, err *entities.Error)
	// OnActionFault is called with the reason why a call of an action broke: see OnSessionFault.
	OnActionFault func(method string, err *entities.Error)
}

// newReference returns an id by which the caller's error and the entry of a log about it are found
// from each other.
func newReference() string { return strings.ToLower(rand.Text()[:8]) }

func (h Hooks) withDefaults() Hooks {
	if h.OnWarning == nil {
		h.OnWarning = func(string) {}
	}
	if h.OnSessionFault == nil {
		h.OnSessionFault = func(entities.Key, *entities.Error) {}
	}
	if h.OnActionFault == nil {
		h.OnActionFault = func(string, *entities.Error) {}
	}
	return h
}

// Stats counts what happened since a function was attached.
type Stats struct {
	// SessionsOpen is the number of open sessions now.
	SessionsOpen int64
	// SessionsOpened counts sessions that began.
	SessionsOpened int64
	// SessionsEnded counts sessions that ended from the function's side while no command was
	// running.
	SessionsEnded int64
	// Commands counts commands of entities, Actions calls of actions, both with any outcome.
	Commands, Actions int64
	// Refusals counts commands and calls that a function refused, Failures those that broke.
	Refusals, Failures int64
	// Restarts counts outcomes that asked for the entity's image to be rebuilt.
	Restarts int64
	// EventsReplayed counts events sent to functions when sessions began.
	EventsReplayed int64
	// Warnings counts calls of OnWarning.
	Warnings int64
}

// counters are the live form of Stats.
type counters struct {
	sessionsOpen, sessionsOpened, sessionsEnded atomic.Int64
	commands, actions                           atomic.Int64
	refusals, failures, restarts                atomic.Int64
	eventsReplayed, warnings                    atomic.Int64
}

func (c *counters) read() Stats {
	return Stats{
		SessionsOpen:   c.sessionsOpen.Load(),
		SessionsOpened: c.sessionsOpened.Load(),
		SessionsEnded:  c.sessionsEnded.Load(),
		Commands:       c.commands.Load(),
		Actions:        c.actions.Load(),
		Refusals:       c.refusals.Load(),
		Failures:       c.failures.Load(),
		Restarts:       c.restarts.Load(),
		EventsReplayed: c.eventsReplayed.Load(),
		Warnings:       c.warnings.Load(),
	}
}

// decided counts how one command or call ended.
func (c *counters) decided(out *entities.Outcome, err error) {
	switch {
	case err != nil:
		c.failures.Add(1)
	case out.Failure != nil:
		c.refusals.Add(1)
	}
	if err == nil && out.Restart {
		c.restarts.Add(1)
	}
}
