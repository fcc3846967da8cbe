package partitions

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/partitions/core"
	"github.com/millrace-io/millrace/partitions/replica"
)

// measuredOf returns one worker's measurements for one consistency.
func measuredOf(f *fixture, c entities.Consistency, by replica.Server) replica.Staleness {
	for _, s := range f.m.Staleness() {
		if s.Consistency == c && s.By == by {
			return s
		}
	}
	return replica.Staleness{}
}

// TestStalenessOfFollowers: the measured ages of bounded reads keep their bound, and an image of a
// partition without writes does not seem to age for longer than it takes to ask the log.
func TestStalenessOfFollowers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
		c.owned(c.a, 0, 1)
		c.want(c.a, command("x", "add 1"), "1")
		c.until("b follows", func() bool { s := c.b.p.Status(); return s.Followed && s.Next == 2 })

		c.want(c.b, relaxed(entities.Bounded, time.Minute), "1") // the owner answers, and is asked for the next time
		c.until("the owner has said how far it is, and b is there", c.b.isConfirmed)
		for range 5 {
			c.b.clock.Advance(7 * time.Second)
			c.want(c.b, relaxed(entities.Bounded, time.Minute), "1")
		}
		s := measuredOf(c.b, entities.Bounded, replica.ByFollower)
		if s.EntityType != "words" || s.Ages.Count == 0 || s.Promised != time.Minute || s.Largest > s.Promised ||
			s.Largest < 7*time.Second {
			t.Errorf("measured %v to %v of %d answers of %q, promised %v",
				s.Recent.Quantile(0), s.Largest, s.Ages.Count, s.EntityType, s.Promised)
		}

		c.answered(c.b)
		c.b.clock.Advance(time.Hour)
		c.want(c.b, relaxed(entities.Eventual, 0), "1")
		if s := measuredOf(c.b, entities.Eventual, replica.ByFollower); s.Largest < time.Hour || s.Promised != 0 {
			t.Errorf("the log has not answered for an hour, measured %v, promised %v", s.Largest, s.Promised)
		}
		c.until("the log has said where it ends", func() bool { return c.b.p.replica.LogEnd() != nil })
		c.b.clock.Advance(time.Hour) // what was measured before is forgotten
		c.until("the log is asked again", func() bool {
			c.want(c.b, relaxed(entities.Eventual, 0), "1")
			s := measuredOf(c.b, entities.Eventual, replica.ByFollower)
			return s.Recent.Quantile(0) < time.Minute
		})
	})
}

// TestStalenessOfOwners: it is the age of the log's last acknowledgement, and 0 if no other worker
// can write.
func TestStalenessOfOwners(t *testing.T) {
	c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
	c.owned(c.a, 0)
	c.want(c.a, command("x", "add 1"), "1")
	c.a.clock.Advance(2 * time.Hour)
	c.want(c.a, relaxed(entities.Eventual, 0), "1")
	if s := measuredOf(c.a, entities.Eventual, replica.ByOwner); s.Ages.Count != 1 || s.Largest < 2*time.Hour ||
		s.Largest > 2*time.Hour+time.Minute {
		t.Errorf("measured %v of %d answers, the log was silent for two hours", s.Largest, s.Ages.Count)
	}
	c.want(c.a, relaxed(entities.Bounded, time.Hour), "1") // confirmed by a barrier
	if s := measuredOf(c.a, entities.Bounded, replica.ByOwner); s.Ages.Count != 1 || s.Largest > time.Minute ||
		s.Promised != time.Hour {
		t.Errorf("measured %v of %d answers, just confirmed; promised %v", s.Largest, s.Ages.Count, s.Promised)
	}
	c.want(c.a, relaxed(entities.AtLeast, 0, entities.Position{Partition: 0, Next: 1}), "1")
	c.want(c.a, command("x", "read"), "1")
	write := command("x", "add 2")
	write.Consistency = entities.Eventual
	c.want(c.a, write, "1 2")
	if all := c.a.m.Staleness(); len(all) != 3 {
		t.Errorf("%d kinds of answers were measured, want those of the three relaxed reads: %+v", len(all), all)
	}

	alone := start(t, setup{world: simlog.Options{SingleProcess: true}})
	alone.await(core.Active)
	alone.clock.Advance(time.Hour)
	if _, err := alone.router.Dispatch(t.Context(), relaxed(entities.Eventual, 0)); err != nil {
		t.Fatal(err)
	}
	if s := measuredOf(alone, entities.Eventual, replica.ByOwner); s.Ages.Count != 1 || s.Largest != 0 {
		t.Errorf("measured %v of %d answers where no other worker can write", s.Largest, s.Ages.Count)
	}
}
