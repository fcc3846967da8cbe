package node

import (
	"strconv"
	"sync"

	"github.com/millrace-io/millrace/broker-adapter/embedded"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/lifecycle"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/partitions"
	"github.com/millrace-io/millrace/partitions/core"
	"github.com/millrace-io/millrace/partitions/peer"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// collected are the metrics of all layers.
func (n *Node) collected() []observe.Source {
	all := []observe.Source{
		n.gateway.Metrics(), n.taskMetrics(), n.partitionMetrics(), n.journalMetrics(),
		n.hostMetrics(), n.stalenessMetrics(), traceMetrics(n.tracer), n.rebuilds.metrics(), clockMetrics(n.clock),
		n.projectionMetrics(),
	}
	if n.cluster != nil {
		all = append(all, peer.Metrics(n.cluster.client, n.cluster.server), n.clusterMetrics())
	}
	return append(all, n.sources...)
}

// clusterMetrics are what this worker has to do with others.
func (n *Node) clusterMetrics() observe.Source {
	type f = *adminv1.ClusterStatus
	columns := append(routeMetrics(), []column[f]{
		counter("millrace_cluster_evicted_workers_total", "Dead workers that this process evicted from the group.",
			f.GetEvictedWorkers),
	}...)
	return measured(columns, func(take func(f, ...string)) { take(n.service.ClusterStatus()) })
}

// routeMetrics are those of a worker and of a gateway.
func routeMetrics() []column[*adminv1.ClusterStatus] {
	type f = *adminv1.ClusterStatus
	return []column[f]{
		gauge("millrace_cluster_members", "Workers of the app.", func(s f) int { return int(s.GetMembers()) }),
		gauge("millrace_cluster_versions", "Different versions of their services that the workers serve; above 1 during a rolling upgrade.",
			func(s f) int { return int(s.GetVersions()) }),
		counter("millrace_cluster_forwarded_commands_total", "Commands sent to the worker that owns their partition.",
			f.GetForwardedCommands),
		counter("millrace_cluster_retried_commands_total", "Retries of commands that had not reached the owner.",
			f.GetRetriedCommands),
	}
}

// taskMetrics show every task, and every loop below the tasks.
func (n *Node) taskMetrics() observe.Source {
	const (
		ready   = "millrace_node_ready_state"
		running = "millrace_node_task_running"
		errs    = "millrace_node_task_errors_total"
		healthy = "millrace_node_loop_healthy"
	)
	return observe.Source{
		Metrics: []observe.Metric{
			{Name: ready, Help: "1 while the node serves: function known, every partition owned, log and store writable.", Kind: observe.Gauge},
			{Name: running, Help: "1 while a task of the process runs.", Kind: observe.Gauge, Labels: []string{"task"}},
			{Name: errs, Help: "Errors after which a task continued.", Kind: observe.Counter, Labels: []string{"task"}},
			{Name: healthy, Help: "1 while log, store or views can be written.", Kind: observe.Gauge, Labels: []string{"loop"}},
		},
		Collect: func(emit observe.Emitter) {
			emit.Value(ready, yes(n.NotReady() == nil))
			for _, task := range n.group.Status() {
				emit.Value(running, yes(task.State == lifecycle.Running), task.Name)
				emit.Value(errs, float64(n.troubles.of(task.Name).counted), task.Name)
			}
			for _, l := range n.shownLoops() {
				emit.Value(healthy, yes(l.failure() == nil), l.name)
			}
		},
	}
}

// clockMetrics show what the machine's clock did.
func clockMetrics(c clock.Clock) observe.Source {
	const jumps = "millrace_clock_jumps_seconds_total"
	return observe.Source{
		Metrics: []observe.Metric{{
			Name: jumps, Kind: observe.Counter, Labels: []string{"direction"},
			Help: "Jumps of the wall clock by more than a second: the machine was suspended, or its clock was set.",
		}},
		Collect: func(emit observe.Emitter) {
			seen := clock.JumpsOf(c)
			emit.Value(jumps, seen.Forward.Seconds(), "forward")
			emit.Value(jumps, seen.Back.Seconds(), "back")
		},
	}
}

func yes(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// column is one metric of something of which S are the figures.
type column[S any] struct {
	observe.Metric
	value func(S) float64
}

func counter[S any, N int64 | uint64](name, help string, value func(S) N, labels ...string) column[S] {
	return column[S]{
		observe.Metric{Name: name, Help: help, Kind: observe.Counter, Labels: labels},
		func(s S) float64 { return float64(value(s)) },
	}
}

func gauge[S any, N int | int32 | int64 | uint64 | float64 | core.State](name, help string, value func(S) N,
	labels ...string,
) column[S] {
	return column[S]{
		observe.Metric{Name: name, Help: help, Kind: observe.Gauge, Labels: labels},
		func(s S) float64 { return float64(value(s)) },
	}
}

// measured makes a source of columns. figures calls its argument once for each set of figures, with
// their labels.
func measured[S any](columns []column[S], figures func(func(S, ...string))) observe.Source {
	source := observe.Source{}
	for _, c := range columns {
		source.Metrics = append(source.Metrics, c.Metric)
	}
	source.Collect = func(emit observe.Emitter) {
		figures(func(s S, labels ...string) {
			for _, c := range columns {
				emit.Value(c.Name, c.value(s), labels...)
			}
		})
	}
	return source
}

// partitionFigures are the counts and the status of a partition.
type partitionFigures struct {
	partitions.Status
	partitions.Counts
}

// partitionMetrics are what the engine counts, by partition.
func (n *Node) partitionMetrics() observe.Source {
	type f = partitionFigures
	const label = "partition"
	columns := []column[f]{
		counter("millrace_partitions_commands_total", "Commands submitted.",
			func(p f) uint64 { return p.Counts.Commands }, label),
		counter("millrace_partitions_failed_commands_total", "Commands answered with an error, refusals of functions left out.",
			func(p f) uint64 { return p.Counts.Failed }, label),
		counter("millrace_partitions_batches_total", "Batches sent to the log.",
			func(p f) uint64 { return p.Counts.Batches }, label),
		counter("millrace_partitions_records_total", "Records committed.",
			func(p f) uint64 { return p.Counts.Records }, label),
		counter("millrace_partitions_activated_entities_total", "Entities activated.",
			func(p f) uint64 { return p.Counts.Activated }, label),
		counter("millrace_partitions_passivated_entities_total", "Entities passivated.",
			func(p f) uint64 { return p.Counts.Passivated }, label),
		counter("millrace_partitions_expired_command_ids_total", "Command ids removed after the dedup window.",
			func(p f) uint64 { return p.Counts.Expired }, label),
		counter("millrace_partitions_alarms_total", "Events that need the attention of an operator.",
			func(p f) uint64 { return p.Counts.Alarms }, label),
		counter("millrace_partitions_effect_attempts_total", "Attempts to deliver effects from the outbox.",
			func(p f) uint64 { return p.Counts.Delivered }, label),
		counter("millrace_partitions_refused_effects_total", "Effects that their targets refused.",
			func(p f) uint64 { return p.Counts.Refused }, label),
		counter("millrace_partitions_dropped_refusals_total", "Kept refusals that were dropped to make room for newer ones.",
			func(p f) uint64 { return p.Counts.RefusalsDropped }, label),
		gauge("millrace_partitions_kept_refusals", "Refused effects that are kept for an operator.",
			func(p f) int { return p.Status.Refusals }, label),
		counter("millrace_partitions_timer_attempts_total", "Attempts to run the commands of due timers.",
			func(p f) uint64 { return p.Counts.Fired }, label),
		counter("millrace_partitions_follower_reads_total", "Reads answered from the image of a followed partition.",
			func(p f) uint64 { return p.Counts.FollowerReads() }, label),
		gauge("millrace_partitions_followed", "1 while this worker is a standby of the partition.",
			func(p f) float64 { return yes(p.Status.Followed) }, label),
		gauge("millrace_partitions_image_lag_records", "How far the image of a followed partition is behind the log.",
			func(p f) int64 { return p.Status.Lag }, label),
		gauge("millrace_partitions_open_effects", "Effects in memory that are not settled, parked ones included.",
			func(p f) int { return p.Status.Effects }, label),
		gauge("millrace_partitions_parked_effects", "Effects that wait for an operator.",
			func(p f) int { return p.Status.Parked }, label),
		gauge("millrace_partitions_timers", "Timers in memory; the store may have more.",
			func(p f) int { return p.Status.Timers }, label),
		gauge("millrace_partitions_overdue_timer_seconds", "How late the next timer is.",
			func(p f) float64 { return p.Status.Overdue.Seconds() }, label),
		gauge("millrace_partitions_state_code", "0 standby, 1 catching up, 2 claiming, 3 active, 4 suspect, 5 releasing, 6 halted, 7 passing offsets that were lost, 8 repairing.",
			func(p f) core.State { return p.Status.State }, label),
		gauge("millrace_partitions_halted", "1 while the partition is halted on this worker, whether it owns it or would be its standby.",
			func(p f) float64 { return yes(p.Status.State == core.Halted) }, label),
		gauge("millrace_partitions_next_offset", "Offset after the last committed record.",
			func(p f) int64 { return p.Status.Next }, label),
		gauge("millrace_partitions_waiting_commands", "Commands submitted and not answered.",
			func(p f) int64 { return p.Status.Waiting }, label),
		gauge("millrace_partitions_active_entities", "Entities in memory.",
			func(p f) int { return p.Status.Entities }, label),
		gauge("millrace_partitions_active_bytes", "Estimated memory of active entities.",
			func(p f) int { return p.Status.ActiveBytes }, label),
		gauge("millrace_partitions_void_records",
			"Records that were void by the reader rule, since the partition was taken.",
			func(p f) uint64 { return p.Status.Fold.Void }, label),
		gauge("millrace_partitions_foreign_records", "Records without a readable envelope, since the partition was taken.",
			func(p f) uint64 { return p.Status.Fold.Foreign }, label),
		gauge("millrace_partitions_jumped_claims", "Claims that were void because of absurd epochs, since the partition was taken.",
			func(p f) uint64 { return p.Status.Fold.Jumped }, label),
		gauge("millrace_partitions_log_damaged", "1 when the log has lost records that the store of this worker has: no other worker can rebuild the partition.",
			func(p f) float64 { return yes(p.Status.Inspection.Damage != nil) }, label),
	}
	return measured(columns, func(take func(f, ...string)) {
		for _, p := range n.manager.Partitions() {
			status := p.Status()
			take(f{status, p.Counts()}, strconv.Itoa(int(status.Partition)))
		}
	})
}

// journalMetrics are how the journal is laid out.
func (n *Node) journalMetrics() observe.Source {
	columns := []column[*partitions.Manager]{
		gauge("millrace_journal_partitions", "Partitions that the journal was written with.",
			func(*partitions.Manager) int32 { return n.layout.Partitions }),
		gauge("millrace_journal_topic_partitions", "Partitions of the journal's topic at the last check.",
			(*partitions.Manager).TopicPartitions),
		gauge("millrace_journal_given_up", "1 while all partitions are released because the topic or the routing table does not fit the journal.",
			func(m *partitions.Manager) float64 { return yes(m.Contract() != nil) }),
	}
	return measured(columns, func(take func(*partitions.Manager, ...string)) { take(n.manager) })
}

// hostMetrics are what is counted about the present function. They begin anew when another one
// takes its place.
func (n *Node) hostMetrics() observe.Source {
	columns := []column[host.Stats]{
		gauge("millrace_host_open_sessions", "Entities that the function has in memory.",
			func(s host.Stats) int64 { return s.SessionsOpen }),
		counter("millrace_host_sessions_total", "Sessions of entities that began.",
			func(s host.Stats) int64 { return s.SessionsOpened }),
		counter("millrace_host_broken_sessions_total", "Sessions that the function ended while no command was running.",
			func(s host.Stats) int64 { return s.SessionsEnded }),
		counter("millrace_host_commands_total", "Commands given to entities.",
			func(s host.Stats) int64 { return s.Commands }),
		counter("millrace_host_actions_total", "Calls given to actions.", func(s host.Stats) int64 { return s.Actions }),
		counter("millrace_host_refusals_total", "Commands and calls that the function refused.",
			func(s host.Stats) int64 { return s.Refusals }),
		counter("millrace_host_failures_total", "Commands and calls in which the function failed: it crashed or violated the protocol.",
			func(s host.Stats) int64 { return s.Failures }),
		counter("millrace_host_restarts_total", "Images of entities that were rebuilt after a decision was dropped.",
			func(s host.Stats) int64 { return s.Restarts }),
		counter("millrace_host_replayed_events_total", "Events replayed to the function when sessions began.",
			func(s host.Stats) int64 { return s.EventsReplayed }),
		counter("millrace_host_warnings_total", "Mistakes reported to the function.",
			func(s host.Stats) int64 { return s.Warnings }),
	}
	return measured(columns, func(take func(host.Stats, ...string)) {
		if function := n.readiness.present(); function != nil {
			take(function.Stats())
		}
	})
}

// rebuilds remembers how far each partition's last catch-up is.
type rebuilds struct {
	mu   sync.Mutex
	last map[uint16]Progress
}

func (r *rebuilds) report(p Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = map[uint16]Progress{}
	}
	r.last[p.Address.Partition] = p
}

func (r *rebuilds) metrics() observe.Source {
	const label = "partition"
	columns := []column[Progress]{
		gauge("millrace_materializer_caught_up_records", "Records folded in the last catch-up of a partition.",
			func(p Progress) int64 { return p.Next - p.From }, label),
		gauge("millrace_materializer_remaining_records", "Records that the last catch-up of a partition still has to fold.",
			func(p Progress) int64 { return p.Until - p.Next }, label),
	}
	return measured(columns, func(take func(Progress, ...string)) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for partition, p := range r.last {
			take(p, strconv.Itoa(int(partition)))
		}
	})
}

