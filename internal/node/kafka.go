package node

import (
	"context"
	"errors"
	"fmt"
	"time"

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
func (n *Node) openKafka(ctx context.Context) (*kafka.Log, error) {
	log, err := n.connectKafka()
	if err != nil {
		return nil, err
	}
	if err := n.awaitTurn(ctx, log); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return log, nil
}

// connectKafka connects to the brokers.
func (n *Node) connectKafka() (*kafka.Log, error) {
	return kafka.Open(kafka.Options{
		Brokers: n.config.Brokers, ClientID: "millrace-" + n.identity.Worker,
		ReplicationFactor: n.config.Replication, MaxRecordBytes: int(n.config.MaxCommit) + commitOverhead,
	})
}

// awaitTurn returns when no other worker is a member of the app's group. One that died is a member until its session ends.
func (n *Node) awaitTurn(ctx context.Context, log *kafka.Log) error {
	for deadline := n.clock.Now().Add(memberPatience); ; {
		others, err := log.OtherWorkers(ctx, n.membership())
		late := n.clock.Now().After(deadline)
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
		again, giveUp := n.clock.After(memberPause)
		select {
		case <-ctx.Done():
			giveUp()
			return context.Cause(ctx)
		case <-again:
		}
	}
}

// kafkaMetrics are what the Kafka adapter counts.
func kafkaMetrics(log *kafka.Log) observe.Source {
	type f = kafka.Stats
	columns := []column[f]{
		gauge("millrace_log_open_appends", "Appends that wait for the brokers.", func(s f) int64 { return s.AppendsOpen }),
		gauge("millrace_log_open_bytes", "Bytes that wait for the brokers.", func(s f) int64 { return s.BytesOpen }),
		counter("millrace_log_appends_total", "Appends acknowledged by the brokers.", func(s f) int64 { return s.Appends }),
		counter("millrace_log_records_total", "Records acknowledged by the brokers.", func(s f) int64 { return s.Records }),
		counter("millrace_log_append_errors_total", "Appends that the brokers did not acknowledge.", func(s f) int64 { return s.AppendErrors }),
		counter("millrace_log_stopped_producers_total", "Producers given up because the log contradicted them.", func(s f) int64 { return s.ProducersStopped }),
		counter("millrace_log_rebalances_total", "Assignments received from the group.", func(s f) int64 { return s.Rebalances }),
		counter("millrace_log_lost_memberships_total", "How often this worker was put out of its group.", func(s f) int64 { return s.MembershipsLost }),
	}
	return measured(columns, func(take func(f, ...string)) { take(log.Stats()) })
}
