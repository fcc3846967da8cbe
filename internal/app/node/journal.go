package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/internal/plural"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/journal"
)

// MissingTopicError says that a topic is missing and that the node must not create it.
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
		MaxRecordBytes: n.config.RecordBytes(),
	}
	info, err := n.log.Describe(ctx, spec.Name)
	if errors.Is(err, broker.ErrUnknownTopic) {
		if !n.config.CreateTopics && !n.log.SingleProcess() { // the embedded log belongs to this process alone
			return info, &MissingTopicError{Topic: spec.Name, Command: n.log.CreateCommand(spec)}
		}
		if err := n.log.Create(ctx, spec); err != nil {
			return info, fmt.Errorf("create topic %s: %w", spec.Name, err)
		}
		info, err = n.log.Describe(ctx, spec.Name)
	}
	// The topic was created under a lower max-commit.
	if err == nil && n.log.SingleProcess() && info.MaxAppendBytes < spec.MaxRecordBytes {
		if err := n.log.Create(ctx, spec); err != nil {
			return info, err
		}
		info, err = n.log.Describe(ctx, spec.Name)
	}
	if err != nil {
		return info, fmt.Errorf("describe topic %s: %w", spec.Name, err)
	}
	return info, journal.CheckSettings(info)
}

// determineLayout determines the layout by which entities are found: with as many partitions as
// were asked for, else as the topic has; and compares it with store and log.
func (n *Node) determineLayout(ctx context.Context) error {
	n.layout = entities.LayoutOf(n.config.App, n.topic.Partitions)
	if n.options.PartitionsGiven {
		n.layout.Partitions = int32(n.config.Partitions) //nolint:gosec // at most 4096
	}
	if n.log.SingleProcess() && n.layout.Partitions != n.topic.Partitions { // that topic has as many as it was made with
		return fmt.Errorf("topic %s has %s, not %d: leave --partitions out", n.topic.Name,
			plural.Of(n.topic.Partitions, "partition"), n.layout.Partitions)
	}
	stored, err := n.storedLayout()
	if err != nil {
		return err
	}
	d := journal.Declaration{
		Log: n.log, Topic: n.topic, Layout: n.layout, Given: n.options.PartitionsGiven, Stored: stored,
		Worker: n.identity.Worker,
		Nonce:  rand.Uint64(), //nolint:gosec // a name, not a secret
	}
	if err := d.Ensure(ctx); err != nil {
		return err
	}
	if n.topic.Partitions > n.layout.Partitions {
		n.logger.Warn("the topic has more partitions than the journal uses; the others are ignored",
			observe.Topic, n.topic.Name, "partitions", n.layout.Partitions, "of", n.topic.Partitions)
	}
	return nil
}

// storedLayout compares the layout with that of the store; stored is false when the store has
// nothing of this topic.
func (n *Node) storedLayout() (stored bool, err error) {
	for p := range min(n.topic.Partitions, entities.Slots) {
		address := materializer.Address{Generation: n.layout.Generation, Partition: uint16(p)}
		meta, known, err := materializer.Partition{Rows: n.store, Address: address}.Meta()
		switch {
		case err != nil:
			return false, n.endStore(fmt.Errorf("read the store in %s: %w", n.config.Data, err))
		case !known || meta.TopicID != n.topic.ID || meta.Layout == (entities.Layout{}):
			continue
		}
		if err := n.layout.Differs(meta.Layout, "the store in "+n.config.Data); err != nil {
			return false, err
		}
		stored = true
	}
	return stored, nil
}
