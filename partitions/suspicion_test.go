package partitions

import (
	"errors"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/core"
	"github.com/millrace-io/millrace/partitions/repair"
)

// wronged is a worker whose topic has had wrong settings; happen is what happened to the log in
// that time.
func wronged(t *testing.T, happen func(*fixture)) *fixture {
	t.Helper()
	f := start(t, setup{world: alone})
	f.await(core.Active)
	f.want(f.submit(command("a", "add x")), "x")
	f = f.restart()
	f.await(core.Active)
	f.breakContract()
	f.await(core.Standby)
	happen(f)
	return f
}

func (f *fixture) breakContract() {
	wrong := f.m.options.Topic
	wrong.Violations = []broker.Violation{{Setting: "cleanup.policy"}}
	f.m.checkTopic(wrong)
}

func (f *fixture) inspected() repair.Inspection {
	f.t.Helper()
	f.until("the log was looked through", func() bool { return f.p.Status().Inspection.Over })
	return f.p.Status().Inspection
}

// mark is the store's mark of a suspected log, when the worker has stopped.
func (f *fixture) mark() (why string, ok bool) {
	f.t.Helper()
	if err := f.stop(); err != nil {
		f.t.Fatal(err)
	}
	why, ok, err := f.p.image.View().Suspected()
	if err != nil {
		f.t.Fatal(err)
	}
	return why, ok
}

// TestDamageOutlivesARestart: the damage that an inspection has found is in the status of the next
// worker on this store before that worker has inspected the log, and it inspects it again.
func TestDamageOutlivesARestart(t *testing.T) {
	f := wronged(t, func(f *fixture) { f.world.Remove(partition0, 1, 2) })
	f.m.checkTopic(f.m.options.Topic)
	found := f.inspected().Damage
	if found == nil {
		t.Fatal("no damage is found")
	}
	if why, ok := f.mark(); !ok || why != found.Error() {
		t.Errorf("the store says %q, %v; want %v", why, ok, found)
	}
	again := f.restart()
	// The inspection of the restarted worker may be over.
	if damage := again.p.Status().Inspection.Damage; damage == nil || !strings.Contains(damage.Error(), "no record at offset 1") {
		t.Fatalf("after a restart the damage is %v; want %v", damage, found)
	}
	again.await(core.Active)
	again.want(again.submit(command("a", "read")), "x")
	if damage := again.inspected().Damage; damage == nil || !strings.Contains(damage.Error(), "offset 1") {
		t.Errorf("it has looked again and found %v", damage)
	}
}

// TestALookThatWasCutOffIsDoneByTheNextWorker: a restart between the wrong settings and the end of
// the inspection forgets neither.
func TestALookThatWasCutOffIsDoneByTheNextWorker(t *testing.T) {
	f := wronged(t, func(f *fixture) { f.world.Remove(partition0, 1, 2) })
	if why, ok := f.mark(); !ok || why != "" {
		t.Errorf("the store says %q, %v; want a mark without damage", why, ok)
	}
	f = f.restart()
	if damage := f.inspected().Damage; damage == nil {
		t.Error("no damage is found")
	}
}

// TestACleanLookTakesTheMarkOff: also that of damage which is restored.
func TestACleanLookTakesTheMarkOff(t *testing.T) {
	f := wronged(t, func(*fixture) {})
	f.m.checkTopic(f.m.options.Topic)
	if damage := f.inspected().Damage; damage != nil {
		t.Fatalf("damage %v", damage)
	}
	if why, ok := f.mark(); ok {
		t.Errorf("the mark is still there: %q", why)
	}
	if err := materializer.MarkSuspected(f.store, "was damaged", f.p.image.Address); err != nil {
		t.Fatal(err)
	}
	f = f.restart()
	if damage := f.inspected().Damage; damage != nil {
		t.Errorf("damage %v", damage)
	}
	if why, ok := f.mark(); ok {
		t.Errorf("the mark is still there: %q", why)
	}
	f = f.restart()
	f.await(core.Active)
	if i := f.p.Status().Inspection; i != (repair.Inspection{}) {
		t.Errorf("a log without a mark is looked through: %+v", i)
	}
}

// TestARepairTakesTheMarkOff, with every choice: of an image that is dropped, and of a log that was
// compared with the store.
func TestARepairTakesTheMarkOff(t *testing.T) {
	for _, choice := range []materializer.Choice{materializer.Retry, materializer.AcceptLoss} {
		t.Run(choice.String(), func(t *testing.T) {
			f := wronged(t, func(*fixture) {})
			if err := f.stop(); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(
				materializer.MarkSuspected(f.store, "was damaged", f.p.image.Address),
				materializer.MarkHalted(f.store, f.p.image.Address, materializer.Halt{Why: "for this test"}),
			); err != nil {
				t.Fatal(err)
			}
			f = f.restart()
			f.halts()
			f.inspected() // otherwise the inspection removes the mark
			if err := materializer.MarkSuspected(f.store, "was damaged", f.p.image.Address); err != nil {
				t.Fatal(err)
			}
			f.repair(choice)
			if why, ok := f.mark(); ok {
				t.Errorf("the mark is still there: %q", why)
			}
		})
	}
}
