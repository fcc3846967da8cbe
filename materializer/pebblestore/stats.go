package pebblestore

import (
	"sync/atomic"

	"github.com/millrace-io/millrace/internal/observe"
)

// counters are those that Pebble does not have.
type counters struct {
	commits, committedBytes, ingests atomic.Uint64
}

// Stats are figures of a store. Those that count do so since Open.
type Stats struct {
	DiskBytes     uint64 // all files
	MemTableBytes uint64 // memory for rows that are not flushed
	MemTables     int64
	L0Tables      int64 // tables that wait to be merged into the levels
	ReadAmp       int   // tables that one look-up may have to read
	DebtBytes     uint64
	Snapshots     int // open ones
	Iterators     int // open ones

	Commits        uint64
	CommittedBytes uint64
	Ingests        uint64
	Flushes        int64
	Compactions    int64
	// FailedCompactions are tried again.
	FailedCompactions int64
	// WrittenBytes went to the disk by flushes, compactions and ingests.
	WrittenBytes uint64

	CacheBytes  int64
	CacheHits   int64
	CacheMisses int64
	// FilterHits are look-ups of a table that a bloom filter avoided.
	FilterHits   int64
	FilterMisses int64

	// Failure is why writes are refused; nil while they are not.
	Failure error
}

// Stats returns the present figures; after Close only the failure, if there was one.
func (s *Store) Stats() Stats {
	if !s.gate.enter() {
		return Stats{Failure: s.health.refusal()}
	}
	defer s.gate.leave()
	m := s.db.Metrics()
	_, iterators := s.open()
	total := m.Total()
	return Stats{
		DiskBytes:         m.DiskSpaceUsage(),
		MemTableBytes:     m.MemTable.Size,
		MemTables:         m.MemTable.Count,
		L0Tables:          m.Levels[0].TablesCount,
		ReadAmp:           m.ReadAmp(),
		DebtBytes:         m.Compact.EstimatedDebt,
		Snapshots:         m.Snapshots.Count,
		Iterators:         len(iterators),
		Commits:           s.counters.commits.Load(),
		CommittedBytes:    s.counters.committedBytes.Load(),
		Ingests:           s.counters.ingests.Load(),
		Flushes:           m.Flush.Count,
		Compactions:       m.Compact.Count,
		FailedCompactions: m.Compact.FailedCount,
		WrittenBytes:      total.TableBytesFlushed + total.TableBytesCompacted + total.TableBytesIngested,
		CacheBytes:        m.BlockCache.Size,
		CacheHits:         m.BlockCache.Hits,
		CacheMisses:       m.BlockCache.Misses,
		FilterHits:        m.Filter.Hits,
		FilterMisses:      m.Filter.Misses,
		Failure:           s.refusal(),
	}
}

// Metrics offers the figures of the stores that are open at the moment, by their names.
func Metrics(open func() map[string]*Store) observe.Source {
	return observe.Source{
		Metrics: metrics(),
		Collect: func(e observe.Emitter) {
			for name, store := range open() {
				stats := store.Stats()
				for _, m := range storeMetrics {
					e.Value(m.Name, m.value(&stats), name)
				}
			}
		},
	}
}
