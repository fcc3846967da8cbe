package peer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/entities"
	peerv1 "github.com/millrace-io/millrace/proto/gen/millrace/peer/v1"
)

// errClosed ends whatever is under way when a Client is closed.
var errClosed = errors.New("the connections to other workers were closed")

// errUnwanted ends a connection that is no longer wanted.
var errUnwanted = errors.New("the connection is no longer needed")

// errRefused: the process at the address does not accept this one as a peer, or is not the expected
// one.
var errRefused = errors.New("the link was refused")

// unreachable: a command did not leave this process. Moved: by the time that its worker can be
// reached, or was given up, another one may own its partition, and the router looks again.
func unreachable(address string, cause error, retryAfter time.Duration) *entities.Error {
	return &entities.Error{
		Reason: entities.Moved, Outcome: entities.NotApplied, RetryAfter: retryAfter, Cause: cause,
		Message: fmt.Sprintf("the worker at %s cannot be reached: nothing was applied, try again", address),
	}
}

// lost: a command left this process, and there will be no answer.
func lost(address string, cause error) *entities.Error {
	return &entities.Error{
		Reason: entities.LostOutcome, Outcome: entities.Unknown, Cause: cause,
		Message: fmt.Sprintf("the connection to the worker at %s ended before its answer came, so it is not known whether the command took effect: send it again under the same command id", address),
	}
}

// overloaded: a limit of the link is reached, so the command was not put on it. The router waits
// and asks again, or passes the error on.
func overloaded(address, what string) *entities.Error {
	return &entities.Error{
		Reason: entities.Overloaded, Outcome: entities.NotApplied, RetryAfter: overloadRetry,
		Message: fmt.Sprintf("the link to the worker at %s is full (%s): nothing was applied, try again later",
			address, what),
	}
}

// tooLarge: no attempt on this link can succeed. The owner itself may take more, which it gets only
// from callers of its own.
func tooLarge(address string, size, limit int) *entities.Error {
	return entities.Errorf(entities.TooLarge, entities.NotApplied,
		"a command of %d bytes was to go to the worker at %s, the limit is %d: nothing was applied", size, address, limit)
}

// ended is the error of a caller whose context ended.
func ended(ctx context.Context, outcome entities.OutcomeClass, what string) *entities.Error {
	e := &entities.Error{
		Reason: entities.Cancelled, Outcome: outcome, Message: "the call was cancelled " + what,
		Cause: context.Cause(ctx),
	}
	deadline, set := ctx.Deadline()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) || (set && time.Until(deadline) <= 0) { // its timer may be late
		e.Reason, e.Message = entities.Deadline, "the deadline passed "+what
	}
	return e
}

// asError gives the error of a worker's method a reason. A context that ended leaves the command's
// outcome open.
func asError(err error) *entities.Error {
	if e, ok := errors.AsType[*entities.Error](err); ok {
		return e
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &entities.Error{Reason: entities.Deadline, Outcome: entities.Unknown, Message: "the deadline passed before there was an answer", Cause: err}
	case errors.Is(err, context.Canceled):
		return &entities.Error{Reason: entities.Cancelled, Outcome: entities.Unknown, Message: "the caller gave up before there was an answer", Cause: err}
	default:
		return entities.AsError(err)
	}
}

// statusOf converts an error to the status of a gRPC call. The code says only that the detail has
// the reason: a code of its own could not be told from one that grpc-go makes.
func statusOf(e *entities.Error) error {
	text := strings.ToValidUTF8(e.Message, "\uFFFD") // what the caller sent may be quoted in it
	st, err := status.New(codes.Aborted, text).WithDetails(&peerv1.Failure{
		Reason: uint32(e.Reason), Code: e.Code, Message: text, Outcome: uint32(e.Outcome),
		RetryAfterNanos: uint64(max(0, e.RetryAfter)), Checked: e.Checked,
	})
	if err != nil {
		return status.Error(codes.Aborted, text)
	}
	return st.Err()
}

// failureOf returns the error with which the other side ended a gRPC call; nil if the transport
// ended it.
func failureOf(err error) *entities.Error {
	for _, detail := range status.Convert(err).Details() {
		if f, ok := detail.(*peerv1.Failure); ok {
			e := &entities.Error{
				Code: f.GetCode(), Message: f.GetMessage(), Checked: f.GetChecked(),
				RetryAfter: time.Duration(f.GetRetryAfterNanos()), //nolint:gosec // as it was sent
			}
			setReason(e, uint64(f.GetReason()), uint64(f.GetOutcome()))
			return e
		}
	}
	return nil
}
