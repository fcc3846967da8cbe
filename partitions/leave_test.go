package partitions

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/partitions/core"
)

// soon is the deadline of callers that leave, by the time of the bubble.
const soon = 300 * time.Millisecond

// impatient submits on another goroutine, with a deadline.
func (f *fixture) impatient(cmd *entities.Command) <-chan answer {
	ch := make(chan answer, 1)
	go func() { // received by the test
		ctx, cancel := context.WithTimeout(f.t.Context(), soon)
		defer cancel()
		done, err := f.p.Submit(ctx, cmd)
		ch <- answer{done: done, err: err}
	}()
	return ch
}

// TestCallersLeaveDuringTheDecision: a caller whose deadline passes while the function has its
// command is answered at that moment: the outcome is unknown. The command is decided all the same,
// for others that wait behind it, and under its id.
func TestCallersLeaveDuringTheDecision(t *testing.T) {
	for name, cmd := range map[string]*entities.Command{
		"without an id": command("a", "wait 1"), "with an id": withID(command("a", "wait 1"), "X"),
	} {
		t.Run(name, bubbled(func(t *testing.T) {
			f := start(t, setup{world: alone})
			f.await(core.Active)
			decide := sync.OnceFunc(func() { close(f.words.gate) })
			defer decide()
			began := time.Now()
			left := f.impatient(cmd)
			<-f.words.entered
			behind := f.later(command("a", "add 2"))
			f.wantError(f.receive(left), entities.Deadline, entities.Unknown)
			if took := time.Since(began); took != soon {
				t.Errorf("the caller was answered after %v", took)
			}
			if n := f.p.waiting.Load(); n != 2 {
				t.Errorf("%d commands count as waiting, want the one that the function has and the one behind it", n)
			}
			f.silent(behind)
			decide()
			f.want(f.receive(behind), "1 2")
			synctest.Wait()
			if n := f.p.waiting.Load(); n != 0 {
				t.Errorf("%d commands count as waiting after their end", n)
			}
			if cmd.ID != "" {
				f.want(f.submit(cmd), "1")
			}
			f.want(f.submit(command("a", "read")), "1 2")
		}))
	}
}

// TestCallersLeaveBeforeTheDecision: a caller whose deadline passes while its command waits behind
// another one gets a definite answer.
func TestCallersLeaveBeforeTheDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		first := f.later(command("a", "wait 1"))
		<-f.words.entered
		left := f.impatient(withID(command("a", "add 2"), "X"))
		a := f.receive(left)
		f.wantError(a, entities.Deadline, entities.NotApplied)
		if !entities.AsError(a.err).Checked {
			t.Error("the only owner does not say so of the command")
		}
		close(f.words.gate)
		f.want(f.receive(first), "1")
		f.want(f.submit(command("a", "read")), "1")
	})
}

// TestCallersLeaveDuringTheActivation: so it is while the function takes its time with a session.
func TestCallersLeaveDuringTheActivation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		f.words.opening = make(chan struct{})
		left := f.impatient(command("a", "add 1"))
		f.wantError(f.receive(left), entities.Deadline, entities.Unknown)
		close(f.words.opening)
		f.want(f.submit(command("a", "add 2")), "1 2")
	})
}

// TestEffectsOfCallersThatLeft: what a command causes whose caller left is left to the outbox.
func TestEffectsOfCallersThatLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		first := f.impatient(command("a", "wait 1"))
		<-f.words.entered
		f.wantError(f.receive(first), entities.Deadline, entities.Unknown)
		f.words.opening = make(chan struct{}) // of entity b
		left := f.impatient(command("b", "effect a"))
		f.wantError(f.receive(left), entities.Deadline, entities.Unknown)
		close(f.words.opening)
		close(f.words.gate)
		f.until("the outbox has sent the effect", func() bool {
			return f.submit(command("a", "read")).text == "1 by-effect"
		})
	})
}

// TestGivenUpCommandsConcernTheirCallers: the function learns that a caller's deadline has passed,
// and may give the command up. Commands behind it, and another attempt at it, are not concerned.
func TestGivenUpCommandsConcernTheirCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		left := f.impatient(withID(command("a", "patient 1"), "X"))
		<-f.words.entered
		again := f.later(withID(command("a", "patient 1"), "X"))
		behind := f.later(command("a", "add 2"))
		a := f.receive(left)
		if e := entities.AsError(a.err); e == nil || e.Reason != entities.Deadline || e.Checked {
			t.Errorf("the caller that left is told %v: its command may still be applied", a.err)
		}
		<-f.words.entered // it has begun again, for the other attempt
		close(f.words.gate)
		f.want(f.receive(again), "1")
		f.want(f.receive(behind), "1 2")
	})
}

// TestGivenUpCommandsAreNotApplied: if there is no other attempt, the command was not applied, and
// its id is free.
func TestGivenUpCommandsAreNotApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		ctx, leave := context.WithCancel(t.Context()) // without a deadline, the caller waits for the function
		left := make(chan answer, 1)
		go func() { // received below
			_, err := f.p.Submit(ctx, withID(command("a", "patient 1"), "X"))
			left <- answer{err: err}
		}()
		<-f.words.entered
		behind := f.later(command("a", "add 2"))
		synctest.Wait() // the loop has it
		leave()
		a := f.receive(left)
		f.wantError(a, entities.Cancelled, entities.NotApplied)
		if !entities.AsError(a.err).Checked {
			t.Error("the only owner does not say so of the command")
		}
		f.want(f.receive(behind), "2")
		f.want(f.submit(withID(command("a", "add 1"), "X")), "2 1")
	})
}
