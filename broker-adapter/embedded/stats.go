package embedded

import (
	"sync"
	"sync/atomic"
	"time"
)

// State is whether a log can be written.
type State string

// The states of a log.
const (
	// StateReady: the log can be written.
	StateReady State = "ready"
	// StateFailed: the disk failed; the log is being opened again.
	StateFailed State = "failed"
	// StateClosed: Close was called.
	StateClosed State = "closed"
)

// Stats counts what a log has done since it was opened.
type Stats struct {
	// Appends, Records and Bytes (keys, values and headers) count what was acknowledged; Commits
	// the synced groups.
	Appends, Records, Bytes, Commits uint64
	// SyncTime is the total time from handing a group to the database to its sync.
	SyncTime time.Duration
	// Failures counts how often the disk failed, Reopened how often the log was opened again.
	Failures, Reopened uint64
	// QueuedAppends and QueuedBytes wait for the committer now.
	QueuedAppends, QueuedBytes int
	State                      State
	// LastError is the last error, background work included, at LastErrorTime; nil: none yet.
	LastError     error
	LastErrorTime time.Time
}

// stats counts. The committer alone adds to the counters.
type stats struct {
	appends, records, bytes, commits, failures, reopened atomic.Uint64
	syncTime                                             atomic.Int64
	now                                                  func() time.Time

	mu        sync.Mutex
	state     State
	lastError error
	lastTime  time.Time
}

// note keeps an error for Stats.
func (s *stats) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastError, s.lastTime = err, s.now()
}

func (s *stats) enter(state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
}

func (s *stats) snapshot() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{
		Appends: s.appends.Load(), Records: s.records.Load(), Bytes: s.bytes.Load(), Commits: s.commits.Load(),
		SyncTime: time.Duration(s.syncTime.Load()), Failures: s.failures.Load(), Reopened: s.reopened.Load(),
		State: s.state, LastError: s.lastError, LastErrorTime: s.lastTime,
	}
}
