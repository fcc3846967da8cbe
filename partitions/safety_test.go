package partitions

import (
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/partitions/core"
)

var errLog = errors.New("the log said no")

// TestContiguity: an owner whose append lands after another worker's claim must not answer for it.
// The claim stands where the owner expected its own record; only the offset of the acknowledgement
// shows it.
func TestContiguity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: simlog.Options{Manual: true}})
		f.activate()
		caller := f.later(command("a", "add x"))
		op := f.op(1)
		f.world.Inject(partition0, foreignClaim(9))
		f.world.Deliver(op.ID)
		f.wantError(f.receive(caller), entities.Moved, entities.NotApplied)
		f.await(core.CatchingUp)
	})
}

// TestReadBack: a claim that is acknowledged is not yet an ownership: a higher one may stand before
// it.
func TestReadBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: simlog.Options{Manual: true}})
		f.await(core.Claiming)
		claim := f.op(1)
		f.world.Inject(partition0, foreignClaim(9))
		caller := f.later(command("a", "read"))
		f.world.Deliver(claim.ID)
		f.await(core.CatchingUp)
		f.silent(caller)
		f.clock.Advance(10 * time.Second)
		second := f.op(1)
		var env record.Envelope
		var parser record.Parser
		if err := parser.Parse(second.Records[0].Header(record.HeaderKey), &env); err != nil ||
			env.Kind != record.Claim || env.Epoch != 10 {
			t.Fatalf("the next append is %+v, %v; want a claim of epoch 10", env, err)
		}
		f.world.Deliver(second.ID)
		f.await(core.Active)
		barrier := f.op(1)
		f.world.Deliver(barrier.ID)
		f.want(f.receive(caller), "")
	})
}

// TestGap: what may stand in a gap, and what ends the ownership (log protocol, 4, rule 2).
func TestGap(t *testing.T) {
	own := func(f *fixture) broker.Record {
		return f.world.Records(partition0)[0] // the own claim again: a record of the owner that it did not expect
	}
	for name, test := range map[string]struct {
		inject func(*fixture) broker.Record
		fenced bool
	}{
		"a record without an envelope": {func(*fixture) broker.Record { return broker.Record{Value: []byte("hello")} }, false},
		"a late record of a former owner": {func(*fixture) broker.Record {
			return broker.Record{
				Key: []byte("words/a"), Headers: header(record.Envelope{Kind: record.Event, Epoch: 1, Nonce: 3, Sequence: 1}),
			}
		}, false},
		"a claim that came too late": {func(*fixture) broker.Record { return foreignClaim(1) }, false},
		"a higher claim":             {func(*fixture) broker.Record { return foreignClaim(2) }, true},
		"an own record":              {own, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, setup{world: simlog.Options{Manual: true}})
			f.activate()
			caller := f.later(command("a", "add x"))
			op := f.op(1)
			f.world.Inject(partition0, test.inject(f))
			f.world.Deliver(op.ID)
			a := f.receive(caller)
			if !test.fenced {
				f.want(a, "x")
				if counts := f.p.Counts(); counts.Alarms != 1 {
					t.Errorf("%d alarms, want 1", counts.Alarms)
				}
				return
			}
			if a.err == nil {
				t.Fatalf("answered %q", a.text)
			}
			f.await(core.CatchingUp)
		})
	}
}

// TestAnswersWaitForTheLog: nothing leaves before its records, and those decided before it, are
// acknowledged.
func TestAnswersWaitForTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: simlog.Options{Manual: true, SingleProcess: true}})
		open := sync.OnceFunc(func() { close(f.words.gate) })
		t.Cleanup(open) // a test that fails here must not leave its function waiting
		f.activate()
		first := f.later(command("a", "add x"))
		op := f.op(1)
		read := f.later(command("a", "read")) // sees x, which is not durable yet
		second := f.later(command("b", "wait y"))
		<-f.words.entered // the loop has gone past the read
		f.silent(first)
		f.silent(read)
		f.world.Deliver(op.ID)
		f.want(f.receive(first), "x")
		f.want(f.receive(read), "x")
		open()
		f.world.Deliver(f.op(1).ID)
		f.want(f.receive(second), "y")
	})
}

// TestReadsWaitForABarrier: where others may write, an answer that wrote nothing waits for an
// append that was sent after it.
func TestReadsWaitForABarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: simlog.Options{Manual: true}})
		f.activate()
		read := f.later(command("a", "read"))
		barrier := f.op(1)
		var env record.Envelope
		var parser record.Parser
		if err := parser.Parse(barrier.Records[0].Header(record.HeaderKey), &env); err != nil || env.Kind != record.Barrier {
			t.Fatalf("appended %+v, %v; want a barrier", env, err)
		}
		f.silent(read)
		f.world.Deliver(barrier.ID)
		f.want(f.receive(read), "")

		local := command("a", "read")
		local.Consistency = entities.Local
		f.want(f.submit(local), "")
	})
}

// TestAFencedReadIsNotAnswered: a paused former owner must not give stale answers.
func TestAFencedReadIsNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: simlog.Options{Manual: true}})
		f.activate()
		read := f.later(command("a", "read"))
		op := f.op(1)
		f.world.Inject(partition0, foreignClaim(5))
		f.world.Deliver(op.ID)
		f.wantError(f.receive(read), entities.Moved, entities.NotApplied)
	})
}

