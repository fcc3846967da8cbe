package partitions

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/partitions/core"
)

// TestParkedInPagesAndInBulk: parked effects are listed in pages and counted, and resolved by
// filter, in steps, each once. Other effects go on in between.
func TestParkedInPagesAndInBulk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		const bad = 2*resolveRows + 76
		for i := range bad {
			f.want(f.submit(command("a", fmt.Sprint("quiet absent number-", i%2))), "ok")
		}
		f.until("all are parked", func() bool { return f.m.CountParked() == bad })
		f.want(f.submit(command("a", "quiet b add x")), "ok")
		f.until("others are delivered", func() bool { return f.open() == bad })

		filter := materializer.ParkedFilter{Method: "absent", Error: "there is no"}
		seen := map[int64]bool{}
		for place, more := (ParkedPlace{}), true; more; {
			found, next, again, err := f.m.Parked(place, filter, 100)
			if err != nil {
				t.Fatal(err)
			}
			for i := range found {
				seen[found[i].Offset] = true
			}
			place, more = next, again
		}
		if len(seen) != bad {
			t.Errorf("%d are listed; want %d", len(seen), bad)
		}
		for _, nothing := range []materializer.ParkedFilter{{Method: "elsewhere"}, {Service: "s"}, {Error: "another"}} {
			if found, _, _, err := f.m.Parked(ParkedPlace{}, nothing, 100); err != nil || len(found) > 0 {
				t.Errorf("%+v lists %d, %v", nothing, len(found), err)
			}
			if n := f.resolveAll(nothing, true); n != 0 {
				t.Errorf("%+v drops %d", nothing, n)
			}
		}
		if n := f.resolveAll(filter, false); n != bad {
			t.Errorf("%d are sent again; want %d", n, bad)
		}
		f.until("they are parked once more", func() bool { return f.m.CountParked() == bad })
		if n := f.resolveAll(filter, true); n != bad {
			t.Errorf("%d are dropped; want %d", n, bad)
		}
		f.settled()
		f.until("none is parked", func() bool { return f.m.CountParked() == 0 })
		if n := f.resolveAll(filter, true); n != 0 {
			t.Errorf("%d are dropped a second time", n)
		}
		if n := f.kinds()[record.Event]; n != 1 {
			t.Errorf("%d events; want that of the one good effect", n)
		}
	})
}

func (f *fixture) resolveAll(filter materializer.ParkedFilter, drop bool) (resolved int) {
	f.t.Helper()
	for place, more := (ParkedPlace{}), true; more; {
		n, next, again, err := f.m.ResolveSome(f.t.Context(), place, filter, drop)
		if err != nil {
			f.t.Fatal(err)
		}
		resolved, place, more = resolved+n, next, again
	}
	return resolved
}

// TestATimerThatFailsIsParked: after ten failures its command is a parked effect with the timer's
// name, also for the next owner; it can be sent again, and dropped. A recurring timer goes on.
func TestATimerThatFailsIsParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		f.want(f.submit(command("a", "timer t 1s crash")), "set")
		f.until("it is parked", func() bool { return f.m.CountParked() == 1 })
		if n := f.p.Counts().Fired; n != core.MaxFailures {
			t.Errorf("it was tried %d times; want %d", n, core.MaxFailures)
		}
		if kinds := f.kinds(); kinds[record.TimerFired] != 1 || f.p.Status().Timers != 0 {
			t.Errorf("%d fired records, %d timers; want one and none", kinds[record.TimerFired], f.p.Status().Timers)
		}
		f.want(f.submit(command("a", "read")), "")
		if err := f.stop(); err != nil {
			t.Fatal(err)
		}

		next := start(t, setup{world: alone, on: f.world, store: memstore.New(), name: "w2"})
		next.await(core.Active)
		parked := next.parked(1)[0]
		if parked.Timer != "t" || parked.Due == 0 || parked.From != "words/a" ||
			parked.Attempts != core.MaxFailures || parked.Parked == "" {
			t.Errorf("parked: %+v", parked)
		}
		if err := next.m.Resolve(t.Context(), 0, parked.Offset, false); err != nil {
			t.Fatal(err)
		}
		next.until("it is parked once more", func() bool {
			return next.m.CountParked() == 1 && next.p.Counts().Delivered >= core.MaxFailures
		})
		if err := next.m.Resolve(t.Context(), 0, parked.Offset, true); err != nil {
			t.Fatal(err)
		}
		next.settled()

		next.want(next.submit(command("b", "every e crash")), "set")
		next.until("two occurrences are parked", func() bool { return next.m.CountParked() == 2 })
		if next.p.Status().Timers != 1 {
			t.Errorf("%d timers; want the next occurrence", next.p.Status().Timers)
		}
		next.want(next.submit(command("b", "cancel e")), "cancelled")
	})
}

