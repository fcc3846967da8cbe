package journal

import (
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/plural"
)

// This file compares a topic with the requirements of a journal.

// CheckSettings returns an error that names every setting of a topic that breaks the contract, with
// its remedy. What breaks it depends on the log: retention, compaction and unclean elections lose
// acknowledged records, and a limit of the message size refuses commands.
func CheckSettings(info broker.TopicInfo) error {
	if len(info.Violations) == 0 {
		return nil
	}
	errs := make([]error, 0, len(info.Violations))
	for _, v := range info.Violations {
		errs = append(
			errs, fmt.Errorf("topic %s: %s is %s, wanted %s: %s", info.Name, v.Setting, v.Found, v.Wanted, v.Remedy),
		)
	}
	return errors.Join(errs...)
}

// CheckPartitions compares a topic's number of partitions with the layout. more: the topic may have
// more than the layout, because the operator allowed it. The error names both numbers and the
// remedy.
func CheckPartitions(l entities.Layout, info broker.TopicInfo, more bool) error {
	switch {
	case info.Partitions == l.Partitions, more && info.Partitions > l.Partitions:
		return nil
	case info.Partitions > l.Partitions:
		return fmt.Errorf("%w: topic %s has %s, and its data was written with %d: partitions were added, and entities would be looked up in the wrong one. "+
			"Nothing is lost. Start every worker and gateway with --partitions %d, which ignores the added ones",
			entities.ErrLayout, info.Name, plural.Of(info.Partitions, "partition"), l.Partitions, l.Partitions)
	default:
		return fmt.Errorf("%w: topic %s has %s, and its data was written with %d: it is not the journal that this process started with; "+
			"restore that one, or see `millrace repair` after the next start",
			entities.ErrLayout, info.Name, plural.Of(info.Partitions, "partition"), l.Partitions)
	}
}
