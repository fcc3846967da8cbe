// Package schedule has the rules for timers that sdk, host and engine share: valid names, how far
// ahead a timer may be set, and when a recurring one is due. It starts no goroutine.
package schedule

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/robfig/cron/v3"
)

const (
	// MaxChanges bounds the changes of timers by one command.
	MaxChanges = 100
	// MaxNameBytes bounds the name of a timer.
	MaxNameBytes = 128
	// MaxScheduleBytes bounds the text of a schedule.
	MaxScheduleBytes = 128
	// Farthest is how far ahead a timer may be set: a hundred years, so that its time is still a
	// number of nanoseconds.
	Farthest = 100 * 365 * 24 * time.Hour
)

// CheckName returns what is wrong with the name of a timer.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("a timer needs a name, by which it is replaced and cancelled")
	case len(name) > MaxNameBytes:
		return fmt.Errorf("the name of the timer has %d bytes, and the limit is %d: use a shorter one", len(name),
			MaxNameBytes)
	case !utf8.ValidString(name):
		return fmt.Errorf("the name of the timer, %q, is not valid UTF-8", name)
	default:
		return nil
	}
}

// CheckAfter returns what is wrong with the time after which a timer is due. It may be 0.
func CheckAfter(d time.Duration) error {
	switch {
	case d < 0:
		return fmt.Errorf("%v is before the command itself: give 0 or more", d)
	case d > Farthest:
		return fmt.Errorf("%v is too far ahead: the limit is %v", d, Farthest)
	default:
		return nil
	}
}

// every is the descriptor of a schedule that recurs after a fixed time.
const every = "@every "

// Check returns what is wrong with a schedule for a timer that is set at a time, in nanoseconds
// since the Unix epoch. It refuses what Next rounds: times that are not whole seconds, or are below
// one.
func Check(schedule string, now int64) error {
	if _, err := Next(schedule, now); err != nil {
		return err
	}
	if text, isEvery := strings.CutPrefix(schedule, every); isEvery {
		if d, err := time.ParseDuration(text); err != nil || d < time.Second || d%time.Second != 0 {
			return fmt.Errorf("schedule %q: give whole seconds, one or more, as in %q", schedule, every+"10s")
		}
	}
	return nil
}

// Next returns the first moment after now that a schedule names: five fields as in cron(5), or
// @hourly and its like, in UTC. Both times are in nanoseconds since the Unix epoch.
func Next(schedule string, now int64) (int64, error) {
	if len(schedule) > MaxScheduleBytes {
		return 0, fmt.Errorf("the schedule has %d bytes, and the limit is %d", len(schedule), MaxScheduleBytes)
	}
	// The parser would accept a time zone, whose rules differ between machines, and panic if
	// nothing follows it.
	if strings.Contains(schedule, "TZ=") {
		return 0, fmt.Errorf("schedule %q: schedules are in UTC: remove the time zone", schedule)
	}
	s, err := cron.ParseStandard(schedule)
	if err != nil {
		return 0, fmt.Errorf("schedule %q: %w", schedule, err)
	}
	at := time.Unix(0, now).UTC()
	next := s.Next(at)
	switch {
	case next.IsZero():
		return 0, fmt.Errorf("schedule %q never comes", schedule)
	case next.Sub(at) > Farthest:
		return 0, fmt.Errorf("schedule %q is due too late: the limit is %v ahead", schedule, Farthest)
	default:
		return next.UnixNano(), nil
	}
}