// withoutMethods resolves nothing: a new version of the function has no such methods.
func withoutMethods(t entities.Target) (*entities.Command, error) {
	return nil, entities.Errorf(
		entities.UnknownMethod, entities.NotApplied, "service %s has no method %s", t.Service, t.Method,
	)
}

// TestATimerThatCannotRunIsParked at its first attempt, if another one would end in the same way:
// with its reason, also for the next owner. The entity's session stays open. When the cause is gone
// it can be sent again, and takes effect once.
func TestATimerThatCannotRunIsParked(t *testing.T) {
	for name, test := range map[string]struct {
		resolve func(t entities.Target) (*entities.Command, error)
		text    string
		says    string
		// opened is how many sessions of the entity there were.
		opened int
	}{
		"the method is gone": {withoutMethods, "add x", "has no method a", 1},
		"it is a command to another entity by now": {func(entities.Target) (*entities.Command, error) {
			return command("other", "add x"), nil
		}, "add x", `timer "t" of words/a is a command to words/other`, 1},
		"it stores too much": {nil, "big 2000000", "would store", 2},
	} {
		t.Run(name, bubbled(func(t *testing.T) {
			f := start(t, setup{world: alone})
			f.await(core.Active)
			f.want(f.submit(command("a", "timer t 1s "+test.text)), "set")
			f.words.resolves(test.resolve)
			f.until("it has fired", func() bool { return f.p.Counts().Fired > 0 })
			f.pause()
			if kinds := f.kinds(); kinds[record.TimerFired] != 1 || kinds[record.Event] != 0 || f.p.Status().Timers != 0 {
				t.Fatalf("records %v, %d timers; want one that says that the timer has fired, and no timer",
					kinds, f.p.Status().Timers)
			}
			f.until("it is parked", func() bool { return f.m.CountParked() == 1 })
			f.want(f.submit(command("a", "read")), "")
			if opened, _ := f.words.count(); opened != test.opened {
				t.Errorf("%d sessions were opened; want %d", opened, test.opened)
			}
			if err := f.stop(); err != nil {
				t.Fatal(err)
			}

			next := start(t, setup{world: alone, on: f.world, store: memstore.New(), name: "w2"})
			next.await(core.Active)
			parked := next.parked(1)[0]
			if parked.Timer != "t" || parked.Due == 0 || parked.From != "words/a" || parked.Attempts != 1 ||
				!strings.Contains(parked.Parked, test.says) {
				t.Errorf("parked: %+v", parked)
			}
			if test.resolve == nil {
				return
			}
			for range 2 { // the second time there is none
				err := next.m.Resolve(t.Context(), 0, parked.Offset, false)
				if err != nil && !errors.Is(err, ErrNotParked) {
					t.Fatal(err)
				}
				next.until("it is delivered", func() bool { return next.open() == 0 })
			}
			next.want(next.submit(command("a", "read")), "x")
		}))
	}
}

// TestARecurringTimerThatCannotRunGoesOn: each of its times is parked, and it works again when its
// method is back.
func TestARecurringTimerThatCannotRunGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		f.words.resolves(withoutMethods)
		f.want(f.submit(command("a", "every e add x")), "set")
		f.until("two of its times are parked", func() bool { return f.m.CountParked() == 2 })
		f.words.resolves(nil)
		f.fired(3)
		f.want(f.submit(command("a", "read")), "x")
		f.want(f.submit(command("a", "cancel e")), "cancelled")
	})
}

// TestATimerThatCannotRunIsCancelledAtTheLastMoment: it waits for its turn like any other timer,
// behind the command that cancels it. Nothing is parked then.
func TestATimerThatCannotRunIsCancelledAtTheLastMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		f.want(f.submit(command("a", "timer t 10s add late")), "set")
		f.words.resolves(withoutMethods)
		busy := f.later(command("a", "wait z"))
		<-f.words.entered
		cancelled := f.later(command("a", "cancel t"))
		f.until("the cancellation waits", func() bool { return f.p.Status().Waiting == 2 })
		f.until("the timer waits behind it", func() bool { return f.p.Status().Waiting == 3 })
		close(f.words.gate)
		f.want(f.receive(busy), "z")
		f.want(f.receive(cancelled), "cancelled")
		f.until("the timer is gone", func() bool { s := f.p.Status(); return s.Timers == 0 && s.Waiting == 0 })
		f.pause()
		if kinds := f.kinds(); kinds[record.TimerFired] != 0 || kinds[record.Effect] != 0 || f.m.CountParked() != 0 {
			t.Errorf("records %v, %d parked; want neither a firing nor an effect", kinds, f.m.CountParked())
		}
	})
}
