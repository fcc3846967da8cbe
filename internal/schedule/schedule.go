// Package schedule reads the schedules of recurring timers. It starts no goroutine.
package schedule

import (
	"fmt"
	"time"

	"github.com/robfig/cron/v3"
)

// Next returns the first moment after now that a schedule names: five fields as in cron(5), or @hourly and its like, in UTC.
// Both times are in nanoseconds since the Unix epoch.
func Next(schedule string, now int64) (int64, error) {
	s, err := cron.ParseStandard(schedule)
	if err != nil {
		return 0, fmt.Errorf("schedule %q: %w", schedule, err)
	}
	next := s.Next(time.Unix(0, now).UTC())
	if next.IsZero() {
		return 0, fmt.Errorf("schedule %q never comes", schedule)
	}
	return next.UnixNano(), nil
}
