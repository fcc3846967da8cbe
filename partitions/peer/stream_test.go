package peer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/partitions/peer"
)

// source is a caller that sends these messages.
func source(messages ...string) func(context.Context) (entities.Payload, error) {
	return func(context.Context) (entities.Payload, error) {
		if len(messages) == 0 {
			return entities.Payload{}, io.EOF
		}
		next := messages[0]
		messages = messages[1:]
		return entities.Payload{TypeURL: "t", Value: []byte(next)}, nil
	}
}

func action(method string) *entities.Command {
	cmd := full()
	cmd.Service, cmd.Method, cmd.Type, cmd.Key = "shop.v1.Pricing", method, nil, entities.Key{}
	return cmd
}

func TestStreamBothWays(t *testing.T) {
	var got *entities.Stream
	w := &worker{}
	w.stream = func(ctx context.Context, s *entities.Stream) error {
		got = s
		return (&worker{}).DispatchStream(ctx, s)
	}
	address := serve(t, w, peer.ServerOptions{})
	c := client(t, peer.ClientOptions{})
	cmd := action("Quote")
	cmd.Payload = entities.Payload{}
	var replies []string
	err := c.DispatchStream(t.Context(), address, &entities.Stream{
		Command: cmd, ClientStreams: true, ServerStreams: true, Recv: source("a", "", "c"),
		Send: func(r *entities.Reply) error {
			replies = append(replies, r.Payload.TypeURL+string(r.Payload.Value))
			return nil
		},
	})
	if err != nil || fmt.Sprint(replies) != "[ta t tc]" {
		t.Errorf("replies %q, %v", replies, err)
	}
	if !got.ClientStreams || !got.ServerStreams || got.TraceParent != cmd.TraceParent ||
		got.Principal != cmd.Principal || len(got.Metadata) != len(cmd.Metadata) {
		t.Errorf("over there the call is %+v, want %+v", got.Command, cmd)
	}
}

func TestStreamOneWay(t *testing.T) {
	w := &worker{stream: func(_ context.Context, s *entities.Stream) error {
		for range 1000 {
			if err := s.Send(&entities.Reply{Payload: s.Payload, Token: "t"}); err != nil {
				return err
			}
		}
		return entities.Errorf(entities.FunctionRefused, entities.Refused, "no more")
	}}
	address := serve(t, w, peer.ServerOptions{})
	c := client(t, peer.ClientOptions{})
	replies := 0
	count := func(r *entities.Reply) error {
		if string(r.Payload.Value) == string(full().Payload.Value) && r.Token == "t" {
			replies++
		}
		return nil
	}
	err := c.DispatchStream(t.Context(), address, &entities.Stream{
		Command: action("Watch"), ServerStreams: true, Send: count,
	})
	if e := expect(t, err, entities.FunctionRefused, entities.Refused); e.Message != "no more" || replies != 1000 {
		t.Errorf("%d replies, then %q", replies, e.Message)
	}
}

func TestStreamEnds(t *testing.T) {
	ended := make(chan error, 8)
	w := &worker{stream: func(ctx context.Context, s *entities.Stream) error {
		if err := s.Send(&entities.Reply{}); err != nil {
			return err
		}
		_, err := s.Recv(ctx)
		ended <- err
		return err
	}}
	s, address := server(t, w, peer.ServerOptions{})
	c := client(t, peer.ClientOptions{})
	gone := errors.New("gone")
	wait := func(ctx context.Context) (entities.Payload, error) {
		<-ctx.Done()
		return entities.Payload{}, ctx.Err()
	}
	ignore := func(*entities.Reply) error { return nil }

	err := c.DispatchStream(t.Context(), address, &entities.Stream{
		Command: action("Quote"), ClientStreams: true, ServerStreams: true,
		Recv: wait, Send: func(*entities.Reply) error { return gone },
	})
	if e := expect(t, err, entities.Internal, entities.Unknown); !errors.Is(e, gone) {
		t.Errorf("%v, want what the caller's side said", err)
	}
	receive(t, ended, "the end over there")

	err = c.DispatchStream(t.Context(), address, &entities.Stream{
		Command: action("Quote"), ClientStreams: true, ServerStreams: true, Send: ignore,
		Recv: func(context.Context) (entities.Payload, error) {
			return entities.Payload{}, entities.Errorf(entities.InvalidCommand, entities.NotApplied, "bad")
		},
	})
	expect(t, err, entities.InvalidCommand, entities.NotApplied) // it may have been over before it began over there

	ctx, cancel := context.WithCancel(t.Context())
	err = c.DispatchStream(ctx, address, &entities.Stream{
		Command: action("Quote"), ClientStreams: true, ServerStreams: true, Recv: wait,
		Send: func(*entities.Reply) error {
			cancel()
			return nil
		},
	})
	expect(t, err, entities.Cancelled, entities.Unknown)
	receive(t, ended, "the end over there")

	stopped, stop := context.WithCancel(t.Context())
	stop()
	err = c.DispatchStream(t.Context(), address, &entities.Stream{
		Command: action("Quote"), ClientStreams: true, ServerStreams: true, Recv: wait,
		Send: func(*entities.Reply) error {
			if err := s.Shutdown(stopped); !errors.Is(err, context.Canceled) {
				t.Errorf("Shutdown: %v, want that it was cut short", err)
			}
			return nil
		},
	})
	expect(t, err, entities.LostOutcome, entities.Unknown)
}
