package gateway

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/millrace-io/millrace/entities"
)

// statusClientClosed is what proxies log for a request whose client has gone; net/http has no name
// for it.
const statusClientClosed = 499

// verdict is how a reason appears to callers.
type verdict struct {
	code codes.Code
	http int
	// bare: over plain HTTP the message is the whole body, as in Cloudstate.
	bare bool
}

// verdicts is the table of errors, except for codes chosen by a function: see verdictOf.
//
//nolint:gochecknoglobals // a constant table
var verdicts = map[entities.Reason]verdict{
	entities.FunctionRefused: {code: codes.Unknown, http: http.StatusInternalServerError, bare: true},
	entities.FunctionFailed:  {code: codes.Unknown, http: http.StatusInternalServerError},
	entities.InvalidCommand:  {code: codes.InvalidArgument, http: http.StatusBadRequest},
	entities.UnknownMethod:   {code: codes.Unimplemented, http: http.StatusNotFound},
	entities.NotSupported:    {code: codes.Unimplemented, http: http.StatusNotImplemented},
	entities.TooLarge:        {code: codes.ResourceExhausted, http: http.StatusRequestEntityTooLarge},
	entities.Overloaded:      {code: codes.ResourceExhausted, http: http.StatusTooManyRequests},
	entities.Unavailable:     {code: codes.Unavailable, http: http.StatusServiceUnavailable},
	entities.Moved:           {code: codes.Aborted, http: http.StatusServiceUnavailable},
	entities.LostOutcome:     {code: codes.Unavailable, http: http.StatusServiceUnavailable},
	entities.IDReused:        {code: codes.FailedPrecondition, http: http.StatusUnprocessableEntity},
	entities.Cancelled:       {code: codes.Canceled, http: statusClientClosed},
	entities.Deadline:        {code: codes.DeadlineExceeded, http: http.StatusGatewayTimeout},
	entities.Halted:          {code: codes.Unavailable, http: http.StatusServiceUnavailable},
	entities.Internal:        {code: codes.Internal, http: http.StatusInternalServerError},
}

// httpOfCode is the HTTP status of a gRPC code that a function chose.
//
//nolint:gochecknoglobals // a constant table
var httpOfCode = map[codes.Code]int{
	codes.Canceled:           statusClientClosed,
	codes.Unknown:            http.StatusInternalServerError,
	codes.InvalidArgument:    http.StatusBadRequest,
	codes.DeadlineExceeded:   http.StatusGatewayTimeout,
	codes.NotFound:           http.StatusNotFound,
	codes.AlreadyExists:      http.StatusConflict,
	codes.PermissionDenied:   http.StatusForbidden,
	codes.ResourceExhausted:  http.StatusTooManyRequests,
	codes.FailedPrecondition: http.StatusBadRequest,
	codes.Aborted:            http.StatusConflict,
	codes.OutOfRange:         http.StatusBadRequest,
	codes.Unimplemented:      http.StatusNotImplemented,
	codes.Internal:           http.StatusInternalServerError,
	codes.Unavailable:        http.StatusServiceUnavailable,
	codes.DataLoss:           http.StatusInternalServerError,
	codes.Unauthenticated:    http.StatusUnauthorized,
}

// verdictOf returns the verdict of an error. A code that gRPC does not define counts as none.
func verdictOf(e *entities.Error) verdict {
	if e.Reason == entities.FunctionRefused {
		if h, defined := httpOfCode[codes.Code(e.Code)]; defined {
			return verdict{code: codes.Code(e.Code), http: h}
		}
	}
	if v, known := verdicts[e.Reason]; known {
		return v
	}
	return verdicts[entities.Internal]
}

// asError gives every error of a dispatcher a reason. If the context ended during the command, its
// outcome is unknown.
func asError(err error) *entities.Error {
	if e, ok := errors.AsType[*entities.Error](err); ok {
		return e
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &entities.Error{
			Reason: entities.Deadline, Outcome: entities.Unknown, Cause: err,
			Message: "the deadline passed before there was an answer",
		}
	case errors.Is(err, context.Canceled):
		return &entities.Error{
			Reason: entities.Cancelled, Outcome: entities.Unknown, Cause: err,
			Message: "the caller cancelled before there was an answer",
		}
	default:
		return entities.AsError(err)
	}
}

// Status returns an error of a dispatcher as a caller over gRPC gets it.
func Status(err error) *status.Status { return statusOf(asError(err)) }

// statusOf returns an error as a gRPC status, with the reference to the worker's log in the message
// and the retry hint as google.rpc.RetryInfo.
func statusOf(e *entities.Error) *status.Status {
	message := e.Message
	if e.Reference != "" {
		message += " (reference " + e.Reference + ")"
	}
	// the message may quote the caller's input
	st := status.New(verdictOf(e).code, strings.ToValidUTF8(message, "\uFFFD"))
	if e.RetryAfter <= 0 {
		return st
	}
	hinted, err := st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	if err != nil {
		return st // only a status OK cannot have details
	}
	return hinted
}

// retryAfterSeconds returns a hint for Retry-After: whole seconds, at least one.
func retryAfterSeconds(d time.Duration) int64 {
	return max(1, int64((d+time.Second-1)/time.Second))
}

func invalid(format string, args ...any) *entities.Error {
	return entities.Errorf(entities.InvalidCommand, entities.NotApplied, format, args...)
}

func unknownMethod(path string) *entities.Error {
	return entities.Errorf(entities.UnknownMethod, entities.NotApplied,
		"no method %s is served here: check its spelling, or list the methods with server reflection", path)
}

// unknown is the answer for a method that is not served here. Where it may be served elsewhere, or
// in a moment, a caller must not take that for its own mistake.
func (s *Server) unknown(e *entities.Error) *entities.Error {
	if s.opts.Unsure == nil {
		return e
	}
	if why := s.opts.Unsure(); why != "" {
		return unavailable(e.Message + "; " + why)
	}
	return e
}

func unavailable(message string) *entities.Error {
	return &entities.Error{
		Reason: entities.Unavailable, Outcome: entities.NotApplied, Message: message, RetryAfter: time.Second,
	}
}
