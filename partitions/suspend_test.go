package partitions

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/partitions/core"
)

// TestASuspendedOwnerAsksTheLog: after a suspension of the machine an owner claims its partition
// again before it answers, goes on with the log's time, and the timers that came due in between
// fire.
func TestASuspendedOwnerAsksTheLog(t *testing.T) {
	for name, s := range map[string]setup{"shared log": {}, "log of this process": {world: alone}} {
		t.Run(name, bubbled(func(t *testing.T) {
			f := start(t, s)
			f.await(core.Active)
			f.want(f.submit(command("a", "timer t 1h add late")), "set")
			f.want(f.submit(command("b", "add x")), "x")

			f.clock.Suspend(2 * time.Hour)
			read := command("b", "read")
			read.Consistency, read.Bound = entities.Bounded, 24*time.Hour // the bound alone would let what was known before pass
			answer := f.later(read)
			claims := func() int { return f.kinds()[record.Claim] }
			f.until("the answer", func() bool { return len(answer) > 0 })
			f.want(f.receive(answer), "x")
			if n, alarms := claims(), f.p.Counts().Alarms; n != 2 || alarms != 1 {
				t.Fatalf("%d claims, %d alarms; want two claims, and one alarm about the jump", n, alarms)
			}
			f.fired(1)
			f.want(f.submit(command("a", "read")), "late")
			if n := claims(); n != 2 {
				t.Errorf("%d claims at the end, want no more", n)
			}
			if err := f.stop(); err != nil { // only the loop reads the fold
				t.Fatal(err)
			}
			begin := f.world.Records(partition0)[0].Time.UnixNano()
			if passed := time.Duration(f.p.fold.Meta().LogTime - begin); passed < 2*time.Hour {
				t.Errorf("log time is %v after the first claim, want the suspension in it", passed)
			}
		}))
	}
}

// TestASuspendedFollowerAsksTheOwner: after a suspension, no read is answered by what a follower
// knew of the owner before.
func TestASuspendedFollowerAsksTheOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
		c.owned(c.a, 0, 1)
		c.want(c.a, command("x", "add 1"), "1")
		c.until("b follows", func() bool { s := c.b.p.Status(); return s.Followed && s.Next == 2 })
		c.want(c.b, relaxed(entities.Bounded, time.Minute), "1")
		c.until("the owner has said how far it is, and b is there", c.b.isConfirmed)
		c.answered(c.b)
		sent := len(c.net.sent)
		c.want(c.b, relaxed(entities.Bounded, time.Minute), "1")
		if len(c.net.sent) != sent {
			t.Fatalf("b sent %q; want its own answer", c.net.sent)
		}
		c.b.clock.Suspend(2 * time.Minute)
		got := make(chan error, 1)
		go func() { // received below
			_, err := c.b.router.Dispatch(t.Context(), relaxed(entities.Bounded, time.Minute))
			got <- err
		}()
		c.until("the owner has claimed again, and answered", func() bool { return len(got) > 0 })
		if err := <-got; err != nil || len(c.net.sent) != sent+1 {
			t.Errorf("%v, sent %q; want the owner's answer", err, c.net.sent)
		}
	})
}
