package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// Describe asks the brokers for a topic and its settings, and checks them against the contract.
func (l *Log) Describe(ctx context.Context, name string) (broker.TopicInfo, error) {
	what := "describe topic " + name
	ctx, cancel := l.within(ctx)
	defer cancel()
	meta, err := l.metadata(ctx, name)
	if err != nil {
		return broker.TopicInfo{}, l.requestError(what, err)
	}
	settings, err := l.configs(ctx, name)
	if err != nil {
		return broker.TopicInfo{}, l.requestError(what, err)
	}
	t := newTopic(l.opts, meta.TopicID, len(meta.Partitions), settings)
	l.topics.learn(name, t) // limits and partitions may have changed
	in := newInspection(l.opts, meta, int(l.brokers.Load()), settings)
	return broker.TopicInfo{
		Name:             name,
		Partitions:       t.partitions,
		ID:               idText(t.id),
		MaxAppendBytes:   t.maxBytes,
		MaxAppendRecords: l.opts.BufferRecords,
		Durability:       in.durability(),
		Violations:       in.run(),
	}, nil
}

// Create creates a topic and waits until all its partitions have a leader.
func (l *Log) Create(ctx context.Context, spec broker.TopicSpec) error {
	what := "create topic " + spec.Name
	ctx, cancel := l.within(ctx)
	defer cancel()
	factor, insync := l.opts.replicas(int(l.brokers.Load()))
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = spec.Name, spec.Partitions, int16(factor) //nolint:gosec // a small number
	for _, e := range l.opts.newTopicSettings(spec, insync) {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = e.name, kmsg.StringPtr(e.value)
		t.Configs = append(t.Configs, c)
	}
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Topics = append(req.Topics, t)
	resp, err := request(ctx, l, l.admin, req.RequestWith)
	if err != nil {
		return l.requestError(what, err)
	}
	if err := createError(resp); err != nil {
		return l.requestError(what, err)
	}
	return l.requestError(what, l.waitForLeaders(ctx, spec.Name))
}

// createError returns the controller's error; nil if the topic exists already.
func createError(resp *kmsg.CreateTopicsResponse) error {
	if len(resp.Topics) != 1 {
		return fmt.Errorf("broker answered for %d topics instead of one", len(resp.Topics))
	}
	t := &resp.Topics[0]
	err := kerr.ErrorForCode(t.ErrorCode)
	switch {
	case errors.Is(err, kerr.TopicAlreadyExists):
		return nil
	case err != nil && t.ErrorMessage != nil && *t.ErrorMessage != "":
		return fmt.Errorf("%w (%s)", err, *t.ErrorMessage)
	}
	return err
}

// waitForLeaders waits until the partitions of a topic can be written. A topic that was just
// created is not known to all brokers, so errors that pass are tried again.
func (l *Log) waitForLeaders(ctx context.Context, name string) error {
	for attempt := 1; ; attempt++ {
		meta, err := l.metadata(ctx, name)
		if err == nil && allLed(meta) {
			return nil
		}
		if err != nil && !kerr.IsRetriable(err) {
			return err
		}
		if !pause(ctx, retry.Pause(attempt)) {
			return fmt.Errorf("topic is created, but not all its partitions have a leader: %w", ctx.Err())
		}
	}
}

// allLed reports whether every partition has a leader. A topic without partitions is not there yet.
func allLed(meta *kmsg.MetadataResponseTopic) bool {
	for i := range meta.Partitions {
		if meta.Partitions[i].ErrorCode != 0 || meta.Partitions[i].Leader < 0 {
			return false
		}
	}
	return len(meta.Partitions) > 0
}

// CreateCommand returns the command line of kafka-topics.sh.
func (l *Log) CreateCommand(spec broker.TopicSpec) string {
	factor, insync := l.opts.replicas(int(l.brokers.Load()))
	var b strings.Builder
	fmt.Fprintf(&b, "kafka-topics.sh --bootstrap-server %s --create --topic %s --partitions %d --replication-factor %d",
		strings.Join(l.opts.Brokers, ","), spec.Name, spec.Partitions, factor)
	for _, e := range l.opts.newTopicSettings(spec, insync) {
		fmt.Fprintf(&b, " \\\n  --config %s=%s", e.name, e.value)
	}
	return b.String()
}
