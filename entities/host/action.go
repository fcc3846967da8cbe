package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/action"
)

var errTookTooLong = errors.New("the function took too long")

// Act runs a unary action: one call to the function.
func (r *Remote) Act(ctx context.Context, m *discovery.Method, inv entities.Invocation) (*entities.Outcome, error) {
	if err := r.awaitReady(ctx); err != nil {
		return nil, err
	}
	r.stats.actions.Add(1)
	out, err := r.act(ctx, m, inv)
	r.stats.decided(out, err)
	return out, err
}

func (r *Remote) act(ctx context.Context, m *discovery.Method, inv entities.Invocation) (*entities.Outcome, error) {
	// Not a deadline: gRPC would send it to the function, whose end could then come before ours and
	// look like its own decision.
	call, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(r.options.FunctionTimeout, func() { cancel(errTookTooLong) })
	defer late.Stop()
	response, err := action.NewActionProtocolClient(r.conn).HandleUnary(call, &action.ActionCommand{
		ServiceName: inv.Service,
		Name:        inv.Method,
		Payload:     anyOf(inv.Payload),
		Metadata:    metadataToWire(traced(inv.Metadata, inv.TraceParent)),
	})
	if err != nil {
		return nil, r.actionFault(call, m, err)
	}
	return r.actionOutcome(m, response), nil
}

// ActStream runs a streamed action: one call to the function, with the messages of both sides
// passed on as they come.
func (r *Remote) ActStream(ctx context.Context, m *discovery.Method, s *entities.Stream, on OutcomeFunc) error {
	if err := r.awaitReady(ctx); err != nil {
		return err
	}
	r.stats.actions.Add(1)
	call, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(r.lifetime, func() { cancel(errRemoteClosed) })
	defer stop()
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel(errCallOver) // of what is left of it: the function's call is reset, the sender stops

	stream, err := r.openAction(call, m, s)
	if err != nil {
		r.stats.failures.Add(1)
		return r.actionFault(call, m, err)
	}
	if m.ClientStreams {
		// Ends with the caller's input or with the call; this function waits for it.
		sending.Go(func() { sendMessages(call, cancel, s, stream) })
	}
	return r.receiveOutcomes(call, m, stream, on)
}

// openAction begins the call. Where the caller streams, the first message has the names and no
// payload and is sent at once.
func (r *Remote) openAction(ctx context.Context, m *discovery.Method, s *entities.Stream) (grpc.ClientStream, error) {
	path := action.ActionProtocol_HandleStreamed_FullMethodName
	switch {
	case !m.ClientStreams:
		path = action.ActionProtocol_HandleStreamedOut_FullMethodName
	case !m.ServerStreams:
		path = action.ActionProtocol_HandleStreamedIn_FullMethodName
	}
	desc := &grpc.StreamDesc{ClientStreams: m.ClientStreams, ServerStreams: m.ServerStreams}
	stream, err := r.conn.NewStream(ctx, desc, path)
	if err != nil {
		return nil, err
	}
	first := &action.ActionCommand{
		ServiceName: s.Service, Name: s.Method,
		Metadata: metadataToWire(traced(s.Metadata, s.TraceParent)),
	}
	if !m.ClientStreams {
		first.Payload = anyOf(s.Payload)
	}
	if err := stream.SendMsg(first); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if !m.ClientStreams {
		return stream, stream.CloseSend()
	}
	return stream, nil
}

// sendMessages sends the caller's messages to the function, and the end of them. The call ends
// when the caller leaves.
func sendMessages(ctx context.Context, cancel context.CancelCauseFunc, s *entities.Stream,
	stream grpc.ClientStream,
) {
	for {
		payload, err := s.Recv(ctx)
		if errors.Is(err, io.EOF) {
			err = stream.CloseSend()
			if err == nil {
				return
			}
		}
		if err != nil {
			cancel(callerError{err})
			return
		}
		if err := stream.SendMsg(&action.ActionCommand{Payload: anyOf(payload)}); err != nil {
			return // the receiving side learns why
		}
	}
}

// callerError is a call's end by its caller, as distinct from one by the function.
type callerError struct{ error }

// Unwrap returns the error of the caller's side.
func (e callerError) Unwrap() error { return e.error }

var errCallOver = errors.New("the call is over")

// receiveOutcomes gives the function's answers to on, one after the other, until either side ends
// the call.
func (r *Remote) receiveOutcomes(ctx context.Context, m *discovery.Method, stream grpc.ClientStream,
	on OutcomeFunc,
) error {
	for {
		response := new(action.ActionResponse)
		err := stream.RecvMsg(response)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			r.stats.failures.Add(1)
			return r.actionFault(ctx, m, err)
		}
		out := r.actionOutcome(m, response)
		r.stats.decided(out, nil)
		if err := on(ctx, out); err != nil {
			return err
		}
		if out.Failure != nil {
			return out.Failure
		}
		if !m.ServerStreams {
			return nil
		}
	}
}

func (r *Remote) actionOutcome(m *discovery.Method, response *action.ActionResponse) *entities.Outcome {
	out := &entities.Outcome{Effects: effectsOf(response.GetSideEffects())}
	switch a := response.GetResponse().(type) {
	case *action.ActionResponse_Reply:
		out.Reply = replyOf(a.Reply)
		r.warnOfReply(m, out.Reply)
	case *action.ActionResponse_Forward:
		out.Forward = forwardOf(a.Forward)
	case *action.ActionResponse_Failure:
		out.Failure = refusalOf(a.Failure, r.announced(cloudstate.MillraceExtension_MILLRACE_FAILURE_CODE))
	}
	keepEffects(out)
	return out
}

// actionFault returns the error of a call that ended. An action may have done anything before it
// broke, so the outcome is unknown.
func (r *Remote) actionFault(ctx context.Context, m *discovery.Method, err error) *entities.Error {
	if byCaller, ok := errors.AsType[callerError](context.Cause(ctx)); ok {
		if e, ok := errors.AsType[*entities.Error](byCaller.error); ok {
			return e
		}
		return &entities.Error{
			Reason:  entities.Cancelled,
			Outcome: entities.Unknown,
			Message: m.FullName + ": the caller went away",
			Cause:   byCaller.error,
		}
	}
	switch {
	case errors.Is(context.Cause(ctx), errTookTooLong):
		return entities.Errorf(entities.FunctionFailed, entities.Unknown,
			"%s: the function at %s did not answer within %v", m.FullName, r.address, r.options.FunctionTimeout)
	case r.lifetime.Err() != nil:
		return r.unreachable(entities.Unknown, errRemoteClosed)
	case ctx.Err() != nil, passed(ctx) && status.Code(err) == codes.DeadlineExceeded:
		e := callerGone(ctx)
		e.Outcome = entities.Unknown
		return e
	case status.Code(err) == codes.Unavailable:
		return r.unreachable(entities.Unknown, err)
	}
	said := status.Convert(err)
	return &entities.Error{
		Reason:  entities.FunctionRefused,
		Code:    uint32(said.Code()),
		Outcome: entities.Unknown,
		Message: said.Message(),
		Cause:   fmt.Errorf("%s: the function at %s ended the call: %w", m.FullName, r.address, err),
	}
}

// passed reports whether the caller's deadline is over, which the function may notice a moment
// before this side does.
func passed(ctx context.Context) bool {
	deadline, set := ctx.Deadline()
	return set && time.Until(deadline) < deadlineSlack
}

// deadlineSlack is how much earlier than here a deadline may be noticed at the other end.
const deadlineSlack = 10 * time.Millisecond
