package gateway

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/internal/tracing"
)

// Dispatcher runs commands. Its errors are *entities.Error, or those of the context; any other
// becomes an internal error. It is called from many goroutines at once.
type Dispatcher interface {
	// Dispatch runs one command and returns when its answer may be sent.
	Dispatch(ctx context.Context, cmd *entities.Command) (*entities.Reply, error)
	// DispatchStream runs a call with more than one message in a direction to its end. It must not
	// use the stream after it returned.
	DispatchStream(ctx context.Context, s *entities.Stream) error
}

// Names of headers of responses. Those of requests are in requestHeaders.
const (
	headerToken   = "millrace-token"
	headerOutcome = "millrace-outcome"
	headerOwner   = "millrace-owner"
)

// maxCommandIDBytes bounds a caller's command id; it is stored with the command.
const maxCommandIDBytes = 256

// envelope has the headers of a call that mean something in every protocol, as read by the
// protocol's handler.
type envelope struct {
	// values are those of requestHeaders, by place: nil if a header was not sent; an empty header is
	// one empty value.
	values [envelopeHeaders][]string
	// metadata is filled in for actions only: entities never see it.
	metadata entities.Metadata
}

// readCommand is the first step of every call with one message: it makes the command.
func readCommand(app string, m *discovery.Method, payload []byte, env *envelope) (*entities.Command, *entities.Error) {
	if m.LearnsRefusals() {
		return nil, entities.Errorf(entities.NotSupported, entities.NotApplied,
			"%s handles refused effects: only the engine calls it, nothing was applied", m.FullName)
	}
	cmd, err := m.Command(payload, env.metadata)
	if err != nil {
		return nil, asError(err)
	}
	id, problem := env.id()
	if problem != nil {
		return nil, problem
	}
	cmd.ID = id
	if problem := env.freshness(app, cmd); problem != nil {
		return nil, problem
	}
	cmd.TraceParent = env.traceParent()
	return cmd, nil
}

// freshness sets the consistency that the caller wants. A token alone means at_least, a staleness
// alone bounded.
func (env *envelope) freshness(app string, cmd *entities.Command) *entities.Error {
	if env.values[atConsistency] == nil && env.values[atMinToken] == nil && env.values[atMaxStaleness] == nil {
		return nil
	}
	consistency, problem := env.single(atConsistency)
	if problem != nil {
		return problem
	}
	minToken, problem := env.single(atMinToken)
	if problem != nil {
		return problem
	}
	maxStaleness, problem := env.single(atMaxStaleness)
	if problem != nil {
		return problem
	}
	switch {
	case consistency != "":
	case minToken != "":
		consistency = entities.AtLeast.String()
	case maxStaleness != "":
		consistency = entities.Bounded.String()
	default:
		return nil
	}
	switch consistency {
	case entities.Strong.String():
	case entities.Local.String():
		cmd.Consistency = entities.Local
	case entities.Eventual.String():
		cmd.Consistency = entities.Eventual
	case entities.AtLeast.String():
		token, err := entities.DecodeToken(app, minToken)
		if err != nil {
			return invalid("%s: %v: send the %s of an earlier answer of this app", requestHeaders[atMinToken].name, err,
				headerToken)
		}
		if !token.Latest { // else a strong read, the default
			cmd.Consistency, cmd.After = entities.AtLeast, token.Positions
		}
	case entities.Bounded.String():
		bound, err := time.ParseDuration(maxStaleness)
		if err != nil || bound <= 0 {
			return invalid("%s is %q: set the maximum age of an answer, as in 500ms", requestHeaders[atMaxStaleness].name,
				maxStaleness)
		}
		cmd.Consistency, cmd.Bound = entities.Bounded, bound
	default:
		return invalid("%s is %q: use one of strong, local, eventual, bounded with %s, or at_least with %s, or leave it out",
			requestHeaders[atConsistency].name, consistency, requestHeaders[atMaxStaleness].name,
			requestHeaders[atMinToken].name)
	}
	return nil
}

