package partitions

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/clock/clocktest"
	"github.com/millrace-io/millrace/partitions/core"
	"github.com/millrace-io/millrace/partitions/routing"
)

// network carries commands between the workers of a test.
type network struct {
	mu      sync.Mutex
	workers map[string]*routing.Router
	// lose is how many answers get lost on their way back, refuse how many commands do not arrive.
	lose, refuse int
	sent         []string
}

func (n *network) Dispatch(
	ctx context.Context, address string, cmd *entities.Command, hops int,
) (*entities.Reply, error) {
	n.mu.Lock()
	n.sent = append(n.sent, cmd.ID)
	to, refuse := n.workers[address], n.refuse > 0
	if refuse {
		n.refuse--
	}
	n.mu.Unlock()
	if refuse || to == nil {
		return nil, entities.PartitionMoved(0, "no connection")
	}
	reply, err := to.DispatchHere(ctx, cmd, hops)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lose > 0 {
		n.lose--
		return nil, entities.OutcomeLost(0, "the connection broke")
	}
	return reply, err
}

func (n *network) DispatchStream(context.Context, string, *entities.Stream) error {
	return errors.New("there are no streams here")
}

func (n *network) Position(ctx context.Context, address string, partition int32) (int64, error) {
	return n.workers[address].Position(ctx, partition)
}

// countingGroup counts the calls of its methods.
type countingGroup struct{ rebalanced atomic.Int32 }

func (*countingGroup) Watch(ctx context.Context, _, _ string, _ func(*broker.Table), _ func(error)) error {
	<-ctx.Done()
	return nil
}

func (*countingGroup) Refresh() {}

func (*countingGroup) Evict(context.Context, string, broker.Member) (bool, error) { return false, nil }

func (g *countingGroup) Rebalance() { g.rebalanced.Add(1) }

// cluster is two workers, a and b, on one log. The test says which of them owns its one partition.
type cluster struct {
	t    *testing.T
	net  *network
	a, b *fixture
	// group is that of b.
	group *countingGroup
}

