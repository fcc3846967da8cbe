package partitions

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/partitions/core"
)

// cut removes the log's tail and restarts the worker, which then halts.
func (f *fixture) cut(end int64) *fixture {
	f.t.Helper()
	if err := f.stop(); err != nil {
		f.t.Fatal(err)
	}
	f.world.Truncate(partition0, end)
	f = f.restart()
	f.halts()
	return f
}

func (f *fixture) halts() {
	f.t.Helper()
	f.until("it halts", func() bool { return f.p.Status().State == core.Halted })
}

func (f *fixture) end() int64 { return int64(len(f.world.Records(partition0))) }

// repair repairs the partition and waits until it is owned again.
func (f *fixture) repair(choice materializer.Choice) materializer.Restored {
	f.t.Helper()
	restored, err := f.m.Repair(f.t.Context(), 0, choice)
	if err != nil {
		f.t.Fatal(err)
	}
	f.until("it is owned again", func() bool { return f.p.Status().State == core.Active })
	return restored
}

// image is what the store holds now, kept for later.
func (f *fixture) image() materializer.Store {
	f.t.Helper()
	return f.store.(*memstore.Store).Clone()
}

// same compares an image with a fold of the whole log, and that with the store.
func (f *fixture) same(image materializer.Store) {
	f.t.Helper()
	again := memstore.New()
	batch := again.NewBatch()
	fold := materializer.NewFold(f.p.image.Address, f.p.image.TopicID, materializer.Meta{})
	meta, _, err := f.p.image.View().Meta()
	if err != nil {
		f.t.Fatal(err)
	}
	records := f.world.Records(partition0)
	for i := range records[:meta.Next] { // after it stands a release
		if _, err := fold.Record(batch, &records[i]); err != nil {
			f.t.Fatal(err)
		}
	}
	if err := errors.Join(fold.WriteMeta(batch), batch.Commit()); err != nil {
		f.t.Fatal(err)
	}
	view := func(s materializer.Store) materializer.Partition {
		return materializer.Partition{Rows: s, Address: f.p.image.Address}
	}
	if err := errors.Join(
		materializer.Compare(view(image), view(again), true, func(d materializer.Difference) error { return fmt.Errorf("before and after: %s", d) }),
		materializer.Compare(view(f.store), view(again), false, func(d materializer.Difference) error { return fmt.Errorf("store and log: %s", d) }),
	); err != nil {
		f.t.Fatal(err)
	}
}

// TestRepairAcceptsTheLoss: the present log counts, and no offset is used again with another
// content.
func TestRepairAcceptsTheLoss(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	f.want(f.submit(command("a", "add x")), "x")
	kept := f.end()
	f.want(f.submit(command("a", "add y")), "x y")
	f.want(f.submit(withID(command("b", "add z"), "id")), "z")
	former := f.end()
	f = f.cut(kept)

	all, err := f.m.Halted(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("evidence %+v, %v", all, err)
	}
	e := all[0]
	if e.Start != 0 || e.End != kept || e.Next != former || e.Position != former || e.StoreTopic != e.LogTopic ||
		len(e.Refused) != 0 {
		t.Errorf("evidence %+v", e)
	}
	if b := e.Beyond; b.Records != 2 || b.Entities != 2 || b.Commands != 1 ||
		!slices.Equal(b.Examples, []string{"words/a", "words/b"}) {
		t.Errorf("beyond the end: %+v", b)
	}
	f.repair(materializer.AcceptLoss)
	if s := f.p.Status(); s.Next < former || s.Halted != nil {
		t.Errorf("owned at offset %d, halted %v; want at least %d", s.Next, s.Halted, former)
	}
	f.want(f.submit(command("a", "read")), "x")
	f.want(f.submit(withID(command("b", "add z"), "id")), "z")
	f.want(f.submit(command("a", "add w")), "x w")
	next := f.restart() // the mark is gone
	next.await(core.Active)
	next.want(next.submit(command("a", "read")), "x w")
	if _, err := next.m.Repair(t.Context(), 0, materializer.AcceptLoss); !errors.Is(err, core.ErrNotHalted) {
		t.Errorf("repair of a partition that works: %v; want ErrNotHalted", err)
	}
}

