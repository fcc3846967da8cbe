package partitions

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/partitions/core"
)

// tail is a consumer of a partition's feed that goes on after each end.
type tail struct {
	t    *testing.T
	feed *materializer.Feed
	stop context.CancelFunc
	done chan struct{}

	mu   sync.Mutex
	got  []string
	ends []*materializer.FeedError
	at   int64
}

// follow consumes the feed of a worker's partition from the beginning, until the test ends.
func (f *fixture) follow() *tail {
	f.t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(f.t.Context()))
	t := &tail{t: f.t, feed: f.p.Replica().Feed(), stop: stop, done: make(chan struct{})}
	go t.run(ctx) // ended by stop
	f.t.Cleanup(t.end)
	return t
}

func (t *tail) end() {
	t.stop()
	<-t.done
}

func (t *tail) run(ctx context.Context) {
	defer close(t.done)
	c := t.feed.Consume(materializer.Meta{}, materializer.EveryType())
	defer func() { c.Close() }()
	for {
		p, err := c.Next(ctx)
		end, over := errors.AsType[*materializer.FeedError](err)
		switch {
		case ctx.Err() != nil:
			return
		case over:
			c.Close()
			c = t.feed.Consume(c.Position(), materializer.EveryType())
		case err != nil:
			t.t.Errorf("the feed: %v", err)
			return
		}
		t.mu.Lock()
		if over {
			t.ends = append(t.ends, end)
		} else {
			for e := range p.Effective {
				t.got = append(t.got, fmt.Sprintf("%d %s %s %q", e.Offset, e.Envelope.Kind, e.Key, e.Value))
			}
			t.at = p.To.Next
		}
		t.mu.Unlock()
	}
}

// reached reports whether the consumer has everything below an offset.
func (t *tail) reached(next int64) func() bool {
	return func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.at >= next
	}
}

func (t *tail) reasons() (reasons []materializer.FeedReason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, end := range t.ends {
		reasons = append(reasons, end.Reason)
	}
	return reasons
}

// same compares what the consumer got with the log.
func (t *tail) same(f *fixture) {
	t.t.Helper()
	reader, err := f.p.image.Read(0)
	if err != nil {
		t.t.Fatal(err)
	}
	defer reader.Close()
	var want []string
	journal := materializer.NewJournal(reader, f.p.image.Address, f.p.image.TopicID, materializer.Meta{})
	for r, err := range journal.Until(t.t.Context(), f.end()) {
		if err != nil {
			t.t.Fatal(err)
		}
		for e := range r.Effective {
			want = append(want, fmt.Sprintf("%d %s %s %q", e.Offset, e.Envelope.Kind, e.Key, e.Value))
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.Equal(t.got, want) || len(want) == 0 {
		t.t.Errorf("the consumer has\n%q, the log\n%q", t.got, want)
	}
}

// reluctant is a store that does not take commits for some time.
type reluctant struct {
	materializer.Store

	refuses atomic.Bool
}

type reluctantBatch struct {
	materializer.Batch

	store *reluctant
}

var errReluctant = errors.New("the store takes nothing")

func (s *reluctant) NewBatch() materializer.Batch { return &reluctantBatch{s.Store.NewBatch(), s} }

func (b *reluctantBatch) Commit() error {
	if b.store.refuses.Load() {
		return errReluctant
	}
	return b.Batch.Commit()
}

// TestTheFeedOfAnOwner: consumers see what the store took, not what it refused; that comes after
// the next claim, once.
func TestTheFeedOfAnOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &reluctant{Store: memstore.New()}
		f := start(t, setup{world: alone, store: store})
		early := f.follow()
		f.await(core.Active)
		late := f.follow()
		f.want(f.submit(command("x", "add 1")), "1")
		f.want(f.submit(command("x", "two b")), "1 b1 b2")
		f.submit(command("y", "later x add-by-effect"))
		synctest.Wait()
		for _, c := range []*tail{early, late} {
			if !c.reached(f.end())() || len(c.reasons()) != 0 {
				t.Errorf("at %d of %d, ended %v", c.at, f.end(), c.reasons())
			}
			c.same(f)
		}
		store.refuses.Store(true)
		before := f.end()
		f.wantError(f.submit(command("x", "add 2")), entities.LostOutcome, entities.Unknown)
		synctest.Wait()
		for _, c := range []*tail{early, late} {
			if c.reached(before+1)() || !slices.Equal(c.reasons(), []materializer.FeedReason{materializer.FeedFailed}) ||
				!errors.Is(c.ends[0], errReluctant) {
				t.Errorf("at %d of %d, ends %v", c.at, before, c.ends)
			}
		}
		if next, ok := f.p.Replica().Folded(); ok {
			t.Errorf("a position %d without a role", next)
		}
		store.refuses.Store(false)
		f.until("the partition is active again", func() bool { return f.p.Status().State == core.Active })
		f.want(f.submit(command("x", "add 3")), "1 b1 b2 2 3")
		synctest.Wait()
		for _, c := range []*tail{early, late} {
			c.same(f)
		}
		if next, ok := f.p.Replica().Folded(); !ok || next != f.end() || f.p.Replica().Role() != materializer.Owning ||
			f.p.Replica().HeardEnd() != f.end() {
			t.Errorf("role %v, position %d of %d", f.p.Replica().Role(), next, f.end())
		}
	})
}

