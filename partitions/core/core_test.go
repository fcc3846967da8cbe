package core

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// activeCore returns a core that owns its partition: the claim stands at offset 0.
func activeCore(t testing.TB, single bool) *Core {
	t.Helper()
	c := New(Config{Worker: "w", Limits: Limits{}.WithDefaults(), Single: single})
	c.Assigned(false)
	c.CaughtUp(record.Owner{}, 0, 7, nil)
	c.ClaimAcked(c.incarnation, broker.AppendResult{})
	c.ReadBack(c.incarnation, record.Owner{Epoch: 1, Nonce: 7}, 1, 0)
	if c.state != Active {
		t.Fatalf("the core is %s", c.state)
	}
	c.OpenLoaded(nil, false)
	c.OutboxLoaded(nil, 0, false)
	c.TimersLoaded(nil, false)
	c.effects = nil
	return c
}

// asks reports whether the core asks for an effect of a kind.
func asks[E Effect](c *Core) bool {
	return slices.ContainsFunc(c.effects, func(a Emitted) bool {
		_, is := a.Do.(E)
		return is
	})
}

// TestAReleaseGoesOnThroughAGap: records of others are found while the core waits for the last
// batch of a release. Found by simulation: the partition became active again without being
// assigned, and the manager waited for the release for ever.
func TestAReleaseGoesOnThroughAGap(t *testing.T) {
	c := activeCore(t, false)
	// A read that waits for a barrier.
	c.open.Calls = append(c.open.Calls, &Call{
		Caller: &seat{}, Command: &entities.Command{}, Result: Result{Outcome: &entities.Outcome{}},
	})
	c.Flush()
	c.Revoked()
	if c.state != Releasing || asks[ReportReleased](c) {
		t.Fatalf("the core is %s and asks for %v; want it to release", c.state, c.effects)
	}
	c.Acked(c.sent[0], broker.AppendResult{Base: 3, Last: 3})
	if c.state != Suspect {
		t.Fatalf("the core is %s; want it to read the gap", c.state)
	}
	c.GapRead(c.incarnation, []materializer.GapRecord{
		{Record: broker.Record{Offset: 1}, Foreign: true}, {Record: broker.Record{Offset: 2}, Foreign: true},
	}, nil)
	if c.state != Standby || !asks[ReportReleased](c) {
		t.Errorf("the core is %s; want it released", c.state)
	}
}

// TestARevocationIsAnsweredOnce: a partition that is being released is revoked again, and then
// assigned. Found by the model.
func TestARevocationIsAnsweredOnce(t *testing.T) {
	c := activeCore(t, false)
	c.open.Calls = append(c.open.Calls, &Call{
		Caller: &seat{}, Command: &entities.Command{}, Result: Result{Outcome: &entities.Outcome{}},
	})
	c.Flush()
	c.Revoked()
	c.Revoked()
	c.Assigned(false)
	late := &Call{
		Caller: &seat{}, Command: &entities.Command{Key: entities.Key{Type: "t", ID: "a"}, Type: &entities.EntityType{}},
	}
	c.Submitted(late)
	if !late.finished || late.Err.Reason != entities.Moved {
		t.Errorf("a command during a release gets %v; want it refused as moved", late.Err)
	}
	c.Acked(c.sent[0], broker.AppendResult{Base: 1, Last: 1})
	released := 0
	for _, e := range c.effects {
		if _, is := e.Do.(ReportReleased); is {
			released++
		}
	}
	if released != 1 || c.state != CatchingUp {
		t.Errorf("the core is %s and says %d times that it is released; want once", c.state, released)
	}
}

// TestAClaimBeforeWhatWasReadHalts: the log has lost records that the store has folded, and put the
// claim in their place. Found by the model: it was taken for a claim that lost against another one,
// again and again.
func TestAClaimBeforeWhatWasReadHalts(t *testing.T) {
	for _, c := range []struct {
		base int64
		want State
	}{{-1, CatchingUp}, {4, Halted}, {5, Claiming}, {7, Claiming}} {
		core := New(Config{Worker: "w", Limits: Limits{}.WithDefaults(), Single: false})
		core.Assigned(false)
		core.CaughtUp(record.Owner{}, 5, 7, nil)
		core.ClaimAcked(core.incarnation, broker.AppendResult{Base: c.base, Last: c.base})
		if core.state != c.want || asks[FoldClaim](core) != (c.want == Claiming) {
			t.Errorf("read up to 5, a claim at %d: the core is %s; want %s", c.base, core.state, c.want)
		}
		if c.want == Halted && !errors.Is(core.halted, broker.ErrRegressed) {
			t.Errorf("halted with %v", core.halted)
		}
	}
}

