package host_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/internal/settings"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
)

var cartKey = entities.Key{Type: "cart", ID: "c1"}

// wantError checks reason and outcome, and that the message has all of the words.
func wantError(t testing.TB, err error, reason entities.Reason, outcome entities.OutcomeClass, words ...string) {
	t.Helper()
	e, ok := errors.AsType[*entities.Error](err)
	if !ok || e.Reason != reason || e.Outcome != outcome {
		t.Fatalf("got %#v, want reason %d, %s", err, reason, outcome)
	}
	for _, w := range words {
		if !strings.Contains(e.Message, w) {
			t.Errorf("message %q lacks %q", e.Message, w)
		}
	}
}

// A history far larger than all windows together is sent at the function's pace: what is under way
// stays bounded.
func TestReplayWaitsForASlowFunction(t *testing.T) {
	const events, eventBytes = 30_000, 1000
	const maxAhead = 20 << 20 / eventBytes // gRPC's windows grow to 16 MiB at most
	f := newFake(newSpec(t))
	address, _ := serve(t, f, "127.0.0.1:0")
	h, remote := connect(t, address, host.Options{})
	text := strings.Repeat("x", eventBytes)
	loaded := entities.Loaded{Sequence: events, Events: func(yield func(entities.Event) error) error {
		value := textValue(text)
		for i := range events {
			if err := yield(entities.Event{
				Sequence: uint64(i) + 1,
				Payload:  entities.Payload{TypeURL: textURL, Value: value},
			}); err != nil {
				return err
			}
		}
		clear(value) // lent only
		return nil
	}}
	opened := make(chan entities.Session, 1)
	// Ends when the function has taken in enough, which the test waits for.
	go func() {
		s, err := h.Open(t.Context(), "t.Carts", cartKey, func(context.Context) (entities.Loaded, error) {
			return loaded, nil
		})
		if err != nil {
			t.Error(err)
		}
		opened <- s
	}()
	stream := take(t, "the stream", f.streams)
	for next := int64(0); next <= events; next++ {
		if ahead := remote.Stats().EventsReplayed - next; ahead > maxAhead {
			t.Fatalf("%d events are on their way to a function that has read %d", ahead, next)
		}
		m, err := stream.recv()
		if err != nil {
			t.Fatalf("message %d: %v", next, err)
		}
		if e := m.(*eventsourced.EventSourcedStreamIn).GetEvent(); next > 0 &&
			(e.GetSequence() != next || valueText(e.GetPayload().GetValue()) != text) {
			t.Fatalf("message %d is %v", next, e)
		}
	}
	s := take(t, "the session", opened)
	if s.Size() < events*eventBytes {
		t.Errorf("size %d is less than what was replayed", s.Size())
	}
	stream.end <- nil
	s.Close(t.Context())
}

// answerAll lets the function answer every command with its own text, until it sees the end of the
// stream, which it agrees to.
func answerAll(t testing.TB, stream *fakeStream) {
	t.Helper()
	// Ends with the stream.
	go func() {
		for {
			m, err := stream.recv()
			if err != nil {
				stream.end <- nil
				return
			}
			in, ok := m.(*eventsourced.EventSourcedStreamIn)
			if !ok || in.GetCommand() == nil {
				continue
			}
			_ = stream.send(&eventsourced.EventSourcedStreamOut{Message: &eventsourced.EventSourcedStreamOut_Reply{
				Reply: &eventsourced.EventSourcedReply{
					CommandId: in.GetCommand().GetId(),
					ClientAction: &cloudstate.ClientAction{
						Action: &cloudstate.ClientAction_Reply{Reply: &cloudstate.Reply{Payload: in.GetCommand().GetPayload()}},
					},
				},
			}})
		}
	}()
}

