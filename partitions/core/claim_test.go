package core

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

// TestAHaltedPartitionStaysHalted: a halted partition waits for an operator, however its assignment
// changes.
func TestAHaltedPartitionStaysHalted(t *testing.T) {
	c := activeCore(t, true)
	c.Halt(broker.ErrRegressed)
	for name, happen := range map[string]func(){
		"lost": c.Lost, "assigned": func() { c.Assigned(false) }, "revoked": c.Revoked, "ticked": c.Ticked, "ended": c.Ended,
	} {
		if happen(); c.state != Halted {
			t.Errorf("%s: it is %s", name, c.state)
		}
	}
}

// TestUsedUpEpochsHalt: if no claim can be above the owner's, callers get an error instead of
// waiting for ever.
func TestUsedUpEpochsHalt(t *testing.T) {
	c := New(Config{Worker: "w", Limits: Limits{}.WithDefaults(), Single: true})
	c.Assigned(false)
	waiting := &Call{Caller: &seat{}, Command: &entities.Command{}}
	c.Submitted(waiting)
	c.CaughtUp(record.Owner{Epoch: math.MaxUint64, Nonce: 1}, 9, 7, nil)
	if c.state != Halted || waiting.Err == nil || waiting.Err.Reason != entities.Halted {
		t.Fatalf("it is %s, and a caller is told %v", c.state, waiting.Err)
	}
	r := &Repair{Choice: materializer.AcceptLoss, Done: func(*Repair) {}}
	c.RepairAsked(r)
	c.Surveyed(c.incarnation, materializer.Survey{Epoch: math.MaxUint64}, 8, nil)
	if c.state != Halted || !errors.Is(r.Err, errEpochsUsed) {
		t.Errorf("a repair ends with %v", r.Err)
	}
}

// TestAStandbyKeepsAnImageThatTheLogCannotReplace, and reports it instead of trying again and
// again.
func TestAStandbyKeepsAnImageThatTheLogCannotReplace(t *testing.T) {
	c := New(Config{Worker: "w", Limits: Limits{}.WithDefaults(), Single: false})
	c.Followed(true)
	c.FollowFailed(materializer.ErrOnlyCopy)
	if c.state != Halted {
		t.Errorf("it is %s", c.state)
	}
}

// TestPassing: lost offsets are used up in bounded batches, whatever happens in between.
func TestPassing(t *testing.T) {
	c := New(Config{Worker: "w", Limits: Limits{}.WithDefaults(), Single: true})
	c.floor = 10_000
	own := func(next int64) {
		t.Helper()
		c.effects = nil
		c.Assigned(false)
		c.CaughtUp(record.Owner{Epoch: c.owner.Epoch}, next, 5, nil)
		c.ReadBack(c.incarnation, c.owner, next+1, c.floor)
	}
	own(100)
	if c.state != Passing || len(c.sent) != 1 || len(c.sent[0].Entries) != passBatch {
		t.Fatalf("%s with %d appends; want to be passing with one of %d barriers", c.state, len(c.sent), passBatch)
	}
	ack := func() {
		b := c.sent[0]
		c.Acked(b, broker.AppendResult{Base: c.next, Last: c.next + int64(len(b.Entries)) - 1})
	}
	ack()
	if c.next != 101+passBatch || c.state != Passing {
		t.Fatalf("at %d, %s", c.next, c.state)
	}
	c.Acked(c.sent[0], broker.AppendResult{Base: c.next + 1, Last: c.next + 1})
	if c.state != CatchingUp || len(c.sent) != 0 {
		t.Fatalf("another worker writes, and it is %s; want to claim again", c.state)
	}
	own(c.next + 5)
	for c.state == Passing {
		ack()
	}
	if c.state != Active || c.next != c.floor {
		t.Errorf("%s at %d; want to be active at %d", c.state, c.next, c.floor)
	}

	c.state, c.floor = CatchingUp, 20_000
	own(11_000)
	c.Acked(c.sent[0], broker.AppendResult{Base: 10_999, Last: 10_999})
	if c.state != Halted {
		t.Errorf("the log has gone back once more, and it is %s", c.state)
	}
	c = New(Config{Worker: "w", Limits: Limits{}.WithDefaults(), Single: true})
	c.floor = 100
	own(1)
	c.Revoked()
	if c.state != Standby || !asks[ReportReleased](c) {
		t.Errorf("revoked while passing, it is %s", c.state)
	}
}

