package partitions

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
)

// TestALogThatTakesNothing: a log whose disk is full refuses each append, the claim as well. The
// first caller gets an unknown outcome; later ones get, in time, the error that there is no owner,
// and why; and the partition serves again when there is room.
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
