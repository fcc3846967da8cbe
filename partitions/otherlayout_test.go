package partitions

import (
	"errors"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/core"
)

// strange is a claim with a valid epoch and another layout after that of an owner, and an event of
// the claim's owner.
func strange(before record.Owner) []broker.Record {
	o := record.Envelope{Epoch: before.Epoch + 1, Nonce: 99}
	claim, event := o, o
	claim.Kind, claim.Claim = record.Claim, &record.ClaimInfo{
		Worker: "other", PreviousEpoch: before.Epoch, PreviousNonce: before.Nonce, Layout: entities.LayoutOf("app", 4),
	}
	event.Kind, event.Ordinal, event.Sequence, event.TypeURL = record.Event, 1, 1, "t/word"
	return []broker.Record{
		{Headers: header(claim)}, {Key: []byte("words/d"), Value: []byte("stray"), Headers: header(event)},
	}
}

// owner is that of the store, when the worker has stopped.
func (f *fixture) owner() record.Owner {
	f.t.Helper()
	meta, _, err := f.p.image.View().Meta()
	if err != nil {
		f.t.Fatal(err)
	}
	return meta.Owner
}

// vouched is the log of damaged, followed by a claim and an event of this layout, and the store of
// that.
func vouched(t *testing.T) *fixture {
	t.Helper()
	f := damaged(t, func(*simlog.World) {}).restart()
	f.await(core.Active)
	f.want(f.submit(command("a", "add w")), "x w")
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestAClaimOfAnotherLayoutIsPassedOver after a repair by accept-loss, by this worker and by one
// without a store, and with it what its owner wrote. Nothing else is lost. Before that the worker
// halts, with the reason.
func TestAClaimOfAnotherLayoutIsPassedOver(t *testing.T) {
	f := vouched(t)
	f.world.Inject(partition0, strange(f.owner())...)
	for _, begin := range []func(*fixture) *fixture{(*fixture).restart, (*fixture).fresh} {
		f = begin(f)
		f.halts()
		why := f.p.Status().Halted
		if !errors.Is(why, materializer.ErrUnfoldable) || !errors.Is(why, entities.ErrLayout) ||
			!strings.Contains(why.Error(), "millrace repair") {
			t.Errorf("halted because of %v", why)
		}
		all, err := f.m.Halted(t.Context())
		if err != nil || len(all) != 1 || all[0].Refused[materializer.AcceptLoss] != "" ||
			!strings.Contains(all[0].Refused[materializer.AppendImage], "only accept-loss") {
			t.Errorf("evidence %+v, %v", all, err)
		}
		if _, err := f.m.Repair(t.Context(), 0, materializer.AppendImage); err == nil {
			t.Error("an image is written again behind a claim of another layout")
		}
	}
	f.repair(materializer.AcceptLoss)
	for range 2 {
		f.want(f.submit(command("a", "read")), "x w")
		f.want(f.submit(command("b", "read")), "y")
		f.want(f.submit(command("c", "read")), "z")
		f.want(f.submit(command("d", "read")), "")
		f = f.fresh()
		f.await(core.Active)
	}
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	f.world.Inject(partition0, strange(f.owner())...) // one was accepted, and not later ones
	f = f.fresh()
	f.halts()
}

// TestALogOfAnotherLayoutIsNotPassedOver: if no claim has this worker's layout, the worker is
// configured wrongly. The repair fails and changes nothing.
func TestALogOfAnotherLayoutIsNotPassedOver(t *testing.T) {
	f := damaged(t, func(w *simlog.World) { w.Truncate(partition0, 0) })
	f.world.Inject(partition0, strange(record.Owner{})...)
	f = f.fresh()
	f.halts()
	end := f.end()
	if _, err := f.m.Repair(t.Context(), 0, materializer.AcceptLoss); !errors.Is(err, entities.ErrLayout) {
		t.Errorf("the repair ends with %v; want that the layouts differ", err)
	}
	if f.end() != end || f.p.Status().State != core.Halted {
		t.Errorf("the log ends at %d and ended at %d; the partition is %s", f.end(), end, f.p.Status().State)
	}
}
