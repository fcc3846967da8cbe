package partitions

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/partitions/core"
)

func (f *fixture) fired(n int) {
	f.t.Helper()
	f.until("timers have fired", func() bool { return f.kinds()[record.TimerFired] >= n })
}

// TestTimerFiresOnce: not before its time, once, with its command's records in one group.
func TestTimerFiresOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		f.want(f.submit(command("a", "timer t 10s add x")), "set")
		f.pass(9 * time.Second)
		f.want(f.submit(command("a", "read")), "")
		f.fired(1)
		f.want(f.submit(command("a", "read")), "x")
		f.pass(time.Hour)
		f.want(f.submit(command("a", "read")), "x")
		if s := f.p.Status(); s.Timers != 0 {
			t.Errorf("%d timers are left", s.Timers)
		}
	})
}

// TestTimerIsCancelledOrReplaced: by name, also when its time comes at the same moment.
func TestTimerIsCancelledOrReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		f.want(f.submit(command("a", "timer t 10s add cancelled")), "set")
		f.want(f.submit(command("a", "cancel t")), "cancelled")
		f.want(f.submit(command("b", "timer t 10s add old")), "set")
		f.want(f.submit(command("b", "timer t 20s add new")), "set")
		f.fired(1)
		if err := f.m.AwaitQuiet(t.Context()); err != nil { // an append under way for a minute looks like a silent log
			t.Fatal(err)
		}
		f.clock.Advance(time.Minute)
		f.until("stale entries are swept", func() bool { return f.p.Status().Timers == 0 })
		f.want(f.submit(command("a", "read")), "")
		f.want(f.submit(command("b", "read")), "new")
	})
}

// TestTimerIsCancelledAtTheLastMoment: its time has come and its command waits behind the one that
// cancels it.
func TestTimerIsCancelledAtTheLastMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		open := sync.OnceFunc(func() { close(f.words.gate) })
		t.Cleanup(open)
		f.await(core.Active)
		f.want(f.submit(command("a", "timer t 10s add late")), "set")
		busy := f.later(command("a", "wait z"))
		<-f.words.entered
		cancelled := f.later(command("a", "cancel t"))
		f.until("the cancellation waits", func() bool { return f.p.Status().Waiting == 2 })
		f.until("the timer waits behind it", func() bool { return f.p.Status().Waiting == 3 })
		open()
		f.want(f.receive(busy), "z")
		f.want(f.receive(cancelled), "cancelled")
		f.until("the timer is gone", func() bool { s := f.p.Status(); return s.Timers == 0 && s.Waiting == 0 })
		f.want(f.submit(command("a", "read")), "z")
	})
}

// TestRecurringTimer: each firing sets the next; times that were missed are not made up for.
func TestRecurringTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		f.want(f.submit(command("a", "every t add x")), "set")
		f.fired(2)
		fired := f.kinds()[record.TimerFired]
		f.clock.Advance(24 * time.Hour)
		f.fired(fired + 1)
		f.want(f.submit(command("a", "cancel t")), "cancelled")
		fired = f.kinds()[record.TimerFired]
		if fired > 6 {
			t.Errorf("fired %d times; a day was skipped", fired)
		}
		f.clock.Advance(24 * time.Hour)
		f.until("it is gone", func() bool { return f.p.Status().Timers == 0 })
		f.pass(24 * time.Hour)
		if now := f.kinds()[record.TimerFired]; now != fired {
			t.Errorf("fired %d times after it was cancelled", now-fired)
		}
	})
}

// TestTakeoverFiresWhatIsOverdue: once, by a worker that has only the log.
func TestTakeoverFiresWhatIsOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := start(t, setup{world: alone})
		first.await(core.Active)
		first.want(first.submit(command("a", "timer t 1h add x")), "set")
		if err := first.stop(); err != nil {
			t.Fatal(err)
		}
		next := start(t, setup{world: alone, on: first.world, store: memstore.New(), name: "w2"})
		next.await(core.Active)
		next.clock.Advance(2 * time.Hour)
		next.fired(1)
		next.want(next.submit(command("a", "read")), "x")
		if err := next.stop(); err != nil {
			t.Fatal(err)
		}
		last := start(t, setup{world: alone, on: first.world, store: memstore.New(), name: "w3"})
		last.await(core.Active)
		last.pass(2 * time.Hour)
		last.want(last.submit(command("a", "read")), "x")
	})
}

// TestTimerOfAFailingFunction is tried again until it works; a refusal is an answer.
func TestTimerOfAFailingFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		f.want(f.submit(command("a", "timer t 1s crash")), "set")
		f.until("it was tried again", func() bool { return f.p.Counts().Fired >= 3 })
		if fired := f.kinds()[record.TimerFired]; fired != 0 {
			t.Errorf("it counts as fired")
		}
		f.want(f.submit(command("a", "timer t 1s refuse no")), "set")
		f.fired(1)
	})
}

// TestTimersBeyondMemory: more timers than fit in memory all fire.
func TestTimersBeyondMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone, limits: Limits{MaxWaiting: 1 << 15}})
		f.await(core.Active)
		const n = 3 * core.TimerWindow
		answers := make([]<-chan answer, n)
		for i := range answers {
			answers[i] = f.later(command(string(rune('a'+i%26))+"-"+time.Duration(i).String(), "timer t 1h add x"))
		}
		for _, a := range answers {
			if got := f.receive(a); got.err != nil {
				t.Fatal(got.err)
			}
		}
		f.clock.Advance(time.Hour)
		f.fired(n)
		if fired := f.kinds()[record.TimerFired]; fired != n {
			t.Errorf("%d timers fired; want %d", fired, n)
		}
	})
}
