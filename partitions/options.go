package partitions

import "time"

const (
	// tick is the interval at which a partition handles time: timers, retries, passivation, watchdog.
	tick = 100 * time.Millisecond
	// expireEvery is the interval at which dedup rows outside the window are removed.
	expireEvery = time.Minute
)
