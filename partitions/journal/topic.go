package journal

import (
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
)

// This file compares a topic with the requirements of a journal.

// CheckSettings returns an error that names every setting of a topic that breaks the contract, with
// its remedy.
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
		return fmt.Errorf("%w: topic %s has %d partitions, and its data is of %d: partitions were added, and by %d entities would be looked for where they are not. "+
			"Nothing is lost. Start every worker and gateway with --partitions %d, which leaves the added ones alone",
			entities.ErrLayout, info.Name, info.Partitions, l.Partitions, info.Partitions, l.Partitions)
	default:
		return fmt.Errorf("%w: topic %s has %d partitions, and its data is of %d: it is not the journal that this process began with; "+
			"bring that one back, or see `millrace repair` after the next start",
			entities.ErrLayout, info.Name, info.Partitions, l.Partitions)
	}
}
