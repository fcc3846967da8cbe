package client

import (
	"context"
	"net/http"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/millrace-io/millrace/entities"
)

// headerToken is the token of an answer.
const headerToken = "millrace-token"

// Session is what one caller, or several that must see each other's writes, have seen of one app.
// It keeps the tokens of all answers, merged into one, and sends it with each call, so that a query
// includes every write that was answered before it began. A query that names a freshness of its own
// gets that. Entities do not look at the token: their reads are strong unless asked otherwise.
//
// All calls of a session must go to one app. The zero Session is new. It is safe for concurrent
// use, and must not be copied.
type Session struct {
	mu    sync.Mutex
	token string
}

// Token returns the merged token; empty before the first answer. Another process that gets it may
// go on where this one is: see Add.
func (s *Session) Token() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token
}

// Add makes the session cover a token, which another session had, or which came by another way than
// through the interceptors. The error says that it is no token, or one of another app than those of
// the session; the session then stays as it is.
func (s *Session) Add(token string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.token
	if before == "" {
		before = token
	}
	merged, err := entities.MergeTokens(before, token)
	if err != nil {
		return err //nolint:wrapcheck // it names the token
	}
	s.token = merged
	return nil
}

// answered takes the token of an answer. Where it cannot be merged the journal is another one than
// before, and only the answer's is of use.
func (s *Session) answered(token string, dropped bool) {
	if dropped {
		s.mu.Lock()
		s.token = token
		s.mu.Unlock()
		return
	}
	if token == "" || s.Add(token) == nil {
		return
	}
	s.mu.Lock()
	s.token = token
	s.mu.Unlock()
}

func (s *Session) answeredBy(md metadata.MD) {
	first := func(name string) string {
		if values := md.Get(name); len(values) > 0 {
			return values[0]
		}
		return ""
	}
	s.answered(first(headerToken), first(entities.SessionDropped) != "")
}

// with adds the token to the metadata of a call.
func (s *Session) with(ctx context.Context) context.Context {
	if token := s.Token(); token != "" {
		return metadata.AppendToOutgoingContext(ctx, entities.SessionToken, token)
	}
	return ctx
}

// Unary is a grpc.UnaryClientInterceptor.
func (s *Session) Unary(ctx context.Context, method string, in, out any, conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	var header metadata.MD
	err := invoke(s.with(ctx), method, in, out, conn, append(slices.Clip(options), grpc.Header(&header))...)
	s.answeredBy(header)
	return err
}

// Stream is a grpc.StreamClientInterceptor. The token of a stream is known when it has ended: when
// RecvMsg has returned an error, io.EOF at best.
func (s *Session) Stream(ctx context.Context, of *grpc.StreamDesc, conn *grpc.ClientConn, method string,
	open grpc.Streamer, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	stream, err := open(s.with(ctx), of, conn, method, options...)
	if err != nil {
		return nil, err
	}
	return &sessionStream{ClientStream: stream, session: s, several: of.ServerStreams}, nil
}

type sessionStream struct {
	grpc.ClientStream

	session *Session
	// several: the server may send more than one message.
	several bool
}

// RecvMsg implements grpc.ClientStream.
func (c *sessionStream) RecvMsg(m any) error {
	err := c.ClientStream.RecvMsg(m)
	if err == nil && c.several {
		return nil
	}
	if header, wrong := c.Header(); wrong == nil {
		c.session.answeredBy(header)
	}
	c.session.answeredBy(c.Trailer())
	return err
}

// Transport returns an http.RoundTripper that sends and keeps the token, over base; nil:
// http.DefaultTransport.
func (s *Session) Transport(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return &transport{session: s, base: base}
}

type transport struct {
	session *Session
	base    http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if token := t.session.Token(); token != "" && r.Header.Get(entities.SessionToken) == "" {
		r = r.Clone(r.Context()) // a RoundTripper must not change the request
		r.Header.Set(entities.SessionToken, token)
	}
	res, err := t.base.RoundTrip(r)
	if err == nil {
		t.session.answered(res.Header.Get(headerToken), res.Header.Get(entities.SessionDropped) != "")
	}
	return res, err //nolint:wrapcheck // it is the base's
}
