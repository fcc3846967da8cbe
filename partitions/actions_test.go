package partitions

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/partitions/core"
	"github.com/millrace-io/millrace/partitions/routing"
)

// acts makes an action of texts: commands of words, separated by semicolons. Those that begin with
// "effect" or "async" are side effects, the last one may be a forward, "refuse" or "crash".
func acts(inv entities.Invocation) (*entities.Outcome, error) {
	out := &entities.Outcome{Reply: reply("done")}
	for part := range strings.SplitSeq(string(inv.Payload.Value), "; ") {
		verb, rest, _ := strings.Cut(part, " ")
		id, text, _ := strings.Cut(rest, " ")
		target := toWords(id, text)
		switch verb {
		case "effect", "async":
			out.Effects = append(out.Effects, entities.SideEffect{Target: target, Synchronous: verb == "effect"})
		case "forward":
			out.Reply, out.Forward = nil, &target
		case "refuse":
			out.Reply, out.Failure = nil, &entities.Error{
				Reason: entities.FunctionRefused, Outcome: entities.Refused, Message: rest, Code: 9,
			}
		case "crash":
			return nil, &entities.Error{Reason: entities.FunctionFailed, Outcome: entities.NotApplied, Message: "Unexpected action failure"}
		}
	}
	return out, nil
}

// startActing starts a worker whose entity c cannot be reached.
func startActing(t *testing.T) *fixture {
	t.Helper()
	f := start(t, setup{world: alone})
	f.words.act = acts
	f.await(core.Active)
	f.words.down, f.words.downFor = entities.Errorf(entities.Unavailable, entities.NotApplied, "c is down"), "c"
	return f
}

// TestActionsTellWhatTheyCaused: an error of an action states that nothing was applied only if that
// holds for everything that the action asked for.
func TestActionsTellWhatTheyCaused(t *testing.T) {
	const partly = "unknown: the action took effect in part: "
	for _, c := range []struct{ text, want, a string }{
		{"effect a add 1; forward b read", "", "1"},
		{"effect a add 1; forward b crash", partly, "1"},
		{"effect a add 1; forward b refuse no", partly, "1"},
		{"effect a add 1; forward c add x", partly, "1"},
		{"effect a add 1; forward absent add x", partly, "1"},
		{"effect a add 1; refuse no", partly, "1"},
		{"effect a add 1; effect c add x", partly, "1"},
		{"async a add 1; forward b crash", partly, "1"},
		{"async a add 1; forward b refuse no", partly, "1"},

		{"effect b send a refuse no; forward b crash", partly, ""},
		{"forward b crash", "not_applied: ", ""},
		{"forward b refuse no", "refused: ", ""},
		{"forward b send a refuse no", "applied: no", ""},
		{"forward b pass a refuse no", "refused: no", ""},
		{"effect a add 1; forward b send a refuse no", "applied: no", "1"},
		{"forward c add x", "not_applied: ", ""},
		{"forward absent add x", "not_applied: ", ""},
		{"effect c add x", "not_applied: ", ""},
		{"effect c add x; effect a add 1", "not_applied: ", ""},
		{"effect a refuse no; forward b crash", "not_applied: ", ""},
		{"refuse no", "refused: ", ""},
		{"crash", "not_applied: ", ""},
	} {
		f := startActing(t)
		if got := f.ask(acting(c.text)); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q; want %q", c.text, got, c.want)
		}
		f.router.Wait()
		if got := f.ask(command("a", "read")); got != c.a {
			t.Errorf("%s: a has %q; want %q", c.text, got, c.a)
		}
	}
}

// stream calls a streamed action with these messages, and returns the replies and how it ended.
func (f *fixture) stream(texts ...string) (replies []string, err error) {
	f.t.Helper()
	s := &entities.Stream{Command: acting(""), ClientStreams: true, ServerStreams: true}
	s.Recv = func(context.Context) (entities.Payload, error) {
		if len(texts) == 0 {
			return entities.Payload{}, io.EOF
		}
		text := texts[0]
		texts = texts[1:]
		return entities.Payload{Value: []byte(text)}, nil
	}
	s.Send = func(r *entities.Reply) error {
		replies = append(replies, answerText(r, nil))
		if answerText(r, nil) == "too long" {
			return entities.Errorf(entities.TooLarge, entities.NotApplied, "the reply is too long")
		}
		return nil
	}
	err = f.router.DispatchStream(f.t.Context(), s)
	return replies, err
}

