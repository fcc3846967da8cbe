package client_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/leaktest"
	"github.com/millrace-io/millrace/sdk/client"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func token(app string, positions ...entities.Position) string {
	t := entities.Token{App: app, Generation: entities.Generation, Positions: positions}
	return t.Encode()
}

var (
	first  = token("shop", entities.Position{Partition: 1, Next: 5})
	second = token("shop", entities.Position{Partition: 2, Next: 7})
	both   = token("shop", entities.Position{Partition: 1, Next: 5}, entities.Position{Partition: 2, Next: 7})
)

// answers are what a server gives one call after the other: a token, and whether it has dropped the
// one of the session.
type answers struct {
	tokens  []string
	dropped bool
	// sent is the session token of the last call.
	sent string
}

func (a *answers) next() (token string) {
	token, a.tokens = a.tokens[0], a.tokens[1:]
	return token
}

// callers call a server of answers once, each by another way.
func callers(t *testing.T, s *client.Session, a *answers) map[string]func() error {
	t.Helper()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.sent = r.Header.Get(entities.SessionToken)
		w.Header().Set("Millrace-Token", a.next())
		if a.dropped {
			w.Header().Set(entities.SessionDropped, "true")
		}
	}))
	t.Cleanup(web.Close)
	base := &http.Transport{}
	t.Cleanup(base.CloseIdleConnections)
	hc := &http.Client{Transport: s.Transport(base)}
	conn := serve(t, s, a)
	stream := func(of *grpc.StreamDesc) error {
		c, err := conn.NewStream(t.Context(), of, "/a.B/Stream")
		if err == nil {
			err = errors.Join(c.SendMsg(&emptypb.Empty{}), c.CloseSend())
		}
		for err == nil {
			if err = c.RecvMsg(&emptypb.Empty{}); err == nil && !of.ServerStreams {
				return nil
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	return map[string]func() error{
		"HTTP": func() error {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, web.URL, nil)
			if err != nil {
				return err
			}
			res, err := hc.Do(req)
			if err == nil {
				err = res.Body.Close()
			}
			return err
		},
		"unary":         func() error { return conn.Invoke(t.Context(), "/a.B/Unary", &emptypb.Empty{}, &emptypb.Empty{}) },
		"stream":        func() error { return stream(&grpc.StreamDesc{ServerStreams: true}) },
		"client stream": func() error { return stream(&grpc.StreamDesc{ClientStreams: true}) },
	}
}

// serve serves every method by gRPC: the token of a unary call is in the header, that of a stream
// in the trailer.
func serve(t *testing.T, s *client.Session, a *answers) *grpc.ClientConn {
	t.Helper()
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		md, _ := metadata.FromIncomingContext(stream.Context())
		a.sent = ""
		if sent := md.Get(entities.SessionToken); len(sent) > 0 {
			a.sent = sent[0]
		}
		answer := metadata.Pairs("millrace-token", a.next())
		if a.dropped {
			answer.Set(entities.SessionDropped, "true")
		}
		method, _ := grpc.MethodFromServerStream(stream)
		if method == "/a.B/Unary" {
			if err := stream.SetHeader(answer); err != nil {
				return err
			}
		} else {
			stream.SetTrailer(answer)
		}
		return stream.SendMsg(&emptypb.Empty{})
	}))
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }() // ends with Stop; received below
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(s.Unary), grpc.WithStreamInterceptor(s.Stream))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestASessionMergesTokens: each call sends the tokens of all answers before it, by every way of
// calling.
func TestASessionMergesTokens(t *testing.T) {
	for _, way := range []string{"HTTP", "unary", "stream", "client stream"} {
		var s client.Session
		a := &answers{tokens: []string{first, second, "", "", token("b"), ""}}
		call := callers(t, &s, a)[way]
		for i, want := range []string{"", first, both, both} {
			if err := call(); err != nil {
				t.Fatalf("%s: %v", way, err)
			}
			if a.sent != want {
				t.Errorf("%s: call %d sent %q, want %q", way, i, a.sent, want)
			}
		}
		// Of another journal than before: only the newest is of use.
		if err := call(); err != nil || s.Token() != token("b") {
			t.Errorf("%s: after a token of another app the session has %q, %v", way, s.Token(), err)
		}
		a.dropped = true
		if err := call(); err != nil || s.Token() != "" {
			t.Errorf("%s: after its token was dropped the session has %q, %v", way, s.Token(), err)
		}
	}
}

// TestASessionTakesTokensOfOthers: and refuses what is none.
func TestASessionTakesTokensOfOthers(t *testing.T) {
	var s client.Session
	for _, wrong := range []string{"", "nonsense"} {
		if err := s.Add(wrong); !errors.Is(err, entities.ErrToken) || s.Token() != "" {
			t.Errorf("add %q: %v; the session has %q", wrong, err, s.Token())
		}
	}
	if err := errors.Join(s.Add(first), s.Add(second), s.Add(first)); err != nil || s.Token() != both {
		t.Errorf("the session has %q, %v", s.Token(), err)
	}
	if err := s.Add(token("other")); !errors.Is(err, entities.ErrToken) || s.Token() != both {
		t.Errorf("a token of another app: %v; the session has %q", err, s.Token())
	}
}

var _ grpc.UnaryClientInterceptor = (*client.Session)(nil).Unary
