package broker_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// rule is one rebalance, written down: a worker is "name: owned / partition=lag ...", with a "-"
// before its name if it is leaving.
type rule struct {
	name     string
	workers  []string
	standbys int
	want     string
}

// TestPlanRules shows each rule of Plan on the smallest group that needs it. The wanted table gives
// the number of partitions; it reads "owner(followers)" for each, "-" for no owner, and "!" after
// an owner that waits for a release.
func TestPlanRules(t *testing.T) {
	for _, r := range []rule{
		{"a first worker gets everything", []string{"a:"}, 1, "a() a() a() a()"},
		{"a group that begins is even", []string{"a:", "b:"}, 1, "a(b) b(a) a(b) b(a)"},
		{"an owner keeps what it has", []string{"a: 1 3", "b: 0 2"}, 0, "b() a() b() a()"},
		{"what cannot be divided stays where it is", []string{"a: 0", "b: 1 2"}, 0, "a() b() b()"},
		{"the best image of an orphan wins", []string{"a: 0 / 2=9", "b: 1 / 2=5", "c: 3 / 2=7"}, 0, "a() b() b() c() a() c()"},
		{"of those that are not warm, too", []string{"a: 0 / 2=9000", "b: 1 / 2=5000"}, 0, "a() b() b() a()"},
		{"but only within the share", []string{"a: 0 / 2=9000", "b: 1 3 / 2=5000"}, 0, "a() b() a() b()"},
		{"a worker that can get another one leaves it to one that cannot", []string{"a: / 0=0 1=0", "b: / 0=0"}, 0, "b() a()"},
		{"without an image it goes to the worker most below its share", []string{"a: 0 1", "b:"}, 0, "a() a() b()"},
		{
			"a warm image counts more than the share; a worker below its share follows",
			[]string{"a: 0 1 / 0=0 1=0 2=3 3=3", "b:"},
			0,
			"a(b) a(b) a() a()",
		},
		{"a cold newcomer follows first", []string{"a: 0 1 / 0=0 1=0", "b:"}, 0, "a(b) a()"},
		{"a partition moves when the newcomer is warm", []string{"a: 0 1 / 0=0 1=0", "b: / 0=1023"}, 0, "b!() a()"},
		{"not before", []string{"a: 0 1 / 0=0 1=0", "b: / 0=1024"}, 0, "a(b) a()"},
		{"and its old owner follows it until others are as good", []string{"a: 0 1 / 0=0 1=0", "b: / 0=3"}, 1, "b!(a) a(b)"},
		{"while others are assigned nothing moves", []string{"a: 0 1 2 / 0=0 1=0 2=0", "b: / 0=0"}, 0, "a(b) a() a() b()"},
		{
			"at most a sixteenth moves",
			[]string{"a: 0 1 2 3 / 0=0 1=0 2=0 3=0", "b: / 0=0 1=0 2=0 3=0"},
			0,
			"b!() a(b) a() a()",
		},
		{"a standby stays where an image is", []string{"a: 0 / 0=0", "b: 1 / 1=0", "c: / 0=4"}, 1, "a(c) b(a)"},
		{"as long as it is better than others", []string{"a: 0 / 0=0", "b: 1 / 1=0", "c: / 0=4 1=8000"}, 1, "a(c) b(a,c)"},
		{
			"the old standby stays beside a new one until that is warm",
			[]string{"a: 0 1 / 0=0 1=0 2=0 3=0", "b: 2 3 / 0=0 1=0 2=0 3=0", "c: 4 5 / 4=0 5=0"},
			1,
			"a(c,b) a(b) b(c,a) b(a) c(a) c(b)",
		},
		{"a claim of an earlier rebalance does not count", []string{"a@4: 0", "b@5: 0", "c@5:"}, 0, "b()"},
		{"and takes nothing from the owner, for whom another one warms up", []string{"a@5: 0 1", "b@4: 0", "c@5:"}, 0, "a(b) a()"},
		{"or moves on from there", []string{"a@5: 0 1 / 0=0 1=0", "b@4: 0 / 0=0 1=0", "c@5: / 0=0"}, 0, "b!() a()"},
		{"a leaving worker hands everything to warm ones", []string{"-a: 0 1 2", "b: 3 / 0=0 2=0", "c: / 1=0"}, 0, "b!(c) c!() b!() b()"},
		{"within their shares where that can be", []string{"-a: 0 1 2", "b: 3 / 0=0 1=0 2=0", "c: / 1=0 2=0"}, 0, "b!() c!() c!() b()"},
		{"else to any worker", []string{"-a: 0 1", "b:", "c:"}, 1, "b!(c) c!(b)"},
		{"it follows nothing", []string{"-a: 0 / 1=0", "b: 1 / 0=0"}, 1, "b!() b()"},
		{"what it does not own any more it need not release", []string{"-a@4: 0", "b@5: 0", "c: 1"}, 0, "b() c()"},
		{"when all are leaving, all stay", []string{"-a: 0", "-b: 1"}, 1, "a(b) b(a)"},
	} {
		t.Run(r.name, func(t *testing.T) {
			var members []broker.Candidate
			for _, w := range r.workers {
				members = append(members, parseWorker(t, w))
			}
			table := broker.Plan(members, len(strings.Fields(r.want)), r.standbys, 6)
			if got := show(table); got != r.want {
				t.Errorf("got  %s\nwant %s", got, r.want)
			}
		})
	}
}

