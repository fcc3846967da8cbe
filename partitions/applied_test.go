package partitions

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/partitions/core"
)

// TestARefusedForwardDoesNotDenyTheCommand: a command that stored something and whose forward was
// refused took effect. Its caller gets code and text of the refusal, and the outcome is applied, at
// every entry point, with and without an id, the first time and again.
func TestARefusedForwardDoesNotDenyTheCommand(t *testing.T) {
	for _, id := range []string{"", "id"} {
		c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
		c.owned(c.b, 1)
		c.b.words.act = acts
		gateway := c.a.gateway(c.a.m.options.Table, c.net)
		for door, dispatch := range map[string]func(*entities.Command) error{
			"owner":   func(cmd *entities.Command) error { _, err := c.b.router.Dispatch(t.Context(), cmd); return err },
			"worker":  func(cmd *entities.Command) error { _, err := c.a.router.Dispatch(t.Context(), cmd); return err },
			"gateway": func(cmd *entities.Command) error { _, err := gateway.Dispatch(t.Context(), cmd); return err },
		} {
			for _, when := range []string{"first", "again"} {
				key := "by-" + door
				if id == "" {
					key += "-" + when
				}
				err := dispatch(withID(command(key, "act refuse no money"), id))
				e, failed := errors.AsType[*entities.Error](err)
				if !failed || e.Reason != entities.FunctionRefused || e.Outcome.String() != "applied" || e.Code != 9 ||
					e.Message != "no money" {
					t.Errorf("id %q, %s, %s: %+v; want that it was applied, and the refusal's code and text", id, door, when, err)
				}
				if got := c.b.ask(command(key, "read")); got != "sent" {
					t.Errorf("id %q, %s, %s: the entity has %q; want that it took effect once", id, door, when, got)
				}
			}
		}
	}
}

// TestOutboxKeepsTheRefusal: the target is down when the caller sends the forward, and refuses it
// when the outbox delivers it, from this worker or the next. A caller that sends the command again
// under its id gets the refusal, and that the command itself took effect.
func TestOutboxKeepsTheRefusal(t *testing.T) {
	for text, want := range map[string]string{
		"send c refuse no": "applied: no", "beside effect c refuse no": "applied: no", "beside timer c refuse no": "applied: no",
		"send c send b refuse no": "applied: no", "pass b both c d refuse no": "applied: no",
	} {
		for _, failOver := range []bool{false, true} {
			f := start(t, setup{world: alone})
			f.await(core.Active)
			f.words.mu.Lock()
			f.words.down, f.words.downFor = entities.Errorf(entities.Unavailable, entities.NotApplied, "down"), "c"
			f.words.mu.Unlock()
			if got := f.ask(withID(command("a", text), "id")); !strings.HasPrefix(got, "unknown: ") {
				t.Fatalf("%s: the target is down, and the caller is told %q", text, got)
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
			next.settled()
			for range 2 {
				if got := next.ask(withID(command("a", text), "id")); got != want {
					t.Errorf("%s, fail-over %v: %q; want %q", text, failOver, got, want)
				}
				next.forgotten()
			}
		}
	}
}

// TestARepeatWhileTheOutboxDelivers: the caller sends the command again while the outbox delivers
// its forward. The caller gets what is kept: the outcome of the command, which is in the log.
func TestARepeatWhileTheOutboxDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		ran := 0
		f.words.act = func(entities.Invocation) (*entities.Outcome, error) {
			if ran++; ran == 1 {
				return nil, entities.Errorf(entities.Unavailable, entities.NotApplied, "down")
			}
			f.words.entered <- "act"
			<-f.words.gate
			return &entities.Outcome{Failure: entities.Errorf(entities.FunctionRefused, entities.Refused, "no %d", ran)}, nil
		}
		f.await(core.Active)
		if got := f.ask(withID(command("a", "act x"), "id")); !strings.HasPrefix(got, "unknown: ") {
			t.Fatalf("the target is down, and the caller is told %q", got)
		}
		f.until("the outbox sends the forward", func() bool { return len(f.words.entered) > 0 })
		again := make(chan string, 1)
		go func() { again <- f.ask(withID(command("a", "act x"), "id")) }() // received below
		synctest.Wait()                                                     // it waits for the outbox's attempt
		close(f.words.gate)
		first := <-again
		if open := f.open(); first != "applied: no 2" || open != 0 {
			t.Errorf("%q, and %d effects are open; want that the command was applied, and its answer kept", first, open)
		}
		if got := f.ask(withID(command("a", "act x"), "id")); got != first || ran != 2 {
			t.Errorf("first %q, then %q; the action ran %d times", first, got, ran)
		}
	})
}

// TestALongRefusalIsKeptInPart: a refusal whose text does not fit into a commit stays a refusal,
// with its code and the beginning of its text, also where it is sent again.
func TestALongRefusalIsKeptInPart(t *testing.T) {
	for text, outcome := range map[string]entities.OutcomeClass{
		"pass b deny 1200000": entities.Refused, "send b deny 1200000": entities.Applied,
		"pass c pass b deny 1200000": entities.Refused, "pass b deny 2000": entities.Refused,
	} {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		want := ""
		for range 3 {
			_, err := f.router.Dispatch(t.Context(), withID(command("a", text), "id"))
			e, failed := errors.AsType[*entities.Error](err)
			if !failed || e.Reason != entities.FunctionRefused || e.Outcome != outcome || e.Code != 9 {
				t.Fatalf("%s: %.200s; want %s, and the code of the refusal", text, answerText(nil, err), outcome)
			}
			if want == "" {
				want = e.Message
			}
			if e.Message != want || !strings.HasPrefix(e.Message, strings.Repeat("é", core.MaxRefusalText/2)) ||
				strings.ContainsRune(e.Message, 0xFFFD) {
				t.Errorf("%s: %d bytes of text, first %d", text, len(e.Message), len(want))
			}
			f.forgotten()
		}
	}
}

// TestALongRefusalOfAnEffectIsKnownAgain: the same for what an effect's target remembers. An effect
// that was refused must not be taken for one that took effect when it is sent again.
func TestALongRefusalOfAnEffectIsKnownAgain(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	for range 2 {
		cmd := command("b", "deny 1200000")
		cmd.Source = &entities.Source{Generation: f.p.image.Address.Generation, Partition: 0, Offset: 100}
		_, err := f.router.Dispatch(t.Context(), cmd)
		e, failed := errors.AsType[*entities.Error](err)
		if !failed || e.Reason != entities.FunctionRefused || e.Outcome != entities.Refused || e.Code != 9 {
			t.Errorf("%.200s; want the refusal", answerText(nil, err))
		}
	}
}
