package definitions_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/internal/clock/clocktest"
	"github.com/millrace-io/millrace/internal/definitions"
	"github.com/millrace-io/millrace/tests/kit"
)

// rollout is a process that rolls out, with rows that are ready when the test says so.
type rollout struct {
	*runtime
	*definitions.Definitions

	clock *clocktest.Manual

	mu    sync.Mutex
	ready map[string]bool
}

// rollOut starts a process.
func rollOut(t *testing.T, more ...func(*definitions.Options)) *rollout {
	t.Helper()
	p := &rollout{runtime: newRuntime(t), ready: map[string]bool{}}
	p.clock = clocktest.NewManual(p.now)
	p.Definitions = newDefinitions(p.runtime, append(more, func(o *definitions.Options) {
		o.Clock = p.clock
		o.Ready = func(_ context.Context, v *definitions.View) (bool, string) {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.ready[v.Name+" "+v.Version], "3 of 4 partitions are live"
		}
	})...)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return p
}

// isReady makes rows ready, or not.
func (p *rollout) isReady(version string, ready bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready[version] = ready
}

// pass lets time pass for the process and for the log, in steps in which both loops come round.
func (p *rollout) pass(d time.Duration) {
	p.runtime.mu.Lock()
	p.now = p.now.Add(d)
	p.runtime.mu.Unlock()
	p.t.Helper()
	kit.Await(p.t, "both loops wait", func() bool { return p.clock.Waiting() >= 2 })
	p.clock.Advance(d)
	kit.Await(p.t, "both loops wait again", func() bool { return p.clock.Waiting() >= 2 })
}

// stages is what the process knows of orders.
func (p *rollout) stages() string {
	r, _ := p.Current()
	var text string
	for _, v := range r.Views {
		if v.Name == "orders" {
			text += fmt.Sprintf("%s %v; ", v.Version, v.Stage)
		}
	}
	return text
}

func (p *rollout) mustBe(want string) {
	p.t.Helper()
	kit.Await(p.t, want, func() bool { return p.stages() == want })
}

// TestRollOut: a version is promoted when it is ready, the one before is kept as long as the file
// says, and what was rolled back stays so.
func TestRollOut(t *testing.T) {
	p := rollOut(t)
	apply(t, p.Definitions, files(t), definitions.ApplyOptions{})
	p.pass(time.Second)
	p.mustBe("1 STAGE_BUILDING; ")
	kit.Await(t, "progress", func() bool {
		return p.Progress(definitions.ID{Name: "orders", Version: "1"}) == "3 of 4 partitions are live"
	})
	// The rows of orders are there, those that they look up are not.
	p.isReady("orders 1", true)
	p.pass(time.Second)
	kit.Await(t, "progress", func() bool {
		const want = "it looks up rows of customers, which are not ready"
		return p.Progress(definitions.ID{Name: "orders", Version: "1"}) == want
	})
	p.isReady("customers 1", true)
	p.pass(time.Second)
	p.mustBe("1 STAGE_PROMOTED; ")

	apply(t, p.Definitions, ordersAt(t, 2), definitions.ApplyOptions{})
	p.isReady("orders 2", true)
	p.pass(time.Second)
	p.mustBe("1 STAGE_KEPT; 2 STAGE_PROMOTED; ")
	from, to, err := p.Rollback(t.Context(), definitions.ID{Name: "orders"})
	if err != nil || from != "2" || to != "1" {
		t.Fatalf("rolled back from %s to %s (%v), want from 2 to 1", from, to, err)
	}
	for range 3 {
		p.pass(time.Second)
	}
	p.mustBe("1 STAGE_PROMOTED; 2 STAGE_KEPT; ")
	if _, err := p.Promote(t.Context(), definitions.ID{Name: "orders", Version: "2"}, false); err != nil {
		t.Fatal(err)
	}
	p.mustBe("1 STAGE_KEPT; 2 STAGE_PROMOTED; ")
	p.pass(23 * time.Hour)
	p.mustBe("1 STAGE_KEPT; 2 STAGE_PROMOTED; ")
	p.pass(2 * time.Hour)
	p.mustBe("2 STAGE_PROMOTED; ")
}

// TestPromoteWaits: an operator cannot promote what is not ready, unless by force, and then the
// history names what was missing.
func TestPromoteWaits(t *testing.T) {
	p := rollOut(t)
	manual := files(t, "  key: [order_id]", "  key: [order_id]\n  rollout: {promote: manual}")
	apply(t, p.Definitions, manual, definitions.ApplyOptions{})
	_, err := p.Promote(t.Context(), definitions.ID{Name: "orders", Version: "1"}, false)
	mustRefuse(t, err, codes.FailedPrecondition,
		"orders version 1 is not ready: 3 of 4 partitions are live: wait, or use --force")
	p.isReady("customers 1", true)
	p.isReady("orders 1", true)
	for range 3 {
		p.pass(time.Second)
	}
	p.mustBe("1 STAGE_BUILDING; ")
	p.isReady("orders 1", false)
	missing, err := p.Promote(t.Context(), definitions.ID{Name: "orders", Version: "1"}, true)
	if err != nil || missing != "3 of 4 partitions are live" {
		t.Errorf("missing %q (%v), want what is not ready", missing, err)
	}
	history, err := p.History(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	last := history[len(history)-1]
	const want = "promoted without waiting for 3 of 4 partitions are live"
	if last.GetName() != "orders" || last.GetWhat() != want || last.GetBy() != "ann" {
		t.Errorf("the last change is %v, want %s", last, want)
	}
}

// TestANewVersionMayOvertake: the version that is ready first is promoted, and lower ones that were
// never in force are dropped.
func TestANewVersionMayOvertake(t *testing.T) {
	p := rollOut(t)
	apply(t, p.Definitions, files(t), definitions.ApplyOptions{})
	apply(t, p.Definitions, ordersAt(t, 2), definitions.ApplyOptions{})
	p.isReady("customers 1", true)
	p.isReady("orders 2", true)
	p.pass(time.Second)
	p.mustBe("2 STAGE_PROMOTED; ")
}
