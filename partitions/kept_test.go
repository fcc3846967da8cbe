package partitions

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/partitions/core"
)

// answerText is what a caller gets from the router, as text: the reply, or the error.
func answerText(reply *entities.Reply, err error) string {
	if e, failed := errors.AsType[*entities.Error](err); failed {
		return e.Outcome.String() + ": " + e.Message
	}
	if reply.NoPayload {
		return "no payload"
	}
	return strings.TrimSpace(string(reply.Payload.Value))
}

func (f *fixture) ask(cmd *entities.Command) string {
	f.t.Helper()
	return answerText(f.router.Dispatch(f.t.Context(), cmd))
}

// forgotten waits until every effect is settled, and makes the targets forget the settled ones.
func (f *fixture) forgotten() {
	f.t.Helper()
	f.settled()
	// The next effect brings the watermark to the target.
	if got := f.ask(command("w", "effect z")); got != "effect" && !strings.HasPrefix(got, "effect ") {
		f.t.Fatal(got)
	}
	f.settled()
	if _, _, err := materializer.Forget(f.store, f.p.image.Address, nil, 1000); err != nil {
		f.t.Fatal(err)
	}
}

// forwarding are commands that forward, by whether the function stores something beside and what
// the target does.
var forwarding = []struct{ name, text, first string }{
	{"the target wrote", "send b add y", "x y"},
	{"the target only read", "send b read", "x"},
	{"the target refused", "send b refuse no money", "applied: no money"},
	{"bare, the target wrote", "pass b add y", "x y"},
	{"bare, the target only read", "pass b read", "x"},
	{"bare, the target refused", "pass b refuse no money", "refused: no money"},
	{"an effect beside, the target refused", "beside effect b refuse no money", "applied: no money"},
	{"a timer beside, the target refused", "beside timer b refuse no money", "applied: no money"},
	{"the target forwards", "send c send b add y", "x y"},
	{"the target forwards to one that refused", "send c send b refuse no money", "applied: no money"},
	{"bare, the target forwards to one that refused", "pass c send b refuse no money", "applied: no money"},
	{"bare, the target is bare and forwards to one that refused", "pass c pass b refuse no money", "refused: no money"},
	{"bare, the target forwards", "pass c pass b read", "x"},
}

// TestForwardsAnswerIsKept: a command that forwarded gets, sent again under its id, the same answer
// as the first time, with every result of its target, after the target has forgotten it, and from a
// worker that has only the log.
func TestForwardsAnswerIsKept(t *testing.T) {
	for _, c := range forwarding {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, setup{world: alone})
			f.await(core.Active)
			f.want(f.submit(command("b", "add x")), "x")
			again := func(f *fixture, when string) {
				t.Helper()
				if got := f.ask(withID(command("a", c.text), "id")); got != c.first {
					t.Errorf("%s: %q; want %q", when, got, c.first)
				}
			}
			again(f, "the first time")
			again(f, "at once")
			if got := f.ask(withID(command("a", c.text+"!"), "id")); !strings.HasPrefix(got, "not_applied: command id") {
				t.Errorf("another command under the id: %q", got)
			}
			if got := f.ask(command("b", "add z")); !strings.HasSuffix(got, "z") {
				t.Fatal(got)
			}
			words := f.ask(command("b", "read"))
			f.forgotten()
			again(f, "after the target has forgotten it")
			if got := f.ask(command("b", "read")); got != words {
				t.Errorf("the target has %q, and had %q", got, words)
			}
			if err := f.stop(); err != nil {
				t.Fatal(err)
			}
			next := start(t, setup{world: alone, on: f.world, store: memstore.New(), name: "w2"})
			next.await(core.Active)
			again(next, "from another worker")
			if got := next.ask(command("b", "read")); got != words {
				t.Errorf("the target has %q, and had %q", got, words)
			}
		})
	}
}