// embeddedMetrics are what the embedded log counts.
func embeddedMetrics(log *embedded.Log) observe.Source {
	type f = embedded.Stats
	columns := []column[f]{
		counter("millrace_log_appends_total", "Appends acknowledged by the log.", func(s f) uint64 { return s.Appends }),
		counter("millrace_log_records_total", "Records acknowledged by the log.", func(s f) uint64 { return s.Records }),
		counter("millrace_log_bytes_total", "Bytes of acknowledged records.", func(s f) uint64 { return s.Bytes }),
		counter("millrace_log_commits_total", "Synced group commits.", func(s f) uint64 { return s.Commits }),
		counter("millrace_log_failures_total", "Disk failures.", func(s f) uint64 { return s.Failures }),
		counter("millrace_log_reopened_total", "Recoveries of the log after disk failures.",
			func(s f) uint64 { return s.Reopened }),
		gauge("millrace_log_queued_bytes", "Bytes that wait to be written.", func(s f) int { return s.QueuedBytes }),
	}
	return measured(columns, func(take func(f, ...string)) { take(log.Stats()) })
}

// stalenessMetrics show how old the answers of relaxed reads were. Labels are entity types of
// functions, never what callers send.
func (n *Node) stalenessMetrics() observe.Source {
	const (
		ages     = "millrace_partitions_staleness_seconds"
		largest  = "millrace_partitions_largest_staleness_seconds"
		promised = "millrace_partitions_promised_staleness_seconds"
	)
	labels := []string{"type", "consistency", "by"}
	return observe.Source{
		Metrics: []observe.Metric{
			{Name: ages, Kind: observe.Latency, Labels: labels, Help: "Staleness of relaxed reads: age of the newest moment up to which the answer is known to include every commit."},
			{Name: largest, Kind: observe.Gauge, Labels: labels, Help: "Largest staleness of relaxed reads in the last one to two minutes."},
			{Name: promised, Kind: observe.Gauge, Labels: labels, Help: "Largest bound requested by bounded reads in the last one to two minutes."},
		},
		Collect: func(emit observe.Emitter) {
			for _, s := range n.manager.Staleness() {
				values := []string{s.EntityType, s.Consistency.String(), s.By.String()}
				emit.Latency(ages, s.Ages, values...)
				emit.Value(largest, s.Largest.Seconds(), values...)
				if s.Consistency == entities.Bounded {
					emit.Value(promised, s.Promised.Seconds(), values...)
				}
			}
		},
	}
}
