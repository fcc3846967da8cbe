package node

import (
	"github.com/millrace-io/millrace/broker-adapter/kafka"
	"github.com/millrace-io/millrace/internal/observe"
)

// openKafka connects to the brokers.
func (n *Node) openKafka() (*kafka.Log, error) {
	return kafka.Open(kafka.Options{
		Settings: n.config.kafkaSettings, Brokers: n.config.Brokers, ClientID: "millrace-" + n.identity.Worker,
		MaxRecordBytes: n.config.RecordBytes(),
	})
}

// kafkaMetrics are what the Kafka adapter counts.
func kafkaMetrics(log *kafka.Log) observe.Source {
	type f = kafka.Stats
	columns := []column[f]{
		gauge("millrace_log_open_appends", "Appends that wait for the brokers.", func(s f) int64 { return s.AppendsOpen }),
		gauge("millrace_log_open_bytes", "Bytes that wait for the brokers.", func(s f) int64 { return s.BytesOpen }),
		counter("millrace_log_appends_total", "Appends acknowledged by the brokers.", func(s f) int64 { return s.Appends }),
		counter("millrace_log_records_total", "Records acknowledged by the brokers.", func(s f) int64 { return s.Records }),
		counter("millrace_log_append_errors_total", "Appends that the brokers did not acknowledge.",
			func(s f) int64 { return s.AppendErrors }),
		counter("millrace_log_stopped_producers_total", "Producers closed because the log contradicted them.",
			func(s f) int64 { return s.ProducersStopped }),
		counter("millrace_log_rebalances_total", "Assignments received from the group.",
			func(s f) int64 { return s.Rebalances }),
		counter("millrace_log_lost_memberships_total", "Times that this worker was removed from its group.",
			func(s f) int64 { return s.MembershipsLost }),
	}
	return measured(columns, func(take func(f, ...string)) { take(log.Stats()) })
}