func newCluster(t *testing.T, limits Limits) *cluster {
	t.Helper()
	c := &cluster{t: t, net: &network{workers: map[string]*routing.Router{}}, group: &countingGroup{}}
	clk := clocktest.NewManual(time.Unix(1_700_000_000, 0))
	world := simlog.New(simlog.Options{ManualAssignments: true, Clock: clk})
	c.a = start(t, setup{on: world, clock: clk, name: "a", peers: c.net, limits: limits})
	c.b = start(t, setup{on: world, clock: clk, name: "b", peers: c.net, limits: limits, group: c.group})
	c.net.workers["at-a"], c.net.workers["at-b"] = c.a.router, c.b.router
	for _, f := range []*fixture{c.a, c.b} {
		if err := world.AwaitMember(t.Context(), f.m.options.Worker, f.m.options.Worker); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

const noOwner = -1

// until advances the clock until the condition holds, no faster than the goroutines run: outside a
// synctest bubble, no faster than real time. So no patience runs out because the machine is slow.
func (c *cluster) until(what string, holds func() bool) {
	c.t.Helper()
	if c.a.bubble {
		c.a.until(what, holds) // b has the same clock
		return
	}
	began := time.Now()
	for last := began; !holds(); runtime.Gosched() {
		now := time.Now()
		if now.Sub(began) > time.Minute {
			c.t.Fatalf("%s: not within a minute; a %+v, b %+v", what, c.a.p.Status(), c.b.p.Status())
		}
		c.a.clock.Advance(now.Sub(last)) // b has the same
		last = now
	}
}

// tell gives both workers a table, in which owner (0: a, 1: b) owns the partition and the others
// follow it.
func (c *cluster) tell(owner int32, follow ...int32) { c.tellTable(c.table(owner, follow...)) }

// handOver does so with a table in which the owner waits for a release.
func (c *cluster) handOver(owner int32, follow ...int32) {
	t := c.table(owner, follow...)
	t.HandedOver = []int32{0}
	c.tellTable(t)
}

func (c *cluster) tellTable(t *broker.Table) {
	for _, f := range []*fixture{c.a, c.b} {
		f.world.Assign(f.m.options.Worker, f.m.options.Worker, broker.AssignmentEvent{Table: t})
	}
}

func (c *cluster) table(owner int32, follow ...int32) *broker.Table {
	return &broker.Table{
		Members: []broker.Member{{Name: "a", Address: "at-a", Public: "public-a"}, {Name: "b", Address: "at-b", Public: "public-b"}},
		Owners:  []int32{owner}, Standbys: [][]int32{follow},
	}
}

func (c *cluster) assign(f *fixture) {
	f.world.Assign(f.m.options.Worker, f.m.options.Worker, broker.AssignmentEvent{Assigned: []int32{0}})
}

// revoke takes the partition from a worker in order and waits until it is released.
func (c *cluster) revoke(f *fixture) {
	c.t.Helper()
	released := make(chan struct{})
	f.world.Assign(f.m.options.Worker, f.m.options.Worker, broker.AssignmentEvent{
		Revoked: []int32{0}, Done: func() { close(released) },
	})
	select {
	case <-released:
	case <-time.After(10 * time.Second):
		c.t.Fatal("the partition was not released")
	}
}

func (c *cluster) owned(f *fixture, owner int32, follow ...int32) {
	c.t.Helper()
	c.tell(owner, follow...)
	c.assign(f)
	f.await(core.Active)
}

func (c *cluster) want(f *fixture, cmd *entities.Command, text string) {
	c.t.Helper()
	reply, err := f.router.Dispatch(c.t.Context(), cmd)
	if err != nil || strings.TrimSpace(string(reply.Payload.Value)) != text {
		c.t.Fatalf("answer %v, %v; want %q", reply, err, text)
	}
}

// TestCommandsReachTheirOwner: in one hop, from each worker; a forwarded command has an id, and one
// that is not forwarded has none.
func TestCommandsReachTheirOwner(t *testing.T) {
	c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
	c.owned(c.b, 1)
	c.want(c.a, command("x", "add 1"), "1")
	c.want(c.b, command("x", "add 2"), "1 2")
	c.want(c.a, withID(command("x", "add 3"), "mine"), "1 2 3")
	c.want(c.b, withID(command("x", "add 3"), "mine"), "1 2 3")
	if len(c.net.sent) != 2 || !entities.IsRouted(c.net.sent[0]) || c.net.sent[1] != "mine" {
		t.Errorf("forwarded under the ids %q, want one that the router gave and the caller's own", c.net.sent)
	}
}

// TestOwnerIsTold: a caller that came by way of another worker learns the owner, and it is the
// owner of the entity that was called.
func TestOwnerIsTold(t *testing.T) {
	c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
	c.owned(c.b, 1)
	for _, step := range []struct {
		to   *fixture
		text string
		want string
	}{{c.a, "add 1", "public-b"}, {c.b, "add 2", ""}, {c.a, "forwardadd y", "public-b"}, {c.b, "forwardadd y", ""}} {
		reply, err := step.to.router.Dispatch(t.Context(), command("x", step.text))
		if err != nil || reply.Owner != step.want {
			t.Errorf("%s on %s: told %v, %v; want %q", step.text, step.to.m.options.Worker, reply, err, step.want)
		}
	}
	c.a.words.act = acts
	if reply, err := c.a.router.Dispatch(t.Context(), acting("forward y read")); err != nil || reply.Owner != "" {
		t.Errorf("an action of a forwarded to b: told %v, %v, and the caller has called no entity of b", reply, err)
	}
}

// TestLostAnswerIsAskedForAgain: a forwarded command whose answer is lost is sent again under its
// id, and takes effect once.
func TestLostAnswerIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
		c.owned(c.b, 1)
		c.net.lose, c.net.refuse = 1, 1
		got := make(chan error, 1)
		go func() { // received below
			reply, err := c.a.router.Dispatch(t.Context(), command("x", "add 1"))
			if err == nil && string(reply.Payload.Value) != "1" {
				err = fmt.Errorf("answer %q", reply.Payload.Value)
			}
			got <- err
		}()
		c.until("the command is sent again", func() bool { return len(got) > 0 })
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		c.want(c.b, command("x", "read"), "1")
		if n := c.a.router.Counts(); n.SentOn != 3 || n.Retried < 2 { // one more if the table came late
			t.Errorf("%+v, want three attempts", n)
		}
	})
}

