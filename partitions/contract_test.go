package partitions

import (
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
)

// TestBrokenContractGivesPartitionsUpByName: while the topic's settings are wrong nothing is owned, whatever the group says, and
// callers are told why; when they are right again, what the group has assigned is taken again.
func TestBrokenContractGivesPartitionsUpByName(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(Active)
	right := f.m.options.Topic
	wrong := right
	wrong.Violations = []broker.Violation{{Setting: "retention.ms", Found: "1", Wanted: "-1", Remedy: "set it"}}
	f.m.judge(wrong)
	f.await(Standby)
	f.m.assign(broker.AssignmentEvent{Assigned: []int32{0}}) // a rebalance meanwhile
	a := f.submit(command("a", "add x"))
	f.wantError(a, entities.Moved, entities.NotApplied)
	if !strings.Contains(a.err.Error(), "retention.ms is 1, wanted -1: set it") || !strings.Contains(f.p.Status().LastError, "retention.ms") {
		t.Errorf("the caller is told %v, the status says %q", a.err, f.p.Status().LastError)
	}
	if s := f.p.Status().State; s != Standby {
		t.Errorf("a partition is %s while the contract is broken", s)
	}
	f.m.judge(right)
	f.await(Active)
	f.want(f.submit(command("a", "add y")), "y")
}

// TestContractThatIsMendedTakesWhatIsAssigned: not what the group took away meanwhile.
func TestContractThatIsMendedTakesWhatIsAssigned(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(Active)
	right := f.m.options.Topic
	wrong := right
	wrong.Violations = []broker.Violation{{Setting: "retention.ms"}}
	f.m.judge(wrong)
	f.await(Standby)
	f.m.assign(broker.AssignmentEvent{Revoked: []int32{0}})
	f.m.judge(right)
	f.wantError(f.submit(command("a", "add x")), entities.Moved, entities.NotApplied)
}

// TestAnotherTopicHalts while the worker runs, before anybody writes to it, and for good.
func TestAnotherTopicHalts(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(Active)
	other := f.m.options.Topic
	other.ID = "another"
	f.m.judge(other)
	f.await(Halted)
	f.m.judge(f.m.options.Topic)
	a := f.submit(command("a", "add x"))
	f.wantError(a, entities.Halted, entities.NotApplied)
	if !strings.Contains(a.err.Error(), "now it is another") {
		t.Errorf("the caller is told %v", a.err)
	}
}