func parseWorker(t *testing.T, text string) broker.Candidate {
	t.Helper()
	who, rest, _ := strings.Cut(text, ":")
	name, generation, _ := strings.Cut(who, "@")
	name, leaving := strings.CutPrefix(name, "-")
	c := broker.Candidate{Member: broker.Member{Name: name}, Generation: 5, Leaving: leaving}
	if generation != "" {
		scan(t, generation, "%d", &c.Generation)
	}
	owned, images, _ := strings.Cut(rest, "/")
	for f := range strings.FieldsSeq(owned) {
		var p int32
		scan(t, f, "%d", &p)
		c.Owned = append(c.Owned, p)
	}
	for f := range strings.FieldsSeq(images) {
		var i broker.Image
		scan(t, f, "%d=%d", &i.Partition, &i.Lag)
		c.Images = append(c.Images, i)
	}
	return c
}

func scan(t *testing.T, text, format string, into ...any) {
	t.Helper()
	if _, err := fmt.Sscanf(text, format, into...); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
}

func show(table *broker.Table) string {
	var all []string
	for p, owner := range table.Owners {
		name := "-"
		if owner >= 0 {
			name = table.Members[owner].Name
		}
		var followers []string
		for _, f := range table.Standbys[p] {
			followers = append(followers, table.Members[f].Name)
		}
		if slices.Contains(table.HandedOver, int32(p)) {
			name += "!"
		}
		all = append(all, name+"("+strings.Join(followers, ",")+")")
	}
	return strings.Join(all, " ")
}

// TestDue: only a worker below its share requests a rebalance, only if it is warm for a partition
// of one above its share, and not during a rebalance.
func TestDue(t *testing.T) {
	table := &broker.Table{
		Members:  []broker.Member{{Name: "a"}, {Name: "b"}, {Name: "c"}},
		Owners:   []int32{0, 0, 0, 1, 1},
		Standbys: make([][]int32, 5),
	}
	moving, leaving := *table, *table
	moving.Owners, leaving.Leaving = []int32{0, 0, -1, 1, 1}, 1
	for _, c := range []struct {
		table  *broker.Table
		worker string
		images map[int32]int64
		want   bool
	}{
		{table, "c", map[int32]int64{0: broker.Warm}, true},
		{table, "c", map[int32]int64{0: broker.Warm + 1}, false},
		{table, "c", map[int32]int64{3: 0}, false}, // b has two, and that is its share
		{table, "c", nil, false},
		{table, "a", map[int32]int64{3: 0}, false},
		{table, "b", map[int32]int64{0: 0}, false},
		{table, "d", map[int32]int64{0: 0}, false},
		{&moving, "c", map[int32]int64{0: 0}, false},
		{&leaving, "c", map[int32]int64{0: 0}, false},
		{&leaving, "b", map[int32]int64{0: 0}, false}, // three and two are even among two
		{nil, "c", map[int32]int64{0: 0}, false},
	} {
		m := broker.Membership{Worker: c.worker, Images: func() map[int32]int64 { return c.images }}
		if got := c.table.Due(m); got != c.want {
			t.Errorf("%s with images %v: due is %v", c.worker, c.images, got)
		}
	}
	if table.Due(broker.Membership{Worker: "c"}) {
		t.Error("a worker that says nothing of its images asks for a rebalance")
	}
}