// TestCallersWaitForTheNextOwner: no caller is refused while a partition is handed over, and the
// image of the follower goes on from its position.
func TestCallersWaitForTheNextOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
		c.owned(c.a, 0, 1)
		c.want(c.b, command("x", "add 1"), "1")
		c.until("b follows", func() bool {
			s := c.b.p.Status()
			return s.Followed && s.Next == 2 && s.Lag == 0
		})
		if images := c.b.m.Images(); len(images) != 1 || images[0] != 0 {
			t.Errorf("b has images %v", images)
		}
		c.tell(noOwner)
		c.revoke(c.a)
		var answers []chan error
		for i, f := range []*fixture{c.a, c.b, c.a, c.b} {
			ch := make(chan error, 1)
			answers = append(answers, ch)
			go func() { // received below
				_, err := f.router.Dispatch(t.Context(), command("x", fmt.Sprint("add w", i)))
				ch <- err
			}()
		}
		synctest.Wait()
		for _, ch := range answers {
			select {
			case err := <-ch:
				t.Fatalf("answered while no worker owned the partition: %v", err)
			default:
			}
		}
		c.tell(1, 0)
		c.assign(c.b)
		for _, ch := range answers {
			c.until("the next owner answers", func() bool { return len(ch) > 0 })
			if err := <-ch; err != nil {
				t.Errorf("a caller was refused: %v", err)
			}
		}
		if k := c.a.kinds(); k[record.Claim] != 2 || k[record.Release] != 1 || k[record.Event] != 5 {
			t.Errorf("the log holds %v", k)
		}
		c.until("a follows now", func() bool { s := c.a.p.Status(); return s.Followed && s.Lag == 0 && s.Next == 8 })
	})
}

// TestStoredImagesAreNamed: a worker that starts names the images in its store, so that the group
// assigns it what it need not read again.
func TestStoredImagesAreNamed(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	f.want(f.submit(command("x", "add 1")), "1")
	if images := f.m.Images(); len(images) != 1 || images[0] != 0 {
		t.Errorf("an owner has images %v", images)
	}
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	if images := NewManager(f.m.options).Images(); len(images) != 1 || images[0] != 1<<32 {
		t.Errorf("it has images %v", images)
	}
}

// TestASuccessorClaimsWhenItReadsTheRelease: the table names the successor before the owner has
// released the partition. Callers wait for it, no record is void, and no claim comes before the
// release.
func TestASuccessorClaimsWhenItReadsTheRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute, ReleaseTimeout: time.Minute}})
		c.owned(c.a, 0, 1)
		c.want(c.b, command("x", "add 1"), "1")
		c.until("b follows", func() bool { s := c.b.p.Status(); return s.Followed && s.Next == 2 && s.Lag == 0 })
		c.handOver(1, 0)
		c.assign(c.b)
		c.b.await(core.CatchingUp)
		answer := make(chan error, 1)
		go func() { // received below
			_, err := c.b.router.Dispatch(t.Context(), command("x", "add 2"))
			answer <- err
		}()
		synctest.Wait()
		if k := c.a.kinds(); k[record.Claim] != 1 || len(answer) != 0 {
			t.Fatalf("the successor did not wait: the log holds %v", k)
		}
		c.revoke(c.a)
		c.until("the successor answers", func() bool { return len(answer) > 0 })
		if err := <-answer; err != nil {
			t.Error(err)
		}
		if k := c.a.kinds(); k[record.Claim] != 2 || k[record.Release] != 1 || k[record.Event] != 2 {
			t.Errorf("the log holds %v", k)
		}
	})
}