// elsewhere is an entity whose partition is another one of two.
func elsewhere(p int32) string {
	for i := 0; ; i++ {
		if id := fmt.Sprint("e", i); entities.Partition(id, 2) == p {
			return id
		}
	}
}

// TestOffsetsAreNotUsedAgain: a target recognizes effects by source partition and offset. After a
// loss that was accepted, an effect at an offset that was used before would be taken for the lost
// one, and be lost itself.
func TestOffsetsAreNotUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone, parts: 2})
		source, target := elsewhere(0), elsewhere(1)
		f.until("all is owned", func() bool { return f.owned() })
		f.flood(source, "quiet "+target+" add lost%d")
		f.settled()
		f.world.Truncate(partition0, 1)
		if err := f.stop(); err != nil {
			t.Fatal(err)
		}
		f = start(t, setup{world: alone, on: f.world, store: f.store, parts: 2})
		f.halts()
		f.repair(materializer.AcceptLoss)
		f.until("all is owned", func() bool { return f.owned() })
		f.flood(source, "quiet "+target+" add new%d")
		f.settled()
		got := strings.Fields(f.dispatch(target, "read"))
		for i := range flooded {
			if !slices.Contains(got, fmt.Sprint("new", i)) {
				t.Errorf("the target has got %q; effect %d that was sent after the repair is missing", got, i)
			}
		}
	})
}

// flooded is how many commands come at once: enough that their records stand side by side, whatever
// comes between.
const flooded = 16

