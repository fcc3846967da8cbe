package replica

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/clock/clocktest"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
)

var journal = broker.Partition{Topic: "app.journal", ID: 0}

// owner has claimed the partition in these tests.
var owner = record.Owner{Epoch: 1, Nonce: 7}

// fixture is a replica over a log and a store in memory.
type fixture struct {
	*Replica

	world *simlog.World
	// warmed counts how often the image came close to the end of the log.
	warmed int
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{world: simlog.New(simlog.Options{})}
	log := f.world.Client("w")
	t.Cleanup(func() { _ = log.Close() })
	if err := log.Create(t.Context(), broker.TopicSpec{
		Name: journal.Topic, Partitions: 1, MaxRecordBytes: 1 << 20,
	}); err != nil {
		t.Fatal(err)
	}
	info, err := log.Describe(t.Context(), journal.Topic)
	if err != nil {
		t.Fatal(err)
	}
	image := &materializer.Image{
		Log: log, Journal: journal, TopicID: info.ID, Layout: entities.LayoutOf("app", 1),
		Store: memstore.New(), Address: materializer.Address{Generation: 1}, Rebuilds: make(chan struct{}, 1),
	}
	f.Replica = New(Options{
		Image: image, Feed: materializer.NewFeeds(1 << 20).Feed(image),
		ReleaseTimeout: time.Second, Warmed: func() { f.warmed++ },
		Owner:      func() func(context.Context) (int64, error) { return nil },
		Background: func(ask func()) { ask() },
		Clock:      clock.Wall{}, Random: func() uint64 { return 1 },
	})
	t.Cleanup(f.Close)
	return f
}

// write puts records of the owner into the log: a claim first, the others are of these kinds.
func (f *fixture) write(kinds ...record.Kind) {
	for _, k := range kinds {
		env := record.Envelope{
			Kind: k, Epoch: owner.Epoch, Nonce: owner.Nonce, Ordinal: uint64(len(f.world.Records(journal))),
		}
		if k == record.Claim {
			env.Claim = &record.ClaimInfo{Worker: "other", Layout: f.o.Image.Layout}
		}
		f.world.Inject(journal, broker.Record{Headers: []broker.Header{{Key: record.HeaderKey, Value: env.Append(nil)}}})
	}
}

// TestCatchUp: up to the end of the log, and then up to the claim that is read back; what was
// folded is in the store.
func TestCatchUp(t *testing.T) {
	f := newFixture(t)
	f.write(record.Claim, record.Barrier)
	got, next, err := f.CatchUp(t.Context(), false)
	if err != nil || got != owner || next != 2 {
		t.Fatalf("owner %v, next %d, %v; want %v and 2", got, next, err, owner)
	}
	f.write(record.Barrier)
	fold, next, err := f.ReadBack(t.Context(), 2)
	if err != nil || fold == nil || fold.Owner() != owner || next != 3 {
		t.Fatalf("next %d, %v; want the fold, and 3", next, err)
	}
	if meta, known, err := f.o.Image.View().Meta(); err != nil || !known || meta.Next != 3 {
		t.Errorf("the store has %+v, %v", meta, err)
	}
	if fold, _, err := f.ReadBack(t.Context(), 3); fold != nil || err != nil {
		t.Errorf("the fold was given away, and is there again: %v", err)
	}
}

// TestCatchUpAwaitsTheRelease of an owner that is alive, and not for ever.
func TestCatchUpAwaitsTheRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.write(record.Claim)
		began := time.Now()
		if _, next, err := f.CatchUp(t.Context(), true); err != nil || next != 1 || time.Since(began) != f.o.ReleaseTimeout {
			t.Errorf("next %d after %v, %v; want 1 after %v", next, time.Since(began), err, f.o.ReleaseTimeout)
		}
		f.write(record.Release)
		began = time.Now()
		if _, next, err := f.CatchUp(t.Context(), true); err != nil || next != 2 || time.Since(began) != 0 {
			t.Errorf("next %d after %v, %v; want 2 at once", next, time.Since(began), err)
		}
	})
}

