package sdk

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

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

// After has this entity get a command later, once, d after the time of this one. The method is one of the entity's own
// service, and the message names this entity. A timer of the same name is replaced. It is stored with what else this command
// decides, survives the worker, and fires exactly once: the command that it causes is stored together with the fact that it
// has fired. A refusal of that command is an answer; while its handler crashes, it is tried again.
func (c *entityCall) After(d time.Duration, name, method string, in proto.Message) {
	c.setTimer("After", Timer{Name: name, After: d}, method, in)
}

// Every has this entity get a command again and again, by a schedule with five fields as in cron(5), in UTC: "0 6 * * 1-5"
// is at six on working days. Times that pass while no worker runs are not made up for: it fires once, and goes on. The rest is
// as for After.
func (c *entityCall) Every(schedule, name, method string, in proto.Message) {
	if schedule == "" {
		panic(errors.New("cmd.Every: the schedule is empty: give five fields, as in \"0 6 * * 1-5\""))
	}
	c.setTimer("Every", Timer{Name: name, Schedule: schedule}, method, in)
}

// Cancel takes a timer of this entity away. That there is none of this name is no error.
func (c *entityCall) Cancel(name string) {
	c.mustRun("Cancel")
	c.timers = append(c.timers, Timer{Name: name, Cancel: true})
}

func (c *entityCall) setTimer(what string, t Timer, method string, in proto.Message) {
	c.mustRun(what)
	target, err := newTarget(method, in)
	switch {
	case err != nil:
		panic(fmt.Errorf("cmd.%s: %w", what, err))
	case target.Service != c.service.name():
		panic(fmt.Errorf("cmd.%s: %s is not a method of %s: a timer is for the entity itself; send an Effect from the method that it calls", what, method, c.service.name()))
	}
	t.Target = target
	c.timers = append(c.timers, t)
}

// toTimers encodes timers for a proxy that keeps them.
func toTimers(command *cloudstate.Command, timers []Timer) ([]*cloudstate.MillraceTimer, error) {
	if len(timers) == 0 {
		return nil, nil
	}
	if !command.GetContext().GetTimers() {
		return nil, fmt.Errorf("command %s sets the timer %q, and this proxy keeps none", command.GetName(), timers[0].Name)
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
