package routing

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/mutation"
)

// errUnconcluded marks an error of errNotKept.
var errUnconcluded = errors.New("the answer of a forward is not in the log")

// errNotKept: the command took effect, and so did its forward. If it is sent again under its id, it
// gets the answer.
func errNotKept(key entities.Key, why error) *entities.Error {
	return &entities.Error{
		Reason: entities.LostOutcome, Outcome: entities.Unknown, Cause: errUnconcluded,
		Message: fmt.Sprintf("the command on %s took effect, and what its forward was answered could not be kept (%s): "+
			"send it again under the same command id", key, why),
	}
}

// inTime returns the error of a command whose attempts are over. If the caller's context ended
// while it waited for the owner of its partition, that is the reason, and last says what is known
// of its effect.
func inTime(ctx context.Context, last error) error {
	e := *entities.AsError(last)
	if ctx.Err() == nil || e.Reason != entities.Moved && e.Reason != entities.LostOutcome {
		return last
	}
	e.Reason, e.RetryAfter, e.Cause = entities.Cancelled, 0, last
	ending := "the call was cancelled"
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		e.Reason, ending = entities.Deadline, "the deadline passed"
	}
	e.Message = ending + " before the owner of the entity answered: " + e.Message
	return &e
}

// actionFailed returns the error for the caller of an action; caused: something that the action
// asked for took effect, or may have. An error of what the action called is not a reason to try
// another worker.
func actionFailed(err error, caused bool) *entities.Error {
	e := *entities.AsError(err)
	if e.Reason == entities.Moved {
		e.Reason = entities.Unavailable
	}
	if caused && (e.Outcome == entities.NotApplied || e.Outcome == entities.Refused) && !mutation.On(mutation.Caused) {
		e.Outcome, e.Cause = entities.Unknown, err
		e.Message = "the action took effect in part: " + e.Message
	}
	return &e
}