// TestStreamedActionsTellWhatTheyCaused: the same for a whole streamed call.
func TestStreamedActionsTellWhatTheyCaused(t *testing.T) {
	for _, c := range []struct {
		texts []string
		want  string
	}{
		{[]string{"forward a add 1", "forward b crash"}, "unknown"},
		{[]string{"forward a add 1", "forward b refuse no"}, "unknown"},
		{[]string{"forward a add 1", "crash"}, "unknown"},
		{[]string{"effect a add 1", "forward c add x"}, "unknown"},
		{[]string{"async a add 1", "refuse no"}, "unknown"},
		{[]string{"forward a add too long"}, "unknown"},
		{[]string{"forward b send a refuse no"}, "applied"},
		{[]string{"forward b crash"}, "not_applied"},
		{[]string{"refuse no"}, "refused"},
		{[]string{"crash"}, "not_applied"},
		{[]string{"effect c add 1"}, "not_applied"},
	} {
		f := startActing(t)
		_, err := f.stream(c.texts...)
		e, failed := errors.AsType[*entities.Error](err)
		if !failed || e.Outcome.String() != c.want {
			t.Errorf("%q: %v; want %s", c.texts, err, c.want)
		}
		f.router.Wait()
	}
}

// TestActionsTakeNoIDs: an action stores nothing, so an id cannot make it take effect once. It is
// refused before the function runs, by every entry point.
func TestActionsTakeNoIDs(t *testing.T) {
	f := startActing(t)
	ran := 0
	f.words.act = func(inv entities.Invocation) (*entities.Outcome, error) {
		ran++
		return acts(inv)
	}
	named := func() *entities.Command { return withID(acting("effect a add 1"), "id") }
	stream := func() *entities.Stream { return &entities.Stream{Command: named()} }
	net := &network{workers: map[string]*routing.Router{"at-w": f.router}}
	gateway := f.gateway(tableOf("at-w"), net)
	for way, call := range map[string]func() error{
		"here":                   func() error { _, err := f.router.Dispatch(t.Context(), named()); return err },
		"from another worker":    func() error { _, err := f.router.DispatchHere(t.Context(), named(), 0); return err },
		"by a gateway":           func() error { _, err := gateway.Dispatch(t.Context(), named()); return err },
		"a stream":               func() error { return f.router.DispatchStream(t.Context(), stream()) },
		"a stream, by a gateway": func() error { return gateway.DispatchStream(t.Context(), stream()) },
		"as the target of a record": func() error {
			cmd := named()
			cmd.Source = &entities.Source{Offset: 7}
			return f.router.Run(t.Context(), cmd)
		},
	} {
		e, failed := errors.AsType[*entities.Error](call())
		if !failed || e.Reason != entities.InvalidCommand || e.Outcome != entities.NotApplied ||
			!strings.Contains(e.Message, "id") {
			t.Errorf("%s: %v; want it refused, with the reason", way, e)
		}
	}
	if ran != 0 || len(net.sent) != 0 {
		t.Errorf("the action ran %d times, and went out %d times", ran, len(net.sent))
	}
}

// tableOf is a table of one worker, which owns the only partition.
func tableOf(address string) *routing.Table {
	routes := routing.NewTable()
	routes.Set(&broker.Table{
		Members: []broker.Member{{Name: "w", Address: address}}, Owners: []int32{0}, Standbys: [][]int32{nil},
	})
	return routes
}

// TestWhatAnActionCalledIsNotMoved: an error of a command that an action sent does not make a
// gateway run the action again on the next worker.
func TestWhatAnActionCalledIsNotMoved(t *testing.T) {
	f := startActing(t)
	f.words.act = func(entities.Invocation) (*entities.Outcome, error) {
		return nil, entities.PartitionMoved(0, "for a test")
	}
	_, err := f.router.DispatchHere(t.Context(), acting(""), 0)
	if e := entities.AsError(err); e == nil || e.Reason == entities.Moved {
		t.Errorf("the error of an action whose forward reached a moving partition is %v: to a gateway that means that the action did not arrive", e)
	}
}