// flood runs commands on one entity at the same time; format has their number.
func (f *fixture) flood(id, format string) {
	f.t.Helper()
	errs := make(chan error, flooded)
	for i := range flooded {
		go func() { // received below
			_, err := f.router.Dispatch(f.t.Context(), command(id, fmt.Sprintf(format, i)))
			errs <- err
		}()
	}
	for range flooded {
		if err := <-errs; err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *fixture) owned() bool {
	return !slices.ContainsFunc(f.m.Partitions(), func(p *Partition) bool { return p.Status().State != core.Active })
}

func (f *fixture) dispatch(id, text string) string {
	f.t.Helper()
	reply, err := f.router.Dispatch(f.t.Context(), command(id, text))
	if err != nil {
		f.t.Fatal(err)
	}
	return string(reply.Payload.Value)
}

// busy makes a partition do everything that an image can restore, and returns where its log ended
// before most of that.
func (f *fixture) busy() (kept int64) {
	f.t.Helper()
	f.want(f.submit(command("a", "add x")), "x")
	f.want(f.submit(command("t", "timer gone 1h add never")), "set")
	f.want(f.submit(command("t", "timer stays 1h add rung")), "set")
	f.words.mu.Lock()
	f.words.downFor, f.words.down = "far", entities.Errorf(entities.Unavailable, entities.NotApplied, "down")
	f.words.mu.Unlock()
	f.want(f.submit(command("s", "quiet b add early")), "ok")
	kept = f.end()
	f.until("the early effect is settled", func() bool { return f.open() == 0 })
	f.want(f.submit(command("a", "add y")), "x y")
	f.want(f.submit(command("a", "snap z")), "x y z")
	f.want(f.submit(command("a", "two v")), "x y z v1 v2")
	f.want(f.submit(command("c", "snap only")), "only")
	f.want(f.submit(withID(command("d", "add once"), "id")), "once")
	f.want(f.submit(command("t", "cancel gone")), "cancelled")
	f.want(f.submit(command("t", "timer new 2h add later")), "set")
	f.want(f.submit(command("s", "quiet b add late")), "ok")
	f.until("the late effect is settled", func() bool { return f.open() == 0 })
	f.want(f.submit(command("s", "quiet far add there")), "ok")
	f.want(f.submit(command("s", "later absent add x")), "later")
	f.parked(1)
	return kept
}

// works checks what busy did, and that each effect has arrived once.
func (f *fixture) works() {
	f.t.Helper()
	for id, want := range map[string]string{"a": "x y z v1 v2", "c": "only", "d": "once", "b": "early late", "t": ""} {
		f.want(f.submit(command(id, "read")), want)
	}
	if a := f.submit(withID(command("d", "add once"), "id")); !a.done.Repeated {
		f.t.Error("a command with an id was done again")
	}
	f.words.mu.Lock()
	f.words.down = nil
	f.words.mu.Unlock()
	parked := f.parked(1)
	if err := f.m.Resolve(f.t.Context(), 0, parked[0].Offset, true); err != nil {
		f.t.Fatal(err)
	}
	f.settled()
	f.want(f.submit(command("far", "read")), "there")
	if err := f.m.AwaitQuiet(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	f.clock.Advance(3 * time.Hour)
	f.until("timers have fired", func() bool {
		words := strings.Fields(f.submit(command("t", "read")).text)
		slices.Sort(words)
		return slices.Equal(words, []string{"later", "rung"})
	})
	f.pass(time.Hour)
	if got := strings.Fields(f.submit(command("t", "read")).text); len(got) != 2 {
		f.t.Errorf("the timers have said %q; one of them was cancelled, and none fires twice", got)
	}
}

// TestRepairAppendsTheImage: what the store has beyond the log is written into it again; nothing
// acknowledged is lost, and effects arrive once, whatever the lost records stated about them.
func TestRepairAppendsTheImage(t *testing.T) {
	for name, lose := range map[string]func(*fixture, int64) *fixture{
		"the tail is lost": func(f *fixture, kept int64) *fixture { return f.cut(kept) },
		"all is lost":      func(f *fixture, _ int64) *fixture { return f.cut(0) },
		"one record is lost": func(f *fixture, _ int64) *fixture {
			return f.cut(f.end() - 1)
		},
		"the topic is another one": func(f *fixture, _ int64) *fixture {
			if err := f.stop(); err != nil {
				f.t.Fatal(err)
			}
			f.world.Recreate(topic)
			f = f.restart()
			f.halts()
			return f
		},
	} {
		t.Run(name, bubbled(func(t *testing.T) {
			f := start(t, setup{world: alone})
			f.await(core.Active)
			kept := f.busy()
			former := f.end()
			f = lose(f, kept)
			image := f.image()
			would, err := f.m.Repair(t.Context(), 0, materializer.Preview)
			if err != nil || f.p.Status().State != core.Halted && f.p.Status().State != core.Repairing {
				t.Fatalf("preview: %+v, %v; now %s", would, err, f.p.Status().State)
			}
			f.halts()
			if got := f.repair(materializer.AppendImage); got.Entities != would.Entities ||
				got.Answers != would.Answers || got.Effects != would.Effects {
				t.Errorf("written again: %+v; the preview said %+v", got, would)
			}
			if f.end() < former {
				t.Errorf("the log ends at %d and has ended at %d: offsets would be used again", f.end(), former)
			}
			f.same(image)
			f.works()
		}))
	}
}

// TestRepairIsTakenUpAgain: if a repair ends before it is complete, for any reason, the next one
// completes it.
func TestRepairIsTakenUpAgain(t *testing.T) {
	for name, choice := range map[string]materializer.Choice{
		"accept-loss": materializer.AcceptLoss, "append-image": materializer.AppendImage,
	} {
		for appends := range 3 { // of the repair that are written before its worker is gone: claims, the image, barriers
			t.Run(fmt.Sprint(name, " after ", appends), bubbled(func(t *testing.T) {
				f := start(t, setup{world: simlog.Options{Manual: true, SingleProcess: true}})
				f.activate()
				for i := range 8 {
					caller := f.later(command(fmt.Sprint("e", i), "add x"))
					f.world.Deliver(f.op(1).ID)
					f.want(f.receive(caller), "x")
				}
				former := f.end()
				f.stopWorld()
				f.world.Truncate(partition0, 4)
				again := func() *fixture {
					f.stopWorld()
					return start(t, setup{
						world: simlog.Options{Manual: true, SingleProcess: true}, on: f.world, store: f.store,
						limits: Limits{Limits: core.Limits{MaxCommitRecords: 3}},
					})
				}
				f = again()
				f.halts()
				image := f.image()
				ended := make(chan error, 2)
				repair := func(m *Manager) {
					_, err := m.Repair(t.Context(), 0, choice)
					ended <- err
				}
				go repair(f.m) // received below
				for range appends {
					f.world.Deliver(f.op(1).ID)
				}
				f.op(1)
				f.world.Discard(f.world.Pending()[0].ID) // the log never gets it
				f = again()
				f.until("it halts, or claims", func() bool {
					s := f.p.Status().State
					return s == core.Halted || s == core.Claiming
				})
				if f.p.Status().State == core.Halted {
					go repair(f.m) // received below
				} else {
					ended <- nil
				}
				f.until("both repairs end", func() bool {
					f.world.DeliverAll()
					return len(ended) == 2
				})
				<-ended
				if err := <-ended; err != nil {
					t.Fatal(err)
				}
				f.until("it is owned again", func() bool {
					f.world.DeliverAll()
					return f.p.Status().State == core.Active
				})
				if f.end() < former {
					t.Errorf("the log ends at %d and has ended at %d", f.end(), former)
				}
				want := "x"
				if choice == materializer.AcceptLoss {
					want = ""
				} else {
					f.same(image)
				}
				f.want(f.submit(command("e7", "read")), want)
				f.want(f.submit(command("e0", "read")), "x")
			}))
		}
	}
}

// TestRetry: a log that was restored is accepted; one that was not, or holds something else, is
// not.
func TestRetry(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	f.want(f.submit(command("a", "add x")), "x")
	f.want(f.submit(command("a", "add y")), "x y")
	whole := f.world.Records(partition0)
	f = f.cut(2)
	if _, err := f.m.Repair(t.Context(), 0, materializer.Retry); !errors.Is(err, broker.ErrRegressed) {
		t.Errorf("the log is short, and a retry says %v; want ErrRegressed", err)
	}
	f.world.Inject(partition0, foreignClaim(7), whole[1])
	if _, err := f.m.Repair(t.Context(), 0, materializer.Retry); err == nil {
		t.Error("the log holds something else, and a retry went on")
	}
	f.halts()
	f.world.Truncate(partition0, 2)
	f.world.Inject(partition0, whole[2:]...)
	f.repair(materializer.Retry)
	f.want(f.submit(command("a", "read")), "x y")
}

// TestRepairFromWhatIsLeft: a log that lost its beginning is folded from the next claim on.
func TestRepairFromWhatIsLeft(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	f.want(f.submit(command("a", "add x")), "x")
	old := f.image()
	f = f.restart()
	f.await(core.Active)
	f.want(f.submit(command("b", "snap y")), "y")
	f.world.Trim(partition0, 3)
	f.store = old
	f = f.restart()
	f.halts()
	all, err := f.m.Halted(t.Context())
	if err != nil || len(all) != 1 || all[0].Start != 3 || all[0].Refused[materializer.AppendImage] == "" {
		t.Fatalf("evidence %+v, %v", all, err)
	}
	if _, err := f.m.Repair(t.Context(), 0, materializer.AppendImage); !errors.Is(err, broker.ErrOutOfRange) {
		t.Errorf("append-image: %v; want ErrOutOfRange", err)
	}
	f.halts()
	f.repair(materializer.AcceptLoss)
	f.want(f.submit(command("b", "read")), "y")
	f.want(f.submit(command("a", "read")), "")
}