// TestOutcomesOfAFailedAppend: if the log cannot tell whether it wrote, the outcome is unknown;
// with "not written" it is not. State in memory that was built on it is dropped.
func TestOutcomesOfAFailedAppend(t *testing.T) {
	for name, test := range map[string]struct {
		err     error
		reason  entities.Reason
		outcome entities.OutcomeClass
	}{
		"unknown":     {errLog, entities.LostOutcome, entities.Unknown},
		"not written": {errors.Join(errLog, broker.ErrNotWritten), entities.Moved, entities.NotApplied},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, setup{world: simlog.Options{Manual: true, SingleProcess: true}})
			f.activate()
			first := f.later(command("a", "add lost"))
			op := f.op(1)
			speculative := f.later(command("a", "wait built-on-it"))
			<-f.words.entered
			f.world.Fail(op.ID, test.err)
			f.world.Discard(op.ID)
			f.wantError(f.receive(first), test.reason, test.outcome)
			close(f.words.gate)
			if a := f.receive(speculative); a.err == nil {
				t.Fatalf("answered %q", a.text)
			}
			f.await(core.CatchingUp)
			f.clock.Advance(time.Second)
			f.world.Deliver(f.op(1).ID)
			f.await(core.Active)
			f.want(f.submit(command("a", "read")), "")
		})
	}
}

// TestALateArrivalOfALostAppendCounts: after "unknown" the record may be in the log after all, and
// then it is in the fold that the next ownership begins with.
func TestALateArrivalOfALostAppendCounts(t *testing.T) {
	f := start(t, setup{world: simlog.Options{Manual: true, SingleProcess: true}})
	f.activate()
	caller := f.later(command("a", "add late"))
	op := f.op(1)
	f.world.Apply(op.ID)
	f.world.Fail(op.ID, errLog)
	f.wantError(f.receive(caller), entities.LostOutcome, entities.Unknown)
	f.await(core.CatchingUp)
	f.clock.Advance(time.Second)
	f.world.Deliver(f.op(1).ID)
	f.await(core.Active)
	f.want(f.submit(command("a", "read")), "late")
}

// TestACommandIsLookedUpWhenTheLogWasRead: a command that is sent again under its id while the
// partition catches up is found in the part that is read in between.
func TestACommandIsLookedUpWhenTheLogWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: simlog.Options{Manual: true, SingleProcess: true}})
		f.activate()
		caller := f.later(withID(command("a", "add late"), "id"))
		op := f.op(1)
		f.world.Apply(op.ID)
		f.world.Fail(op.ID, errLog)
		f.wantError(f.receive(caller), entities.LostOutcome, entities.Unknown)
		f.await(core.CatchingUp)
		again := f.later(withID(command("a", "add late"), "id"))
		synctest.Wait() // the loop has it
		f.clock.Advance(time.Second)
		f.world.Deliver(f.op(1).ID)
		a := f.receive(again)
		f.want(a, "late")
		if !a.done.Repeated {
			t.Error("the command ran a second time")
		}
		f.want(f.submit(command("a", "read")), "late")
	})
}

// TestACommandIsLookedUpBehindItsCommit: a command that is sent again under its id at the moment in
// which the log acknowledges the first is in the queue of the partition, in the store, or in
// between.
func TestACommandIsLookedUpBehindItsCommit(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	for i := range 300 {
		id := strconv.Itoa(i)
		var answers []<-chan answer
		for range 8 {
			answers = append(answers, f.later(withID(command(id, "add x"), id)))
		}
		for _, a := range answers {
			f.want(f.receive(a), "x")
		}
	}
}

// TestSilenceOfTheLogEndsTheOwnership: the watchdog of rule 4.
func TestSilenceOfTheLogEndsTheOwnership(t *testing.T) {
	f := start(t, setup{world: simlog.Options{Manual: true}})
	f.activate()
	caller := f.later(command("a", "add x"))
	f.op(1)
	f.clock.Advance(31 * time.Second)
	f.wantError(f.receive(caller), entities.LostOutcome, entities.Unknown)
}

// TestALogThatGoesBackwardsHalts: acknowledged data is lost; going on would hide it.
func TestALogThatGoesBackwardsHalts(t *testing.T) {
	f := start(t, setup{world: simlog.Options{Manual: true, SingleProcess: true}})
	f.activate()
	caller := f.later(command("a", "add x"))
	f.world.Deliver(f.op(1).ID)
	f.want(f.receive(caller), "x")
	f.world.Truncate(partition0, 1)
	caller = f.later(command("a", "add y"))
	f.world.Deliver(f.op(1).ID)
	if a := f.receive(caller); a.err == nil {
		t.Fatalf("answered %q", a.text)
	}
	f.await(core.Halted)
	f.wantError(f.submit(command("a", "read")), entities.Halted, entities.NotApplied)
}

// TestAReplacedTopicIsRefused: a store that was folded from another journal is not served.
func TestAReplacedTopicIsRefused(t *testing.T) {
	f := start(t, setup{world: simlog.Options{SingleProcess: true}})
	f.await(core.Active)
	f.want(f.submit(command("a", "add x")), "x")
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	f.world.Recreate(topic)
	again := start(t, setup{on: f.world, store: f.store})
	again.await(core.Halted)
}
