package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// errBehind fails an append because one before it, in the same partition, has failed.
var errBehind = errors.New("an earlier append to this partition has failed")

// errNoOffset: the broker took the records for duplicates and did not return their offset.
var errNoOffset = errors.New("acknowledged without an offset")

// notWritten returns the error of an append that was never sent.
func notWritten(p broker.Partition, err error) error {
	return fmt.Errorf("append to %s/%d: %w: %w", p.Topic, p.ID, broker.ErrNotWritten, err)
}

// requestError adds the request to an error, and the sentinel that callers branch on.
func requestError(what string, err error) error {
	_, answered := errors.AsType[*kerr.Error](err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kgo.ErrClientClosed):
		return fmt.Errorf("%s: %w", what, broker.ErrClosed)
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		return fmt.Errorf("%s: %w: %w", what, broker.ErrUnknownTopic, err)
	case errors.Is(err, kerr.OffsetOutOfRange):
		return fmt.Errorf("%s: %w: %w", what, broker.ErrOutOfRange, err)
	case answered, errors.Is(err, context.Canceled), errors.Is(err, broker.ErrUnknownTopic),
		errors.Is(err, broker.ErrClosed):
		return fmt.Errorf("%s: %w", what, err)
	default: // no answer
		return fmt.Errorf("%s: %w: %w", what, broker.ErrUnreachable, err)
	}
}

// stopsProducer reports whether the broker contradicts the producer's session, so that its client
// must be replaced.
func stopsProducer(err error) bool {
	if errors.Is(err, errNoOffset) {
		return true
	}
	for _, code := range []*kerr.Error{
		kerr.OutOfOrderSequenceNumber, kerr.UnknownProducerID, kerr.InvalidProducerIDMapping,
		kerr.InvalidProducerEpoch, kerr.ProducerFenced,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// appendError returns the error of an append that was sent. Its outcome is unknown, whatever the
// code says: an earlier try of the same batch may have been stored before its answer was lost.
func appendError(p broker.Partition, err error, closed bool) error {
	switch {
	case closed && errors.Is(err, kgo.ErrClientClosed):
		err = broker.ErrClosed
	case errors.Is(err, kgo.ErrClientClosed):
		err = errors.New("the producer was stopped because the log contradicted it on another append")
	case errors.Is(err, kerr.MessageTooLarge):
		err = fmt.Errorf("%w (max.message.bytes): %w", broker.ErrLimitLowered, err)
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		err = fmt.Errorf("%w; this user needs WRITE on the topic", err)
	}
	return fmt.Errorf("append to %s/%d: %w", p.Topic, p.ID, err)
}