// TestCatchUpRefuses what would hide that something is lost.
func TestCatchUpRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		happen func(*fixture) error
		want   error
	}{
		"a log that ends before the store's position": {func(f *fixture) error { f.world.Truncate(journal, 1); return nil }, broker.ErrRegressed},
		"another topic": {func(f *fixture) error { f.o.Image.TopicID = "another"; return nil }, materializer.ErrTopicReplaced},
		"a halted partition": {func(f *fixture) error {
			return materializer.MarkHalted(f.o.Image.Store, f.o.Image.Address, materializer.Halt{Why: "for this test"})
		}, materializer.ErrHaltedBefore},
		"a hole": {func(f *fixture) error {
			f.write(record.Barrier, record.Barrier)
			f.world.Remove(journal, 2, 3)
			return nil
		}, materializer.ErrLost},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.write(record.Claim, record.Barrier)
			if _, _, err := f.CatchUp(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if err := test.happen(f); err != nil {
				t.Fatal(err)
			}
			f.Close() // as after a restart
			if _, _, err := f.CatchUp(t.Context(), false); !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
}

// TestFollow: the position moves with the log, and is nil after following has ended; the next
// catch-up goes on there.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.write(record.Claim)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { // ends with ctx
			defer close(ended)
			f.Follow(ctx, func(err error) { t.Errorf("follow: %v", err) })
		}()
		synctest.Wait()
		f.write(record.Barrier)
		if !f.Reaches(t.Context(), 2) {
			t.Error("the image does not come to what was written")
		}
		if at := f.Position(); at == nil || at.Next != 2 || at.Lag() != 0 || f.warmed != 1 {
			t.Errorf("position %+v, warmed %d times; want 2 of 2, and once", at, f.warmed)
		}
		cancel()
		<-ended
		if at := f.Position(); at != nil {
			t.Errorf("position %+v of a partition that is not followed", at)
		}
		if _, next, err := f.CatchUp(t.Context(), false); err != nil || next != 2 {
			t.Errorf("next %d, %v; want 2", next, err)
		}
	})
}

// TestLag: the lag of an image, as the group gets it.
func TestLag(t *testing.T) {
	f := newFixture(t)
	if _, ok := f.Lag(false); ok {
		t.Error("a partition that nothing is known of has an image")
	}
	if !f.Want(true) || f.Want(true) {
		t.Error("that the partition is to be followed is new once")
	}
	if n, ok := f.Lag(false); n != math.MaxInt64 || !ok {
		t.Errorf("lag %d, %v of an image that is not read yet", n, ok)
	}
	if n, ok := f.Lag(true); n != 0 || !ok {
		t.Errorf("lag %d, %v of an owner", n, ok)
	}
	f.position.Store(&Position{Next: 3, End: 5})
	if n, ok := f.Lag(true); n != 2 || !ok {
		t.Errorf("lag %d, %v; want 2", n, ok)
	}
	f.write(record.Claim)
	if _, _, err := f.CatchUp(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if n, ok := New(f.o).Lag(false); n != storedLag || !ok {
		t.Errorf("lag %d, %v of an image that was in the store at the start", n, ok)
	}
}

// TestFresh: only what the owner has confirmed, and not longer ago than asked.
func TestFresh(t *testing.T) {
	f := newFixture(t)
	clk := clocktest.NewManual(time.Unix(1_700_000_000, 0))
	f.o.Clock = clk
	f.position.Store(&Position{Next: 5})
	if f.Fresh(time.Minute) || f.Confirmed() != nil {
		t.Error("an image is fresh, and no owner is known")
	}
	next := int64(5)
	f.o.Owner = func() func(context.Context) (int64, error) {
		return func(context.Context) (int64, error) { return next, nil }
	}
	if f.Fresh(time.Minute); !f.Fresh(time.Minute) { // the first question is asked in the background
		t.Error("the owner is not further, and the image is not fresh")
	}
	f.Suspended()
	if f.Confirmed() != nil {
		t.Error("what the owner has said outlives a suspension")
	}
	f.Fresh(time.Minute)
	clk.Advance(2 * time.Minute)
	next = 6
	if f.Fresh(time.Minute) {
		t.Error("an answer of two minutes ago counts for the last minute")
	}
	if f.Fresh(time.Minute) {
		t.Error("the owner is further than the image")
	}
}
