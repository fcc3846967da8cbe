package kafka

import "sync/atomic"

// Stats are counters since Open, and gauges. They are read one by one, so they may not be
// consistent with each other.
type Stats struct {
	// AppendsOpen and BytesOpen wait for an acknowledgement now.
	AppendsOpen, BytesOpen int64
	// Appends and Records have been acknowledged; AppendErrors have not, refused ones included.
	Appends, Records, AppendErrors int64
	// ProducersStopped counts producers stopped because the broker contradicted them.
	ProducersStopped int64
	// RecordsRead and BytesRead were handed to readers. FetchRetries counts fetch errors that were
	// retried, StaleLeaders how often a former leader called a good position out of range.
	RecordsRead, BytesRead, FetchRetries, StaleLeaders int64
	// Rebalances counts assignments received, MembershipsLost how often this worker was removed
	// from its group.
	Rebalances, MembershipsLost int64
	// Evictions counts workers that this Log has removed from a group.
	Evictions int64
}

type counters struct {
	appendsOpen, bytesOpen                             atomic.Int64
	appends, records, appendErrors                     atomic.Int64
	producersStopped                                   atomic.Int64
	recordsRead, bytesRead, fetchRetries, staleLeaders atomic.Int64
	rebalances, membershipsLost, evictions             atomic.Int64
}

// Stats returns the counters. It may be called at any time, from any goroutine.
func (l *Log) Stats() Stats {
	c := &l.counters
	return Stats{
		AppendsOpen: c.appendsOpen.Load(), BytesOpen: c.bytesOpen.Load(),
		Appends: c.appends.Load(), Records: c.records.Load(), AppendErrors: c.appendErrors.Load(),
		ProducersStopped: c.producersStopped.Load(),
		RecordsRead:      c.recordsRead.Load(), BytesRead: c.bytesRead.Load(),
		FetchRetries: c.fetchRetries.Load(), StaleLeaders: c.staleLeaders.Load(),
		Rebalances: c.rebalances.Load(), MembershipsLost: c.membershipsLost.Load(), Evictions: c.evictions.Load(),
	}
}
