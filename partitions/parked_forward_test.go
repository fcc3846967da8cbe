package partitions

import (
	"testing"
	"testing/synctest"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/core"
)

// TestARepeatEndsAParkedForward: a forward is parked, its target works again, and the caller sends
// the command again under its id. That ends the forward, and it no longer counts as parked.
func TestARepeatEndsAParkedForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		broken := true
		f.words.act = func(inv entities.Invocation) (*entities.Outcome, error) {
			if broken {
				return nil, entities.Errorf(entities.FunctionFailed, entities.NotApplied, "it crashed")
			}
			return acts(inv)
		}
		f.await(core.Active)
		f.ask(withID(command("a", "act done"), "id"))
		f.ask(withID(command("b", "act done"), "id"))
		f.until("the forwards are parked", func() bool { return f.m.CountParked() == 2 })
		broken = false
		if got := f.ask(withID(command("a", "act done"), "id")); got != "done" {
			t.Fatalf("%q; want what the forward is answered", got)
		}
		f.pass(2 * tick)
		counted, err := materializer.Partition{Rows: f.store, Address: f.p.image.Address}.CountParked()
		if n := f.m.CountParked(); n != 1 || counted != 1 || err != nil {
			t.Errorf("%d are parked, %d in the store, %v; want the other one", n, counted, err)
		}
	})
}

// TestTheTotalsOfAResolution: when an operator's call to send an effect again or drop it returns,
// the totals no longer count it, although no time has passed.
func TestTheTotalsOfAResolution(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		const parked, refused = 4, 3
		for range parked {
			f.want(f.submit(command("a", "quiet absent x")), "ok")
		}
		for range refused {
			f.want(f.submit(command("a", "quiet b refuse x")), "ok")
		}
		f.until("all are listed", func() bool { return f.m.CountParked() == parked && f.m.CountRefused() == refused })
		for i, e := range f.parked(parked) {
			if i == parked-1 {
				break
			}
			if err := f.m.Resolve(t.Context(), 0, e.Offset, true); err != nil {
				t.Fatal(err)
			}
			if n := f.m.CountParked(); n != parked-1-i {
				t.Errorf("%d are dropped, and %d of %d are counted", i+1, n, parked)
			}
		}
		if n := f.resolveAll(materializer.ParkedFilter{}, true); n != 1 || f.m.CountParked() != 0 {
			t.Errorf("%d are dropped at last, and %d are counted", n, f.m.CountParked())
		}
		for i, e := range f.refusals() {
			if err := f.m.ResolveRefusal(t.Context(), 0, e.Offset, true); err != nil {
				t.Fatal(err)
			}
			if n := f.m.CountRefused(); n != refused-1-i {
				t.Errorf("%d refusals are dropped, and %d of %d are counted", i+1, n, refused)
			}
		}
	})
}
