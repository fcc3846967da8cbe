package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/kafka"
	"github.com/millrace-io/millrace/internal/observe"
)

// memberPatience is how long a worker waits for another one to go: the session timeout of one that was killed, and a bit.
const (
	memberPatience = 8 * time.Second
	memberPause    = 500 * time.Millisecond
)

// openKafka connects to the brokers and makes sure that no other worker serves the app: in this version one worker takes all
// partitions.
func (n *Node) openKafka(ctx context.Context) (broker.Log, error) {
	log, err := kafka.Open(kafka.Options{
		Brokers: n.config.Brokers, ClientID: "millrace-" + n.identity.Worker,
		ReplicationFactor: n.config.Replication, MaxRecordBytes: int(n.config.MaxCommit) + commitOverhead,
	})
	if err != nil {
		return nil, err
	}
	if err := n.awaitTurn(ctx, log); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	n.sources = append(n.sources, kafkaMetrics(log))
	return log, nil
}

// awaitTurn returns when no other worker is a member of the app's group. One that died is a member until its session ends.
func (n *Node) awaitTurn(ctx context.Context, log *kafka.Log) error {
	for deadline := time.Now().Add(memberPatience); ; {
		others, err := log.OtherWorkers(ctx, n.membership())
		late := time.Now().After(deadline)
		switch {
		case err == nil && len(others) == 0:
			return nil
		case err != nil && late:
			return fmt.Errorf("ask who serves app %s: %w", n.config.App, err)
		case err != nil:
			n.logger.Debug("the brokers cannot say yet who serves the app", observe.Error, err) // a group's first use takes a while
		case late:
			return fmt.Errorf("app %s is served by worker %s at %s already, and this version runs one worker for each app: stop it first, or choose another name with --app",
				n.config.App, others[0].Name, others[0].Address)
		default:
			n.logger.Info("another worker is a member of the app; waiting whether it goes", "worker", others[0].Name, observe.Address, others[0].Address)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(memberPause):
		}
	}
}

// kafkaMetrics are what the Kafka adapter counts.
func kafkaMetrics(log *kafka.Log) observe.Source {
	type column struct {
		observe.Metric
		value func(kafka.Stats) int64
	}
	columns := []column{
		{observe.Metric{Name: "millrace_log_open_appends", Help: "Appends that wait for the brokers.", Kind: observe.Gauge}, func(s kafka.Stats) int64 { return s.AppendsOpen }},
		{observe.Metric{Name: "millrace_log_open_bytes", Help: "Bytes that wait for the brokers.", Kind: observe.Gauge}, func(s kafka.Stats) int64 { return s.BytesOpen }},
		{observe.Metric{Name: "millrace_log_appends_total", Help: "Appends acknowledged by the brokers.", Kind: observe.Counter}, func(s kafka.Stats) int64 { return s.Appends }},
		{observe.Metric{Name: "millrace_log_records_total", Help: "Records acknowledged by the brokers.", Kind: observe.Counter}, func(s kafka.Stats) int64 { return s.Records }},
		{observe.Metric{Name: "millrace_log_append_errors_total", Help: "Appends that the brokers did not acknowledge.", Kind: observe.Counter}, func(s kafka.Stats) int64 { return s.AppendErrors }},
		{observe.Metric{Name: "millrace_log_stopped_producers_total", Help: "Producers given up because the log contradicted them.", Kind: observe.Counter}, func(s kafka.Stats) int64 { return s.ProducersStopped }},
		{observe.Metric{Name: "millrace_log_rebalances_total", Help: "Assignments received from the group.", Kind: observe.Counter}, func(s kafka.Stats) int64 { return s.Rebalances }},
		{observe.Metric{Name: "millrace_log_lost_memberships_total", Help: "How often this worker was put out of its group.", Kind: observe.Counter}, func(s kafka.Stats) int64 { return s.MembershipsLost }},
	}
	source := observe.Source{}
	for _, c := range columns {
		source.Metrics = append(source.Metrics, c.Metric)
	}
	source.Collect = func(emit observe.Emitter) {
		s := log.Stats()
		for _, c := range columns {
			emit.Value(c.Name, float64(c.value(s)))
		}
	}
	return source
}