// TestASuccessorDoesNotWaitForEver: an owner that does not release in time is passed over.
func TestASuccessorDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute, ReleaseTimeout: time.Second}})
		c.owned(c.a, 0, 1)
		c.want(c.b, command("x", "add 1"), "1")
		c.until("b follows", func() bool { s := c.b.p.Status(); return s.Followed && s.Next == 2 && s.Lag == 0 })
		from := c.b.clock.Now()
		c.handOver(1, 0)
		c.assign(c.b)
		c.until("the successor owns it", func() bool { return c.b.p.Status().State == core.Active })
		if took := c.b.clock.Now().Sub(from); took < time.Second {
			t.Errorf("the successor claimed after %v, and the owner had a second", took)
		}
		c.want(c.b, command("x", "add 2"), "1 2")
	})
}

// TestPatienceEnds: if no worker comes to own a partition, callers get an error in time, and the
// number of those that wait is bounded.
func TestPatienceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, Limits{MaxWaiting: 2, Limits: core.Limits{MovePatience: time.Second}})
		c.tell(noOwner)
		c.until("the table arrives", func() bool { return c.a.m.options.Table.Current() != nil })
		answers := make(chan error, 3)
		for range 3 {
			go func() { // received below
				_, err := c.a.router.Dispatch(t.Context(), command("x", "add 1"))
				answers <- err
			}()
		}
		check := func() {
			t.Helper()
			e, ok := errors.AsType[*entities.Error](<-answers)
			if !ok || e.Reason != entities.Moved || e.Outcome != entities.NotApplied {
				t.Errorf("%v, want that nothing was applied", e)
			}
		}
		check() // there is room for two
		c.a.until("patience ends", func() bool { return len(answers) == 2 })
		check()
		check()
	})
}

// TestPosition: it is after everything that is committed, and only an owner that the log confirms
// returns it.
func TestPosition(t *testing.T) {
	c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
	if _, err := c.a.p.Position(t.Context()); err == nil {
		t.Error("a worker that owns nothing says how far the log is")
	}
	c.owned(c.a, 0)
	c.want(c.a, command("x", "add 1"), "1")
	next, err := c.a.p.Position(t.Context())
	if err != nil || next != 3 { // claim, event, and the barrier that confirmed it
		t.Errorf("position %d, %v; want 3", next, err)
	}
}

// relaxed makes a read that need not be of the newest state.
func relaxed(c entities.Consistency, bound time.Duration, after ...entities.Position) *entities.Command {
	cmd := command("x", "read")
	cmd.Consistency, cmd.Bound, cmd.After = c, bound, after
	return cmd
}

// TestFollowersAnswerReads: from the image, without asking the owner, if it is fresh enough.
func TestFollowersAnswerReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
		c.owned(c.a, 0, 1)
		c.want(c.a, command("x", "add 1"), "1")
		c.until("b follows", func() bool { s := c.b.p.Status(); return s.Followed && s.Next == 2 })
		local := func() [entities.AtLeast + 1]uint64 { return c.b.p.Counts().Reads }

		c.want(c.b, relaxed(entities.Eventual, 0), "1")
		reply, err := c.a.router.Dispatch(t.Context(), command("x", "add 2"))
		if err != nil {
			t.Fatal(err)
		}
		token, err := entities.DecodeToken("app", reply.Token)
		if err != nil {
			t.Fatal(err)
		}
		c.want(c.b, relaxed(entities.AtLeast, 0, token.Positions...), "1 2")
		if n := local(); n[entities.Eventual] != 1 || n[entities.AtLeast] != 1 || len(c.net.sent) != 0 {
			t.Errorf("b answered %v itself and sent %q", n, c.net.sent)
		}

		// It is not known yet how fresh the image is: the owner answers, and is asked for its position,
		// for the next read.
		c.want(c.b, relaxed(entities.Bounded, time.Minute), "1 2")
		c.until("the owner has said how far it is, and b is there", c.b.isConfirmed)
		c.want(c.b, relaxed(entities.Bounded, time.Minute), "1 2")
		if n := local(); n[entities.Bounded] != 1 || len(c.net.sent) != 1 {
			t.Errorf("b answered %v itself and sent %q, want one of each", n, c.net.sent)
		}
		c.b.clock.Advance(2 * time.Minute)
		c.want(c.b, relaxed(entities.Bounded, time.Minute), "1 2")
		if n := local(); n[entities.Bounded] != 1 || len(c.net.sent) != 2 {
			t.Errorf("an image of two minutes ago passed for one of the last minute: %v, %q", n, c.net.sent)
		}
		c.answered(c.b)
	})
}