// id returns the command id; "" if the caller sent none. An invalid id is refused, because its
// caller relies on the command being repeatable.
func (env *envelope) id() (string, *entities.Error) {
	if env.values[atCommandID] == nil && env.values[atIdempotencyKey] == nil {
		return "", nil
	}
	name, otherName := requestHeaders[atCommandID].name, requestHeaders[atIdempotencyKey].name
	id, problem := commandID(name, env.values[atCommandID])
	if problem != nil {
		return "", problem
	}
	key, problem := commandID(otherName, unquoted(env.values[atIdempotencyKey]))
	switch {
	case problem != nil:
		return "", problem
	case id == "":
		return key, nil
	case key != "" && key != id:
		return "", invalid("%s and %s name two different commands: send one of them", name, otherName)
	default:
		return id, nil
	}
}

// commandID returns the id in a header; "" if it was not sent.
func commandID(name string, values []string) (string, *entities.Error) {
	id, problem := single(name, values)
	switch {
	case problem != nil:
		return "", problem
	case len(values) > 0 && id == "":
		return "", invalid("%s is empty: send an id of its own for each command, such as a UUID, or leave the header out",
			name)
	case len(id) > maxCommandIDBytes:
		return "", invalid("%s has %d bytes, and %d are allowed: use a UUID", name, len(id), maxCommandIDBytes)
	default:
		return id, nil
	}
}

// unquoted removes the quotes that the draft standard of Idempotency-Key requires. It does not
// change the request's values.
func unquoted(values []string) []string {
	isQuoted := func(v string) bool { return len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' }
	if !slices.ContainsFunc(values, isQuoted) {
		return values
	}
	bare := slices.Clone(values)
	for i, v := range bare {
		if isQuoted(v) {
			bare[i] = v[1 : len(v)-1]
		}
	}
	return bare
}

// isTraceParent checks the form of a W3C trace context, because it is stored. A bad one is dropped,
// as the standard says.
func isTraceParent(s string) bool {
	const v0 = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	if len(s) != len(v0) {
		return false
	}
	for i := range len(v0) {
		if v0[i] == '-' {
			if s[i] != '-' {
				return false
			}
		} else if !strings.ContainsRune("0123456789abcdef", rune(s[i])) {
			return false
		}
	}
	return true
}

// serve runs a unary call. Its error is the one that the caller gets.
func (s *Server) serve(ctx context.Context, m *discovery.Method, payload []byte,
	env *envelope,
) (*entities.Reply, *entities.Error) {
	start := s.opts.Clock.Now()
	reply, failure := s.dispatch(ctx, m, payload, env)
	s.observe(ctx, m, failure, start)
	return reply, failure
}

// dispatcher returns what runs the commands of a method's service.
func (s *Server) dispatcher(m *discovery.Method) Dispatcher {
	if s.opts.DispatcherOf != nil {
		if d := s.opts.DispatcherOf(m.Service.Name); d != nil {
			return d
		}
	}
	return s.opts.Dispatcher
}

func (s *Server) dispatch(ctx context.Context, m *discovery.Method, payload []byte,
	env *envelope,
) (_ *entities.Reply, failure *entities.Error) {
	cmd, problem := readCommand(s.opts.App, m, payload, env)
	if problem != nil {
		return nil, problem
	}
	ctx, span := s.trace(ctx, m, cmd)
	if span != nil {
		defer func() { endSpan(span, failure) }()
	}
	ctx, letGo, problem := withServerTimeout(ctx, env.values[atServerTimeout])
	if problem != nil {
		return nil, problem
	}
	defer letGo()
	if s.opts.CallTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.opts.CallTimeout)
		defer cancel()
	}
	reply, err := s.dispatcher(m).Dispatch(ctx, cmd)
	if err != nil {
		return nil, asError(err)
	}
	if problem := s.checkReply(m, reply); problem != nil {
		return nil, problem
	}
	return reply, nil
}

// trace begins the span of a call, nil if it is not traced. Spans of the command are its children.
func (s *Server) trace(ctx context.Context, m *discovery.Method,
	cmd *entities.Command,
) (context.Context, *tracing.Span) {
	ctx, span := s.opts.Tracer.Enter(ctx, strings.TrimPrefix(m.FullName, "/"), cmd.TraceParent)
	if span != nil {
		cmd.TraceParent = span.Parent()
		if cmd.Type != nil {
			span.Set("millrace.entity_type", cmd.Key.Type)
		}
	}
	return ctx, span
}

