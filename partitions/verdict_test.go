package partitions

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/partitions/core"
)

// repeated is the command of which TestNotAppliedIsAboutTheCommand makes two attempts.
func repeated() *entities.Command { return withID(command("a", "wait x"), "X") }

// attempts are the stages that the first attempt can have reached when the second one fails.
var attempts = map[string]func(f *fixture){
	"is running": func(f *fixture) {
		f.later(repeated())
		<-f.words.entered
	},
	"waits for its turn": func(f *fixture) {
		f.later(command("a", "wait first"))
		<-f.words.entered
		f.later(repeated())
	},
	"is decided": func(f *fixture) {
		f.later(command("b", "add x"))
		f.op(1) // what is decided now waits for the answer to this append
		f.later(repeated())
		<-f.words.entered
		f.words.gate <- struct{}{}
	},
	"is in the log": func(f *fixture) {
		f.later(repeated())
		<-f.words.entered
		f.words.gate <- struct{}{}
		f.world.Apply(f.op(1).ID)
	},
	"is acknowledged": func(f *fixture) {
		first := f.later(repeated())
		<-f.words.entered
		f.words.gate <- struct{}{}
		f.world.Deliver(f.op(1).ID)
		f.want(f.receive(first), "x")
	},
}

// failures are what can end the second attempt before its turn. Each gets the function that cancels
// its caller's context.
var failures = map[string]func(f *fixture, store *unreadable, dispatch func() <-chan error, leave func()) error{
	"its caller leaves": func(_ *fixture, _ *unreadable, dispatch func() <-chan error, leave func()) error {
		answer := dispatch()
		synctest.Wait() // the loop has it
		leave()
		return <-answer
	},
	"the partition is full": func(f *fixture, _ *unreadable, dispatch func() <-chan error, _ func()) error {
		f.p.waiting.Add(int64(f.p.limits.MaxWaiting))
		defer f.p.waiting.Add(-int64(f.p.limits.MaxWaiting))
		return <-dispatch()
	},
	"the partition is lost": func(f *fixture, _ *unreadable, dispatch func() <-chan error, _ func()) error {
		f.p.post(inLost{})
		answer := dispatch()
		f.until("patience ends", func() bool { return len(answer) > 0 })
		return <-answer
	},
	"the partition halts": func(f *fixture, _ *unreadable, dispatch func() <-chan error, _ func()) error {
		f.p.post(inReplaced{fail: materializer.ErrTopicReplaced})
		return <-dispatch()
	},
	"its id cannot be looked up": func(_ *fixture, store *unreadable, dispatch func() <-chan error, _ func()) error {
		store.broken.Store(true)
		defer store.broken.Store(false)
		return <-dispatch()
	},
	"the worker stops": func(f *fixture, _ *unreadable, dispatch func() <-chan error, _ func()) error {
		close(f.words.gate)
		f.stopWorld()
		answer := dispatch()
		f.until("patience ends", func() bool { return len(answer) > 0 })
		return <-answer
	},
}

// TestNotAppliedIsAboutTheCommand: if a repeat ends before its turn, its caller does not get "not
// applied" while an earlier attempt under the same id has taken effect or still can.
func TestNotAppliedIsAboutTheCommand(t *testing.T) {
	for where, reach := range attempts {
		for how, fail := range failures {
			t.Run("first "+where+", then "+how, bubbled(func(t *testing.T) {
				store := &unreadable{Store: memstore.New()}
				f := start(t, setup{world: simlog.Options{Manual: true}, store: store})
				open := true
				t.Cleanup(func() {
					if open {
						close(f.words.gate)
					}
				})
				f.activate()
				reach(f)
				synctest.Wait() // it is there
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				dispatch := func() <-chan error {
					answer := make(chan error, 1)
					go func() { // received by the test
						_, err := f.router.Dispatch(ctx, repeated())
						answer <- err
					}()
					return answer
				}
				open = how != "the worker stops"
				err := fail(f, store, dispatch, leave)
				if err == nil {
					if where != "is acknowledged" {
						t.Error("the repeat succeeded")
					}
					return // with the stored answer
				}
				e := entities.AsError(err)
				if e.Outcome != entities.Unknown || strings.Contains(e.Message, "nothing was applied") ||
					!strings.Contains(e.Message, "same") {
					t.Errorf("the repeat is told %s: %s", e.Outcome, e.Message)
				}
			}))
		}
	}
}

// TestWhatAnOwnerHasChecked: an owner that has looked for other attempts under an id, and found
// none, reports for certain that its command was not applied.
func TestWhatAnOwnerHasChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWords()
		f := start(t, setup{world: alone, words: w, limits: Limits{Limits: core.Limits{MaxWaitingEntity: 1}}})
		f.await(core.Active)
		first := f.later(command("a", "wait 1"))
		<-w.entered
		ctx, leave := context.WithCancel(t.Context())
		queued := make(chan error, 1)
		go func() { // received below
			_, err := f.router.Dispatch(ctx, withID(command("a", "add 2"), "queued"))
			queued <- err
		}()
		synctest.Wait() // the loop has it
		want := func(err error, reason entities.Reason) {
			t.Helper()
			f.wantError(answer{err: err}, reason, entities.NotApplied)
		}
		dispatch := func(cmd *entities.Command) error {
			_, err := f.router.Dispatch(t.Context(), cmd)
			return err
		}
		want(dispatch(withID(command("a", "add 3"), "one too many")), entities.Overloaded)
		want(dispatch(withID(command("a", "add other"), "queued")), entities.IDReused)
		leave()
		want(<-queued, entities.Cancelled)
		close(w.gate)
		f.want(f.receive(first), "1")
		want(dispatch(withID(command("a", "crash"), "crash")), entities.FunctionFailed)
		want(dispatch(withID(command("a", "big 2000000"), "big")), entities.TooLarge)
		w.down = entities.Errorf(entities.Unavailable, entities.NotApplied, "down")
		want(dispatch(withID(command("b", "add x"), "down")), entities.Unavailable)
	})
}

// TestALeaverWithCompanyIsNotCertain: the call that waits for the same command may get its turn.
func TestALeaverWithCompanyIsNotCertain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		first := f.later(command("a", "wait 1"))
		<-f.words.entered
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() { // received below
			_, err := f.router.Dispatch(ctx, withID(command("a", "add 2"), "X"))
			left <- err
		}()
		synctest.Wait() // the loop has it
		stays := f.later(withID(command("a", "add 2"), "X"))
		synctest.Wait() // the loop has it
		leave()
		f.wantError(answer{err: <-left}, entities.Cancelled, entities.Unknown)
		close(f.words.gate)
		f.want(f.receive(first), "1")
		f.want(f.receive(stays), "1 2")
	})
}