// TestFollowersDoNotWrite: a command that wants to write goes to the owner, with every consistency.
func TestFollowersDoNotWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
		c.owned(c.a, 0, 1)
		c.until("b follows", func() bool { s := c.b.p.Status(); return s.Followed && s.Next == 1 })
		cmd := command("x", "add 1")
		cmd.Consistency = entities.Eventual
		c.want(c.b, cmd, "1")
		c.want(c.a, command("x", "read"), "1")
		c.until("b has it too", func() bool { return c.b.p.Status().Next >= 2 })
		c.want(c.b, relaxed(entities.Eventual, 0), "1")
	})
}

// TestImageThatIsBehind: the owner answers a read whose token the image does not reach in time.
func TestImageThatIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
		c.owned(c.a, 0, 1)
		c.want(c.a, command("x", "add 1"), "1")
		c.until("b follows", func() bool { return c.b.p.Status().Followed })
		got := make(chan error, 1)
		go func() { // received below
			_, err := c.b.router.Dispatch(t.Context(), relaxed(entities.AtLeast, 0, entities.Position{Partition: 0, Next: 1000}))
			got <- err
		}()
		c.b.until("b has waited long enough", func() bool { return len(got) > 0 })
		if err := <-got; err != nil || len(c.net.sent) != 1 {
			t.Errorf("%v, sent %q; want the owner's answer", err, c.net.sent)
		}
	})
}

// TestOwnersOfRelaxedReads: an owner confirms what a relaxed read asks for, and no more: a barrier
// is a record.
func TestOwnersOfRelaxedReads(t *testing.T) {
	c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
	c.owned(c.a, 0)
	barriers := func() int { return c.a.kinds()[record.Barrier] }
	for _, step := range []struct {
		what string
		cmd  *entities.Command
		want int
	}{
		{"eventual asks for nothing", relaxed(entities.Eventual, 0), 0},
		{"nothing was confirmed yet", relaxed(entities.Bounded, time.Hour), 1},
		{"that was not long ago", relaxed(entities.Bounded, time.Hour), 1},
		{"the owner is as far", relaxed(entities.AtLeast, 0, entities.Position{Partition: 0, Next: 1}), 1},
		{"the owner is not as far as it knows", relaxed(entities.AtLeast, 0, entities.Position{Partition: 0, Next: 1000}), 2},
		{"strong is always confirmed", command("x", "read"), 3},
	} {
		c.want(c.a, step.cmd, "")
		if n := barriers(); n != step.want {
			t.Errorf("%s: %d barriers, want %d", step.what, n, step.want)
		}
	}
	c.a.clock.Advance(2 * time.Hour)
	c.want(c.a, relaxed(entities.Bounded, time.Hour), "")
	if n := barriers(); n != 4 {
		t.Errorf("a confirmation of two hours ago passed for one of the last hour: %d barriers", n)
	}
}

// isConfirmed reports whether the owner has answered how far it is, and the image on this worker
// has reached that.
func (f *fixture) isConfirmed() bool {
	last, at := f.p.replica.Confirmed(), f.p.replica.Position()
	return last != nil && at != nil && at.Next >= last.Next
}

// answered waits until no question of a worker is under way.
func (c *cluster) answered(f *fixture) {
	c.t.Helper()
	done := make(chan struct{})
	go func() { f.router.Wait(); close(done) }() // received below
	c.until("no question is under way", func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	})
}
