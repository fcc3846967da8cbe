package materializer_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
)

// replica is a worker's image of the partition, with a feed.
type replica struct {
	*story

	image *materializer.Image
	feeds *materializer.Feeds
	feed  *materializer.Feed
	// The rest is there while the worker has a role. A follower reads at most so many records at a
	// time.
	role     materializer.Role
	fold     *materializer.Fold
	tap      *materializer.Tap
	follower *materializer.Follower
	at       int64
	most     int
	// cached are the records of the log, lent those that the follower got last.
	cached, lent []broker.Record
}

func newReplica(t testing.TB, seed uint64, bytes int) *replica {
	t.Helper()
	r := &replica{story: newStory(t, seed), feeds: materializer.NewFeeds(bytes)}
	r.image = &materializer.Image{
		Log: r.log, Journal: journal, TopicID: "topic", Store: memstore.New(), Address: address,
		Rebuilds: make(chan struct{}, 1),
	}
	r.feed = r.feeds.Feed(r.image)
	r.claim()
	return r
}

// begin gives the worker a role, at the store's position.
func (r *replica) begin(role materializer.Role) {
	r.t.Helper()
	meta, _, err := r.image.View().Meta()
	if err != nil {
		r.t.Fatal(err)
	}
	r.fold = materializer.NewFold(address, "topic", meta)
	r.role, r.at = role, meta.Next
	r.follower = materializer.NewFollower(r, r.image.Store, r.fold)
	r.tap = r.feed.Open(r.fold, role)
}

// leave takes the role away.
func (r *replica) leave(reason materializer.FeedReason) {
	if r.role != materializer.NoRole {
		r.tap.End(reason, errors.New("the test"))
		r.role = materializer.NoRole
	}
}

// Next gives the follower a few records.
func (r *replica) Next(context.Context) (broker.Batch, error) {
	end := r.end()
	records := slices.Clone(r.records()[r.at:min(r.at+int64(r.most), end)])
	r.at += int64(len(records))
	for i := range records {
		records[i].Value = slices.Clone(records[i].Value)
	}
	for i := range r.lent { // the memory of a batch is used again
		for j := range r.lent[i].Value {
			r.lent[i].Value[j] = '?'
		}
	}
	r.lent = records
	return broker.Batch{Records: records, Next: r.at, End: end}, nil
}

func (r *replica) Close() error { return nil }