func endSpan(span *tracing.Span, failure *entities.Error) {
	if failure != nil {
		span.Set("millrace.outcome", failure.Outcome.String())
		span.End(failure)
		return
	}
	span.End(nil)
}

// metadataOverhead is the size of a metadata entry beyond its text: at least what it takes between
// two workers.
const metadataOverhead = 32

// checkReply bounds a reply with its metadata by the same limit as replies from other workers. The
// command took effect, but the gateway cannot prove that to the caller.
func (s *Server) checkReply(m *discovery.Method, reply *entities.Reply) *entities.Error {
	size := len(reply.Payload.Value)
	for i := range reply.Metadata {
		e := &reply.Metadata[i]
		size += len(e.Key) + len(e.Text) + len(e.Binary) + metadataOverhead
	}
	if size > s.opts.MaxRequest {
		return entities.Errorf(entities.TooLarge, entities.Unknown,
			"%s: the reply has %d bytes with its metadata, and %d are allowed: return less, or in pages", m.FullName, size,
			s.opts.MaxRequest)
	}
	return nil
}

// streamIO is the caller's side of a streamed call.
type streamIO struct {
	// first is the only message, if the caller does not stream.
	first []byte
	// recv returns the messages of a caller that streams, then io.EOF.
	recv func(context.Context) ([]byte, error)
	// send gets every reply that has a message.
	send func(*entities.Reply) error
}

// serveStream runs a call with more than one message in a direction. Its error is the one that the
// caller gets.
func (s *Server) serveStream(ctx context.Context, m *discovery.Method, env *envelope, caller streamIO) *entities.Error {
	start := s.opts.Clock.Now()
	failure := s.dispatchStream(ctx, m, env, caller)
	s.observe(ctx, m, failure, start)
	return failure
}

func (s *Server) dispatchStream(ctx context.Context, m *discovery.Method, env *envelope,
	caller streamIO,
) (failure *entities.Error) {
	cmd, problem := readCommand(s.opts.App, m, caller.first, env)
	if problem != nil {
		return problem
	}
	ctx, span := s.trace(ctx, m, cmd)
	if span != nil {
		defer func() { endSpan(span, failure) }()
	}
	ctx, letGo, problem := withServerTimeout(ctx, env.values[atServerTimeout])
	if problem != nil {
		return problem
	}
	defer letGo()
	stream := &entities.Stream{
		Command:       cmd,
		ClientStreams: m.ClientStreams,
		ServerStreams: m.ServerStreams,
		Send: func(reply *entities.Reply) error {
			if reply.NoPayload {
				return nil
			}
			if problem := s.checkReply(m, reply); problem != nil {
				return problem
			}
			return caller.send(reply)
		},
	}
	if m.ClientStreams {
		stream.Recv = func(ctx context.Context) (entities.Payload, error) { return receive(ctx, m, caller.recv) }
	}
	if err := s.dispatcher(m).DispatchStream(ctx, stream); err != nil {
		return asError(err)
	}
	return nil
}

// receive returns the caller's next message, after checking it.
func receive(ctx context.Context, m *discovery.Method,
	recv func(context.Context) ([]byte, error),
) (entities.Payload, error) {
	payload, err := recv(ctx)
	if err != nil {
		if errors.Is(err, io.EOF) {
			return entities.Payload{}, io.EOF
		}
		return entities.Payload{}, asError(err)
	}
	if err := m.Check(payload); err != nil {
		return entities.Payload{}, err
	}
	return entities.Payload{TypeURL: m.InputType, Value: payload}, nil
}

// observe counts a finished call and logs internal errors.
func (s *Server) observe(ctx context.Context, m *discovery.Method, failure *entities.Error, start time.Time) {
	code := codes.OK
	if failure != nil {
		code = verdictOf(failure).code
		if failure.Reason == entities.Internal {
			s.opts.Log.ErrorContext(ctx, "call ended with an internal error",
				observe.Command, m.FullName, observe.Error, failure.Message, observe.Cause, failure.Cause)
		}
	}
	s.stats.call(code, s.opts.Clock.Now().Sub(start))
}
