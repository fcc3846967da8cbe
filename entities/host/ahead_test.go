package host_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
)

// conversationAhead is a session on a shared stream whose function was quick so far, and the
// function's side of it.
type conversationAhead struct {
	t        *testing.T
	session  entities.Ahead
	function *fakeStream
}

func openAhead(t *testing.T) *conversationAhead {
	t.Helper()
	return openAheadOn(t, newFake(newSpec(t, cloudstate.MillraceExtension_MILLRACE_SHARED_STREAM)))
}

func openAheadOn(t *testing.T, f *fakeFunction) *conversationAhead {
	t.Helper()
	address, _ := serve(t, f, "127.0.0.1:0")
	h, _ := connect(t, address, host.Options{})
	s, err := h.Open(t.Context(), "t.Carts", cartKey, nothingStored)
	if err != nil {
		t.Fatal(err)
	}
	c := &conversationAhead{t: t, session: s.(entities.Ahead), function: take(t, "the session", f.streams)}
	if c.session.Room() != 0 {
		t.Error("a function of which nothing is known has room")
	}
	// How much room there is depends on how quick the function is, and that on what else the
	// machine does.
	for deadline := time.Now().Add(time.Minute); c.session.Room() < 2; {
		if time.Now().After(deadline) {
			t.Fatal("no room after a minute")
		}
		first := c.handle(add("first"))
		c.answer(c.hear())
		c.want(<-first, "first")
	}
	return c
}

func add(text string) entities.Invocation { return invocation("t.Carts", "Add", cartKey, text) }

type decision struct {
	outcome *entities.Outcome
	err     error
}

// handle lets the engine ask for a decision.
func (c *conversationAhead) handle(inv entities.Invocation) <-chan decision {
	decided := make(chan decision, 1)
	go func() { // received by the test
		outcome, err := c.session.Handle(context.WithoutCancel(c.t.Context()), inv)
		decided <- decision{outcome, err}
	}()
	return decided
}

// hear is the next command that the function receives.
func (c *conversationAhead) hear() *cloudstate.Command {
	c.t.Helper()
	for {
		m, err := c.function.recv()
		if err != nil {
			c.t.Fatal(err)
		}
		if command := m.(*eventsourced.EventSourcedStreamIn).GetCommand(); command != nil {
			return command
		}
	}
}

// answer lets the function answer a command with its own text.
func (c *conversationAhead) answer(command *cloudstate.Command) {
	c.t.Helper()
	err := c.function.send(&eventsourced.EventSourcedStreamOut{
		Message: &eventsourced.EventSourcedStreamOut_Reply{Reply: &eventsourced.EventSourcedReply{
			CommandId: command.GetId(),
			ClientAction: &cloudstate.ClientAction{
				Action: &cloudstate.ClientAction_Reply{Reply: &cloudstate.Reply{Payload: command.GetPayload()}},
			},
		}},
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *conversationAhead) want(d decision, text string) {
	c.t.Helper()
	if d.err != nil || valueText(d.outcome.Reply.Payload.Value) != text {
		c.t.Errorf("decided %+v, %v; want %q", d.outcome, d.err, text)
	}
}

// end lets the function agree to the end of the session.
func (c *conversationAhead) end() {
	c.function.end <- nil
	c.session.Close(c.t.Context())
}

// TestAhead: a function is sent several commands before it has answered the first, and each gets
// its own answer.
func TestAhead(t *testing.T) {
	c := openAhead(t)
	defer c.end()
	invs := []entities.Invocation{add("a"), add("b"), add("c")}
	c.session.Announce(invs)
	if c.session.Ready() || c.session.Room() != 0 {
		t.Error("there is room, or an answer, while nothing is answered")
	}
	first := c.handle(invs[0])
	var heard []*cloudstate.Command
	for range invs {
		heard = append(heard, c.hear())
	}
	c.answer(heard[0])
	c.want(<-first, "a")
	c.answer(heard[1])
	second := c.handle(invs[1])
	c.want(<-second, "b")
	third := c.handle(invs[2])
	c.answer(heard[2])
	c.want(<-third, "c")
	last := c.handle(add("d"))
	c.answer(c.hear())
	c.want(<-last, "d")
}

// TestAheadIsBounded: what does not go ahead is sent when it is its turn.
func TestAheadIsBounded(t *testing.T) {
	c := openAhead(t)
	defer c.end()
	large := strings.Repeat("x", 20<<10)
	invs := []entities.Invocation{add("a"), add(large), add("b")}
	c.session.Announce(invs)
	for _, inv := range invs {
		decided := c.handle(inv)
		c.answer(c.hear())
		c.want(<-decided, valueText(inv.Payload.Value))
	}
}

// TestAheadOfAnEnd: when a function ends with commands that it has not answered, those are lost,
// and what it answered is not.
func TestAheadOfAnEnd(t *testing.T) {
	c := openAhead(t)
	invs := []entities.Invocation{add("a"), add("b"), add("c")}
	c.session.Announce(invs)
	first := c.handle(invs[0])
	c.answer(c.hear())
	c.answer(c.hear())
	c.hear()
	c.want(<-first, "a")
	c.function.end <- nil
	take(t, "the end of the session", c.session.Ended())
	c.want(<-c.handle(invs[1]), "b") // its answer came before
	if d := <-c.handle(invs[2]); d.err == nil || entities.AsError(d.err).Reason != entities.FunctionFailed {
		t.Errorf("decided %+v, %v", d.outcome, d.err)
	}
	c.session.Close(t.Context())
}

// TestAheadKeepsTheOrder: a session that is asked about another command than it was told is of no
// use any more.
func TestAheadKeepsTheOrder(t *testing.T) {
	c := openAhead(t)
	c.session.Announce([]entities.Invocation{add("a"), add("b")})
	if d := <-c.handle(add("c")); d.err == nil || entities.AsError(d.err).Reason != entities.Internal {
		t.Errorf("decided %+v, %v", d.outcome, d.err)
	}
	if d := <-c.handle(add("d")); d.err == nil {
		t.Errorf("decided %+v", d.outcome)
	}
	c.end()
}

// TestStreamsOfTheirOwnGetOneAfterTheOther: that is Cloudstate's rule.
func TestStreamsOfTheirOwnGetOneAfterTheOther(t *testing.T) {
	spec := newSpec(t)
	spec.ServiceInfo.MillraceExtensions = nil
	f := newFake(spec)
	address, _ := serve(t, f, "127.0.0.1:0")
	h, _ := connect(t, address, host.Options{})
	s, err := h.Open(t.Context(), "t.Carts", cartKey, nothingStored)
	if err != nil {
		t.Fatal(err)
	}
	answerAll(t, take(t, "the session", f.streams))
	for range 3 {
		if _, err := s.Handle(t.Context(), add("x")); err != nil {
			t.Fatal(err)
		}
		if room := s.(entities.Ahead).Room(); room != 0 {
			t.Errorf("room for %d", room)
		}
	}
	s.Close(t.Context())
}