// TestTheFeedOfBothRoles: owner and follower have the same records, before and after they change
// roles; a consumer of either goes on where it was.
func TestTheFeedOfBothRoles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
		c.owned(c.a, 0, 1)
		c.until("b follows", func() bool { return c.b.p.Replica().Role() == materializer.Following })
		at := map[*fixture]*tail{c.a: c.a.follow(), c.b: c.b.follow()}
		both := func() {
			t.Helper()
			for f, tail := range at {
				c.until("the consumer is at the end", tail.reached(c.a.end()))
				if next, ok := f.p.Replica().Folded(); !ok || next != c.a.end() {
					t.Errorf("position %d of %d", next, c.a.end())
				}
				tail.same(f)
			}
		}
		for i := range 20 {
			if _, err := c.a.router.Dispatch(t.Context(), command(fmt.Sprint("x", i%3), fmt.Sprint("two ", i))); err != nil {
				t.Fatal(err)
			}
		}
		both()
		c.tell(noOwner)
		c.revoke(c.a)
		c.tell(1, 0)
		c.assign(c.b)
		c.until("b owns", func() bool { return c.b.p.Replica().Role() == materializer.Owning })
		c.until("a follows", func() bool { return c.a.p.Replica().Role() == materializer.Following })
		for i := range 20 {
			if _, err := c.b.router.Dispatch(t.Context(), command(fmt.Sprint("x", i%3), fmt.Sprint("two ", i))); err != nil {
				t.Fatal(err)
			}
		}
		both()
		for f, tail := range at {
			if reasons := tail.reasons(); !slices.Equal(reasons, []materializer.FeedReason{materializer.FeedMoved}) {
				t.Errorf("the feed of %s has ended %v: %v", f.m.options.Worker, reasons, tail.ends)
			}
		}
	})
}

// TestTheFeedOfAHaltedPartition ends with the cause, in either role.
func TestTheFeedOfAHaltedPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
		c.owned(c.a, 0, 1)
		c.until("b follows", func() bool { return c.b.p.Replica().Role() == materializer.Following })
		for _, f := range []*fixture{c.a, c.b} {
			tail := f.follow()
			c.until("the consumer is at the end", tail.reached(f.end()))
			f.p.post(inReplaced{fail: materializer.TopicReplaced("one", "other")})
			synctest.Wait()
			if len(tail.ends) != 1 || tail.ends[0].Reason != materializer.FeedHalted ||
				!errors.Is(tail.ends[0], materializer.ErrTopicReplaced) || f.p.Replica().Role() != materializer.NoRole {
				t.Errorf("%s: ends %v, role %v", f.m.options.Worker, tail.ends, f.p.Replica().Role())
			}
		}
	})
}

// TestOneWaitForBothRoles: a read that wants a position waits for it where the worker follows the
// partition and where it owns it; and either can say what the owner has confirmed.
func TestOneWaitForBothRoles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, Limits{Limits: core.Limits{MovePatience: time.Minute}})
		c.owned(c.a, 0, 1)
		c.until("b follows", func() bool { return c.b.p.Replica().Role() == materializer.Following })
		for i, f := range []*fixture{c.a, c.b} {
			reached := make(chan bool, 1)
			next := c.a.end() + 1
			go func() { reached <- f.p.Replica().Reaches(t.Context(), next) }() // received below
			synctest.Wait()
			if len(reached) > 0 {
				t.Fatalf("%s has reached what is not there", f.m.options.Worker)
			}
			if _, err := c.a.router.Dispatch(t.Context(), command("x", fmt.Sprint("add ", i))); err != nil {
				t.Fatal(err)
			}
			if !<-reached {
				t.Errorf("%s does not come to what was written", f.m.options.Worker)
			}
			confirmed, err := f.p.Replica().Confirm(t.Context())
			if last := f.p.Replica().Confirmed(); err != nil || confirmed != c.a.end() || last == nil || last.Next != confirmed {
				t.Errorf("%s: confirmed %d of %d, %v; remembered %+v", f.m.options.Worker, confirmed, c.a.end(), err, last)
			}
		}
		if c.b.p.Replica().Suspended(); c.b.p.Replica().Confirmed() != nil {
			t.Error("what was confirmed before a suspension still counts")
		}
		c.tell(noOwner, 1)
		c.revoke(c.a)
		if _, err := c.b.p.Replica().Confirm(t.Context()); err == nil {
			t.Error("a position is confirmed that no worker owns")
		}
	})
}
