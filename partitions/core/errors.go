package core

import (
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/plural"
)

const notActiveRetry = time.Second

func errEntityBusy(key entities.Key, limit int) *entities.Error {
	return entities.Overload("the limit of %s that wait for %s is reached", plural.Of(limit, "command"), key)
}

func errFenced(partition int32) *entities.Error {
	return entities.PartitionMoved(partition, "its owner was fenced")
}

// errNotActive: this worker should own the partition, and it was not active for as long as a caller
// waits. It is not Moved: no other worker will own the partition, so a router need not look for
// one.
func errNotActive(partition int32, state State, after time.Duration, why string) *entities.Error {
	if why == "" {
		why = "no error so far"
	}
	e := entities.Errorf(entities.Unavailable, entities.NotApplied,
		"partition %d has no active owner, and had none for %s: its worker is %s (%s): nothing was applied, try again later",
		partition, after, state, why)
	e.RetryAfter = notActiveRetry
	return e
}

func errHalted(partition int32, why error) *entities.Error {
	return entities.Errorf(entities.Halted, entities.NotApplied, "partition %d waits for an operator, see `millrace repair`: %w", partition, why)
}

// errCommitTooLarge names what counts, which is the same for a command however it came.
func errCommitTooLarge(key entities.Key, bytes, records int, l *Limits) *entities.Error {
	return entities.Errorf(entities.TooLarge, entities.NotApplied,
		"the command on %s would store %d bytes in %s; the limits are max-commit, %d bytes, and max-commit-records, %d (payloads, keys, types and targets count, and %d bytes beside each record; command ids and answers do not): nothing was applied, store less with one command",
		key, bytes, plural.Of(records, "record"), l.MaxCommit, l.MaxCommitRecords, recordCharge)
}

// errTakenBack: the command was taken back while another attempt at it was to bring its forward to
// the target.
func errTakenBack(key entities.Key) *entities.Error {
	return entities.Errorf(entities.LostOutcome, entities.Unknown,
		"an attempt at the command on %s was withdrawn while it was sent again: send it once more under the same command id",
		key)
}

// errAnswerTooLarge: the command took effect, and sending it again will not bring its answer.
func errAnswerTooLarge(entity string, size, limit int) *entities.Error {
	return entities.Errorf(entities.TooLarge, entities.Applied,
		"the command on %s took effect, and its answer of %d bytes is not kept: what it stores and its answer together may have %d bytes (max-commit); do not send it again, read the entity instead, and let the function return less, or in pages", entity, size, limit)
}

func errSchedule(key entities.Key, err error) *entities.Error {
	return entities.Errorf(entities.FunctionFailed, entities.NotApplied, "the command on %s sets a timer that cannot be: %w: nothing was applied", key, err)
}

func errTimerChanging(key entities.Key, name string) *entities.Error {
	return entities.Errorf(entities.Moved, entities.NotApplied, "timer %q of %s is being changed: nothing was applied, try again", name, key)
}

func errIDReused(id string, key entities.Key) *entities.Error {
	return entities.Errorf(entities.IDReused, entities.NotApplied, "command id %q was used before on %s with another method or payload: nothing was applied", id, key)
}

func errTerminated(kind entities.Kind) *entities.Error {
	return &entities.Error{Reason: entities.FunctionFailed, Outcome: entities.NotApplied, Message: kind.Spec().Terminated}
}