// A command whose caller leaves is decided all the same, and the session goes on.
func TestCommandsOutliveTheirCallers(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, f *fakeFunction, h *host.Host) {
		s, err := h.Open(t.Context(), "t.Carts", cartKey, nothingStored)
		if err != nil {
			t.Fatal(err)
		}
		stream := <-f.streams
		ctx, leave := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { // received below
			out, err := s.Handle(ctx, invocation("t.Carts", "Add", cartKey, "x"))
			if err == nil && valueText(out.Reply.Payload.Value) != "x" {
				err = fmt.Errorf("the outcome is %v", out)
			}
			done <- err
		}()
		synctest.Wait() // the function has it
		leave()
		synctest.Wait()
		answerAll(t, stream)
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.Close(t.Context())
	})
}

// Commands wait while the function restarts, and go on when it is back at the same address.
func TestOpenWaitsForARestart(t *testing.T) {
	f := newFake(newSpec(t))
	address, stop := serve(t, f, "127.0.0.1:0")
	h, remote := connect(t, address, host.Options{})
	before, err := h.Open(t.Context(), "t.Carts", cartKey, nothingStored)
	if err != nil {
		t.Fatal(err)
	}
	take(t, "the stream", f.streams)
	stop()
	take(t, "the end of the session", before.Ended())
	before.Close(t.Context())

	opened := make(chan error, 1)
	// Ends when the function is back, which the test waits for.
	go func() {
		s, err := h.Open(t.Context(), "t.Carts", cartKey, nothingStored)
		if err == nil {
			s.Close(t.Context())
		}
		opened <- err
	}()
	serve(t, f, address)
	answerAll(t, take(t, "the new stream", f.streams))
	if err := take(t, "the session", opened); err != nil {
		t.Error(err)
	}
	if stats := remote.Stats(); stats.SessionsOpened != 2 || stats.SessionsOpen != 0 {
		t.Errorf("stats %+v", stats)
	}
}

