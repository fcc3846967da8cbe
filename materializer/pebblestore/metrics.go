package pebblestore

import "github.com/millrace-io/millrace/internal/observe"

// storeMetric is a metric and where its value is in the Stats.
type storeMetric struct {
	observe.Metric

	value func(*Stats) float64
}

// labels: a process may have several stores.
var labels = []string{"store"} //nolint:gochecknoglobals // a constant

func gauge(name, help string, value func(*Stats) float64) storeMetric {
	return storeMetric{observe.Metric{Name: name, Help: help, Kind: observe.Gauge, Labels: labels}, value}
}

func counter(name, help string, value func(*Stats) float64) storeMetric {
	return storeMetric{observe.Metric{Name: name, Help: help, Kind: observe.Counter, Labels: labels}, value}
}

//nolint:gochecknoglobals // a table
var storeMetrics = []storeMetric{
	gauge("millrace_pebblestore_disk_bytes", "Bytes of the store's files.",
		func(s *Stats) float64 { return float64(s.DiskBytes) }),
	gauge("millrace_pebblestore_memtable_bytes", "Memory for rows that are not on disk yet.",
		func(s *Stats) float64 { return float64(s.MemTableBytes) }),
	gauge("millrace_pebblestore_memtables_count", "Memtables; at four, commits wait.",
		func(s *Stats) float64 { return float64(s.MemTables) }),
	gauge("millrace_pebblestore_l0_tables", "Tables that wait to be merged into the levels.",
		func(s *Stats) float64 { return float64(s.L0Tables) }),
	gauge("millrace_pebblestore_read_tables", "Tables that one look-up may have to read.",
		func(s *Stats) float64 { return float64(s.ReadAmp) }),
	gauge("millrace_pebblestore_debt_bytes", "Bytes that compaction still has to rewrite.",
		func(s *Stats) float64 { return float64(s.DebtBytes) }),
	gauge("millrace_pebblestore_snapshots_open", "Open snapshots; each keeps overwritten rows.",
		func(s *Stats) float64 { return float64(s.Snapshots) }),
	gauge("millrace_pebblestore_iterators_open", "Open iterators; each keeps overwritten rows.",
		func(s *Stats) float64 { return float64(s.Iterators) }),
	gauge("millrace_pebblestore_cache_bytes", "Memory of the block cache, which the stores of a process share.",
		func(s *Stats) float64 { return float64(s.CacheBytes) }),
	gauge("millrace_pebblestore_writes_refused", "1 while writes are refused because the disk fails or is nearly full, or files are damaged.",
		func(s *Stats) float64 {
			if s.Failure != nil {
				return 1
			}
			return 0
		}),
	counter("millrace_pebblestore_commits_total", "Batches committed.",
		func(s *Stats) float64 { return float64(s.Commits) }),
	counter("millrace_pebblestore_committed_bytes_total", "Bytes of the batches committed.",
		func(s *Stats) float64 { return float64(s.CommittedBytes) }),
	counter("millrace_pebblestore_written_bytes_total", "Bytes written to disk by flushes, compactions and ingests.",
		func(s *Stats) float64 { return float64(s.WrittenBytes) }),
	counter("millrace_pebblestore_ingests_total", "Bulk loads ingested.",
		func(s *Stats) float64 { return float64(s.Ingests) }),
	counter("millrace_pebblestore_flushes_total", "Flushes of memtables.",
		func(s *Stats) float64 { return float64(s.Flushes) }),
	counter("millrace_pebblestore_compactions_total", "Compactions.",
		func(s *Stats) float64 { return float64(s.Compactions) }),
	counter("millrace_pebblestore_compaction_failures_total", "Compactions that failed and are tried again.",
		func(s *Stats) float64 { return float64(s.FailedCompactions) }),
	counter("millrace_pebblestore_cache_hits_total", "Blocks found in the cache.",
		func(s *Stats) float64 { return float64(s.CacheHits) }),
	counter("millrace_pebblestore_cache_misses_total", "Blocks read from disk.",
		func(s *Stats) float64 { return float64(s.CacheMisses) }),
	counter("millrace_pebblestore_filter_hits_total", "Look-ups of a table that its bloom filter spared.",
		func(s *Stats) float64 { return float64(s.FilterHits) }),
	counter("millrace_pebblestore_filter_misses_total", "Look-ups of a table that its bloom filter let through.",
		func(s *Stats) float64 { return float64(s.FilterMisses) }),
}

func metrics() []observe.Metric {
	list := make([]observe.Metric, len(storeMetrics))
	for i, m := range storeMetrics {
		list[i] = m.Metric
	}
	return list
}
