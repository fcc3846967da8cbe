package query

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/entities"
)

// retryUnavailable is when to come again if rows are not there yet.
const retryUnavailable = time.Second

// invalid is a mistake in a request.
func invalid(format string, args ...any) *entities.Error {
	return entities.Errorf(entities.InvalidCommand, entities.NotApplied, format, args...)
}

// refused is an answer that is not the one that was asked for. A query changes nothing.
func refused(code codes.Code, format string, args ...any) *entities.Error {
	return &entities.Error{
		Reason: entities.FunctionRefused, Code: uint32(code), Outcome: entities.Refused,
		Message: fmt.Sprintf(format, args...),
	}
}

// unavailable is a failure that passes.
func unavailable(format string, args ...any) *entities.Error {
	e := entities.Errorf(entities.Unavailable, entities.NotApplied, format+": try again later", args...)
	e.RetryAfter = retryUnavailable
	return e
}

// asError gives every error of an executor a reason.
func asError(ctx context.Context, method string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*entities.Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*NotHereError](err); ok {
		return unavailable("%s: %w", method, e)
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return entities.Errorf(entities.Deadline, entities.NotApplied,
			"%s: the deadline passed before there was an answer: ask for fewer rows, or allow more time", method)
	case ctx.Err() != nil:
		return entities.Errorf(entities.Cancelled, entities.NotApplied, "%s: the call was cancelled", method)
	default:
		return entities.Errorf(entities.Internal, entities.NotApplied, "%s: the rows cannot be read: %w", method, err)
	}
}