// A function that stays away makes commands fail after the configured time, without a load.
func TestUnreachableFunction(t *testing.T) {
	f := newFake(newSpec(t))
	address, stop := serve(t, f, "127.0.0.1:0")
	h, _ := connect(t, address, host.Options{Settings: host.Settings{FunctionWait: 30 * time.Millisecond}})
	stop()
	for { // until the channel has noticed
		s, err := h.Open(t.Context(), "t.Carts", cartKey, nothingStored)
		if err == nil {
			s.Close(t.Context())
			continue
		}
		wantError(t, err, entities.Unavailable, entities.NotApplied)
		if strings.Contains(fmt.Sprint(entities.AsError(err).Cause), "the channel is in the state") {
			break
		}
	}
	_, err := h.Open(t.Context(), "t.Carts", cartKey, func(context.Context) (entities.Loaded, error) {
		t.Error("loaded for nothing")
		return entities.Loaded{}, nil
	})
	wantError(t, err, entities.Unavailable, entities.NotApplied, "function at "+address+" is not reachable")
	if entities.AsError(err).RetryAfter == 0 {
		t.Error("no hint when to come again")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = h.Open(ctx, "t.Carts", cartKey, nothingStored)
	wantError(t, err, entities.Cancelled, entities.NotApplied)
}

// A loader's error is the engine's own, is returned unchanged, and leaves no stream behind.
func TestLoaderErrors(t *testing.T) {
	f := newFake(newSpec(t))
	address, _ := serve(t, f, "127.0.0.1:0")
	h, remote := connect(t, address, host.Options{Hooks: host.Hooks{
		OnSessionFault: func(key entities.Key, err *entities.Error) { t.Errorf("%s: %v", key, err) },
	}})
	broken := errors.New("the store is broken")
	_, err := h.Open(t.Context(), "t.Carts", cartKey, func(context.Context) (entities.Loaded, error) {
		return entities.Loaded{}, broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	_, err = h.Open(t.Context(), "t.Carts", cartKey, func(context.Context) (entities.Loaded, error) {
		return entities.Loaded{Events: func(yield func(entities.Event) error) error {
			return errors.Join(yield(entities.Event{Sequence: 1, Payload: textPayload("x")}), broken)
		}}, nil
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	<-take(t, "the stream", f.streams).ctx.Done()
	if remote.Stats().SessionsOpen != 0 {
		t.Error("a session is open")
	}
}

// A function that speaks before it was asked, or ends the stream, while its history is replayed:
// there is no session.
func TestFunctionFailsDuringReplay(t *testing.T) {
	for name, tc := range map[string]struct {
		move func(*fakeStream)
		text string
	}{
		"answers": {func(s *fakeStream) {
			_ = s.send(&eventsourced.EventSourcedStreamOut{
				Message: &eventsourced.EventSourcedStreamOut_Reply{Reply: &eventsourced.EventSourcedReply{CommandId: 1}},
			})
		}, "Unexpected entity reply"},
		"ends": {func(s *fakeStream) { s.end <- nil }, "Unexpected entity termination"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(newSpec(t))
			address, _ := serve(t, f, "127.0.0.1:0")
			h, _ := connect(t, address, host.Options{})
			moved := make(chan struct{})
			// Ends after its one move.
			go func() {
				defer close(moved)
				tc.move(<-f.streams)
			}()
			_, err := h.Open(t.Context(), "t.Carts", cartKey, func(context.Context) (entities.Loaded, error) {
				return entities.Loaded{Events: func(yield func(entities.Event) error) error {
					for i := uint64(1); ; i++ { // until the stream breaks
						if err := yield(entities.Event{Sequence: i, Payload: textPayload("x")}); err != nil {
							return err
						}
					}
				}}, nil
			})
			wantError(t, err, entities.FunctionFailed, entities.NotApplied, tc.text)
			<-moved
		})
	}
}

// A replay ends when its caller leaves.
func TestOpenEndsWithItsContext(t *testing.T) {
	f := newFake(newSpec(t))
	address, _ := serve(t, f, "127.0.0.1:0")
	h, _ := connect(t, address, host.Options{Hooks: host.Hooks{
		OnSessionFault: func(_ entities.Key, err *entities.Error) { t.Errorf("the operator is told of %v", err) },
	}})
	ctx, cancel := context.WithCancel(t.Context())
	_, err := h.Open(ctx, "t.Carts", cartKey, func(context.Context) (entities.Loaded, error) {
		return entities.Loaded{Events: func(yield func(entities.Event) error) error {
			for i := uint64(1); ; i++ {
				if i == 10 {
					cancel()
				}
				if err := yield(entities.Event{Sequence: i, Payload: textPayload("x")}); err != nil {
					return err
				}
			}
		}}, nil
	})
	wantError(t, err, entities.Cancelled, entities.NotApplied)
}

// The session of a function that does not read its history ends.
func TestReplayToADeafFunctionEnds(t *testing.T) {
	f := newFake(newSpec(t))
	address, _ := serve(t, f, "127.0.0.1:0")
	h, _ := connect(t, address, host.Options{Settings: host.Settings{FunctionTimeout: 50 * time.Millisecond}})
	value := textValue(strings.Repeat("x", 10_000))
	_, err := h.Open(t.Context(), "t.Carts", cartKey, func(context.Context) (entities.Loaded, error) {
		return entities.Loaded{Events: func(yield func(entities.Event) error) error {
			for i := uint64(1); ; i++ {
				if err := yield(entities.Event{
					Sequence: i,
					Payload:  entities.Payload{TypeURL: textURL, Value: value},
				}); err != nil {
					return err
				}
			}
		}}, nil
	})
	wantError(t, err, entities.FunctionFailed, entities.NotApplied, "did not answer within 50ms")
}

// An answer above the limit breaks the stream.
func TestAnswerAboveTheLimit(t *testing.T) {
	f := newFake(newSpec(t))
	address, _ := serve(t, f, "127.0.0.1:0")
	h, _ := connect(t, address, host.Options{MaxMessageBytes: 100_000})
	s, err := h.Open(t.Context(), "t.Carts", cartKey, nothingStored)
	if err != nil {
		t.Fatal(err)
	}
	answerAll(t, take(t, "the stream", f.streams))
	if _, err = s.Handle(t.Context(), invocation("t.Carts", "Add", cartKey, strings.Repeat("x", 99_000))); err != nil {
		t.Fatal(err)
	}
	_, err = s.Handle(t.Context(), invocation("t.Carts", "Add", cartKey, strings.Repeat("x", 101_000)))
	wantError(t, err, entities.FunctionFailed, entities.NotApplied, "Unexpected entity termination")
	s.Close(t.Context())
}

// Closing the connection ends sessions in use and idle ones, and nothing opens after it.
func TestCloseRemote(t *testing.T) {
	f := newFake(newSpec(t))
	address, _ := serve(t, f, "127.0.0.1:0")
	h, remote := connect(t, address, host.Options{})
	idle, err := h.Open(t.Context(), "t.Carts", cartKey, nothingStored)
	if err != nil {
		t.Fatal(err)
	}
	take(t, "the stream", f.streams)
	if err := remote.Close(); err != nil {
		t.Fatal(err)
	}
	take(t, "the end of the session", idle.Ended())
	idle.Close(t.Context())
	_, err = h.Open(t.Context(), "t.Carts", cartKey, nothingStored)
	wantError(t, err, entities.Unavailable, entities.NotApplied)
	if err := remote.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

// What cannot be served is refused when the function is connected, with all reasons.
func TestConnectRefusesABadFunction(t *testing.T) {
	spec := newSpec(t)
	spec.ServiceInfo.ProtocolMinorVersion = 7
	f := newFake(spec)
	address, _ := serve(t, f, "127.0.0.1:0")
	_, err := host.Connect(t.Context(), address, host.RemoteOptions{Discovery: settings.Defaults[discovery.Options]()})
	if _, ok := errors.AsType[*discovery.RejectedError](err); !ok || !strings.Contains(err.Error(), address) {
		t.Errorf("got %v", err)
	}
	if told := f.reports(); len(told) != 1 || !strings.Contains(told[0], "0.7") {
		t.Errorf("the function was told %q", told)
	}
}

// Connect does not wait forever for a function that does not start.
func TestConnectEndsWithItsContext(t *testing.T) {
	address, stop := serve(t, newFake(newSpec(t)), "127.0.0.1:0")
	stop() // no process listens there now
	ctx, cancel := context.WithCancel(t.Context())
	_, err := host.Connect(ctx, address, host.RemoteOptions{Policy: discovery.Policy{
		OnRetry: func(int, error, time.Duration) { cancel() },
	}})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), address) {
		t.Errorf("got %v", err)
	}
}

// Many sessions run side by side over one channel, each with its own numbers.
func TestSessionsSideBySide(t *testing.T) {
	const sessions, commands = 50, 20
	f := newFake(newSpec(t))
	address, _ := serve(t, f, "127.0.0.1:0")
	h, remote := connect(t, address, host.Options{})
	done := make(chan error, sessions)
	for i := range sessions {
		key := entities.Key{Type: "cart", ID: fmt.Sprint("c", i)}
		// Ends after its commands; the test waits for all.
		go func() { done <- runCommands(t, h, key, commands) }()
	}
	for range sessions {
		answerAll(t, take(t, "a stream", f.streams))
	}
	for range sessions {
		if err := take(t, "the end of a session", done); err != nil {
			t.Error(err)
		}
	}
	if stats := remote.Stats(); stats.Commands != sessions*commands || stats.SessionsOpen != 0 || stats.Failures != 0 {
		t.Errorf("stats %+v", stats)
	}
}

func runCommands(t *testing.T, h *host.Host, key entities.Key, commands int) error {
	t.Helper()
	s, err := h.Open(t.Context(), "t.Carts", key, nothingStored)
	if err != nil {
		return err
	}
	defer s.Close(t.Context())
	for i := range commands {
		text := fmt.Sprint(key.ID, "-", i)
		out, err := s.Handle(t.Context(), invocation("t.Carts", "Add", key, text))
		if err != nil {
			return err
		}
		if got := valueText(out.Reply.Payload.Value); got != text {
			return fmt.Errorf("command %s was answered with %s", text, got)
		}
	}
	return nil
}