// TestOutboxKeepsTheAnswer: the target is down when the caller sends its forward. The outbox
// delivers it, on this worker or the next, and the caller gets the answer when it sends its id
// again.
func TestOutboxKeepsTheAnswer(t *testing.T) {
	const text = "send c add y"
	for _, failOver := range []bool{false, true} {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		f.words.mu.Lock()
		f.words.down, f.words.downFor = entities.Errorf(entities.Unavailable, entities.NotApplied, "down"), "c"
		f.words.mu.Unlock()
		if got := f.ask(withID(command("a", text), "id")); !strings.HasPrefix(got, "unknown: ") {
			t.Fatalf("the target is down, and the caller is told %q", got)
		}
		next := f
		if failOver {
			if err := f.stop(); err != nil {
				t.Fatal(err)
			}
			next = start(t, setup{world: alone, on: f.world, store: memstore.New(), name: "w2"})
			next.await(core.Active)
		} else {
			f.words.mu.Lock()
			f.words.down = nil
			f.words.mu.Unlock()
		}
		next.outboxAnswered(text)
	}
}

// outboxAnswered waits until the outbox has delivered a's forward of "add y" to c, and checks that
// the answer is kept under the id.
func (f *fixture) outboxAnswered(text string) {
	f.t.Helper()
	f.settled()
	if got := f.ask(command("c", "add z")); got != "y z" {
		f.t.Fatalf("the target has %q", got)
	}
	f.forgotten()
	if got := f.ask(withID(command("a", text), "id")); got != "y" {
		f.t.Errorf("%q; want the answer that the outbox got", got)
	}
	if got := f.ask(command("c", "read")); got != "y z" {
		f.t.Errorf("the target has %q", got)
	}
}

// TestCallersLeaveTheirForwards: the caller leaves while the target has its forward. The forward is
// not taken back, and its answer is kept.
func TestCallersLeaveTheirForwards(t *testing.T) {
	for _, text := range []string{"send c wait y", "pass c wait y"} {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan string, 1)
		go func() { got <- answerText(f.router.Dispatch(ctx, withID(command("a", text), "id"))) }() // received below
		<-f.words.entered
		cancel()
		close(f.words.gate)
		if answer := <-got; answer != "y" && !strings.HasPrefix(answer, "unknown: ") {
			t.Errorf("%s: %q", text, answer)
		}
		f.outboxAnswered(text)
	}
}

// TestRepeatsShareAForward: a repeat that comes while the forward is under way gets the same answer
// as the first attempt.
func TestRepeatsShareAForward(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	answers := make(chan string, 3)
	for range 3 {
		go func() {
			answers <- answerText(f.router.Dispatch(context.WithoutCancel(t.Context()), withID(command("a", "pass b wait y"), "id")))
		}() // received below
	}
	<-f.words.entered
	close(f.words.gate)
	for range 3 {
		if got := <-answers; got != "y" {
			t.Errorf("%q; want y", got)
		}
	}
	f.settled()
	if k := f.kinds(); k[record.Event] != 1 || k[record.Effect] != 1 {
		t.Errorf("the log holds %v; want one forward and one event", k)
	}
}

// TestWhoLeavesDoesNotTakeBack: two attempts have one decision, a forward and nothing else. The one
// that brings it to the target leaves, and the target does not apply it. The other one brings it
// once more, and it is applied: neither may report that it was not.
func TestWhoLeavesDoesNotTakeBack(t *testing.T) {
	for round := range 8 {
		synctest.Test(t, func(t *testing.T) {
			f := start(t, setup{world: alone})
			f.await(core.Active)
			go f.ask(command("a", "wait h")) // ends with the gate
			<-f.words.entered
			answers := [2]chan string{make(chan string, 1), make(chan string, 1)}
			var leave [2]context.CancelFunc
			for i := range answers {
				ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
				defer cancel()
				leave[i] = cancel
				go func() {
					answers[i] <- answerText(f.router.Dispatch(ctx, withID(command("a", "pass c falter y"), "id")))
				}() // received below
				synctest.Wait()
			}
			close(f.words.gate) // now the command has its turn, for both
			<-f.words.entered
			leave[round%2]()
			synctest.Wait()
			f.words.falters <- true
			got := ""
			f.until("the other one is answered", func() bool {
				select {
				case <-f.words.entered:
					f.words.falters <- false
				case got = <-answers[1-round%2]:
				default:
				}
				return got != ""
			})
			close(f.words.falters) // later attempts succeed
			f.settled()
			has := f.ask(command("c", "read"))
			if strings.HasPrefix(got, "not_applied: ") && has != "" {
				t.Errorf("round %d: %q, and the target has %q", round, got, has)
			}
		})
	}
}

