package partitions

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
)

// TestCallersDoNotWaitForAnOwnerForEver: in whatever state a partition stays that does not become active, a caller waits for as long as
// the limits say, and is told why.
func TestCallersDoNotWaitForAnOwnerForEver(t *testing.T) {
	for name, c := range map[string]struct {
		stay func(*core)
		want []string
	}{
		"its log is being read": {func(*core) {}, []string{"catching up", "no error so far"}},
		"its log cannot be read": {func(c *core) {
			c.Failed(c.incarnation, errLog)
		}, []string{"catching up", errLog.Error()}},
		"its claim is not answered": {func(c *core) {
			c.CaughtUp(record.Owner{}, 0, 7)
		}, []string{"claiming"}},
		"its claim is refused": {func(c *core) {
			c.CaughtUp(record.Owner{}, 0, 7)
			c.ClaimAcked(c.incarnation, broker.AppendResult{Err: errLog})
			c.Waited(c.incarnation)
			c.CaughtUp(record.Owner{}, 0, 8)
		}, []string{"claiming", "append claim: " + errLog.Error()}},
		"another worker claims it again and again": {func(c *core) {
			c.CaughtUp(record.Owner{}, 0, 7)
			c.ClaimAcked(c.incarnation, broker.AppendResult{})
			c.ReadBack(c.incarnation, record.Owner{Epoch: 2, Nonce: 8}, 2)
		}, []string{"catching up", errClaimLost.Error()}},
		"it passes offsets": {func(c *core) {
			c.floor = 100
			c.CaughtUp(record.Owner{}, 0, 7)
			c.ClaimAcked(c.incarnation, broker.AppendResult{})
			c.ReadBack(c.incarnation, record.Owner{Epoch: 1, Nonce: 7}, 1)
		}, []string{"passing"}},
		"it was fenced": {func(c *core) {
			c.CaughtUp(record.Owner{}, 0, 7)
			c.ClaimAcked(c.incarnation, broker.AppendResult{})
			c.ReadBack(c.incarnation, record.Owner{Epoch: 1, Nonce: 7}, 1)
			c.fence("the log did not take an append", false)
		}, []string{"catching up", "the log did not take an append"}},
	} {
		core := newCore(3, "w", Limits{}.WithDefaults(), false)
		core.Assigned(false)
		c.stay(core)
		early := newCall(command("a", "read"))
		core.Submitted(early)
		core.now.Mono += core.limits.MovePatience - time.Second
		late := newCall(command("a", "read"))
		core.Submitted(late)
		core.Ticked()
		if early.finished {
			t.Errorf("%s: the caller was sent away before his time", name)
		}
		core.now.Mono += time.Second
		core.Ticked()
		if !early.finished || late.finished || len(core.waiting) != 1 {
			t.Errorf("%s: after %s the call has an answer: %v, one that waits for a second: %v", name, core.limits.MovePatience, early.finished, late.finished)
			continue
		}
		e := early.err
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

// TestALogThatTakesNothing: a log whose disk is full refuses each append, the claim as well. The first caller does not know what became
// of his command; those who come later are told in time that there is no owner, and why; and all is well again when there is room.
func TestALogThatTakesNothing(t *testing.T) {
	for name, single := range map[string]bool{"embedded": true, "with other writers": false} {
		t.Run(name, bubbled(func(t *testing.T) {
			f := start(t, setup{world: simlog.Options{Manual: true, SingleProcess: single}})
			f.activate()
			refuse := func() {
				for _, op := range f.world.Pending() {
					f.world.Fail(op.ID, errLog)
					f.world.Discard(op.ID)
				}
			}
			first := f.later(command("a", "add x"))
			f.op(1)
			refuse()
			f.wantError(f.receive(first), entities.LostOutcome, entities.Unknown)
			began := f.clock.Now()
			answers := make(chan error, 2)
			for _, id := range []string{"", "X"} {
				go func() { // received below
					_, err := f.router.Dispatch(t.Context(), withID(command("a", "add "+id), id))
					answers <- err
				}()
			}
			synctest.Wait() // the loop has them
			f.until("callers are answered", func() bool {
				refuse()
				return len(answers) == 2
			})
			if waited := f.clock.Now().Sub(began); waited > f.p.limits.MovePatience+2*time.Second {
				t.Errorf("they waited for %s", waited)
			}
			told := map[entities.OutcomeClass]bool{}
			for range 2 {
				e := entities.AsError(<-answers)
				told[e.Outcome] = true
				if e.Reason != entities.Unavailable || !strings.Contains(e.Message, errLog.Error()) {
					t.Errorf("a caller is told %s: %s", e.Outcome, e.Message)
				}
			}
			if !told[entities.NotApplied] || !told[entities.Unknown] {
				t.Errorf("the outcomes are %v; want not applied without an id, unknown with one", told)
			}
			if _, err := f.p.Position(t.Context()); entities.AsError(err).Outcome != entities.NotApplied {
				t.Errorf("the position is asked for: %v", err)
			}
			again := f.later(command("a", "read"))
			f.until("there is room again", func() bool {
				f.world.DeliverAll()
				return len(again) == 1
			})
			f.want(<-again, "")
		}))
	}
}

// TestAPositionIsNotWaitedForForEver: the log has stopped answering.
func TestAPositionIsNotWaitedForForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: simlog.Options{Manual: true}})
		f.activate()
		answer := make(chan error, 1)
		go func() { // received below
			_, err := f.p.Position(t.Context())
			answer <- err
		}()
		f.op(1)
		f.until("it is answered", func() bool { return len(answer) == 1 })
		f.wantError(answersOf(<-answer), entities.Moved, entities.NotApplied)
	})
}

func answersOf(err error) answer { return answer{err: err} }
