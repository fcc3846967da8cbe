package conformance_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/action"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/valueentity"
	"github.com/millrace-io/millrace/tests/conformance/interceptor"
	"github.com/millrace-io/millrace/tests/kit"
)

// quiet fails the test if there is a call of millrace that the case did not take, and drops it. A
// later one is found at the end, when millrace has stopped.
func (s *subject) quiet(t *testing.T) {
	t.Helper()
	s.watched = true
	now, cancel := context.WithCancel(t.Context())
	cancel()
	for call := s.trace.Any(now); call != nil; call = s.trace.Any(now) {
		t.Errorf("an unexpected call of %s", call.Method)
	}
}

// ended checks, after the end of millrace and the interceptor, for calls and messages that came
// after quiet and silent.
func (s *subject) ended(t *testing.T) {
	t.Helper()
	if s.watched {
		s.quiet(t)
	}
	for _, x := range s.silenced {
		x.nothingMore(t)
	}
}

// exchange is an intercepted call under comparison.
type exchange struct {
	*interceptor.Call
	subject *subject
}

// next waits for the next intercepted call of a method.
func (s *subject) next(t *testing.T, method string) *exchange {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), kit.Patience)
	defer cancel()
	call, err := s.trace.Next(ctx, method)
	if err != nil {
		t.Fatal(err)
	}
	return &exchange{Call: call, subject: s}
}

// message waits for the next message of a direction.
func (x *exchange) message(t *testing.T, flow *interceptor.Flow) proto.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), kit.Patience)
	defer cancel()
	message, err := flow.Next(ctx)
	if err != nil {
		t.Fatalf("%s: %v", x.Method, err)
	}
	return message
}

// in compares the next messages of millrace, out those of the function.
func (x *exchange) in(t *testing.T, want ...proto.Message) {
	t.Helper()
	for _, w := range want {
		equal(t, x.Method+" in", x.subject.withoutExtras(t, x.message(t, &x.In)), w)
	}
}

func (x *exchange) out(t *testing.T, want ...proto.Message) {
	t.Helper()
	for _, w := range want {
		equal(t, x.Method+" out", x.message(t, &x.Out), w)
	}
}

// inEnds waits for the end of millrace's side, which must be a half-close and what comes next.
func (x *exchange) inEnds(t *testing.T) {
	t.Helper()
	if cause := x.end(t, &x.In); cause != nil {
		t.Errorf("%s: millrace did not half-close, but: %v", x.Method, cause)
	}
}

// outEnds waits for the end of the function's side, which must be the status OK and what comes
// next.
func (x *exchange) outEnds(t *testing.T) {
	t.Helper()
	if cause := x.end(t, &x.Out); cause != nil {
		t.Errorf("%s: the call did not end with OK, but: %v", x.Method, cause)
	}
}

// ends waits for the end in order of both sides.
func (x *exchange) ends(t *testing.T) {
	t.Helper()
	x.inEnds(t)
	x.outEnds(t)
}

// isReset waits for a reset by millrace.
func (x *exchange) isReset(t *testing.T) {
	t.Helper()
	if cause := x.end(t, &x.In); status.Code(cause) != codes.Canceled {
		t.Errorf("%s: want a cancelled call, it ended with: %v", x.Method, cause)
	}
}

func (x *exchange) end(t *testing.T, flow *interceptor.Flow) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), kit.Patience)
	defer cancel()
	cause, err := flow.End(ctx)
	if err != nil {
		t.Fatalf("%s: %v", x.Method, err)
	}
	return cause
}

// silent fails the test if there are messages that it did not take. Later messages of millrace are
// checked at the end.
func (x *exchange) silent(t *testing.T) {
	t.Helper()
	x.subject.silenced = append(x.subject.silenced, x)
	x.nothingMore(t)
}