// turn folds a few records into the store, and publishes them.
func (r *replica) turn(most int) {
	r.t.Helper()
	if r.at >= r.end() || r.role == materializer.NoRole {
		return
	}
	if r.most = most; r.role == materializer.Following {
		if _, err := r.follower.Follow(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
	} else if err := r.take(most).Commit(); err != nil {
		r.t.Fatal(err)
	}
	r.tap.Publish()
}

// records are those of the log.
func (r *replica) records() []broker.Record {
	if int64(len(r.cached)) != r.end() {
		r.cached = r.world.Records(journal)
	}
	return r.cached
}

// take folds a few records as an owner does, into a batch that is not committed.
func (r *replica) take(most int) materializer.Batch {
	r.t.Helper()
	batch := r.image.Store.NewBatch()
	for ; most > 0 && r.at < r.end(); most-- {
		if err := ownedInto(r.fold, batch, &r.records()[r.at]); err != nil {
			r.t.Fatal(err)
		}
		r.at++
	}
	if err := r.fold.WriteMeta(batch); err != nil {
		r.t.Fatal(err)
	}
	return batch
}

// reference is what a journal from the beginning calls effective.
func (r *replica) reference() (entries []materializer.Entry, meta materializer.Meta) {
	r.t.Helper()
	reader, err := r.log.Read(journal, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer reader.Close()
	j := materializer.NewJournal(reader, address, "topic", materializer.Meta{})
	for read, err := range j.Until(r.t.Context(), r.end()) {
		if err != nil {
			r.t.Fatal(err)
		}
		for e := range read.Effective {
			entries = append(entries, e.Clone())
		}
	}
	return entries, j.Meta()
}

// taken is what a consumer got of some types, between two positions.
type taken struct {
	from, to int64
	types    []string
	lines    []string
}

// reading is a consumer of the tests, and what it got.
type reading struct {
	feed *materializer.Feed
	*materializer.Consumer
	types []string
	got   []taken
	// live and log count the pieces by where they came from; over and back how often that changed.
	live, log, over, back int
	wasLive               bool
}

func consume(feed *materializer.Feed, from materializer.Meta, types ...string) *reading {
	c := &reading{feed: feed}
	c.again(from, types)
	return c
}

// again makes another consumer go on.
func (c *reading) again(from materializer.Meta, types []string) {
	old := c.Consumer
	c.types, c.Consumer = types, c.feed.Consume(from, typesOf(types))
	if old != nil {
		old.Close()
	}
}

func typesOf(names []string) materializer.Types {
	if slices.Contains(names, "*") {
		return materializer.EveryType()
	}
	return materializer.TypesOf(names...)
}

func shown(e *materializer.Entry) string {
	env := &e.Envelope
	return fmt.Sprintf("%d %s %q %s %d/%d %d %s %q %x %x", e.Offset, e.Key, e.Value, env.Kind, env.Index, env.Size(),
		env.Sequence, env.CommandID, env.Answer, env.Target, env.Timer)
}

// next takes one piece.
func (c *reading) next(ctx context.Context) error {
	p, err := c.Next(ctx)
	if err != nil {
		return err
	}
	now := taken{from: p.From.Next, to: p.To.Next, types: c.types}
	for e := range p.Effective {
		now.lines = append(now.lines, shown(e))
	}
	c.got = append(c.got, now)
	live := p.Live()
	switch {
	case live && len(c.got) > 1 && !c.wasLive:
		c.over++
	case !live && len(c.got) > 1 && c.wasLive:
		c.back++
	}
	if c.wasLive = live; live {
		c.live++
	} else {
		c.log++
	}
	return nil
}

// compare returns how what a consumer got differs from the log.
func (c *reading) compare(want []materializer.Entry, end materializer.Meta) error {
	next, i := int64(0), 0
	for _, got := range c.got {
		if got.from != next {
			return fmt.Errorf("a piece goes from %d to %d, and the one before to %d", got.from, got.to, next)
		}
		types := typesOf(got.types)
		var lines []string
		for ; i < len(want) && want[i].Offset < got.to; i++ {
			if types.Has(want[i].Key) {
				lines = append(lines, shown(&want[i]))
			}
		}
		if !slices.Equal(lines, got.lines) {
			return fmt.Errorf("from %d to %d, types %v: %s", got.from, got.to, got.types, firstDifference(got.lines, lines))
		}
		next = got.to
	}
	if at := c.Position(); at.Next != end.Next || at.Owner != end.Owner || at.Ordinal != end.Ordinal ||
		at.LogTime != end.LogTime || at.Floor != end.Floor || at.TopicID != end.TopicID {
		return fmt.Errorf("the position is %+v, want %+v", at, end)
	}
	return nil
}

// someTypes are random entity types; "*" is every one, and there may be none.
func someTypes(rnd *rand.Rand) (types []string) {
	for _, name := range []string{"cart", "counter", "unknown", "*"} {
		if rnd.IntN(3) == 0 {
			types = append(types, name)
		}
	}
	return types
}

// TestFeedIsTheJournal: whatever the role, the lag, the memory and the types, consumers get what a
// journal from the beginning calls effective: no record is left out, none comes twice.
func TestFeedIsTheJournal(t *testing.T) {
	var live, log, over, back, ended int
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		limit := 1 << (8 + rnd.IntN(12))
		r := newReplica(t, seed, limit)
		readers := []*reading{consume(r.feed, materializer.Meta{}, "*")}
		for range 400 {
			switch n := rnd.IntN(20); {
			case n < 4:
				for range rnd.IntN(8) {
					r.command()
				}
			case n == 4:
				randomLog(r.writer, rnd, rnd.IntN(8))
			case n < 11:
				r.turn(1 + rnd.IntN(12))
			case n == 11 && r.role == materializer.Owning && rnd.IntN(3) == 0: // the store does not take it
				if err := r.take(3).Close(); err != nil {
					t.Fatal(err)
				}
				r.leave(materializer.FeedFailed)
			case n == 12 && rnd.IntN(4) == 0:
				r.leave(materializer.FeedReason(rnd.IntN(3)))
			case n == 13 && (r.role == materializer.NoRole || rnd.IntN(8) == 0):
				r.begin(materializer.Following + materializer.Role(rnd.IntN(2)))
			case n == 14 && len(readers) < 4:
				readers = append(readers, consume(r.feed, materializer.Meta{}, someTypes(rnd)...))
			case n == 15 && rnd.IntN(3) == 0:
				c := readers[rnd.IntN(len(readers))]
				c.again(c.Position(), someTypes(rnd))
			default:
				c := readers[rnd.IntN(len(readers))]
				for range rnd.IntN(30) {
					if next, open := r.feed.Position(); !open || c.Position().Next >= next {
						break
					}
					if err := c.next(t.Context()); err != nil {
						end, is := errors.AsType[*materializer.FeedError](err)
						if !is || end.Reason == materializer.FeedDiverged {
							t.Fatalf("seed %d: %v", seed, err)
						}
						ended++
						c.again(c.Position(), c.types)
					}
				}
			}
			if size := r.feeds.Size(); size > limit {
				t.Fatalf("seed %d: the feeds take %d bytes, and may take %d", seed, size, limit)
			}
		}
		r.begin(materializer.Following)
		for r.at < r.end() {
			r.turn(50)
		}
		want, end := r.reference()
		for i, c := range readers {
			for c.Position().Next < end.Next {
				if err := c.next(t.Context()); err != nil {
					c.again(c.Position(), c.types)
				}
			}
			if err := c.compare(want, end); err != nil {
				t.Errorf("seed %d, consumer %d: %v", seed, i, err)
			}
			c.Close()
			live, log, over, back = live+c.live, log+c.log, over+c.over, back+c.back
		}
		if size := r.feeds.Size(); size != 0 {
			t.Errorf("seed %d: without consumers the feeds take %d bytes", seed, size)
		}
	}
	t.Logf("seeds 0 to 59: %d pieces from memory, %d from the log, %d changes to memory, %d back, %d ends",
		live, log, over, back, ended)
	for what, n := range map[string]int{
		"pieces from memory": live, "pieces from the log": log, "changes to memory": over, "changes back": back,
		"ends": ended,
	} {
		if n < 100 {
			t.Errorf("only %d %s", n, what)
		}
	}
}

// TestFeedAtOnce: a worker folds while its consumers read, each at its own pace.
func TestFeedAtOnce(t *testing.T) {
	for seed := range uint64(6) {
		r := newReplica(t, seed, 20_000)
		for range 1_500 {
			r.command()
		}
		want, end := r.reference()
		role := materializer.Following + materializer.Role(seed%2)
		r.begin(role)
		var consumers sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for i, types := range [][]string{{"*"}, {"cart"}, {"counter"}, {"cart", "counter"}} {
			c := consume(r.feed, materializer.Meta{}, types...)
			consumers.Go(func() { // ends with the log, or with ctx
				defer c.Close()
				pause := rand.New(rand.NewPCG(seed, uint64(i)))
				for c.Position().Next < end.Next {
					if err := c.next(ctx); err != nil {
						if _, over := errors.AsType[*materializer.FeedError](err); !over {
							t.Errorf("seed %d: %v", seed, err)
							return
						}
						c.again(c.Position(), c.types)
					}
					for range pause.IntN(20) {
						runtime.Gosched()
					}
				}
				if err := c.compare(want, end); err != nil {
					t.Errorf("seed %d, types %v: %v", seed, types, err)
				}
			})
		}
		for n := 0; r.at < r.end(); n++ {
			if r.turn(1 + n%7); n%100 == 99 {
				role = materializer.Following + materializer.Owning - role
				r.leave(materializer.FeedMoved)
				r.begin(role)
			}
		}
		consumers.Wait()
		cancel()
	}
}

// quiet returns an error unless the consumer has to wait.
func (c *reading) quiet(t *testing.T) {
	t.Helper()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.next(over); !errors.Is(err, context.Canceled) {
		t.Fatalf("a piece %+v, %v; want none yet", c.got, err)
	}
}

// TestAFeedShowsWhatTheStoreTook, and nothing before: neither from memory nor from the log.
func TestAFeedShowsWhatTheStoreTook(t *testing.T) {
	for limit, live := range map[int]int{1 << 20: 2, 1: 0} {
		r := newReplica(t, 1, limit)
		c := consume(r.feed, materializer.Meta{}, "*")
		defer c.Close()
		r.begin(materializer.Owning)
		r.turn(1)
		if err := c.next(t.Context()); err != nil || c.Position().Next != 1 {
			t.Fatalf("position %d, %v; want 1", c.Position().Next, err)
		}
		r.put("cart/1", "a", record.Envelope{Kind: record.Event, Sequence: 1, TypeURL: "t/e"})
		batch := r.take(1)
		c.quiet(t)
		if err := batch.Commit(); err != nil {
			t.Fatal(err)
		}
		c.quiet(t)
		r.tap.Publish()
		if err := c.next(t.Context()); err != nil || c.Position().Next != 2 || len(c.got[len(c.got)-1].lines) != 1 {
			t.Errorf("%+v, %v; want one record", c.got, err)
		}
		if c.live != live || c.log != 2-live {
			t.Errorf("with %d bytes: %d pieces from memory and %d from the log, want %d of 2 from memory",
				limit, c.live, c.log, live)
		}
	}
}

// TestAConsumerJoinsAtItsPosition: one that is behind what is in memory reads the log up to where
// that begins, not one record less.
func TestAConsumerJoinsAtItsPosition(t *testing.T) {
	r := newReplica(t, 1, 1<<20)
	r.begin(materializer.Owning)
	first := consume(r.feed, materializer.Meta{}, "*")
	defer first.Close()
	for i := range uint64(6) {
		r.put("cart/1", fmt.Sprint(i), record.Envelope{Kind: record.Event, Sequence: i + 1, TypeURL: "t/e"})
	}
	r.turn(3) // before the consumer, as far as the feed knows
	r.turn(2)
	r.turn(2)
	c := consume(r.feed, materializer.Meta{}, "*")
	defer c.Close()
	want, end := r.reference()
	for c.Position().Next < end.Next {
		if err := c.next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.compare(want, end); err != nil {
		t.Error(err)
	}
	if c.log != 1 || c.live != 2 {
		t.Errorf("%d pieces from the log and %d from memory, want 1 and 2", c.log, c.live)
	}
}

// TestAConsumerJoinsWhereItsTypesAre: a piece that lacks types of the consumer is read from the
// log.
func TestAConsumerJoinsWhereItsTypesAre(t *testing.T) {
	r := newReplica(t, 1, 1<<20)
	carts := consume(r.feed, materializer.Meta{}, "cart")
	defer carts.Close()
	r.begin(materializer.Owning)
	both := func() {
		r.put("cart/1", "1", record.Envelope{Kind: record.Event, Sequence: 1, TypeURL: "t/e"})
		r.put("counter/1", "1", record.Envelope{Kind: record.State, TypeURL: "t/v"})
	}
	both()
	r.turn(3) // has the carts only
	c := consume(r.feed, materializer.Meta{}, "cart", "counter")
	defer c.Close()
	both()
	r.turn(2) // has still the carts only: the piece had begun
	both()
	r.turn(2)
	want, end := r.reference()
	for _, c := range []*reading{c, carts} {
		for c.Position().Next < end.Next {
			if err := c.next(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.compare(want, end); err != nil {
			t.Error(err)
		}
	}
	if c.log != 1 || c.live != 1 || carts.live != 3 {
		t.Errorf("%d pieces from the log and %d from memory, want 1 and 1; %d for the carts, want 3",
			c.log, c.live, carts.live)
	}
}

// TestFeedKeepsNothingWithoutConsumers, and allocates nothing for what it does not keep.
func TestFeedKeepsNothingWithoutConsumers(t *testing.T) {
	r := newReplica(t, 1, 1<<20)
	r.put("cart/1", "a", record.Envelope{Kind: record.Event, Sequence: 1, TypeURL: "t/e"})
	var parser record.Parser
	last := r.world.Records(journal)[1]
	e := materializer.Entry{Offset: last.Offset, Key: last.Key, Value: last.Value}
	if err := parser.Parse(last.Header(record.HeaderKey), &e.Envelope); err != nil {
		t.Fatal(err)
	}
	fold := materializer.NewFold(address, "topic", materializer.Meta{})
	if _, err := fold.Record(sink{}, &r.world.Records(journal)[0]); err != nil {
		t.Fatal(err)
	}
	step := func(publish func()) float64 {
		return testing.AllocsPerRun(100, func() {
			if verdict, err := fold.Step(sink{}, &e); err != nil || verdict != record.Complete {
				t.Fatal(verdict, err)
			}
			publish()
			e.Offset++
			e.Envelope.Ordinal++
		})
	}
	without := step(func() {})
	tap := r.feed.Open(fold, materializer.Owning)
	if with := step(tap.Publish); with > without {
		t.Errorf("%v allocations with a feed that has no consumer, %v without a feed", with, without)
	}
	c := consume(r.feed, materializer.Meta{}, "counter")
	defer c.Close()
	tap.Publish()
	before := r.feeds.Size()
	step(tap.Publish)
	const pieces = 101 // AllocsPerRun runs once more
	if size := r.feeds.Size() - before; size > pieces*1024 || size == 0 {
		t.Errorf("%d pieces without records take %d bytes", pieces, size)
	}
}

// TestWhereAFeedEnds: consumers see why, and whether they may go on.
func TestWhereAFeedEnds(t *testing.T) {
	other := errors.New("the cause")
	for name, test := range map[string]struct {
		happen func(r *replica)
		reason materializer.FeedReason
		err    error
		text   string
		// goOn: the next consumer goes on from the position.
		goOn bool
	}{
		"the role changes": {
			happen: func(r *replica) { r.begin(materializer.Following) }, reason: materializer.FeedMoved,
			text: "has become follower", goOn: true,
		},
		"the partition halts": {
			happen: func(r *replica) {
				r.feed.End(materializer.FeedHalted, materializer.TopicReplaced("topic", "other"))
			}, reason: materializer.FeedHalted, err: materializer.ErrTopicReplaced,
			text: "of partition 0 has ended: halted", goOn: true,
		},
		"the store fails": {
			happen: func(r *replica) { r.tap.End(materializer.FeedFailed, other) }, reason: materializer.FeedFailed,
			err: other, goOn: true,
		},
		"another topic": {
			happen: func(r *replica) { r.image.TopicID = "other"; r.begin(materializer.Owning) },
			reason: materializer.FeedMoved, text: "topic id",
		},
		"a repair": {
			happen: func(r *replica) {
				r.tap.End(materializer.FeedHalted, other)
				if err := materializer.StartOver(r.image.Store, address, "topic", 0); err != nil {
					r.t.Fatal(err)
				}
				r.world.Truncate(journal, 1)
				r.cached = nil
				r.epoch++
				r.ordinal = 0
				r.put("", "", record.Envelope{
					Kind: record.Claim, Epoch: r.epoch, Nonce: 7,
					Claim: &record.ClaimInfo{Worker: "w", PreviousEpoch: r.epoch - 1, PreviousNonce: 7, ReadTo: 1, Floor: 3},
				})
				r.begin(materializer.Owning)
				r.turn(1)
				r.turn(1)
			},
			reason: materializer.FeedHalted, text: "floor",
		},
		"another history": {
			happen: func(r *replica) {
				r.tap.End(materializer.FeedFailed, other)
				if err := materializer.StartOver(r.image.Store, address, "topic", 0); err != nil {
					r.t.Fatal(err)
				}
				r.world.Truncate(journal, 1)
				r.cached = nil
				r.put("", "void", record.Envelope{Kind: record.Event, Epoch: 9, Nonce: 99, Sequence: 1})
				r.begin(materializer.Owning)
				r.turn(2)
			},
			reason: materializer.FeedFailed, text: "before offset 2 the consumer has read 1 record of",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReplica(t, 1, 1<<20)
			c := consume(r.feed, materializer.Meta{}, "*")
			defer func() { c.Close() }()
			r.begin(materializer.Owning)
			r.put("cart/1", "a", record.Envelope{Kind: record.Event, Sequence: 1, TypeURL: "t/e"})
			r.turn(2)
			if err := c.next(t.Context()); err != nil {
				t.Fatal(err)
			}
			test.happen(r)
			err := c.next(t.Context())
			end, is := errors.AsType[*materializer.FeedError](err)
			if !is || end.Reason != test.reason || test.err != nil && !errors.Is(err, test.err) {
				t.Fatalf("%v, want an end: %v", err, test.reason)
			}
			if test.goOn && !strings.Contains(err.Error(), test.text) {
				t.Errorf("%v, want %q in it", err, test.text)
			}
			if again := c.next(t.Context()); !errors.Is(again, err) {
				t.Errorf("asked again: %v", again)
			}
			if _, open := r.feed.Position(); !open {
				r.begin(materializer.Following)
			}
			c.again(c.Position(), c.types)
			r.put("cart/1", "b", record.Envelope{Kind: record.Event, Sequence: 2, TypeURL: "t/e"})
			r.turn(1)
			switch err := c.next(t.Context()); {
			case test.goOn && (err != nil || c.Position().Next != 3):
				t.Errorf("it does not go on: %v, at %d", err, c.Position().Next)
			case !test.goOn:
				if end, is := errors.AsType[*materializer.FeedError](err); !is || end.Reason != materializer.FeedDiverged ||
					!strings.Contains(err.Error(), test.text) {
					t.Errorf("%v, want an end because of another history: %s", err, test.text)
				}
			}
		})
	}
}

// TestAConsumerGoesOnBeforeARepair: one that began after a repair, and stops before it comes to its
// claim, goes on there; what it reads is the log that was repaired.
func TestAConsumerGoesOnBeforeARepair(t *testing.T) {
	for limit, live := range map[int]int{1 << 20: 1, 1: 0} {
		r := newReplica(t, 1, limit)
		c := consume(r.feed, materializer.Meta{}, "*")
		defer func() { c.Close() }()
		r.put("cart/1", "a", record.Envelope{Kind: record.Event, Sequence: 1, TypeURL: "t/e"})
		r.begin(materializer.Owning)
		r.turn(2)
		r.epoch++
		r.ordinal = 0
		r.put("", "", record.Envelope{Kind: record.Claim, Epoch: r.epoch, Nonce: 7, Claim: &record.ClaimInfo{
			Worker: "w", PreviousEpoch: r.epoch - 1, PreviousNonce: 7, ReadTo: 2, Floor: 3,
		}})
		r.put("cart/1", "b", record.Envelope{Kind: record.Event, Sequence: 2, TypeURL: "t/e"})
		if live == 0 { // the image shows the part before the claim, and its store has the rest
			if err := r.take(2).Commit(); err != nil {
				t.Fatal(err)
			}
		} else {
			r.turn(2)
		}
		if err := c.next(t.Context()); err != nil || c.Position().Next != 2 || c.live != live {
			t.Fatalf("position %d, %v, %d pieces from memory; want 2, %d", c.Position().Next, err, c.live, live)
		}
		r.begin(materializer.Following)
		if err := c.next(t.Context()); err == nil {
			t.Fatal("the feed has not ended")
		}
		c.again(c.Position(), c.types)
		want, end := r.reference()
		for c.Position().Next < end.Next {
			if err := c.next(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.compare(want, end); err != nil {
			t.Error(err)
		}
	}
}

// TestAConsumerOfARepairedLog passes over what a repair has accepted as lost, and nothing else.
func TestAConsumerOfARepairedLog(t *testing.T) {
	r := newReplica(t, 1, 1<<20)
	for i := range uint64(4) {
		r.put("cart/1", fmt.Sprint(i), record.Envelope{Kind: record.Event, Sequence: i + 1, TypeURL: "t/e"})
	}
	r.begin(materializer.Following)
	r.turn(9)
	c := consume(r.feed, materializer.Meta{}, "*")
	defer func() { c.Close() }()
	r.world.Remove(journal, 2, 3)
	if err := c.next(t.Context()); err != nil || c.Position().Next != 2 {
		t.Fatalf("position %d, %v; want 2", c.Position().Next, err)
	}
	if err := c.next(t.Context()); !errors.Is(err, materializer.ErrLost) || c.Position().Next != 2 {
		t.Fatalf("a loss that was not accepted: %v at %d", err, c.Position().Next)
	}
	r.leave(materializer.FeedHalted)
	r.epoch++
	r.ordinal = 0
	r.put("", "", record.Envelope{Kind: record.Claim, Epoch: r.epoch, Nonce: 7, Claim: &record.ClaimInfo{
		Worker: "w", PreviousEpoch: r.epoch - 1, PreviousNonce: 7, ReadTo: 5, Lost: 1,
	}})
	r.put("cart/1", "x", record.Envelope{Kind: record.Event, Sequence: 5, TypeURL: "t/e"})
	store, fold := memstore.New(), materializer.NewFold(address, "topic", materializer.Meta{})
	fold.Accept(r.end())
	if err := materializer.NewFollower(r.read(), store, fold).CatchUp(t.Context(), r.end(), nil); err != nil {
		t.Fatal(err)
	}
	r.image.Store = store
	r.feed.Open(fold, materializer.Owning)
	c.again(materializer.Meta{}, c.types)
	before := len(c.got)
	for c.Position().Next < r.end() {
		if err := c.next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var offsets []string
	for _, got := range c.got[before:] {
		for _, line := range got.lines {
			offset, _, _ := strings.Cut(line, " ")
			offsets = append(offsets, offset)
		}
	}
	if want := []string{"1", "6"}; !slices.Equal(offsets, want) { // the owner's records after the gap are void
		t.Errorf("records %v, want %v", offsets, want)
	}
}

// TestAConsumerAheadOfTheImage goes on when the image has come to its position by the same history,
// and begins anew if the history is another one, also where no piece ends at its position.
func TestAConsumerAheadOfTheImage(t *testing.T) {
	for name, isSame := range map[string]bool{"the same history": true, "another history": false} {
		t.Run(name, func(t *testing.T) {
			r := newReplica(t, 1, 1<<20)
			event := func() {
				r.put("cart/1", "a", record.Envelope{Kind: record.Event, Sequence: 1, TypeURL: "t/e"})
			}
			event()
			event()
			r.begin(materializer.Following)
			r.turn(9)
			c := consume(r.feed, materializer.Meta{}, "*")
			defer func() { c.Close() }()
			if err := c.next(t.Context()); err != nil || c.Position().Next != 3 {
				t.Fatal(err)
			}
			r.leave(materializer.FeedFailed)
			r.image.Store = memstore.New()
			if !isSame {
				r.world.Truncate(journal, 2)
				r.cached = nil
				r.claim()
			}
			r.begin(materializer.Following)
			c.again(c.Position(), c.types)
			c.quiet(t)
			if err := c.Join(t.Context()); err != nil || c.Joined() {
				t.Errorf("joined %t behind the image, %v", c.Joined(), err)
			}
			event()
			r.turn(9)
			err := c.Join(t.Context())
			end, is := errors.AsType[*materializer.FeedError](err)
			if isSame == is || is && end.Reason != materializer.FeedDiverged {
				t.Errorf("%v", err)
			}
			if c.Joined() != isSame {
				t.Errorf("joined: %t", c.Joined())
			}
			if err := c.next(t.Context()); (err == nil) != isSame {
				t.Errorf("the next piece: %v", err)
			}
		})
	}
}