// TestAnswersOfActionsAreKept: an action stores nothing, so the entity that forwarded to it keeps
// the answer. A repeat gets the same in every field, also of a refusal.
func TestAnswersOfActionsAreKept(t *testing.T) {
	for _, text := range []string{"effect b add x", "forward b add x", "refuse no", "effect b add x; refuse no", "forward b refuse no", "forward b answer 0"} {
		f := start(t, setup{world: alone})
		ran := 0
		f.words.act = func(inv entities.Invocation) (*entities.Outcome, error) {
			ran++
			return acts(inv)
		}
		f.await(core.Active)
		var first *entities.Error
		var reply *entities.Reply
		for i := range 3 {
			got, err := f.router.Dispatch(t.Context(), withID(command("a", "act "+text), "id"))
			e := entities.AsError(err)
			switch {
			case i == 0:
				first, reply = e, got
			case (e == nil) != (first == nil),
				e != nil && (e.Reason != first.Reason || e.Outcome != first.Outcome || e.Code != first.Code ||
					e.Message != first.Message):
				t.Errorf("%s: first %v, then %v", text, first, e)
			case e == nil && (answerText(got, nil) != answerText(reply, nil) || got.NoPayload != reply.NoPayload ||
				(reply.Token != "" && i > 1 && got.Token != reply.Token)):
				t.Errorf("%s: first %+v, then %+v", text, reply, got)
			case e == nil:
				reply = got
			}
			f.forgotten()
		}
		if ran != 1 {
			t.Errorf("%s: the action ran %d times", text, ran)
		}
	}
}

// TestBareForwardsAreTakenBack: a command that stored nothing but its forward, whose target did not
// apply that, was not applied either. Nothing is left of it, by whichever entry point it came, and
// under its id it runs again.
func TestBareForwardsAreTakenBack(t *testing.T) {
	for _, id := range []string{"", "id"} {
		c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
		c.owned(c.b, 1)
		for door, f := range map[string]*fixture{"owner": c.b, "worker": c.a} {
			cmd := func() *entities.Command { return withID(command("a", "pass by-"+door+" atleast 1 x"), id+door) }
			if id == "" {
				cmd = func() *entities.Command { return command("a", "pass by-"+door+" atleast 1 x") }
			}
			c.b.words.mu.Lock()
			c.b.words.down, c.b.words.downFor = entities.Errorf(entities.Unavailable, entities.NotApplied, "down"), "by-"+door
			c.b.words.mu.Unlock()
			if got := f.ask(cmd()); got != "not_applied: down" {
				t.Errorf("id %q, %s: %q; want that nothing was applied", id, door, got)
			}
			c.b.words.mu.Lock()
			c.b.words.down = nil
			c.b.words.mu.Unlock()
			if n := c.b.open(); n != 0 {
				t.Errorf("id %q, %s: %d forwards are left", id, door, n)
			}
			if got := c.b.ask(command("by-"+door, "add w")); got != "w" {
				t.Fatal(got)
			}
			if got := f.ask(cmd()); got != "w x" {
				t.Errorf("id %q, %s: %q; want what it did when it ran again", id, door, got)
			}
		}
	}
}

// TestRepeatsShareARunOfAnAction: repeats that come while a forward is under way to an action wait
// for it. The action runs once.
func TestRepeatsShareARunOfAnAction(t *testing.T) {
	f := start(t, setup{world: alone})
	var ran atomic.Int32
	f.words.act = func(entities.Invocation) (*entities.Outcome, error) {
		n := ran.Add(1)
		f.words.entered <- "act"
		<-f.words.gate
		return &entities.Outcome{Reply: reply(fmt.Sprint("run ", n))}, nil
	}
	f.await(core.Active)
	answers := make(chan string, 4)
	ask := func() {
		answers <- answerText(f.router.Dispatch(context.WithoutCancel(t.Context()), withID(command("a", "act x"), "id")))
	}
	go ask() // received below, as all of them
	<-f.words.entered
	for range 3 {
		go ask()
	}
	close(f.words.gate)
	for range 4 {
		if got := <-answers; got != "run 1" {
			t.Errorf("%q; want run 1", got)
		}
	}
	if n := ran.Load(); n != 1 {
		t.Errorf("the action ran %d times", n)
	}
}

