package host_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/action"
)

func replied(text string) *action.ActionResponse {
	return &action.ActionResponse{Response: &action.ActionResponse_Reply{Reply: &cloudstate.Reply{Payload: textAny(text)}}}
}

func refused(text string) *action.ActionResponse {
	return &action.ActionResponse{
		Response: &action.ActionResponse_Failure{Failure: &cloudstate.Failure{Description: text, GrpcCode: 9}},
	}
}

// caller is a caller of a streamed action: the test gives it messages to send.
type caller struct {
	send chan string
	// goAway, when it gets an error, ends the caller.
	goAway chan error
	// gone is closed when its Recv was cancelled.
	gone chan struct{}
}

func newCaller(messages ...string) *caller {
	c := &caller{send: make(chan string, 10), goAway: make(chan error, 1), gone: make(chan struct{}, 1)}
	for _, m := range messages {
		c.send <- m
	}
	return c
}

func (c *caller) recv(ctx context.Context) (entities.Payload, error) {
	select {
	case text, more := <-c.send:
		if !more {
			return entities.Payload{}, io.EOF
		}
		return textPayload(text), nil
	case err := <-c.goAway:
		return entities.Payload{}, err
	case <-ctx.Done():
		c.gone <- struct{}{}
		return entities.Payload{}, ctx.Err()
	}
}

func streamOf(method string, c *caller) *entities.Stream {
	s := &entities.Stream{Command: invocation("t.Acts", method, entities.Key{}, "first").Command}
	if method != "Out" {
		s.Payload = entities.Payload{}
		s.ClientStreams = true
		s.Recv = c.recv
	}
	s.ServerStreams = method != "In"
	return s
}

func actionHost(t *testing.T,
	extensions ...cloudstate.MillraceExtension,
) (*fakeFunction, *host.Host, *host.Remote, func()) {
	t.Helper()
	f := newFake(newSpec(t, extensions...))
	address, stop := serve(t, f, "127.0.0.1:0")
	h, remote := connect(t, address, host.Options{})
	return f, h, remote, stop
}

// A unary action gets names, payload and all metadata in one message.
func TestUnaryAction(t *testing.T) {
	f, h, remote, _ := actionHost(t)
	var got *action.ActionCommand
	f.actions.unary = func(_ context.Context, c *action.ActionCommand) (*action.ActionResponse, error) {
		got = c
		r := replied("done")
		r.SideEffects = []*cloudstate.SideEffect{{
			ServiceName: "t.Carts", CommandName: "Add", Payload: textAny("e"),
			Synchronous: true,
		}}
		return r, nil
	}
	out, err := h.Act(t.Context(), invocation("t.Acts", "Do", entities.Key{}, "x"))
	if err != nil {
		t.Fatal(err)
	}
	const want = `service_name:"t.Acts" name:"Do" payload:{type_url:"type.googleapis.com/t.Text" value:"\n\x01x"} ` +
		`metadata:{entries:{key:"who" string_value:"anna"} entries:{key:"bin" bytes_value:"\x01"}}`
	if oneLine(got) != want {
		t.Errorf("the function got %s", oneLine(got))
	}
	if d := describeOutcome(out); d != `reply "done"; effect on t.Carts/Add "e", synchronous true` {
		t.Errorf("the engine got %s", d)
	}
	if stats := remote.Stats(); stats.Actions != 1 || stats.Failures != 0 {
		t.Errorf("stats %+v", stats)
	}
}

// A caller's headers need not be UTF-8; no byte of them is lost, and no call.
func TestMetadataOfAnyBytes(t *testing.T) {
	f, h, _, _ := actionHost(t)
	var got *action.ActionCommand
	f.actions.unary = func(_ context.Context, c *action.ActionCommand) (*action.ActionResponse, error) {
		got = c
		return replied(""), nil
	}
	inv := invocation("t.Acts", "Do", entities.Key{}, "x")
	inv.Metadata = entities.Metadata{{Key: "a\xff", Text: "b\xff"}}
	if _, err := h.Act(t.Context(), inv); err != nil {
		t.Fatal(err)
	}
	if e := got.GetMetadata().GetEntries()[0]; e.GetKey() != "a\ufffd" || string(e.GetBytesValue()) != "b\xff" {
		t.Errorf("the function got %v", e)
	}
}

