package node

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/partitions/core"
)

// TestAHaltedStandbyIsNamed: a worker of which a partition has halted that another worker owns
// serves what it owns, and is ready: but page, status and metrics name the partition, for nothing
// is left of the standby. When the partition becomes this worker's, it is not ready.
func TestAHaltedStandbyIsNamed(t *testing.T) {
	a := newApp(t, 1)
	owner := a.workers[0]
	for i := range 12 {
		if _, err := a.increment(owner.PublicAddress(), "c"+string(rune('a'+i))); err != nil {
			t.Fatal(err)
		}
	}
	const lost = 3
	a.world.Remove(broker.Partition{Topic: owner.topic.Name, ID: lost}, 1, 2) // the owner's store has it
	standby := a.add()
	eventually(t, "the partition to halt", func() bool {
		return standby.manager.Partitions()[lost].Status().State == core.Halted
	})
	eventually(t, "the workers to share the others", func() bool {
		owned := standby.routes.Current().Owned("w1")
		return standby.NotReady() == nil && len(owned) > 0 && !slices.Contains(owned, lost)
	})

	code, body := page(t, standby, "/readyz")
	if code != http.StatusOK {
		t.Errorf("/readyz: %d %q; want ready, what it owns works", code, body)
	}
	named := []string{"partition 3 is halted on this worker, which does not own it", "it has no record at offset 1", "millrace repair"}
	mustContain(t, "/readyz", body, append(named, "ready\nwarning: ")...)
	status := standby.Status(t.Context())
	if !status.GetReady() || len(status.GetWarnings()) != 1 {
		t.Fatalf("ready %v, warnings %q; want ready, and one", status.GetReady(), status.GetWarnings())
	}
	mustContain(t, "the status", status.GetWarnings()[0], named...)
	if s := status.GetPartitions()[lost]; s.GetState() != "halted" || s.GetLastError() == "" {
		t.Errorf("partition %v", s)
	}
	_, metrics := page(t, standby, "/metrics")
	mustContain(t, "/metrics", metrics, "millrace_partitions_halted{partition=\"3\"} 1\n", "millrace_partitions_halted{partition=\"0\"} 0\n", "millrace_node_ready_state 1\n")
	if got := owner.service.Warnings(); len(got) > 0 {
		t.Errorf("the owner warns of %q", got)
	}

	end(t, owner)
	eventually(t, "the partition to be the worker's", func() bool { return slices.Contains(standby.routes.Current().Owned("w1"), lost) })
	if code, body := page(t, standby, "/readyz"); code != http.StatusServiceUnavailable || !strings.HasPrefix(body, "partition 3 is halted: ") || strings.Contains(body, "warning") {
		t.Errorf("/readyz of the owner of a halted partition: %d %q", code, body)
	}
	if id := idIn(lost); id != "" {
		if _, err := a.increment(standby.PublicAddress(), id); err == nil {
			t.Error("a halted partition answers")
		}
	}
}

// idIn is an id of an entity in a partition of four.
func idIn(partition int32) string {
	for i := range 64 {
		if id := "c" + string(rune('a'+i)); entities.Partition(id, 4) == partition {
			return id
		}
	}
	return ""
}
