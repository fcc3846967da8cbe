package entities

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/millrace-io/millrace/internal/mutation"
)

// OutcomeClass says what is known of the effect of a command that did not succeed.
type OutcomeClass uint8

const (
	// NotApplied: the attempt stored nothing, and will not. Callers get it only if that holds for
	// the command, too: see Error.ForCommand.
	NotApplied OutcomeClass = iota
	// Refused: the function refused the command. Nothing was stored. Sent again, the command is
	// decided again.
	Refused
	// Unknown: it is not known whether the command took effect. Send it again under the same
	// command id.
	Unknown
	// Applied: the command took effect, and the error is its answer: its forward was refused, or
	// its reply is too large to be stored. Sent again under the same command id, it gets the same
	// error.
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

// Reason says why a command did not succeed. The gateway maps each to one gRPC code and one HTTP
// status, in one table.
type Reason uint8

const (
	// FunctionRefused is a failure that the function chose. Code is its gRPC code, 0 when it gave
	// none.
	FunctionRefused Reason = iota
	// FunctionFailed: the function broke the protocol, crashed, or sent an invalid answer. The
	// texts are Cloudstate's.
	FunctionFailed
	// InvalidCommand: the request is not a valid command: no key, bad encoding, unknown field.
	InvalidCommand
	// UnknownMethod: no such service or method is served here.
	UnknownMethod
	// NotSupported: the method exists, but its kind is not supported.
	NotSupported
	// TooLarge: request, key or commit is above a limit.
	TooLarge
	// Overloaded: a bounded queue is full. RetryAfter says when to try again.
	Overloaded
	// Unavailable: the function or the log cannot be reached.
	Unavailable
	// Moved: the partition went to another owner before the command was stored.
	Moved
	// LostOutcome: it is unknown whether the log stored the command.
	LostOutcome
	// IDReused: the command id was used before with another payload.
	IDReused
	// Cancelled: the caller went away before the command ran.
	Cancelled
	// Deadline: the caller's deadline passed.
	Deadline
	// Halted: the partition waits for an operator.
	Halted
	// Internal: a bug in millrace.
	Internal
)

// Error is the error type that crosses packages: what failed, with what outcome, and when to try
// again.
type Error struct {
	Reason Reason
	// Code is the gRPC status code that the function chose; 0 for none. Only with FunctionRefused.
	Code uint32
	// Message is for the caller: what failed, with which input, and what to do next.
	Message string
	Outcome OutcomeClass
	// Checked: the error is from the owner of the entity, which knows of no other attempt under the
	// command's id that took effect or still can. Then NotApplied holds for the command, and not
	// only for this attempt.
	Checked bool
	// RetryAfter is a hint; 0 for none.
	RetryAfter time.Duration
	// Reference is a short id under which the worker's log has the cause; empty for none.
	Reference string
	// Cause is for logs, never for callers.
	Cause error
}

// Error returns the message for callers.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// basis is why an outcome NotApplied holds for a command that has an id and may have been sent
// before.
type basis uint8

const (
	// byOwner: it holds for one attempt, unless the error is Checked. An earlier attempt may have
	// taken effect or still be in progress.
	byOwner basis = iota
	// byNature: the request is not a command of this app. No attempt can take effect.
	byNature
	// never: the reason comes with another outcome.
	never
)

// notApplied is the table of which reasons come with NotApplied, and why it holds. For a command
// without an id there are no other attempts, and its caller gets NotApplied.
//
//nolint:gochecknoglobals // a constant table
var notApplied = map[Reason]struct {
	basis basis
	why   string
}{
	FunctionRefused: {
		never,
		"the outcome is Refused, or Applied where a command stored something and its forward was refused",
	},
	FunctionFailed: {
		byOwner,
		"the function ran for a command that the owner had checked; that of a forward's target ran for another command",
	},
	InvalidCommand: {byNature, "a message without a key, or one that is not of the method's type, is not a command"},
	UnknownMethod:  {byNature, "no service of the app has the method"},
	NotSupported:   {byNature, "this version runs no such method"},
	TooLarge: {
		byOwner,
		"the owner measures what a command would store; a link between workers, what may be sent over it today",
	},
	Overloaded: {
		byOwner,
		"an entity's queue comes after the check; the limits of a partition, a follower and a link come before it",
	},
	Unavailable: {
		byOwner,
		"an unreachable function and a failed load come after the check; discovery, shutdown and the look-up of the id come before it",
	},
	Moved:       {byOwner, "a worker that does not own the partition does not know what its owner did"},
	LostOutcome: {never, "the outcome is Unknown"},
	IDReused:    {byOwner, "the owner found the id with another payload"},
	Cancelled: {
		byOwner,
		"the caller left while the command waited for its turn, which is after the check, or before the owner had it",
	},
	Deadline: {byOwner, "as Cancelled"},
	Halted:   {byOwner, "a halted partition does not look ids up"},
	Internal: {byOwner, "a bug may be anywhere"},
}

// ForCommand returns the error as the caller of the command with this id may see it. Inside the
// engine an error is about one attempt, and decides whether there is another. To a caller,
// NotApplied means that no attempt under the id took effect or will. If only this attempt is known,
// the outcome is Unknown.
func (e *Error) ForCommand(id string) *Error {
	if id == "" || e.Outcome != NotApplied || e.Checked || notApplied[e.Reason].basis == byNature {
		return e
	}
	public := *e
	public.Outcome = Unknown
	public.Message = strings.ReplaceAll(e.Message, "nothing was applied", "this attempt applied nothing") +
		fmt.Sprintf("; it is not known whether an earlier attempt under the command id %q took effect: send it again under the same id", id)
	return &public
}

// Definite says whether the target of a command has answered for good: it took effect (nil), or its
// function refused. So it is where the target took effect and its answer is too large to get here.
func (e *Error) Definite() bool {
	return e == nil || e.Reason == FunctionRefused || (e.Reason == TooLarge && e.Outcome != NotApplied)
}

// ForForwarder returns the error of a forward's target as the caller of the command that forwarded
// hears it. wrote: that command stored something beside its forward. Then it took effect, and is
// not refused, whatever the target says.
func (e *Error) ForForwarder(wrote bool) *Error {
	if !wrote || e == nil || !e.Definite() || e.Outcome == Applied || mutation.On(mutation.Applied) {
		return e
	}
	public := *e
	public.Outcome = Applied
	return &public
}

// overloadRetry is when to come again with a command for which there was no room.
const overloadRetry = 100 * time.Millisecond

// Overload returns the error of a command for which there is no room; the text says where.
func Overload(format string, args ...any) *Error {
	e := Errorf(Overloaded, NotApplied, format+": nothing was applied, try again later", args...)
	e.RetryAfter = overloadRetry
	return e
}

// PartitionMoved returns the error of a command whose partition has no owner here; why says what
// has become of it.
func PartitionMoved(partition int32, why string) *Error {
	return Errorf(Moved, NotApplied, "partition %d is unavailable (%s): nothing was applied, try again", partition, why)
}

// OutcomeLost returns the error of a command of which the log did not say whether it was stored;
// why says what was in the way.
func OutcomeLost(partition int32, why string) *Error {
	return Errorf(LostOutcome, Unknown,
		"partition %d: %s, so it is not known whether the command took effect: send it again under the same command id",
		partition, why)
}

// Errorf returns an Error of a reason with a formatted message. A %w verb sets the cause.
func Errorf(reason Reason, outcome OutcomeClass, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Reason: reason, Outcome: outcome, Message: err.Error(), Cause: errors.Unwrap(err)}
}

// AsError returns err as an *Error, nil for nil; any other error becomes Internal with an unknown
// outcome.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Reason: Internal, Outcome: Unknown, Message: err.Error(), Cause: err}
}