func TestUnaryActionAnswers(t *testing.T) {
	f, h, remote, _ := actionHost(t, cloudstate.MillraceExtension_MILLRACE_FAILURE_CODE)
	var response *action.ActionResponse
	var failure error
	f.actions.unary = func(context.Context, *action.ActionCommand) (*action.ActionResponse, error) {
		return response, failure
	}
	act := func() (*entities.Outcome, error) {
		return h.Act(t.Context(), invocation("t.Acts", "Do", entities.Key{}, "x"))
	}
	for _, tc := range []struct {
		response *action.ActionResponse
		want     string
	}{
		{&action.ActionResponse{}, "nothing for the caller"},
		{refused("no"), `failure "no", code 9, refused`},
		{&action.ActionResponse{Response: &action.ActionResponse_Forward{Forward: &cloudstate.Forward{ServiceName: "t.Carts", CommandName: "Add", Payload: textAny("f")}}}, `forward to t.Carts/Add "f"`},
		{&action.ActionResponse{Response: &action.ActionResponse_Reply{}}, "reply without payload"},
	} {
		response = tc.response
		out, err := act()
		if err != nil || describeOutcome(out) != tc.want {
			t.Errorf("got %v, %v, want %s", out, err, tc.want)
		}
	}
	failure = status.Error(codes.Aborted, "it broke")
	_, err := act()
	wantError(t, err, entities.FunctionRefused, entities.Unknown, "it broke")
	if entities.AsError(err).Code != uint32(codes.Aborted) {
		t.Errorf("code %d", entities.AsError(err).Code)
	}
	if stats := remote.Stats(); stats.Refusals != 1 || stats.Failures != 1 || stats.Actions != 5 {
		t.Errorf("stats %+v", stats)
	}
}

// The end of the caller reaches the function, and the outcome is not known.
func TestUnaryActionIsCancelled(t *testing.T) {
	f, h, _, _ := actionHost(t)
	ctx, cancel := context.WithCancel(t.Context())
	saw := make(chan struct{})
	f.actions.unary = func(ctx context.Context, _ *action.ActionCommand) (*action.ActionResponse, error) {
		cancel()
		<-ctx.Done()
		close(saw)
		return nil, ctx.Err()
	}
	_, err := h.Act(ctx, invocation("t.Acts", "Do", entities.Key{}, "x"))
	wantError(t, err, entities.Cancelled, entities.Unknown)
	take(t, "the cancellation", saw)
}