// TestCallersDoNotWaitForAnOwnerForEver: in every state of a partition that does not become active,
// a caller waits for as long as the limits allow, and gets the reason.
func TestCallersDoNotWaitForAnOwnerForEver(t *testing.T) {
	for name, c := range map[string]struct {
		stay func(*Core)
		want []string
	}{
		"its log is being read": {func(*Core) {}, []string{"catching up", "no error so far"}},
		"its log cannot be read": {func(c *Core) {
			c.Failed(c.incarnation, errLog)
		}, []string{"catching up", errLog.Error()}},
		"its claim is not answered": {func(c *Core) {
			c.CaughtUp(record.Owner{}, 0, 7, nil)
		}, []string{"claiming"}},
		"its claim is refused": {func(c *Core) {
			c.CaughtUp(record.Owner{}, 0, 7, nil)
			c.ClaimAcked(c.incarnation, broker.AppendResult{Err: errLog})
			c.Waited(c.incarnation)
			c.CaughtUp(record.Owner{}, 0, 8, nil)
		}, []string{"claiming", "append claim: " + errLog.Error()}},
		"another worker claims it again and again": {func(c *Core) {
			c.CaughtUp(record.Owner{}, 0, 7, nil)
			c.ClaimAcked(c.incarnation, broker.AppendResult{})
			c.ReadBack(c.incarnation, record.Owner{Epoch: 2, Nonce: 8}, 2, 0)
		}, []string{"catching up", errClaimLost.Error()}},
		"it passes offsets": {func(c *Core) {
			c.CaughtUp(record.Owner{}, 0, 7, nil)
			c.ClaimAcked(c.incarnation, broker.AppendResult{})
			c.ReadBack(c.incarnation, record.Owner{Epoch: 1, Nonce: 7}, 1, 100)
		}, []string{"passing"}},
		"it was fenced": {func(c *Core) {
			c.CaughtUp(record.Owner{}, 0, 7, nil)
			c.ClaimAcked(c.incarnation, broker.AppendResult{})
			c.ReadBack(c.incarnation, record.Owner{Epoch: 1, Nonce: 7}, 1, 0)
			c.fence("the log did not take an append", false)
		}, []string{"catching up", "the log did not take an append"}},
	} {
		core := New(Config{Partition: 3, Worker: "w", Limits: Limits{}.WithDefaults()})
		core.Assigned(false)
		c.stay(core)
		early := seated(command("a", "read"))
		core.Submitted(early)
		core.now.Mono += core.limits.MovePatience - time.Second
		late := seated(command("a", "read"))
		core.Submitted(late)
		core.Ticked()
		if early.finished {
			t.Errorf("%s: the caller was sent away before his time", name)
		}
		core.now.Mono += time.Second
		core.Ticked()
		if !early.finished || late.finished || len(core.waiting) != 1 {
			t.Errorf("%s: after %s the call has an answer: %v, one that waits for a second: %v",
				name, core.limits.MovePatience, early.finished, late.finished)
			continue
		}
		e := early.Err
		if e.Reason != entities.Unavailable || e.Outcome != entities.NotApplied || e.Checked || e.RetryAfter == 0 {
			t.Errorf("%s: the caller is told %+v", name, e)
		}
		for _, part := range append(c.want, "partition 3", "try again later") {
			if !strings.Contains(e.Message, part) {
				t.Errorf("%s: %q does not say %q", name, e.Message, part)
			}
		}
	}
}

// TestAHoleInAGapHalts: an owner that finds records of others before its own checks that every
// offset in between has one.
func TestAHoleInAGapHalts(t *testing.T) {
	foreign := func(offset int64) materializer.GapRecord {
		return materializer.GapRecord{Record: broker.Record{Offset: offset}, Foreign: true}
	}
	for name, test := range map[string]struct {
		gap  []materializer.GapRecord
		want State
		says string
	}{
		"whole":          {[]materializer.GapRecord{foreign(1), foreign(2)}, Active, ""},
		"nothing":        {nil, Halted, "no records at offsets 1 to 2"},
		"the first":      {[]materializer.GapRecord{foreign(2)}, Halted, "no record at offset 1"},
		"the last":       {[]materializer.GapRecord{foreign(1)}, Halted, "no record at offset 2"},
		"behind a claim": {[]materializer.GapRecord{{Record: broker.Record{Offset: 1}, Envelope: record.Envelope{Kind: record.Claim, Epoch: 2}}}, CatchingUp, "claimed"},
	} {
		t.Run(name, func(t *testing.T) {
			c := activeCore(t, false)
			c.open.Calls = append(c.open.Calls, &Call{
				Caller: &seat{}, Command: &entities.Command{}, Result: Result{Outcome: &entities.Outcome{}},
			})
			c.Flush()
			c.Acked(c.sent[0], broker.AppendResult{Base: 3, Last: 3})
			c.GapRead(c.incarnation, test.gap, nil)
			if c.state != test.want || !strings.Contains(c.lastFence, test.says) {
				t.Errorf("it is %s (%s); want %s (%s)", c.state, c.lastFence, test.want, test.says)
			}
		})
	}
}

// TestAFormerOwnerDeniesNothing: where others may write, an owner reports that a command with an id
// was not applied only after the log has confirmed that there is no other owner; a caller that does
// not wait for that gets an unknown outcome.
func TestAFormerOwnerDeniesNothing(t *testing.T) {
	for name, fenced := range map[string]bool{"confirmed": false, "fenced": true} {
		c := activeCore(t, false)
		call := seated(withID(command("a", "crash"), "X"))
		c.Submitted(call)
		call.Caller.(*seat).step(Phase.Run)
		c.Decided(
			call, &Opening{Session: &stagedSession{}}, nil,
			entities.Errorf(entities.FunctionFailed, entities.NotApplied, "crashed"),
		)
		c.Flush()
		if call.finished || len(c.sent) != 1 {
			t.Fatalf("%s: the caller was answered, or nothing was sent to the log", name)
		}
		if fenced {
			c.fence("another worker has claimed it", true)
		} else {
			c.Acked(c.sent[0], broker.AppendResult{Base: 1, Last: 1})
		}
		_, err := call.Committed()
		if e := entities.AsError(err); !call.finished || e.Checked == fenced {
			t.Errorf("%s: the caller is told %+v", name, e)
		}
	}
}
