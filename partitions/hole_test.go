package partitions

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/partitions/core"
)

// damaged is a log of three ownerships: a claim, x of a and a release; a claim, y of b and a
// release; a claim, z of c and a release. damage removes records. The fixture's store is the fold
// of the log before that; its worker does not run.
func damaged(t *testing.T, damage func(*simlog.World)) *fixture {
	t.Helper()
	f := start(t, setup{world: alone})
	f.await(core.Active)
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	f.world.Truncate(partition0, 0) // what the worker has written depends on when it was stopped
	var records []broker.Record
	put := func(key, value string, env record.Envelope) {
		r := broker.Record{
			Key: []byte(key), Value: []byte(value), Headers: header(env), Offset: int64(len(records)), Time: f.clock.Now(),
		}
		f.world.Inject(partition0, r)
		records = append(records, r)
	}
	for i, word := range []string{"x", "y", "z"} {
		o := record.Envelope{Epoch: uint64(i) + 1, Nonce: 7}
		claim, event, release := o, o, o
		claim.Kind, claim.Claim = record.Claim, &record.ClaimInfo{
			Worker: "w", ReadTo: uint64(len(records)), PreviousEpoch: uint64(i),
			PreviousNonce: map[bool]uint64{true: 7}[i > 0],
		}
		event.Kind, event.Ordinal, event.Sequence, event.TypeURL = record.Event, 1, 1, "t/word"
		release.Kind, release.Ordinal = record.Release, 2
		put("", "", claim)
		put("words/"+string(rune('a'+i)), word, event)
		put("", "", release)
	}
	store := memstore.New()
	batch := store.NewBatch()
	fold := materializer.NewFold(f.p.image.Address, f.p.image.TopicID, materializer.Meta{})
	for i := range records {
		if _, err := fold.Record(batch, &records[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(fold.WriteMeta(batch), batch.Commit()); err != nil {
		t.Fatal(err)
	}
	f.store = store
	damage(f.world)
	return f
}

// fresh is another worker on the same log, without a store.
func (f *fixture) fresh() *fixture {
	f.t.Helper()
	f.store = memstore.New()
	return f.restart()
}

func garbled(r *broker.Record) { r.Headers[0].Value = []byte{0} }

// damages of the log of damaged, and the error that reports them.
var damages = map[string]struct {
	damage func(*simlog.World)
	says   string
}{
	"a record is gone": {func(w *simlog.World) { w.Remove(partition0, 4, 5) }, "it has no record at offset 4, the next one is at offset 5"},
	"the first records are gone, and the log says that it begins at 0": {
		func(w *simlog.World) { w.Remove(partition0, 0, 3) }, "it has no records at offsets 0 to 2, the next one is at offset 3",
	},
	"the last records are gone, and the log says that they are there": {
		func(w *simlog.World) { w.Remove(partition0, 7, 9) }, "it has no records at offsets 7 to 8, and goes on at offset 9",
	},
	"the very last record is gone": {
		func(w *simlog.World) { w.Remove(partition0, 8, 9) }, "it has no record at offset 8, and goes on at offset 9",
	},
	"a claim cannot be read": {
		func(w *simlog.World) { w.Change(partition0, 3, garbled) }, "the claim at offset 6 follows owner 2",
	},
}

// TestAHoleHaltsAFreshWorker: a log with missing records in its middle is not taken for a complete
// one. The worker reports what is missing and where, answers no caller, and a restart changes
// nothing.
func TestAHoleHaltsAFreshWorker(t *testing.T) {
	for name, test := range damages {
		t.Run(name, func(t *testing.T) {
			f := damaged(t, test.damage).fresh()
			f.halts()
			f.wantError(f.submit(command("a", "add w")), entities.Halted, entities.NotApplied)
			why := f.p.Status().Halted
			if !errors.Is(why, materializer.ErrLost) || !strings.Contains(why.Error(), test.says) ||
				!strings.Contains(why.Error(), "millrace repair") {
				t.Errorf("halted because of %v; want %q", why, test.says)
			}
			all, err := f.m.Halted(t.Context())
			if err != nil || len(all) != 1 || !strings.Contains(all[0].Cause, test.says) ||
				all[0].Refused[materializer.AppendImage] == "" || all[0].Refused[materializer.AcceptLoss] != "" {
				t.Errorf("evidence %+v, %v", all, err)
			}
			again := f.restart()
			again.halts()
			if images := again.m.Images(); len(images) != 0 {
				t.Errorf("a halted partition counts as an image: %v", images)
			}
		})
	}
}

// TestAHoleThatWasAcceptedIsPassedOver by every worker from then on, without an operator: the claim
// of the repair states how much was lost before it. A further loss still halts.
func TestAHoleThatWasAcceptedIsPassedOver(t *testing.T) {
	for name, test := range damages {
		t.Run(name, func(t *testing.T) {
			f := damaged(t, test.damage)
			whole := f.image()
			f = f.fresh()
			f.halts()
			if _, err := f.m.Repair(t.Context(), 0, materializer.AppendImage); err == nil {
				t.Error("an image is written again into a log with holes")
			}
			f.repair(materializer.AcceptLoss)
			further := int64(7)
			z := map[bool]string{true: "", false: "z"}[strings.HasPrefix(name, "the last")]
			f.want(f.submit(command("c", "read")), z)
			f.want(f.submit(command("a", "add w")), map[bool]string{true: "x w", false: "w"}[!strings.Contains(name, "first")])
			f = f.restart() // the rest of the store
			f.await(core.Active)
			f = f.fresh()
			f.await(core.Active)
			f.want(f.submit(command("c", "read")), z)

			f.store = whole // it has records that the others accepted as lost
			f = f.restart()
			f.halts()
			if why := f.p.Status().Halted.Error(); !strings.Contains(why, "it has records that the log has not") {
				t.Errorf("halted because of %v", why)
			}
			if z == "" { // it is gone already
				further = 5
			}
			f.world.Remove(partition0, further, further+1)
			f = f.fresh()
			f.halts()
			if why := f.p.Status().Halted.Error(); !strings.Contains(why, fmt.Sprint("offset ", further)) &&
				!strings.Contains(why, "offsets 7") && !strings.Contains(why, test.says) {
				t.Errorf("halted because of %v", why)
			}
		})
	}
}

// TestAStandbyHaltsAtAHole: it reports the hole, and does not offer its image. After a repair it
// follows again.
func TestAStandbyHaltsAtAHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, Limits{})
		c.owned(c.a, 0)
		c.want(c.a, command("x", "add 1"), "1")
		c.want(c.a, command("x", "add 2"), "1 2")
		c.a.world.Remove(partition0, 1, 2)
		c.tell(0, 1)
		c.until("b halts", func() bool { return c.b.p.Status().State == core.Halted })
		s := c.b.p.Status()
		if !errors.Is(s.Halted, materializer.ErrLost) || s.Followed || s.LastError != s.Halted.Error() {
			t.Errorf("status %+v; want halted because of a loss", s)
		}
		if images := c.b.m.Images(); len(images) != 0 {
			t.Errorf("b offers images %v", images)
		}
		c.want(c.b, command("x", "add 3"), "1 2 3") // the owner's store is complete

		c.tell(noOwner, 1)
		c.revoke(c.a)
		if _, err := c.b.m.Repair(t.Context(), 0, materializer.AcceptLoss); err != nil {
			t.Fatal(err)
		}
		c.until("b follows", func() bool { s := c.b.p.Status(); return s.Followed && s.Lag == 0 })
	})
}

