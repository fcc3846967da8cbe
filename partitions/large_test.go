package partitions

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/partitions/core"
)

// TestLargeCommandsTogether: commands that are each below the limit do not together end the
// ownership, on a log of one process and on one that several share. Before, about a third of the
// commands failed and the partition was claimed again each time.
func TestLargeCommandsTogether(t *testing.T) {
	for _, world := range []simlog.Options{{SingleProcess: true}, {}} {
		for name, c := range map[string]struct{ callers, bytes int }{
			"16 callers, 300 KB": {16, 300 << 10}, "4 callers, 800 KB": {4, 800 << 10}, "64 callers, 20 KB": {64, 20 << 10},
		} {
			f := start(t, setup{world: world})
			f.await(core.Active)
			const rounds = 4
			for range rounds {
				var answers []<-chan answer
				for i := range c.callers {
					answers = append(answers, f.later(command(fmt.Sprint("e", i), fmt.Sprint("big ", c.bytes))))
				}
				for _, a := range answers {
					if a := f.receive(a); a.err != nil {
						t.Fatalf("%s, single process %v: %v", name, world.SingleProcess, a.err)
					}
				}
			}
			kinds := f.kinds()
			if kinds[record.Claim] != 1 || kinds[record.Event] != rounds*c.callers {
				t.Errorf("%s, single process %v: %d claims, %d events",
					name, world.SingleProcess, kinds[record.Claim], kinds[record.Event])
			}
			_ = f.stop()
		}
	}
}

// TestLargeEffectsTogether: 64 effects are under way at a time, each of which stores 800 KB with
// the answer that is kept for it.
func TestLargeEffectsTogether(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	for i := range 64 {
		f.want(f.submit(command("source", fmt.Sprintf("quiet t%d big %d", i, 400<<10))), "ok")
	}
	if err := f.m.AwaitQuiet(t.Context()); err != nil {
		t.Fatal(err)
	}
	if kinds := f.kinds(); kinds[record.Claim] != 1 || kinds[record.Event] != 64 {
		t.Errorf("%d claims, %d effects arrived", kinds[record.Claim], kinds[record.Event])
	}
	f.want(f.submit(command("bystander", "add x")), "x")
}

// TestALimitThatIsLoweredFencesOnce: an operator lowers the topic's limit below what the worker
// needs. The first refused append makes the worker check the topic: it gives the partition up and
// reports why, instead of claiming it again and again, and takes it when the topic is right.
func TestALimitThatIsLoweredFencesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		f.want(f.submit(command("a", "add x")), "x")
		f.world.Limit(topic, 100<<10)
		f.wantError(f.submit(command("a", fmt.Sprint("big ", 200<<10))), entities.Moved, entities.NotApplied)
		f.await(core.Standby)
		a := f.submit(command("a", "add y"))
		f.wantError(a, entities.Moved, entities.NotApplied)
		if !strings.Contains(a.err.Error(), "takes 102400 bytes at a time") {
			t.Errorf("the caller is told %v", a.err)
		}
		if n := f.kinds()[record.Claim]; n > 2 {
			t.Errorf("the partition was claimed %d times", n)
		}
		f.world.Limit(topic, 1<<20)
		f.until("the partition is taken again", func() bool { return f.p.Status().State == core.Active })
		f.want(f.submit(command("a", "read")), "x")
	})
}
