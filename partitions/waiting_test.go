package partitions

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/partitions/core"
)

// This file is how tests wait for a partition: for a state, for a condition, for an append.

// await waits until the partition has gone through a state.
func (f *fixture) await(want core.State) {
	f.t.Helper()
	for {
		select {
		case s := <-f.seen:
			if s == want {
				return
			}
		case <-time.After(10 * time.Second):
			f.t.Fatalf("the partition did not become %s; it is %s: %s", want, f.p.Status().State, f.p.Status().LastError)
		}
	}
}

// until advances the clock until the condition holds.
func (f *fixture) until(what string, holds func() bool) {
	f.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for n := 0; !holds(); n++ {
		if time.Now().After(deadline) || f.bubble && n > bubbleTicks { // in a bubble the time of the machine does not pass
			f.t.Fatalf("%s: it does not come to this; status %+v", what, f.p.Status())
		}
		f.clock.Advance(tick)
		f.pause()
	}
}

// bubbleTicks is how many ticks a test in a bubble waits for something: some hours.
const bubbleTicks = 100_000

// pause lets the other goroutines run between two checks: in a synctest bubble until all of them
// wait.
func (f *fixture) pause() {
	if f.bubble {
		synctest.Wait()
	} else {
		runtime.Gosched()
	}
}

// bubbled runs a subtest in a synctest bubble.
func bubbled(run func(*testing.T)) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		synctest.Test(t, run)
	}
}

// inBubble reports whether the caller runs in a synctest bubble.
func inBubble() (is bool) {
	defer func() { is = recover() == nil }()
	synctest.Wait()
	return true
}

// pass advances the clock and lets everything happen that follows.
func (f *fixture) pass(d time.Duration) {
	f.clock.Advance(d)
	synctest.Wait()
}

// kinds counts the records of the journal by kind.
func (f *fixture) kinds() map[record.Kind]int {
	f.t.Helper()
	counts := map[record.Kind]int{}
	var (
		parser record.Parser
		env    record.Envelope
	)
	for _, r := range f.world.Records(partition0) {
		if err := parser.Parse(r.Header(record.HeaderKey), &env); err != nil {
			f.t.Fatal(err)
		}
		counts[env.Kind]++
	}
	return counts
}

// op waits for the n-th append that is not answered yet.
func (f *fixture) op(n int) simlog.Op {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
	defer cancel()
	ops, err := f.world.Await(ctx, n)
	if err != nil {
		f.t.Fatalf("waiting for append %d: %v", n, err)
	}
	return ops[n-1]
}

// activate makes the partition of a manual world active.
func (f *fixture) activate() {
	f.t.Helper()
	f.world.Deliver(f.op(1).ID)
	f.await(core.Active)
}