// A connection that breaks in the middle leaves the outcome unknown.
func TestActionLosesItsFunction(t *testing.T) {
	f, h, _, stop := actionHost(t)
	running := make(chan struct{})
	f.actions.unary = func(ctx context.Context, _ *action.ActionCommand) (*action.ActionResponse, error) {
		close(running)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	done := make(chan error, 1)
	// Ends with the call.
	go func() {
		_, err := h.Act(t.Context(), invocation("t.Acts", "Do", entities.Key{}, "x"))
		done <- err
	}()
	take(t, "the call", running)
	stop()
	wantError(t, take(t, "the end of the call", done), entities.Unavailable, entities.Unknown, "not reachable")
}

// collect keeps what on is given, in words.
func collect(into *[]string) host.OutcomeFunc {
	return func(_ context.Context, out *entities.Outcome) error {
		*into = append(*into, describeOutcome(out))
		return nil
	}
}

// A function whose output streams gets one message with everything; each answer is one outcome, in
// order.
func TestStreamedOut(t *testing.T) {
	f, h, _, _ := actionHost(t)
	var got *action.ActionCommand
	f.actions.out = func(c *action.ActionCommand, s grpc.ServerStreamingServer[action.ActionResponse]) error {
		got = c
		for i := range 3 {
			if err := s.Send(replied(fmt.Sprint(i))); err != nil {
				return err
			}
		}
		return s.Send(&action.ActionResponse{})
	}
	var outcomes []string
	if err := h.ActStream(t.Context(), streamOf("Out", nil), collect(&outcomes)); err != nil {
		t.Fatal(err)
	}
	if want := `reply "0", reply "1", reply "2", nothing for the caller`; strings.Join(outcomes, ", ") != want {
		t.Errorf("outcomes %s", outcomes)
	}
	if got.GetPayload() == nil || got.GetName() != "Out" || len(got.GetMetadata().GetEntries()) != 2 {
		t.Errorf("the function got %s", oneLine(got))
	}
}

// A streaming caller's first message has names and metadata and no payload, is sent at once, and
// its half-close reaches the function.
func TestStreamedIn(t *testing.T) {
	f, h, _, _ := actionHost(t)
	began := make(chan struct{})
	var got []string
	f.actions.in = func(s grpc.ClientStreamingServer[action.ActionCommand, action.ActionResponse]) error {
		for {
			c, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return s.SendAndClose(replied("all"))
			}
			if err != nil {
				return err
			}
			if len(got) == 0 {
				close(began)
			}
			got = append(got, oneLine(c))
		}
	}
	c := newCaller()
	// Ends after its messages.
	go func() {
		<-began // before any message of the caller
		c.send <- "a"
		c.send <- "b"
		close(c.send)
	}()
	var outcomes []string
	if err := h.ActStream(t.Context(), streamOf("In", c), collect(&outcomes)); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`service_name:"t.Acts" name:"In" metadata:{entries:{key:"who" string_value:"anna"} entries:{key:"bin" bytes_value:"\x01"}}`,
		`payload:{type_url:"type.googleapis.com/t.Text" value:"\n\x01a"}`,
		`payload:{type_url:"type.googleapis.com/t.Text" value:"\n\x01b"}`,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || fmt.Sprint(outcomes) != `[reply "all"]` {
		t.Errorf("the function got %q, the engine %q", got, outcomes)
	}
}

// echo answers each message with its own, until the caller's end.
func echo(s grpc.BidiStreamingServer[action.ActionCommand, action.ActionResponse]) error {
	for {
		c, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if c.GetPayload() == nil {
			continue
		}
		if err := s.Send(replied(valueText(c.GetPayload().GetValue()))); err != nil {
			return err
		}
	}
}

// Both sides send independently; each outcome is handled before the next one.
func TestStreamedBothWays(t *testing.T) {
	f, h, _, _ := actionHost(t)
	f.actions.both = echo
	c := newCaller("a")
	var outcomes []string
	busy := false
	err := h.ActStream(t.Context(), streamOf("Both", c), func(_ context.Context, out *entities.Outcome) error {
		if busy {
			t.Error("two outcomes at a time")
		}
		busy = true
		outcomes = append(outcomes, describeOutcome(out))
		switch len(outcomes) {
		case 1:
			c.send <- "b"
		case 2:
			close(c.send)
		}
		busy = false
		return nil
	})
	if err != nil || fmt.Sprint(outcomes) != `[reply "a" reply "b"]` {
		t.Errorf("outcomes %v, error %v", outcomes, err)
	}
}

// holdUntilCancelled keeps a call open after its answers and signals when the function saw it
// cancelled.
func holdUntilCancelled(saw chan<- struct{},
	answers ...*action.ActionResponse,
) func(grpc.BidiStreamingServer[action.ActionCommand, action.ActionResponse]) error {
	return func(s grpc.BidiStreamingServer[action.ActionCommand, action.ActionResponse]) error {
		for _, a := range answers {
			if err := s.Send(a); err != nil {
				return err
			}
		}
		<-s.Context().Done()
		saw <- struct{}{}
		return s.Context().Err()
	}
}

