package partitions

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/clock"
)

// measuredOf returns what one worker measured of one consistency.
func measuredOf(f *fixture, c entities.Consistency, by Server) Staleness {
	for _, s := range f.m.Staleness() {
		if s.Consistency == c && s.By == by {
			return s
		}
	}
	return Staleness{}
}

// TestStalenessOfFollowers: what is measured of bounded reads keeps their bound, and an image in which nothing happens does not
// seem to age for longer than it takes to ask the log.
func TestStalenessOfFollowers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, Limits{MovePatience: time.Minute})
		c.owned(c.a, 0, 1)
		c.want(c.a, command("x", "add 1"), "1")
		c.until("b follows", func() bool { s := c.b.p.Status(); return s.Followed && s.Next == 2 })

		c.want(c.b, relaxed(entities.Bounded, time.Minute), "1") // the owner's, who is asked for the next time
		c.until("the owner has said how far it is, and b is there", func() bool {
			probe, image := c.b.p.probe.Load(), c.b.p.image.Load()
			return probe != nil && image != nil && image.next >= probe.next
		})
		for range 5 {
			c.b.clock.Advance(7 * time.Second)
			c.want(c.b, relaxed(entities.Bounded, time.Minute), "1")
		}
		s := measuredOf(c.b, entities.Bounded, ByFollower)
		if s.EntityType != "words" || s.Ages.Count == 0 || s.Promised != time.Minute || s.Largest > s.Promised || s.Largest < 7*time.Second {
			t.Errorf("measured %v to %v of %d answers of %q, promised %v", s.Recent.Quantile(0), s.Largest, s.Ages.Count, s.EntityType, s.Promised)
		}

		c.until("nobody asks", func() bool { return !c.b.p.probing.Load() })
		c.b.clock.Advance(time.Hour)
		c.want(c.b, relaxed(entities.Eventual, 0), "1")
		if s := measuredOf(c.b, entities.Eventual, ByFollower); s.Largest < time.Hour || s.Promised != 0 {
			t.Errorf("nobody has heard of the log for an hour, measured %v, promised %v", s.Largest, s.Promised)
		}
		c.until("the log has said where it ends", func() bool { return c.b.p.logEnd.Load() != nil })
		c.b.clock.Advance(time.Hour) // what was measured before is forgotten
		c.until("the log is asked again", func() bool {
			c.want(c.b, relaxed(entities.Eventual, 0), "1")
			s := measuredOf(c.b, entities.Eventual, ByFollower)
			return s.Recent.Quantile(0) < time.Minute
		})
	})
}

// TestStalenessIsUnknownUntilProven: an end of the log that the image has not reached says nothing, and what was known before it
// counts on.
func TestStalenessIsUnknownUntilProven(t *testing.T) {
	clk := clock.NewManual(time.Unix(1_700_000_000, 0))
	start := clk.Now()
	p := &Partition{clock: clk}
	clk.Advance(10 * time.Second)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	for _, step := range []struct {
		what  string
		image image
		owner *probe
		log   *logEnd
		want  time.Duration
	}{
		{"the end as heard", image{next: 5, at: at(3)}, nil, nil, 7 * time.Second},
		{"the owner, and the image is there", image{next: 5, at: at(3)}, &probe{asked: at(4), next: 5}, nil, 6 * time.Second},
		{"the owner is further", image{next: 5, at: at(3)}, &probe{asked: at(4), next: 6}, nil, 7 * time.Second},
		{"the log, and the image is there", image{next: 5, at: at(3)}, nil, &logEnd{asked: at(8), next: 5}, 2 * time.Second},
		{"the log is further", image{next: 5, at: at(3)}, nil, &logEnd{asked: at(8), next: 6, before: at(6)}, 4 * time.Second},
		{"the newest of all", image{next: 5, at: at(9)}, &probe{asked: at(4), next: 5}, &logEnd{asked: at(8), next: 6, before: at(6)}, time.Second},
	} {
		p.probe.Store(step.owner)
		p.logEnd.Store(step.log)
		p.askingEnd.Store(true) // nobody is asked
		if age := p.age(&step.image, entities.Eventual); age != step.want {
			t.Errorf("%s: %v, want %v", step.what, age, step.want)
		}
	}
}

// TestStalenessOfOwners: it is as old as the log's last acknowledgement, and 0 where nobody else can write.
func TestStalenessOfOwners(t *testing.T) {
	c := newCluster(t, Limits{MovePatience: time.Minute})
	c.owned(c.a, 0)
	c.want(c.a, command("x", "add 1"), "1")
	c.a.clock.Advance(2 * time.Hour)
	c.want(c.a, relaxed(entities.Eventual, 0), "1")
	if s := measuredOf(c.a, entities.Eventual, ByOwner); s.Ages.Count != 1 || s.Largest < 2*time.Hour || s.Largest > 2*time.Hour+time.Minute {
		t.Errorf("measured %v of %d answers, the log was silent for two hours", s.Largest, s.Ages.Count)
	}
	c.want(c.a, relaxed(entities.Bounded, time.Hour), "1") // confirmed by a barrier
	if s := measuredOf(c.a, entities.Bounded, ByOwner); s.Ages.Count != 1 || s.Largest > time.Minute || s.Promised != time.Hour {
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
	alone.await(Active)
	alone.clock.Advance(time.Hour)
	if _, err := alone.router.Dispatch(t.Context(), relaxed(entities.Eventual, 0)); err != nil {
		t.Fatal(err)
	}
	if s := measuredOf(alone, entities.Eventual, ByOwner); s.Ages.Count != 1 || s.Largest != 0 {
		t.Errorf("measured %v of %d answers where nobody else can write", s.Largest, s.Ages.Count)
	}
}

func TestMeasuringDoesNotAllocate(t *testing.T) {
	var s staleness
	cmd := relaxed(entities.Bounded, time.Second)
	now := time.Unix(1_700_000_000, 0)
	s.answered(now, cmd, ByFollower, time.Millisecond)
	if n := testing.AllocsPerRun(100, func() { s.answered(now, cmd, ByFollower, time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
