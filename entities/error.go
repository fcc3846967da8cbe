package entities

import (
	"errors"
	"fmt"
	"time"
)

// OutcomeClass says what is known of the effect of a command that did not succeed. It never lies.
type OutcomeClass uint8

const (
	// NotApplied: nothing was stored; the same command may be sent again.
	NotApplied OutcomeClass = iota
	// Refused: the function said no. Nothing was stored, and sending it again asks the same question again.
	Refused
	// Unknown: nobody can say whether the command took effect. Send it again under the same command id.
	Unknown
)

// String returns the class as callers see it in millrace-outcome.
func (c OutcomeClass) String() string {
	switch c {
	case NotApplied:
		return "not_applied"
	case Refused:
		return "refused"
	default:
		return "unknown"
	}
}

// Reason says why a command did not succeed. The gateway maps each to one gRPC code and one HTTP status, in one table.
type Reason uint8

const (
	// FunctionRefused is a failure that the function chose. Code is its gRPC code, 0 when it gave none.
	FunctionRefused Reason = iota
	// FunctionFailed: the function broke the conversation, crashed, or answered with garbage. The texts are Cloudstate's.
	FunctionFailed
	// InvalidCommand: the request cannot be a command: no key, bad encoding, unknown field.
	InvalidCommand
	// UnknownMethod: no such service or method is served here.
	UnknownMethod
	// NotSupported: the method exists, and its kind is not served yet.
	NotSupported
	// TooLarge: request, key or commit is above a limit.
	TooLarge
	// Overloaded: a bounded queue is full. RetryAfter says when to come again.
	Overloaded
	// Unavailable: function or log cannot be reached now.
	Unavailable
	// Moved: the partition went to another owner before the command was stored.
	Moved
	// LostOutcome: the log did not say whether the command was stored.
	LostOutcome
	// IDReused: the command id was used before with another payload.
	IDReused
	// Cancelled: the caller went away before the command ran.
	Cancelled
	// Deadline: the caller's deadline passed.
	Deadline
	// Halted: the partition waits for an operator.
	Halted
	// Internal: a mistake of ours.
	Internal
)

// Error is the one error type that crosses the floors: what failed, with what outcome, and when to come again.
type Error struct {
	Reason Reason
	// Code is the gRPC status code that the function chose; 0 for none. Only with FunctionRefused.
	Code uint32
	// Message is for the caller: what failed, with which input, and what to do next.
	Message string
	Outcome OutcomeClass
	// RetryAfter is a hint; 0 for none.
	RetryAfter time.Duration
	// Cause is for logs, never for callers.
	Cause error
}

// Error returns the message for callers.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Errorf returns an Error of a reason with a formatted message. A %w verb sets the cause.
func Errorf(reason Reason, outcome OutcomeClass, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Reason: reason, Outcome: outcome, Message: err.Error(), Cause: errors.Unwrap(err)}
}

// AsError returns err as an *Error; one that is none becomes Internal with an unknown outcome.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Reason: Internal, Outcome: Unknown, Message: err.Error(), Cause: err}
}
