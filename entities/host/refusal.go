package host

import (
	"fmt"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/internal/mutation"
)

// dropBesideRefusal reduces an entity's outcome that refuses its command to the refusal, and
// reports whether there was anything to drop: a refused command stores nothing and causes nothing.
// Where the function sent a change of state with it, its memory may have that change, and has to be
// rebuilt from what is stored.
func dropBesideRefusal(out *entities.Outcome) (dropped bool) {
	if out.Failure == nil || mutation.On(mutation.Refusal) {
		return false
	}
	ahead := len(out.Events) > 0 || out.Snapshot != nil || out.StateAction != entities.StateKept
	dropped = ahead || len(out.Effects) > 0 || len(out.Timers) > 0 || out.Forward != nil || out.Reply != nil
	*out = entities.Outcome{Failure: out.Failure, Restart: out.Restart || ahead}
	return dropped
}

// refusedBeside is what the operator reads of what was dropped.
func refusedBeside(m *discovery.Method) string {
	return fmt.Sprintf(
		"Warning: %s refused a command and sent changes or effects beside: a refused command changes nothing, and they are dropped", m.FullName)
}

// keepEffects completes the outcome of an action that refuses its call and has effects. They are
// sent all the same, as the protocol says, so its caller must not read that nothing was stored.
func keepEffects(out *entities.Outcome) {
	if out == nil || out.Failure == nil || len(out.Effects) == 0 {
		return
	}
	failure := *out.Failure
	failure.Outcome = entities.Unknown
	out.Failure = &failure
}
