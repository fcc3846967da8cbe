package partitions

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/core"
)

// alone is a log in one process that answers by itself.
var alone = simlog.Options{SingleProcess: true}

// TestCommandsOfOneEntityAreSerial: with many callers on one entity, each command sees all before
// it, and sequences have no gap.
func TestCommandsOfOneEntityAreSerial(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	const callers, each = 16, 50
	var wait sync.WaitGroup
	longest := make([]int, callers)
	for c := range callers {
		wait.Go(func() {
			for range each {
				a := f.submit(command("a", "add x"))
				if a.err != nil {
					t.Errorf("caller %d: %v", c, a.err)
					return
				}
				n := strings.Count(a.text, "x")
				if n <= longest[c] {
					t.Errorf("caller %d saw %d words after %d", c, n, longest[c])
				}
				longest[c] = n
			}
		})
	}
	wait.Wait()
	f.want(f.submit(command("a", "read")), strings.TrimSpace(strings.Repeat("x ", callers*each)))
	view := materializer.Partition{Rows: f.store, Address: f.p.image.Address}
	if head, _, err := view.Head(entities.Key{Type: "words", ID: "a"}); err != nil || head.Sequence != callers*each {
		t.Errorf("sequence %d, %v; want %d", head.Sequence, err, callers*each)
	}
}

// TestAnEntityComesBack: from events, from a snapshot and the events after it, and after the store
// was deleted.
func TestAnEntityComesBack(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	for _, c := range []string{"add a", "two b", "snap c", "add d"} {
		f.submit(command("e", c))
	}
	const want = "a b1 b2 c d"
	restarted := func(store materializer.Store, on *fixture) *fixture {
		if err := on.stop(); err != nil {
			t.Fatal(err)
		}
		again := start(t, setup{world: alone, on: f.world, store: store})
		again.await(core.Active)
		again.want(again.submit(command("e", "read")), want)
		return again
	}
	second := restarted(f.store, f)
	third := restarted(nil, second)
	a := third.submit(command("e", "add e"))
	third.want(a, want+" e")
}

// TestIdleEntitiesLeaveMemory: after the idle time, and when memory is short the least recently
// used first.
func TestIdleEntitiesLeaveMemory(t *testing.T) {
	t.Run("idle", bubbled(func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		f.want(f.submit(command("a", "add x")), "x")
		f.advanceUntil(func() bool { _, closed := f.words.count(); return closed == 1 }, 31*time.Second)
		f.want(f.submit(command("a", "add y")), "x y")
		if opened, _ := f.words.count(); opened != 2 {
			t.Errorf("opened %d times, want 2", opened)
		}
	}))
	t.Run("memory", bubbled(func(t *testing.T) {
		// Only memory is short.
		f := start(t, setup{
			world: alone,
			limits: Limits{Limits: core.Limits{
				ActiveBytes: 2 * (core.EntityOverhead + wordsBytes), PassivateAfter: 10_000 * time.Hour,
			}},
		})
		f.await(core.Active)
		for _, id := range []string{"a", "b", "c", "d"} {
			f.want(f.submit(command(id, "add x")), "x")
		}
		f.advanceUntil(func() bool { _, closed := f.words.count(); return closed == 2 }, tick)
		f.submit(command("d", "read"))
		if opened, _ := f.words.count(); opened != 4 {
			t.Errorf("d was opened again: it was used last")
		}
		f.submit(command("a", "read"))
		if opened, _ := f.words.count(); opened != 5 {
			t.Errorf("a was not opened again: it was used first")
		}
	}))
}

// advanceUntil advances the clock until the condition holds.
func (f *fixture) advanceUntil(so func() bool, step time.Duration) {
	f.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for n := 0; !so(); n++ {
		if time.Now().After(deadline) || f.bubble && n > bubbleTicks {
			f.t.Fatal("it did not become so")
		}
		f.clock.Advance(step)
		f.pause()
	}
}

// TestCommandIDs: the same id gets the same answer, now, concurrently, after a restart and from
// another store; another payload is refused; ids are forgotten after the window.
func TestCommandIDs(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	once := func(f *fixture, wantRepeated bool) {
		t.Helper()
		a := f.submit(withID(command("a", "add x"), "id-1"))
		f.want(a, "x")
		if a.done.Repeated != wantRepeated {
			t.Errorf("repeated %v, want %v", a.done.Repeated, wantRepeated)
		}
	}
	once(f, false)
	once(f, true)
	f.wantError(f.submit(withID(command("a", "add y"), "id-1")), entities.IDReused, entities.NotApplied)
	f.want(f.submit(withID(command("b", "add y"), "id-1")), "y") // scoped by entity
	other := withID(command("a", "add y"), "id-1")
	other.Principal = "bob"
	f.want(f.submit(other), "x y") // and by principal
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	again := start(t, setup{world: alone, on: f.world, store: nil})
	again.await(core.Active)
	once(again, true)
	again.clock.Advance(25 * time.Hour)
	again.want(again.submit(withID(command("a", "add x"), "id-1")), "x y x")
}

// TestARepeatWaitsForTheFirst: while the first command with an id runs, a repeat waits and gets its
// answer.
func TestARepeatWaitsForTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		first := f.later(withID(command("a", "wait x"), "id"))
		<-f.words.entered
		second := f.later(withID(command("a", "wait x"), "id"))
		synctest.Wait() // it is known
		close(f.words.gate)
		f.want(f.receive(first), "x")
		f.want(f.receive(second), "x")
		f.want(f.submit(command("a", "read")), "x")
	})
}

// TestARefusalWithAnIDIsAskedAgain: commands that wrote nothing leave no row.
func TestARefusalWithAnIDIsAskedAgain(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	for range 2 {
		a := f.submit(withID(command("a", "refuse no"), "id"))
		f.want(a, "refused: no")
		if a.done.Repeated {
			t.Error("a refusal was remembered")
		}
	}
}