// nothingMore checks that no message is recorded now; an end may be.
func (x *exchange) nothingMore(t *testing.T) {
	t.Helper()
	for who, flow := range map[string]*interceptor.Flow{"millrace": &x.In, "the function": &x.Out} {
		for flow.Waiting() > 0 {
			if message, err := flow.Next(context.WithoutCancel(t.Context())); err == nil {
				t.Errorf("%s: %s said more than was expected: %v", x.Method, who, message)
			}
		}
	}
}

// withoutExtras removes what cases do not specify: the metadata of actions, and the context of a
// command for a function that supports it. Any other extra stays, and makes the message differ.
func (s *subject) withoutExtras(t *testing.T, m proto.Message) proto.Message {
	t.Helper()
	switch m := m.(type) {
	case *eventsourced.EventSourcedStreamIn:
		s.checkContext(t, m.GetCommand())
	case *valueentity.ValueEntityStreamIn:
		s.checkContext(t, m.GetCommand())
	case *action.ActionCommand:
		if m.GetServiceName() != "" { // messages that follow on a stream have a payload only
			m.Metadata = nil
		}
	}
	return m
}

// checkContext checks the context of a command without an id, and removes it.
func (s *subject) checkContext(t *testing.T, c *cloudstate.Command) {
	t.Helper()
	if c == nil || !s.announces(cloudstate.MillraceExtension_MILLRACE_COMMAND_CONTEXT) {
		return
	}
	got := c.GetContext()
	if got.GetTimeUnixNanos() == 0 {
		t.Errorf("command %d has no time, and the function announced that it knows it: %v", c.GetId(), c)
		return
	}
	equal(t, "context", got, &cloudstate.CommandContext{
		TimeUnixNanos: got.GetTimeUnixNanos(), TimeoutNanos: got.GetTimeoutNanos(), Timers: true, Refusals: true,
	})
	c.Context = nil
}

func (s *subject) announces(x cloudstate.MillraceExtension) bool {
	return slices.Contains(s.spec.GetServiceInfo().GetMillraceExtensions(), x)
}

// equal compares whole messages, unknown fields included.
func equal(t *testing.T, what string, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		text := prototext.MarshalOptions{Multiline: true, EmitUnknown: true}
		t.Fatalf("%s: got %T\n%s\nwant %T\n%s", what, got, text.Format(got), want, text.Format(want))
	}
}

// answered checks a response of the client.
func answered(t *testing.T, got proto.Message, err error, want proto.Message) {
	t.Helper()
	if err != nil {
		t.Fatalf("the call ended with %v, want %v", err, want)
	}
	equal(t, "response", got, want)
}

// refused checks that a call ended with UNKNOWN and the function's text.
func refused(t *testing.T, err error, description string) {
	t.Helper()
	if s := status.Convert(err); s.Code() != codes.Unknown || s.Message() != description {
		t.Fatalf("the call ended with %v, want UNKNOWN and %q", err, description)
	}
}

// page is an answer over plain HTTP.
type page struct {
	status      int
	contentType string
	body        string
}

// post sends JSON.
func (s *subject) post(t *testing.T, path, body string) page {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.public+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return fetch(t, s.web, req)
}

func fetch(t *testing.T, client *http.Client, req *http.Request) page {
	t.Helper()
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return page{status: res.StatusCode, contentType: res.Header.Get("Content-Type"), body: string(body)}
}

// answersJSON posts and compares the answer; refusesJSON expects the text of a refusal as the whole
// body.
func (s *subject) answersJSON(t *testing.T, path, body, want string) {
	t.Helper()
	if got := s.post(t, path, body); got != (page{http.StatusOK, "application/json", want}) {
		t.Fatalf("POST %s %s: got %+v, want %s as application/json", path, body, got, want)
	}
}

func (s *subject) refusesJSON(t *testing.T, path, body, description string) {
	t.Helper()
	if got := s.post(t, path, body); got.status != http.StatusInternalServerError || got.body != description {
		t.Fatalf("POST %s %s: got %+v, want 500 and the body %q", path, body, got, description)
	}
}
