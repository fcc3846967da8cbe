package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/internal/app/node"
)

// Exit codes. They are stable: scripts rely on them.
const (
	exitOK           = 0
	exitError        = 1
	exitUsage        = 2
	exitNotFound     = 3
	exitPrecondition = 4
	exitTimeout      = 5
	exitDifferences  = 6
)

// errDifferences: the comparison found differences.
var errDifferences = errors.New("differences were found")

// usageError is a mistake in the command line or in the configuration.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exactly checks that there are n arguments; what describes them.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) == n:
			return nil
		case len(args) == 0:
			return usagef("expected %s", what)
		default:
			return usagef("expected %s, got: %s", what, strings.Join(args, " "))
		}
	}
}

// atMost checks that there are no more than n arguments.
func atMost(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > n {
			return usagef("expected %s, got: %s", what, strings.Join(args, " "))
		}
		return nil
	}
}

// unreachableError: no process listens at an address.
type unreachableError struct{ address, why string }

func (e *unreachableError) Error() string {
	return fmt.Sprintf("cannot connect to %s: is millrace running there? start it with `millrace dev`, or set the address (%s)", e.address,
		e.why)
}

// explain converts gRPC's error for an address without a listener to an unreachableError.
func explain(err error, address string) error {
	s, isStatus := status.FromError(err)
	if isStatus && s.Code() == codes.Unavailable && strings.Contains(s.Message(), "Error while dialing") {
		_, why, _ := strings.Cut(s.Message(), "Error while dialing: ")
		return &unreachableError{address: address, why: strings.TrimSuffix(why, `"`)}
	}
	if !isStatus || s.Code() != codes.Unimplemented {
		return err
	}
	if _, service, unknown := strings.Cut(s.Message(), "unknown service "); unknown {
		return usagef("%s does not serve %s: it is an admin port, or of another program; give the public address with "+
			"--address; the banner of `dev` and `run` shows it, by default 127.0.0.1:9000", address, service)
	}
	if strings.Contains(s.Message(), "millrace.admin.v1.") {
		return usagef("%s is not the admin port of a millrace process, but a public port, or of another program: "+
			"give the admin address with --admin; the banner of `dev` and `run` shows it, by default 127.0.0.1:9001", address)
	}
	return err
}

// message returns an error as text for people: without gRPC's prefix, with the name of the code. It
// may quote text of others, which is made visible.
func message(err error) string {
	type rpcError interface {
		error
		GRPCStatus() *status.Status
	}
	if e, ok := errors.AsType[rpcError](err); ok {
		return fmt.Sprintf("%s (%s)", visibleLines(e.GRPCStatus().Message()), codeName(e.GRPCStatus().Code()))
	}
	return escape(err.Error(), "\n\t")
}

// codeName returns the name of a gRPC code as in its documentation: FAILED_PRECONDITION.
func codeName(c codes.Code) string {
	var b strings.Builder
	for i, r := range c.String() {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}

func exitCode(err error) int {
	_, isUsage := errors.AsType[usageError](err)
	_, isInvalid := errors.AsType[*problemsError](err)
	_, isMissing := errors.AsType[*node.MissingTopicError](err)
	switch {
	case err == nil:
		return exitOK
	case isUsage, strings.HasPrefix(err.Error(), "unknown command"): // cobra has no type for it
		return exitUsage
	case errors.Is(err, errDifferences):
		return exitDifferences
	case isMissing, isInvalid:
		return exitPrecondition
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	}
	switch status.Code(err) {
	case codes.NotFound, codes.Unimplemented:
		return exitNotFound
	case codes.FailedPrecondition, codes.InvalidArgument:
		return exitPrecondition
	case codes.DeadlineExceeded:
		return exitTimeout
	default:
		return exitError
	}
}
