package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/partitions"
)

// commitOverhead is what a topic must take beyond the largest commit: room for what the engine writes for itself, and for small
// commands beside a large one.
const commitOverhead = 124 << 10

// MissingTopicError says that a topic is not there and that the node was told not to create it.
type MissingTopicError struct {
	Topic string
	// Command is what creates it, for a shell.
	Command string
}

// Error names the topic and both ways to get it.
func (e *MissingTopicError) Error() string {
	return fmt.Sprintf("topic %s is missing and create-topics is false: create it and start again, or start with --create-topics", e.Topic)
}

// journal is the topic of the app's outcomes in its first generation.
func (n *Node) journal() string { return n.config.App + ".journal" }

// openJournal finds the app's journal, or makes it, and checks its settings.
func (n *Node) openJournal(ctx context.Context) (broker.TopicInfo, error) {
	spec := broker.TopicSpec{
		Name: n.journal(), Partitions: int32(n.identity.Partitions), //nolint:gosec // at most 4096
		MaxRecordBytes: int(n.config.MaxCommit) + commitOverhead,
	}
	info, err := n.log.Describe(ctx, spec.Name)
	if errors.Is(err, broker.ErrUnknownTopic) {
		if !n.config.CreateTopics && !n.log.SingleProcess() { // the topics of our own log are nobody else's business
			return info, &MissingTopicError{Topic: spec.Name, Command: n.log.CreateCommand(spec)}
		}
		if err := n.log.Create(ctx, spec); err != nil {
			return info, fmt.Errorf("create topic %s: %w", spec.Name, err)
		}
		info, err = n.log.Describe(ctx, spec.Name)
	}
	if err == nil && n.log.SingleProcess() && info.MaxAppendBytes < spec.MaxRecordBytes { // it was created under a lower max-commit
		if err := n.log.Create(ctx, spec); err != nil {
			return info, err
		}
		info, err = n.log.Describe(ctx, spec.Name)
	}
	if err != nil {
		return info, fmt.Errorf("describe topic %s: %w", spec.Name, err)
	}
	if n.options.PartitionsGiven && info.Partitions != spec.Partitions {
		return info, fmt.Errorf("topic %s has %d partitions, not %d: leave --partitions out", spec.Name, info.Partitions, spec.Partitions)
	}
	if info.Partitions&(info.Partitions-1) != 0 {
		return info, fmt.Errorf("topic %s has %d partitions: a journal needs a power of two", spec.Name, info.Partitions)
	}
	return info, partitions.CheckContract(info)
}