// TestAnOldEndIsNotLostDataAtOnce: a leader that was paused shows what it had. Found by simulation.
func TestAnOldEndIsNotLostDataAtOnce(t *testing.T) {
	c := New(Config{Worker: "w", Limits: Limits{}.WithDefaults(), Single: false})
	c.Assigned(false)
	gone := errors.Join(errors.New("the log ends at 8"), broker.ErrRegressed)
	c.Failed(c.incarnation, gone)
	if c.state != CatchingUp || !asks[Pause](c) {
		t.Fatalf("the core is %s; want it to ask again", c.state)
	}
	c.now.Mono += c.limits.AckTimeout + time.Second
	c.Failed(c.incarnation, gone)
	if c.state != Halted {
		t.Errorf("the core is %s after %s; want it halted", c.state, c.limits.AckTimeout)
	}
	for name, between := range map[string]func(*Core){
		"the log showed everything": func(c *Core) {
			c.CaughtUp(record.Owner{}, 9, 1, nil)
			c.Failed(c.incarnation, errNoOffset)
			c.Waited(c.incarnation)
		},
		"the partition was another worker's": func(c *Core) {
			c.Revoked()
			c.Waited(c.incarnation)
			c.Assigned(false)
		},
	} {
		c = New(Config{Worker: "w", Limits: Limits{}.WithDefaults(), Single: false})
		c.Assigned(false)
		c.Failed(c.incarnation, gone)
		c.Waited(c.incarnation)
		between(c)
		c.now.Mono += c.limits.AckTimeout + time.Second
		c.Failed(c.incarnation, gone)
		if c.state != CatchingUp {
			t.Errorf("the core is %s at an old end after %s; want it to ask again", c.state, name)
		}
	}
	c = New(Config{Worker: "w", Limits: Limits{}.WithDefaults(), Single: false})
	c.Assigned(false)
	c.Failed(c.incarnation, materializer.TopicReplaced("a", "b"))
	if c.state != Halted {
		t.Errorf("the core is %s when the topic is another one; want it halted", c.state)
	}
}

// TestTheEndAnswersEveryone: a command that is decided while the worker stops is answered. Found by
// simulation.
func TestTheEndAnswersEveryone(t *testing.T) {
	c := activeCore(t, true)
	call := &Call{Caller: &seat{}, Command: command("a", "add x")}
	c.Submitted(call)
	c.Revoked()
	c.Ended()
	c.Decided(call, &Opening{}, &entities.Outcome{Events: []entities.Payload{{Value: []byte("x")}}}, nil)
	if call.Err == nil || call.Err.Outcome != entities.NotApplied || !asks[Answer](c) {
		t.Errorf("the call got %v; want an answer that says that nothing was applied", call.Err)
	}
}

// TestWhatCameOfAnEarlierOwnershipIsIgnored: an entity is passivated and, in the same turn, the
// ownership ends. Found by simulation: the end of the passivation was taken for one of the next
// ownership, and corrupted the list of its entities.
func TestWhatCameOfAnEarlierOwnershipIsIgnored(t *testing.T) {
	c := activeCore(t, true)
	before := c.incarnation
	c.emit(Passivate{})
	c.fence("for a test", false)
	if got := c.effects[0].Incarnation; got != before || got == c.incarnation {
		t.Errorf("the effect belongs to ownership %d; want %d, which asked for it, not %d", got, before, c.incarnation)
	}
}

// TestSettlingSeesDueTimers: an input that waits for quiet may come before the tick.
func TestSettlingSeesDueTimers(t *testing.T) {
	c := activeCore(t, false)
	due := materializer.Due{At: c.now.Log + int64(time.Hour), Name: "t", Offset: 3}
	c.TimersLoaded([]materializer.Due{due}, false)
	if !c.FireDue() || asks[Fire](c) {
		t.Fatalf("the timer is not due, and the core asks for %v", c.effects)
	}
	c.now.Log = due.At
	if c.FireDue() || !asks[Fire](c) {
		t.Fatal("the timer is due, and the core is quiet")
	}
	c.Fired(c.incarnation, c.effects[0].Do.(Fire).Timer, false, nil)
	if !c.FireDue() {
		t.Error("the timer has fired, and the core is not quiet")
	}
}

// TestAnUncommittedChangeDoesNotEndATimer: a timer is due while a command that changes it is on its
// way to the log, where it may never arrive. Found by simulation: the timer was swept, and when the
// change was lost, so was the timer.
func TestAnUncommittedChangeDoesNotEndATimer(t *testing.T) {
	c := activeCore(t, false)
	due := materializer.Due{At: 1, Offset: 1, Key: entities.Key{Type: "t", ID: "a"}, Name: "x"}
	c.setTimer(due)
	c.now.Log = 2
	c.fire()
	if !asks[Fire](c) {
		t.Fatalf("the timer is due, and the core asks for %v", c.effects)
	}
	fired := c.effects[0].Do.(Fire).Timer
	firing := &Call{Caller: &seat{}, Command: &entities.Command{
		Key: due.Key, Type: &entities.EntityType{}, Timer: &entities.TimerFiring{Name: "x", Offset: 1},
	}}
	c.entity(firing).timers = map[string]int{"x": 1}
	c.Submitted(firing)
	if !firing.finished || firing.superseded || firing.Err == nil {
		t.Fatalf("the command of the timer ends with %v, superseded %v; want it to be tried again",
			firing.Err, firing.superseded)
	}
	c.Fired(c.incarnation, fired, firing.superseded, firing.Err)
	if asks[Sweep](c) || len(c.timers.next) != 1 {
		t.Errorf("%d timers are left and the core asks for %v; want the timer to be tried again",
			len(c.timers.next), c.effects)
	}
}

// TestAParkedEffectSaysWhy: every error of a function can be stored. A text that was cut within a
// character, or that never was UTF-8, ended the worker.
func TestAParkedEffectSaysWhy(t *testing.T) {
	for _, message := range []string{strings.Repeat("é", 1000), "a" + strings.Repeat("é", 1000), "\xff is no text"} {
		c := activeCore(t, true)
		c.keep(&Delivery{Offset: 1})
		c.pump()
		c.Delivered(1, nil, entities.Errorf(entities.InvalidCommand, entities.NotApplied, "%s", message))
		c.settleNow = true
		c.Flush()
		var said recordv1.Settled
		if err := proto.Unmarshal(c.sent[0].Entries[0].Value, &said); err != nil {
			t.Fatal(err)
		}
		if said.GetParked()[0].GetError() == "" {
			t.Errorf("parked for %q, the record does not say why", message)
		}
	}
}
