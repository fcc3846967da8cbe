package replica

import (
	"testing"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/clock/clocktest"
)

// TestStalenessIsUnknownUntilProven: an end of the log that the image has not reached proves
// nothing, and what was known before still counts.
func TestStalenessIsUnknownUntilProven(t *testing.T) {
	clk := clocktest.NewManual(time.Unix(1_700_000_000, 0))
	start := clk.Now()
	r := &Replica{o: Options{Clock: clk}}
	clk.Advance(10 * time.Second)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	for _, step := range []struct {
		what  string
		at    Position
		owner *Answer
		log   *Answer
		want  time.Duration
	}{
		{"the end as heard", Position{Next: 5, At: at(3)}, nil, nil, 7 * time.Second},
		{"the owner, and the image is there", Position{Next: 5, At: at(3)}, &Answer{Asked: at(4), Next: 5}, nil, 6 * time.Second},
		{"the owner is further", Position{Next: 5, At: at(3)}, &Answer{Asked: at(4), Next: 6}, nil, 7 * time.Second},
		{"the log, and the image is there", Position{Next: 5, At: at(3)}, nil, &Answer{Asked: at(8), Next: 5}, 2 * time.Second},
		{"the log is further", Position{Next: 5, At: at(3)}, nil, &Answer{Asked: at(8), Next: 6, before: at(6)}, 4 * time.Second},
		{"the newest of all", Position{Next: 5, At: at(9)}, &Answer{Asked: at(4), Next: 5}, &Answer{Asked: at(8), Next: 6, before: at(6)}, time.Second},
	} {
		r.confirmed.answer.Store(step.owner)
		r.logEnd.answer.Store(step.log)
		r.logEnd.asking.Store(true) // it is not asked again
		if age := r.Age(&step.at, entities.Eventual); age != step.want {
			t.Errorf("%s: %v, want %v", step.what, age, step.want)
		}
	}
}

// TestMeasuringDoesNotAllocate: relaxed reads are frequent.
func TestMeasuringDoesNotAllocate(t *testing.T) {
	var s Ages
	cmd := &entities.Command{Key: entities.Key{Type: "words", ID: "x"}, Consistency: entities.Bounded, Bound: time.Second}
	now := time.Unix(1_700_000_000, 0)
	s.Answered(now, cmd, ByFollower, time.Millisecond)
	if n := testing.AllocsPerRun(100, func() { s.Answered(now, cmd, ByFollower, time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
