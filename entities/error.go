package entities

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/millrace-io/millrace/internal/mutation"
)

// OutcomeClass says what is known of the effect of a command that did not succeed. It never lies.
type OutcomeClass uint8

const (
	// NotApplied: the attempt stored nothing, and will not. A caller hears it only where that holds for his command, too: see
	// Error.ForCommand.
	NotApplied OutcomeClass = iota
	// Refused: the function said no. Nothing was stored, and sending it again asks the same question again.
	Refused
	// Unknown: it is not known whether the command took effect. Send it again under the same command id.
	Unknown
	// Applied: the command took effect, and the error is its answer: what it forwarded was refused, or
	// its reply is too large to be kept. Sent again under the same command id, it gets the same error.
	Applied
)

// String returns the class as callers see it in millrace-outcome.
func (c OutcomeClass) String() string {
	switch c {
	case NotApplied:
		return "not_applied"
	case Refused:
		return "refused"
	case Applied:
		return "applied"
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
	// Checked: the owner of the entity says so, and it knows of no other attempt under the command's id that took effect or still can.
	// NotApplied then holds for the command, and not only for this attempt.
	Checked bool
	// RetryAfter is a hint; 0 for none.
	RetryAfter time.Duration
	// Cause is for logs, never for callers.
	Cause error
}

// Error returns the message for callers.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// basis is what an outcome NotApplied rests on, for a command that has an id and may have been sent before.
type basis uint8

const (
	// byOwner: it speaks of one attempt, unless the error is Checked. An earlier attempt may have taken effect or still be under way.
	byOwner basis = iota
	// byNature: what was sent is no command of this app. No attempt at it can take effect.
	byNature
	// never: the reason comes with another outcome.
	never
)

// notApplied is the one table of who says NotApplied, and what it rests on. For a command without an id there are no other attempts, and
// NotApplied is what its caller hears.
//
//nolint:gochecknoglobals // a constant table
var notApplied = map[Reason]struct {
	basis basis
	why   string
}{
	FunctionRefused: {never, "the outcome is Refused, or Applied where a command stored something and its forward was refused"},
	FunctionFailed:  {byOwner, "the function ran for a command that the owner had checked; that of a forward's target ran for another command"},
	InvalidCommand:  {byNature, "a message without a key, or one that is not of the method's type, is no command"},
	UnknownMethod:   {byNature, "no service of the app has the method"},
	NotSupported:    {byNature, "this version runs no such method"},
	TooLarge:        {byOwner, "the owner measures what a command would store; a link between workers, what may be sent over it today"},
	Overloaded:      {byOwner, "an entity's queue is behind the check; the limits of a partition, a follower and a link are before it"},
	Unavailable:     {byOwner, "a function that cannot be reached or an image that cannot be loaded is behind the check; discovery, shutdown and the look-up of the id itself are before it"},
	Moved:           {byOwner, "a worker that does not own the partition, or not any more, does not know what its owner did"},
	LostOutcome:     {never, "the outcome is Unknown"},
	IDReused:        {byOwner, "the owner found the id with another payload"},
	Cancelled:       {byOwner, "the caller left while the command waited for its turn, which is behind the check, or before the owner had it"},
	Deadline:        {byOwner, "as Cancelled"},
	Halted:          {byOwner, "a halted partition looks nothing up"},
	Internal:        {byOwner, "a mistake may be anywhere"},
}

// ForCommand returns the error as the caller of the command with this id may hear it. Inside of the engine errors speak of one attempt,
// which decides whether another one is made; to a caller, NotApplied means that the command took effect by no attempt under its id, and
// will not. Where only this attempt is known, the outcome is Unknown.
func (e *Error) ForCommand(id string) *Error {
	if id == "" || e.Outcome != NotApplied || e.Checked || notApplied[e.Reason].basis == byNature {
		return e
	}
	told := *e
	told.Outcome = Unknown
	told.Message = strings.ReplaceAll(e.Message, "nothing was applied", "this attempt applied nothing") +
		fmt.Sprintf("; it is not known whether an earlier attempt under the command id %q took effect: send it again under the same id", id)
	return &told
}

// Definite says whether the target of a command has answered for good: it took effect (nil), or its function refused. So it is
// where the target took effect and its answer is too large to get here.
func (e *Error) Definite() bool {
	return e == nil || e.Reason == FunctionRefused || (e.Reason == TooLarge && e.Outcome != NotApplied)
}

// ForForwarder returns the error of a forward's target as the caller of the command that forwarded hears it. wrote: that command
// stored something beside its forward. Then it took effect, and is not refused, whatever the target says.
func (e *Error) ForForwarder(wrote bool) *Error {
	if !wrote || e == nil || !e.Definite() || e.Outcome == Applied || mutation.On(mutation.Applied) {
		return e
	}
	told := *e
	told.Outcome = Applied
	return &told
}

// overloadRetry is when to come again with a command for which there was no room.
const overloadRetry = 100 * time.Millisecond

// Overload returns the error of a command for which there is no room; the text says where.
func Overload(format string, args ...any) *Error {
	e := Errorf(Overloaded, NotApplied, format+": nothing was applied, try again later", args...)
	e.RetryAfter = overloadRetry
	return e
}

// PartitionMoved returns the error of a command whose partition has no owner here; why says what has become of it.
func PartitionMoved(partition int32, why string) *Error {
	return Errorf(Moved, NotApplied, "partition %d is unavailable (%s): nothing was applied, try again", partition, why)
}

// OutcomeLost returns the error of a command of which the log did not say whether it was stored; why says what was in the way.
func OutcomeLost(partition int32, why string) *Error {
	return Errorf(LostOutcome, Unknown,
		"partition %d: %s, so it is not known whether the command took effect: send it again under the same command id", partition, why)
}

// Errorf returns an Error of a reason with a formatted message. A %w verb sets the cause.
func Errorf(reason Reason, outcome OutcomeClass, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Reason: reason, Outcome: outcome, Message: err.Error(), Cause: errors.Unwrap(err)}
}

// AsError returns err as an *Error, nil for nil; one that is none becomes Internal with an unknown outcome.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Reason: Internal, Outcome: Unknown, Message: err.Error(), Cause: err}
}