// TestABrokenSessionCostsOneCommand: its caller and those of the commands behind it get an error,
// the next command succeeds.
func TestABrokenSessionCostsOneCommand(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	f.want(f.submit(command("a", "add x")), "x")
	a := f.submit(command("a", "crash"))
	f.wantError(a, entities.FunctionFailed, entities.NotApplied)
	f.want(f.submit(command("a", "read")), "x")
	// Sessions are closed in the background.
	f.advanceUntil(func() bool { _, closed := f.words.count(); return closed == 1 }, 0)
	if opened, _ := f.words.count(); opened != 2 {
		t.Errorf("opened %d times, want 2", opened)
	}
}

// TestARestartRebuildsTheImage: what the function had in memory beyond the store is dropped.
func TestARestartRebuildsTheImage(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	f.want(f.submit(command("a", "add x")), "x")
	f.want(f.submit(command("a", "restart again")), "refused: again")
	f.want(f.submit(command("a", "read")), "x")
}

// TestAFunctionThatCannotBeReached: a clear error, and the next command works when it is back.
func TestAFunctionThatCannotBeReached(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	f.words.mu.Lock()
	f.words.down = entities.Errorf(entities.Unavailable, entities.NotApplied, "function is not reachable")
	f.words.mu.Unlock()
	f.wantError(f.submit(command("a", "add x")), entities.Unavailable, entities.NotApplied)
	f.words.mu.Lock()
	f.words.down = nil
	f.words.mu.Unlock()
	f.want(f.submit(command("a", "add x")), "x")
}

// TestQueuesAreBounded: beyond the limits a command is refused with a hint, and nothing of it is
// applied.
func TestQueuesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone, limits: Limits{MaxWaiting: 5, Limits: core.Limits{MaxWaitingEntity: 2}}})
		f.await(core.Active)
		first := f.later(command("a", "wait x"))
		<-f.words.entered
		var queued []<-chan answer
		for range 2 {
			queued = append(queued, f.later(command("a", "add y")))
		}
		synctest.Wait() // the loop has taken all three
		a := f.submit(command("a", "add z"))
		f.wantError(a, entities.Overloaded, entities.NotApplied)
		if e, _ := errors.AsType[*entities.Error](a.err); e.RetryAfter == 0 {
			t.Error("no hint when to come again")
		}
		var others []<-chan answer
		for i := range 2 {
			others = append(others, f.later(command(fmt.Sprint("w", i), "wait x")))
			<-f.words.entered
		}
		f.wantError(f.submit(command("c", "read")), entities.Overloaded, entities.NotApplied)
		close(f.words.gate)
		f.want(f.receive(first), "x")
		for _, q := range append(queued, others...) {
			if a := f.receive(q); a.err != nil {
				t.Error(a.err)
			}
		}
		f.want(f.submit(command("a", "read")), "x y y")
	})
}

// TestACommitAboveTheLimitFailsAlone: nothing of it is stored, the function's memory of it is
// dropped, and the ownership goes on.
func TestACommitAboveTheLimitFailsAlone(t *testing.T) {
	f := start(t, setup{world: alone, limits: Limits{Limits: core.Limits{MaxCommit: 1000}}})
	f.await(core.Active)
	f.want(f.submit(command("a", "add x")), "x")
	f.wantError(f.submit(command("a", "big 2000")), entities.TooLarge, entities.NotApplied)
	f.want(f.submit(command("a", "read")), "x")
	if s := f.p.Status(); s.State != core.Active || s.Epoch != 1 {
		t.Errorf("state %s, epoch %d: the owner was fenced", s.State, s.Epoch)
	}
}

// TestCallersMayLeave: before their turn nothing is applied; later the outcome is unknown, and the
// command goes on.
func TestCallersMayLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: simlog.Options{Manual: true, SingleProcess: true}})
		f.activate()
		first := f.later(command("a", "wait x"))
		<-f.words.entered
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			_, err := f.p.Submit(ctx, command("a", "add never"))
			left <- err
		}()
		synctest.Wait() // it waits for its turn
		cancel()
		f.wantError(answer{err: <-left}, entities.Cancelled, entities.NotApplied)
		close(f.words.gate)
		op := f.op(1)

		ctx, cancel = context.WithCancel(t.Context())
		go func() {
			_, err := f.p.Submit(ctx, command("c", "wait z"))
			left <- err
		}()
		<-f.words.entered
		cancel()
		f.wantError(answer{err: <-left}, entities.Cancelled, entities.Unknown)
		f.world.Deliver(op.ID)
		f.want(f.receive(first), "x")
		f.world.Deliver(f.op(1).ID)
		f.want(f.submit(command("a", "read")), "x")
		f.want(f.submit(command("c", "read")), "z")
	})
}

// TestAReleaseIsInOrder: what is decided is committed, a release record follows, and the next owner
// begins with the next epoch.
func TestAReleaseIsInOrder(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	f.want(f.submit(command("a", "add x")), "x")
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	records := f.world.Records(partition0)
	last := records[len(records)-1]
	if kind := kindOf(t, last.Header("mr")); kind != "KIND_RELEASE" {
		t.Errorf("the last record is a %s, want a release", kind)
	}
	if _, err := f.p.Submit(t.Context(), command("a", "read")); err == nil {
		t.Error("a partition that has ended answered")
	}
	next := start(t, setup{world: alone, on: f.world, store: f.store})
	next.await(core.Active)
	if s := next.p.Status(); s.Epoch != 2 {
		t.Errorf("epoch %d, want 2", s.Epoch)
	}
	next.want(next.submit(command("a", "read")), "x")
}
