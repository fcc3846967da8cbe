package node

import (
	"strconv"

	"github.com/millrace-io/millrace/broker-adapter/embedded"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/partitions"
)

// partitionMetrics are what the engine counts, by partition.
func (n *Node) partitionMetrics() observe.Source {
	type column struct {
		observe.Metric
		value func(partitions.Status, partitions.Counts) float64
	}
	counter := func(name, help string, value func(partitions.Counts) uint64) column {
		return column{
			observe.Metric{Name: name, Help: help, Kind: observe.Counter, Labels: []string{"partition"}},
			func(_ partitions.Status, c partitions.Counts) float64 { return float64(value(c)) },
		}
	}
	gauge := func(name, help string, value func(partitions.Status) float64) column {
		return column{
			observe.Metric{Name: name, Help: help, Kind: observe.Gauge, Labels: []string{"partition"}},
			func(s partitions.Status, _ partitions.Counts) float64 { return value(s) },
		}
	}
	columns := []column{
		counter("millrace_partitions_commands_total", "Commands submitted.", func(c partitions.Counts) uint64 { return c.Commands }),
		counter("millrace_partitions_failed_commands_total", "Commands answered with an error, refusals of functions left out.", func(c partitions.Counts) uint64 { return c.Failed }),
		counter("millrace_partitions_batches_total", "Batches sent to the log.", func(c partitions.Counts) uint64 { return c.Batches }),
		counter("millrace_partitions_records_total", "Records committed.", func(c partitions.Counts) uint64 { return c.Records }),
		counter("millrace_partitions_activated_entities_total", "Entities brought to life.", func(c partitions.Counts) uint64 { return c.Activated }),
		counter("millrace_partitions_passivated_entities_total", "Entities that left memory in order.", func(c partitions.Counts) uint64 { return c.Passivated }),
		counter("millrace_partitions_expired_command_ids_total", "Command ids removed after the dedup window.", func(c partitions.Counts) uint64 { return c.Expired }),
		counter("millrace_partitions_alarms_total", "Things that an operator should look at.", func(c partitions.Counts) uint64 { return c.Alarms }),
		gauge("millrace_partitions_state_code", "0 standby, 1 catching up, 2 claiming, 3 active, 4 suspect, 5 draining, 6 halted.", func(s partitions.Status) float64 { return float64(s.State) }),
		gauge("millrace_partitions_next_offset", "Offset behind the last committed record.", func(s partitions.Status) float64 { return float64(s.Next) }),
		gauge("millrace_partitions_waiting_commands", "Commands submitted and not answered.", func(s partitions.Status) float64 { return float64(s.Waiting) }),
		gauge("millrace_partitions_active_entities", "Entities in memory.", func(s partitions.Status) float64 { return float64(s.Entities) }),
		gauge("millrace_partitions_active_bytes", "Estimated memory of active entities.", func(s partitions.Status) float64 { return float64(s.ActiveBytes) }),
		gauge("millrace_partitions_stale_records", "Records that were void by the reader rule, since the partition was taken.", func(s partitions.Status) float64 { return float64(s.Fold.Stale) }),
		gauge("millrace_partitions_foreign_records", "Records without a readable envelope, since the partition was taken.", func(s partitions.Status) float64 { return float64(s.Fold.Foreign) }),
	}
	source := observe.Source{}
	for _, c := range columns {
		source.Metrics = append(source.Metrics, c.Metric)
	}
	source.Collect = func(emit observe.Emitter) {
		for _, p := range n.manager.Partitions() {
			status, counts := p.Status(), p.Counts()
			label := strconv.Itoa(int(status.Partition))
			for _, c := range columns {
				emit.Value(c.Name, c.value(status, counts), label)
			}
		}
	}
	return source
}

// embeddedMetrics are what the embedded log counts.
func embeddedMetrics(log *embedded.Log) observe.Source {
	const (
		appends = "millrace_log_appends_total"
		records = "millrace_log_records_total"
		bytes   = "millrace_log_bytes_total"
		commits = "millrace_log_commits_total"
	)
	return observe.Source{
		Metrics: []observe.Metric{
			{Name: appends, Help: "Appends acknowledged by the log.", Kind: observe.Counter},
			{Name: records, Help: "Records acknowledged by the log.", Kind: observe.Counter},
			{Name: bytes, Help: "Bytes of acknowledged records.", Kind: observe.Counter},
			{Name: commits, Help: "Synced group commits.", Kind: observe.Counter},
		},
		Collect: func(emit observe.Emitter) {
			s := log.Stats()
			emit.Value(appends, float64(s.Appends))
			emit.Value(records, float64(s.Records))
			emit.Value(bytes, float64(s.Bytes))
			emit.Value(commits, float64(s.Commits))
		},
	}
}
