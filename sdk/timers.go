package sdk

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/internal/schedule"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// Timer is a change of a timer of an entity. Timers are named within their entity.
type Timer struct {
	Name string
	// Cancel takes the timer away; everything below is empty then.
	Cancel bool
	// After is how long after the command's time it is due. With a Schedule it does not count.
	After time.Duration
	// Schedule makes it recurring: five fields as in cron(5), or @hourly and its like, in UTC.
	Schedule string
	// Target is the command that the entity gets when the timer is due.
	Target Target
}

// After has this entity get a command later, once, d after the time of this one. The method is one
// of the entity's own service, and the message names this entity. Names belong to the entity, and a
// timer of the same name is replaced. A timer is stored together with whatever else this command
// decides, survives the worker, and fires exactly once: what its command decides is stored together
// with the fact that it has fired. A refusal of that command is an answer; while its handler
// crashes, it is tried again. A command that is refused sets no timers.
func (c *entityCall) After(d time.Duration, name, method string, in proto.Message) {
	c.mustRun("After")
	if err := c.set(Timer{Name: name, After: d}, schedule.CheckAfter(d), method, in); err != nil {
		panic(fmt.Errorf("cmd.After: %w", err))
	}
}

// Every has this entity get a command again and again, by a schedule with five fields as in
// cron(5), in UTC: "0 6 * * 1-5" is at six on working days. @hourly, @daily, @weekly, @monthly,
// @yearly and "@every 90s", in whole seconds, are schedules too. When times pass while no worker
// runs, it fires once for all of them, and goes on. The rest is as for After.
func (c *entityCall) Every(text, name, method string, in proto.Message) {
	c.mustRun("Every")
	if text == "" {
		panic(errors.New(`cmd.Every: the schedule is empty: give five fields, as in "0 6 * * 1-5"`))
	}
	err := schedule.Check(text, c.inv.Time.UnixNano())
	if err = c.set(Timer{Name: name, Schedule: text}, err, method, in); err != nil {
		panic(fmt.Errorf("cmd.Every: %w", err))
	}
}

// Cancel takes a timer of this entity away. That there is none of this name is no error.
func (c *entityCall) Cancel(name string) {
	c.mustRun("Cancel")
	if err := c.change(Timer{Name: name, Cancel: true}); err != nil {
		panic(fmt.Errorf("cmd.Cancel: %w", err))
	}
}

// set adds a timer, unless something is wrong with it. untimely is what is wrong with its time.
func (c *entityCall) set(t Timer, untimely error, method string, in proto.Message) error {
	target, err := newTarget(method, in)
	switch {
	case untimely != nil:
		return fmt.Errorf("timer %q: %w", t.Name, untimely)
	case err != nil:
		return fmt.Errorf("timer %q: %w", t.Name, err)
	case target.Service != c.service.name():
		return fmt.Errorf(
			"timer %q: %s is not a method of %s: a timer is for the entity itself; send an Effect from the method that it calls",
			t.Name, method, c.service.name())
	}
	if id := entityKey(in.ProtoReflect()); id != c.entityID {
		return fmt.Errorf(
			"timer %q: the %s is for %s, and this is %s: a timer is for the entity itself; set the entity key to cmd.EntityID()",
			t.Name, nameOf(target.Payload.TypeURL), c.service.key(id), c.service.key(c.entityID))
	}
	t.Target = target
	return c.change(t)
}

// change adds a change of a timer.
func (c *entityCall) change(t Timer) error {
	if err := schedule.CheckName(t.Name); err != nil {
		return err
	}
	if len(c.timers) == schedule.MaxChanges {
		return fmt.Errorf("timer %q: a command may change at most %d timers, and has done so", t.Name,
			schedule.MaxChanges)
	}
	c.timers = append(c.timers, t)
	return nil
}

// toTimers encodes the timers that a command sets, for a proxy that keeps them. Any other proxy
// would lose them silently; there the command crashes.
func (s *Service) toTimers(command *cloudstate.Command, timers []Timer) ([]*cloudstate.MillraceTimer, error) {
	if len(timers) == 0 {
		return nil, nil
	}
	if !command.GetContext().GetTimers() {
		return nil, &CrashError{
			Service: s.name(), Method: command.GetName(), Entity: s.key(command.GetEntityId()),
			Cause: fmt.Errorf(
				"timer %q: this proxy keeps no timers: nothing was applied; run the function beside a millrace worker",
				timers[0].Name),
		}
	}
	out := make([]*cloudstate.MillraceTimer, len(timers))
	for i := range timers {
		t := &timers[i]
		out[i] = &cloudstate.MillraceTimer{Name: t.Name, Cancel: t.Cancel}
		if !t.Cancel {
			out[i].AfterNanos, out[i].Schedule = int64(t.After), t.Schedule
			out[i].CommandName, out[i].Payload = t.Target.Method, toAny(t.Target.Payload)
		}
	}
	return out, nil
}
