package brokertest

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"time"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// testAssignments joins as the only member, which gets a table and then all partitions. Leaving is
// no error.
func testAssignments(f *fixture) {
	const partitions = 6
	w := f.join(f.log, f.membership(partitions, 1), "a", 1, false)
	f.until("the only member owns everything", w.owns(partitions))
	table := w.lastTable()
	if len(table.Members) != 1 || len(table.Owned("a")) != partitions || len(table.Followed("a")) != 0 ||
		len(table.Standbys) != partitions {
		f.Errorf("the table of a group of one is %+v", table)
	}
	w.end()
}

// even waits until workers own and follow equal shares, by their events and by all tables, and no
// further rebalance is due: each one that moves something is followed by another.
func (f *fixture) even(partitions, standbys int, workers ...*worker) {
	f.Helper()
	f.until("equal shares", func() bool {
		for _, w := range workers {
			table := w.lastTable()
			if len(table.HandedOver) > 0 {
				return false
			}
			if n := len(w.partitions()); n < partitions/len(workers) || n > (partitions+len(workers)-1)/len(workers) {
				return false
			}
			if !slices.Equal(w.partitions(), table.Owned(w.Worker)) || !reflect.DeepEqual(table, workers[0].lastTable()) {
				return false
			}
			if slices.ContainsFunc(table.Standbys, func(s []int32) bool { return len(s) < standbys }) {
				return false
			}
		}
		return true
	})
}

// testNewcomersFollowFirst: a second worker owns nothing until its images are warm. Then it gets
// its share, each partition in one rebalance, never more than MaxMoves at a time.
func testNewcomersFollowFirst(f *fixture) {
	const partitions = 6
	for _, standbys := range []int{0, 1} {
		m := f.membership(partitions, standbys)
		a := f.join(f.log, m, "a", 1, false)
		f.until("the first worker owns everything", a.owns(partitions))
		b := f.join(f.second(), m, "b", 1, true)
		f.until("the second worker follows its share",
			func() bool { return len(b.lastTable().Followed("b")) >= partitions/2 })
		groupOf(f, a.log).Rebalance()
		seen := len(b.received())
		f.until("another rebalance", func() bool { return len(b.received()) > seen })
		if len(a.partitions()) != partitions || len(b.partitions()) != 0 {
			f.Errorf("a cold worker owns %v of %d partitions", b.partitions(), partitions)
		}
		b.warm()
		f.even(partitions, standbys, a, b)
		for _, table := range b.received() {
			if n := len(table.HandedOver); n > broker.MaxMoves(partitions) {
				f.Errorf("%d partitions move at once", n)
			}
		}
		b.end()
		f.until("the first worker owns everything again", a.owns(partitions))
		a.end()
	}
}

// three starts a group of three with equal shares of six partitions.
func (f *fixture) three() []*worker {
	f.Helper()
	m := f.membership(6, 1)
	workers := []*worker{f.join(f.log, m, "a", 1, false)}
	f.until("the first worker owns everything", workers[0].owns(6))
	for _, name := range []string{"b", "c"} {
		workers = append(workers, f.join(f.second(), m, name, 1, false)) // warm as soon as it follows
		f.even(6, 1, workers...)
	}
	return workers
}

// testLeaveMoves: when a worker leaves, the followers of its partitions get them.
func testLeaveMoves(f *fixture) {
	workers := f.three()
	before, left := workers[0].lastTable(), workers[2]
	gone := left.partitions()
	left.end()
	f.even(6, 1, workers[:2]...)
	for _, p := range gone {
		if owner, _ := workers[0].lastTable().Owner(p); !slices.Contains(before.Followed(owner.Name), p) {
			f.Errorf("partition %d went to %s, which did not follow it: %+v", p, owner.Name, before)
		}
	}
}

// testRestart: a worker that is killed and joins again gets its partitions back, and all members
// learn of the new process.
func testRestart(f *fixture) {
	workers := f.three()
	before := workers[0].lastTable()
	workers[2].kill()
	again := f.join(f.second(), workers[2].Membership, "c", 2, false)
	f.until("all members know the new process", func() bool {
		for _, w := range []*worker{workers[0], workers[1], again} {
			if me, _ := w.lastTable().Member("c"); me.Incarnation != 2 {
				return false
			}
		}
		return true
	})
	if f.opts.RestartBalances {
		f.even(6, 1, workers[0], workers[1], again)
		return
	}
	f.until("the new process owns what the old one did",
		func() bool { return slices.Equal(again.partitions(), before.Owned("c")) })
	for _, w := range workers[:2] {
		if !slices.Equal(w.partitions(), before.Owned(w.Worker)) {
			f.Errorf("worker %s owned %v, and %v since another one was restarted", w.Worker, before.Owned(w.Worker),
				w.partitions())
		}
	}
}

