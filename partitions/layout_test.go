package partitions

import (
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/partitions/core"
	"github.com/millrace-io/millrace/partitions/routing"
)

// misfits are tables that a worker of two partitions must not use: their numbers must not be used
// as an index.
var misfits = map[string]*broker.Table{
	"more partitions":        {Members: member, Owners: []int32{0, 0, 0, 0}, Standbys: make([][]int32, 4)},
	"more, followed":         {Members: member, Owners: []int32{0, 0, 0, 0}, Standbys: [][]int32{nil, nil, nil, {0}}},
	"fewer partitions":       {Members: member, Owners: []int32{0}, Standbys: make([][]int32, 1)},
	"standbys are missing":   {Members: member, Owners: []int32{0, 0}, Standbys: make([][]int32, 1)},
	"an owner beyond":        {Members: member, Owners: []int32{0, 1}, Standbys: make([][]int32, 2)},
	"an owner below none":    {Members: member, Owners: []int32{0, -2}, Standbys: make([][]int32, 2)},
	"a standby beyond":       {Members: member, Owners: []int32{0, 0}, Standbys: [][]int32{nil, {7}}},
	"a standby below":        {Members: member, Owners: []int32{0, 0}, Standbys: [][]int32{nil, {-1}}},
	"handed over beyond":     {Members: member, Owners: []int32{0, 0}, Standbys: make([][]int32, 2), HandedOver: []int32{2}},
	"handed over below":      {Members: member, Owners: []int32{0, 0}, Standbys: make([][]int32, 2), HandedOver: []int32{-1}},
	"more leave than remain": {Members: member, Leaving: 2, Owners: []int32{0, 0}, Standbys: make([][]int32, 2)},
}

var member = []broker.Member{{Name: "w"}}

// assigned gives a manager an assignment, and returns what it panicked with, nil for nothing.
func assigned(m *Manager, e broker.AssignmentEvent) (panicked any) {
	defer func() { panicked = recover() }()
	m.assign(e)
	return nil
}

// TestTablesThatDoNotFit: a routing table that does not have this journal's layout is not used. The
// partitions are given up, callers and the status get the reason, nothing panics; with a table that
// fits they are taken again.
func TestTablesThatDoNotFit(t *testing.T) {
	for name, table := range misfits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t, setup{world: alone, parts: 2})
			f.await(core.Active)
			if panicked := assigned(f.m, broker.AssignmentEvent{Table: table, Assigned: []int32{0}}); panicked != nil {
				t.Fatalf("the table is used: %v", panicked)
			}
			if err := f.m.Contract(); err == nil {
				t.Fatal("the table is used")
			}
			if _, known := f.m.Owned(); known {
				t.Error("partitions are said to be owned by a table that does not fit")
			}
			f.await(core.Standby)
			f.wantError(f.submit(command("a", "add x")), entities.Moved, entities.NotApplied)
			f.m.assign(broker.AssignmentEvent{
				Table: &broker.Table{Members: member, Owners: []int32{0, 0}, Standbys: make([][]int32, 2)},
			})
			f.await(core.Active)
		})
	}
}

// TestPartitionsThatAreNotThere: after an assignment of a partition that this worker does not have,
// all partitions are given up.
func TestPartitionsThatAreNotThere(t *testing.T) {
	for name, e := range map[string]broker.AssignmentEvent{
		"assigned": {Assigned: []int32{5}}, "lost": {Lost: []int32{5}}, "revoked": {Revoked: []int32{5}}, "negative": {Assigned: []int32{-1}},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, setup{world: alone})
			f.await(core.Active)
			f.m.assign(e)
			f.await(core.Standby)
			if why := f.p.Status().LastError; !strings.Contains(why, "partition") {
				t.Errorf("the status says %q", why)
			}
		})
	}
}

// TestGrownTopicIsGivenUp: while the worker runs, partitions are added to its topic.
func TestGrownTopicIsGivenUp(t *testing.T) {
	f := start(t, setup{world: alone, parts: 2})
	f.await(core.Active)
	for _, count := range []int32{4, 3, 1, 0, 8192} {
		grown := f.m.options.Topic
		grown.Partitions = count
		f.m.checkTopic(grown)
		f.await(core.Standby)
		why := f.p.Status().LastError
		if count == 4 && !(strings.Contains(why, "4 partitions") && strings.Contains(why, "--partitions 2")) {
			t.Errorf("the status says %q; want both counts and the remedy", why)
		}
		f.wantError(f.submit(command("a", "add x")), entities.Moved, entities.NotApplied)
		f.m.checkTopic(f.m.options.Topic)
		f.await(core.Active)
	}
}

// TestPlacesThatAreNotThere: a token of a caller, or an effect of another process, that names a
// partition which the journal does not have is refused before anything is looked up.
func TestPlacesThatAreNotThere(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	forwarder := f.gateway(routing.NewTable(), nil)
	for _, p := range []entities.Position{
		{Partition: 1, Next: 1}, {Partition: -1, Next: 1}, {Partition: 1 << 30, Next: 1}, {Partition: 0, Next: -1},
	} {
		cmd := command("a", "read")
		cmd.Consistency, cmd.After = entities.AtLeast, []entities.Position{p}
		_, here := f.router.Dispatch(t.Context(), cmd)
		_, sent := f.router.DispatchHere(t.Context(), cmd, 0)
		_, away := forwarder.Dispatch(t.Context(), cmd)
		for what, err := range map[string]error{"a caller's": here, "another worker's": sent, "a gateway's": away} {
			f.wantError(answer{err: err}, entities.InvalidCommand, entities.NotApplied)
			if !strings.Contains(err.Error(), "journal has 1 partition") {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	for _, s := range []entities.Source{
		{Generation: 1, Partition: 1}, {Generation: 2, Partition: 0}, {Generation: 1, Partition: 65535},
	} {
		cmd := command("a", "add x")
		cmd.Source = &s
		_, err := f.router.DispatchHere(t.Context(), cmd, 0)
		f.wantError(answer{err: err}, entities.InvalidCommand, entities.NotApplied)
	}
	if k := f.kinds(); k[record.Event] != 0 {
		t.Errorf("the log holds %v", k)
	}
}
