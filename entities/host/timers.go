package host

import (
	"errors"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/internal/schedule"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// timersOf are commands of the session's own service.
func (s *session) timersOf(timers []*cloudstate.MillraceTimer) []entities.TimerChange {
	if len(timers) == 0 {
		return nil
	}
	out := make([]entities.TimerChange, len(timers))
	for i, t := range timers {
		out[i] = entities.TimerChange{
			Name: t.GetName(), Cancel: t.GetCancel(), After: time.Duration(t.GetAfterNanos()),
			Schedule: t.GetSchedule(),
		}
		if !t.GetCancel() {
			out[i].Target = entities.Target{
				Service: s.service.Name, Method: t.GetCommandName(),
				Payload: payloadOf(t.GetPayload()),
			}
		}
	}
	return out
}

var errTimersUnannounced = errors.New(
	"the reply sets timers, but the function did not announce MILLRACE_COMMAND_CONTEXT, by which it learns whether it may")

// checkTimers says why an outcome's changes of timers cannot be stored. What is wrong with the
// command of a timer would otherwise show only when it is due, when no caller waits.
func checkTimers(out *entities.Outcome, service *discovery.Service, key entities.Key, now time.Time) error {
	switch {
	case len(out.Timers) == 0:
		return nil
	case len(out.Timers) > schedule.MaxChanges:
		return fmt.Errorf("too many changes of timers: %d, and the limit is %d for one command",
			len(out.Timers), schedule.MaxChanges)
	}
	for i := range out.Timers {
		t := &out.Timers[i]
		if err := schedule.CheckName(t.Name); err != nil {
			return fmt.Errorf("change %d of %d of a timer: %w", i+1, len(out.Timers), err)
		}
		if t.Cancel {
			continue
		}
		if err := checkDue(t, now); err != nil {
			return fmt.Errorf("timer %q: %w", t.Name, err)
		}
		if err := checkTarget(t.Target, service, key); err != nil {
			return fmt.Errorf("timer %q: %w", t.Name, err)
		}
	}
	return nil
}

// checkDue says why a timer has no time to fire at. now is the command's log time, which every fold
// of its record has too.
func checkDue(t *entities.TimerChange, now time.Time) error {
	if t.Schedule == "" {
		return schedule.CheckAfter(t.After)
	}
	return schedule.Check(t.Schedule, now.UnixNano())
}

// checkTarget says why a timer's command would not reach the entity that sets it.
func checkTarget(t entities.Target, service *discovery.Service, key entities.Key) error {
	if t.Service != service.Name {
		return fmt.Errorf("it is for service %s, and the entity is one of %s", t.Service, service.Name)
	}
	m := service.Method(t.Method)
	if m == nil {
		return unknownMethod(service, t.Method)
	}
	if t.Payload.TypeURL != m.InputType {
		return fmt.Errorf("its message is a %q, and %s takes a %s", t.Payload.TypeURL, m.FullName, m.InputType)
	}
	cmd, err := m.Retarget(t)
	if err != nil {
		return err
	}
	if cmd.Key != key {
		return fmt.Errorf("it is for %s, and an entity sets timers for itself only", cmd.Key)
	}
	return nil
}