// TestReadsAndRefusalsRunAgain: a command that stored nothing and asked for nothing has left no
// record. Under its id it runs again, and answers from the present state, at every entry point.
func TestReadsAndRefusalsRunAgain(t *testing.T) {
	c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
	c.owned(c.b, 1)
	gateway := c.a.gateway(c.a.m.options.Table, c.net)
	for door, ask := range map[string]func(*entities.Command) string{
		"owner":   func(cmd *entities.Command) string { return answerText(c.b.router.Dispatch(t.Context(), cmd)) },
		"worker":  func(cmd *entities.Command) string { return answerText(c.a.router.Dispatch(t.Context(), cmd)) },
		"gateway": func(cmd *entities.Command) string { return answerText(gateway.Dispatch(t.Context(), cmd)) },
	} {
		key := "by-" + door
		for _, step := range []struct{ id, text, want string }{
			{"r", "read", ""},
			{"w", "atleast 1 y", "refused: too few"},
			{"w", "atleast 1 y", "refused: too few"},
			{"x", "add x", "x"},
			{"r", "read", "x"},
			{"w", "atleast 1 y", "x y"},
			{"w", "atleast 1 y", "x y"}, // now it took effect
			{"r", "read", "x y"},
			{"r", "add z", "x y z"}, // an id that left no trace is free
		} {
			if got := ask(withID(command(key, step.text), step.id)); got != step.want {
				t.Errorf("%s: %s under id %s: %q; want %q", door, step.text, step.id, got, step.want)
			}
		}
	}
}

// TestConclusionsAreTriedAgain: the owner is fenced between the target's answer and its commit.
// Another worker, by which the command came, sends it again, and the caller gets the answer.
func TestConclusionsAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
		c.owned(c.b, 1)
		var ran atomic.Int32
		c.b.words.act = func(entities.Invocation) (*entities.Outcome, error) {
			n := ran.Add(1)
			if n == 1 {
				c.b.world.Inject(partition0, foreignClaim(9))
			}
			return &entities.Outcome{Reply: reply(fmt.Sprint("run ", n))}, nil
		}
		got := make(chan string, 1)
		// Received below.
		go func() { got <- answerText(c.a.router.Dispatch(t.Context(), withID(command("a", "act x"), "id"))) }()
		c.until("the caller is answered", func() bool { return len(got) > 0 })
		answer := <-got
		if !strings.HasPrefix(answer, "run ") || answer == "run 1" {
			t.Errorf("%q; want what a later run answered: nothing was kept of the first", answer)
		}
		c.until("the forward is settled", func() bool { return c.b.open() == 0 })
		if again := answerText(c.b.router.Dispatch(t.Context(), withID(command("a", "act x"), "id"))); again != answer {
			t.Errorf("first %q, then %q", answer, again)
		}
	})
}

// TestWhatFollowsAFailedEffectIsDelivered: a synchronous effect fails, and its caller gets the
// error. The outbox sends the effects after it, and a repeat gets the answer.
func TestWhatFollowsAFailedEffectIsDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		f.words.mu.Lock()
		f.words.down, f.words.downFor = entities.Errorf(entities.Unavailable, entities.NotApplied, "down"), "c"
		f.words.mu.Unlock()
		if got := f.ask(withID(command("a", "both c b add y"), "id")); !strings.HasPrefix(got, "unknown: ") {
			t.Fatalf("%q; want that the effect did not take effect yet", got)
		}
		f.until("the forward is delivered", func() bool { return f.open() == 1 })
		f.words.mu.Lock()
		f.words.down = nil
		f.words.mu.Unlock()
		f.settled()
		if got := f.ask(withID(command("a", "both c b add y"), "id")); got != "y" {
			t.Errorf("%q; want what the forward was answered", got)
		}
		if got := f.ask(command("b", "read")) + ", " + f.ask(command("c", "read")); got != "y, by-effect" {
			t.Errorf("the targets have %q", got)
		}
	})
}
