package sdktest

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/sdk"
)

// Timer is a change of a timer that a test expects of a command: one of [After], [Every], [Cancel].
type Timer struct {
	name, schedule, method string
	after                  time.Duration
	cancel                 bool
	message                proto.Message
}

// After is a timer that sends this message to this method of the entity, d after the command.
func After(d time.Duration, name, method string, message proto.Message) Timer {
	return Timer{name: name, after: d, method: method, message: message}
}

// Every is a timer that does so by a schedule.
func Every(schedule, name, method string, message proto.Message) Timer {
	return Timer{name: name, schedule: schedule, method: method, message: message}
}

// Cancel is a timer that is taken away.
func Cancel(name string) Timer { return Timer{name: name, cancel: true} }

// String returns the timer as failures show it.
func (t Timer) String() string {
	switch {
	case t.cancel:
		return fmt.Sprintf("cancel timer %q", t.name)
	case t.schedule != "":
		return fmt.Sprintf("timer %q every %q: %s %s", t.name, t.schedule, t.method, show(t.message))
	default:
		return fmt.Sprintf("timer %q after %v: %s %s", t.name, t.after, t.method, show(t.message))
	}
}

func (t Timer) equal(u Timer) bool {
	return t.name == u.name && t.cancel == u.cancel && t.after == u.after && t.schedule == u.schedule &&
		t.method == u.method &&
		proto.Equal(t.message, u.message)
}

// ThenTimers says that the last command set and cancelled exactly these timers, in this order; none
// given: it left all as they were. A scenario fires no timer: send its message by When to see what
// it does, or start a [Worker].
func (s *Scenario) ThenTimers(want ...Timer) *Scenario {
	s.t.Helper()
	var got []Timer
	for _, d := range s.mustHaveDecided("ThenTimers") {
		for i := range d.Timers {
			got = append(got, s.timer(&d.Timers[i]))
		}
	}
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			s.t.Fatalf("ThenTimers: %d is missing, want %v", i+1, want[i])
		case i >= len(want):
			s.t.Fatalf("ThenTimers: %d is one too many: %v", i+1, got[i])
		case !got[i].equal(want[i]):
			s.t.Fatalf("ThenTimers: %d\n got %v\nwant %v", i+1, got[i], want[i])
		}
	}
	return s
}

// timer returns a timer of a decision in the form of a test's.
func (s *Scenario) timer(t *sdk.Timer) Timer {
	s.t.Helper()
	if t.Cancel {
		return Cancel(t.Name)
	}
	return Timer{
		name: t.Name, after: t.After, schedule: t.Schedule, method: t.Target.FullMethod(),
		message: s.decode(t.Target.Payload),
	}
}