// TestAHoleThatAStandbyReadsLive: records are lost before a follower has read them, and so is the
// predecessor of a claim.
func TestAHoleThatAStandbyReadsLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, Limits{})
		c.owned(c.a, 0, 1)
		c.want(c.a, command("x", "add 1"), "1")
		c.until("b follows", func() bool { s := c.b.p.Status(); return s.Followed && s.Next == 2 && s.Lag == 0 })
		claim := record.Envelope{
			Kind: record.Claim, Epoch: 8, Nonce: 5,
			Claim: &record.ClaimInfo{Worker: "c", PreviousEpoch: 7, PreviousNonce: 3},
		}
		c.a.world.Inject(partition0, broker.Record{Headers: header(claim)})
		c.until("b halts", func() bool { return c.b.p.Status().State == core.Halted })
		if why := c.b.p.Status().Halted.Error(); !strings.Contains(why, "the claim at offset 2 follows owner 7") {
			t.Errorf("halted because of %v", why)
		}
	})
}

// TestAnAbsurdEpochDoesNotBlockAPartition: a claim far above the owner's epoch is void for every
// reader, and raises an alarm.
func TestAnAbsurdEpochDoesNotBlockAPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		f.want(f.submit(command("a", "add x")), "x")
		f.world.Inject(partition0, foreignClaim(math.MaxUint64), foreignClaim(2+record.EpochStep))
		f = f.restart()
		f.await(core.Active)
		f.want(f.submit(command("a", "add y")), "x y")
		if s := f.p.Status(); s.Epoch != 2 || s.Fold.Jumped != 2 || !strings.Contains(s.LastError, "epoch") ||
			f.p.Counts().Alarms == 0 {
			t.Errorf("status %+v; want epoch 2, and an alarm about two claims", s)
		}
		f.world.Inject(partition0, foreignClaim(math.MaxUint64))
		f.want(f.submit(command("a", "add z")), "x y z")
		f.until("that is seen while it is owned", func() bool { return f.p.Status().Fold.Jumped == 3 })
	})
}