func (f *fixture) evict(log broker.Log, group string, m broker.Member, want bool) {
	f.Helper()
	if was, err := groupOf(f, log).Evict(f.context(), group, m); err != nil || was != want {
		f.Fatalf("evict %+v: %v, %v; want %v", m, was, err, want)
	}
}

// memberOf returns a worker as the table has it.
func (f *fixture) memberOf(w *worker) broker.Member {
	f.Helper()
	m, ok := w.lastTable().Member(w.Worker)
	if !ok {
		f.Fatalf("worker %s is not in its own table", w.Worker)
	}
	return m
}

// testEvict: the partitions of a worker whose process died move when it is evicted, long before its
// session ends.
func testEvict(f *fixture) {
	workers := f.three()
	dead := f.memberOf(workers[2])
	workers[2].kill()
	began := time.Now()
	f.evict(workers[0].log, workers[0].Group, dead, true)
	f.until("everything is owned", func() bool { return len(workers[0].partitions())+len(workers[1].partitions()) == 6 })
	f.Logf("its partitions were owned again %v later", time.Since(began).Round(time.Millisecond))
	f.even(6, 1, workers[:2]...)
	f.evict(workers[1].log, workers[0].Group, dead, false)
}

// testEvictTwo: two workers die at once, so the second one must be evicted while the group waits
// for it.
func testEvictTwo(f *fixture) {
	workers := f.three()
	b, c := f.memberOf(workers[1]), f.memberOf(workers[2])
	workers[1].kill()
	workers[2].kill()
	f.evict(workers[0].log, workers[0].Group, c, true)
	f.evict(workers[0].log, workers[0].Group, b, true)
	f.until("the last worker owns everything", workers[0].owns(6))
}

// testEvictOthers: another incarnation, an unknown worker and an unknown group are left alone.
func testEvictOthers(f *fixture) {
	m := f.membership(4, 1)
	w := f.join(f.log, m, "a", 7, false)
	f.until("the only member owns everything", w.owns(4))
	watcher := f.second() // not a member
	for _, log := range []broker.Log{f.log, watcher} {
		f.evict(log, m.Group, broker.Member{Name: "a", Incarnation: 6}, false)
		f.evict(log, m.Group, broker.Member{Name: "b", Incarnation: 7}, false)
		f.evict(log, unique("group"), broker.Member{Name: "a", Incarnation: 7}, false)
	}
	groupOf(f, f.log).Rebalance()
	seen := len(w.received())
	f.until("another rebalance", func() bool { return len(w.received()) > seen })
	if w.lost > 0 || len(w.partitions()) != 4 {
		f.Errorf("the worker lost %d partitions and owns %v", w.lost, w.partitions())
	}
}

// testEvictedComesBack: a healthy worker that is evicted by mistake loses its partitions and joins
// again.
func testEvictedComesBack(f *fixture) {
	m := f.membership(4, 1)
	w := f.join(f.log, m, "a", 1, false)
	f.until("the only member owns everything", w.owns(4))
	f.evict(f.second(), m.Group, f.memberOf(w), true)
	f.until("it lost everything, and has it again", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.lost == 4 && len(w.owned) == 4
	})
}

// testWatch: a watcher outside the group sees the tables that the members get, and an empty one
// before and after.
func testWatch(f *fixture) {
	m := f.membership(4, 1)
	var mu sync.Mutex
	var seen []*broker.Table
	last := func() *broker.Table {
		mu.Lock()
		defer mu.Unlock()
		if len(seen) == 0 {
			return nil
		}
		return seen[len(seen)-1]
	}
	ctx, stop := context.WithCancel(f.Context())
	defer stop()
	ended := make(chan error, 1)
	group := groupOf(f, f.second())
	go func() { // ends with ctx; waited for below
		ended <- group.Watch(ctx, m.Group, m.Topic, func(t *broker.Table) {
			mu.Lock()
			defer mu.Unlock()
			if len(seen) > 0 && reflect.DeepEqual(t, seen[len(seen)-1]) {
				f.Errorf("table %d was reported twice", t.Generation)
			}
			seen = append(seen, t)
		}, func(err error) { f.Logf("watch: %v", err) })
	}()
	empty := func() bool { return last() != nil && len(last().Members) == 0 && len(last().Owners) == 0 }
	f.until("an empty table", empty)
	a := f.join(f.log, m, "a", 1, false)
	f.until("the only member owns everything", a.owns(4))
	b := f.join(f.second(), m, "b", 1, false)
	f.even(4, 1, a, b)
	f.until("the table of the members", func() bool { return reflect.DeepEqual(last(), a.lastTable()) })
	a.end()
	f.until("the remaining worker owns everything", b.owns(4))
	b.end()
	f.until("an empty table again", empty)
	stop()
	if err := <-ended; err != nil {
		f.Errorf("watch ended with %v", err)
	}
}