// After a failure the call is over: the function's stream is cancelled and the caller is not asked
// any more.
func TestFailureEndsAStream(t *testing.T) {
	f, h, _, _ := actionHost(t)
	saw := make(chan struct{}, 1)
	f.actions.both = holdUntilCancelled(saw, replied("a"), refused("no"), replied("b"))
	c := newCaller()
	var outcomes []string
	err := h.ActStream(t.Context(), streamOf("Both", c), collect(&outcomes))
	wantError(t, err, entities.FunctionRefused, entities.Refused, "no")
	if len(outcomes) != 2 {
		t.Errorf("outcomes %v", outcomes)
	}
	take(t, "the cancellation", saw)
	take(t, "the end of the caller's input", c.gone)
}

// The engine's error ends the call too.
func TestEngineEndsAStream(t *testing.T) {
	f, h, _, _ := actionHost(t)
	saw := make(chan struct{}, 1)
	f.actions.both = holdUntilCancelled(saw, replied("a"))
	stop := errors.New("the caller's connection is gone")
	err := h.ActStream(t.Context(), streamOf("Both", newCaller()), func(context.Context, *entities.Outcome) error {
		return stop
	})
	if !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	take(t, "the cancellation", saw)
}

// A caller that leaves, or sends an invalid message, ends the function's call.
func TestCallerEndsAStream(t *testing.T) {
	f, h, remote, _ := actionHost(t)
	saw := make(chan struct{}, 1)
	f.actions.both = holdUntilCancelled(saw)
	c := newCaller()
	c.goAway <- errors.New("connection reset")
	err := h.ActStream(t.Context(), streamOf("Both", c), nil)
	wantError(t, err, entities.Cancelled, entities.Unknown, "the caller went away")
	take(t, "the cancellation", saw)

	c.goAway <- entities.Errorf(entities.InvalidCommand, entities.NotApplied, "no such field")
	err = h.ActStream(t.Context(), streamOf("Both", c), nil)
	wantError(t, err, entities.InvalidCommand, entities.NotApplied, "no such field")
	take(t, "the cancellation", saw)

	ctx, cancel := context.WithCancel(t.Context())
	f.actions.both = func(s grpc.BidiStreamingServer[action.ActionCommand, action.ActionResponse]) error {
		cancel()
		return holdUntilCancelled(saw)(s)
	}
	err = h.ActStream(ctx, streamOf("Both", c), nil)
	wantError(t, err, entities.Cancelled, entities.Unknown)
	take(t, "the cancellation", saw)
	if remote.Stats().Failures != 3 {
		t.Errorf("stats %+v", remote.Stats())
	}
}

// A function that ends the call with OK while the caller still sends ends it for the caller; with a
// status, the caller gets the status.
func TestFunctionEndsAStream(t *testing.T) {
	f, h, _, _ := actionHost(t)
	c := newCaller()
	f.actions.both = func(s grpc.BidiStreamingServer[action.ActionCommand, action.ActionResponse]) error {
		return s.Send(replied("a"))
	}
	var outcomes []string
	if err := h.ActStream(t.Context(), streamOf("Both", c), collect(&outcomes)); err != nil || len(outcomes) != 1 {
		t.Errorf("outcomes %v, error %v", outcomes, err)
	}
	take(t, "the end of the caller's input", c.gone)

	f.actions.both = func(grpc.BidiStreamingServer[action.ActionCommand, action.ActionResponse]) error {
		return status.Error(codes.DataLoss, "it broke")
	}
	err := h.ActStream(t.Context(), streamOf("Both", c), nil)
	wantError(t, err, entities.FunctionRefused, entities.Unknown, "it broke")
	if entities.AsError(err).Code != uint32(codes.DataLoss) {
		t.Errorf("code %d", entities.AsError(err).Code)
	}
}

// Closing the connection ends running streams.
func TestCloseEndsStreams(t *testing.T) {
	f, h, remote, _ := actionHost(t)
	saw := make(chan struct{}, 1)
	f.actions.both = holdUntilCancelled(saw, replied("a"))
	err := h.ActStream(t.Context(), streamOf("Both", newCaller()), func(context.Context, *entities.Outcome) error {
		return remote.Close()
	})
	wantError(t, err, entities.Unavailable, entities.Unknown)
	take(t, "the cancellation", saw)
}
