package partitions

import "time"

const (
	// tick is how often a partition looks at its clock: timers, retries, passivation, watchdog.
	tick = 100 * time.Millisecond
	// expireEvery is how often dedup rows outside the window are removed.
	expireEvery = time.Minute
)
