package partitions

import (
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/partitions/core"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// refusals are those in the store.
func (f *fixture) refusals() []materializer.Refusal {
	f.t.Helper()
	var kept []materializer.Refusal
	view := materializer.Partition{Rows: f.store, Address: f.p.image.Address}
	if err := view.Refusals(0, func(r materializer.Refusal) bool { kept = append(kept, r); return true }); err != nil {
		f.t.Fatal(err)
	}
	return kept
}

// TestRefusedEffectIsKept: a refused effect is settled, and kept with code, text and message, also
// by a worker that has only the log.
func TestRefusedEffectIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := start(t, setup{world: alone})
		first.await(core.Active)
		first.want(first.submit(command("a", "later b refuse too little")), "later")
		first.settled()
		check := func(f *fixture) {
			t.Helper()
			kept := f.refusals()
			if len(kept) != 1 {
				t.Fatalf("%d refusals are kept, want 1", len(kept))
			}
			var answer recordv1.Answer
			if err := proto.Unmarshal(kept[0].Answer, &answer); err != nil {
				t.Fatal(err)
			}
			if kept[0].From != "words/a" || string(kept[0].Payload.Value) != "refuse too little" ||
				answer.GetCode() != 2 || answer.GetMessage() != "too little" {
				t.Errorf("kept %+v with answer %v", kept[0], &answer)
			}
			f.until("the status counts it", func() bool { return f.p.Status().Refusals == 1 })
		}
		check(first)
		if kinds := first.kinds(); kinds[record.Refused] != 1 {
			t.Errorf("the journal holds %v; want one refused record", kinds)
		}
		if err := first.stop(); err != nil {
			t.Fatal(err)
		}
		next := start(t, setup{world: alone, on: first.world, store: memstore.New(), name: "w2"})
		next.await(core.Active)
		next.want(next.submit(command("a", "read")), "later")
		check(next)
	})
}

// TestRefusedEffectIsTold: the entity that asked gets a command with the refusal, once, and nothing
// is kept.
func TestRefusedEffectIsTold(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	f.want(f.submit(command("a", "ask b refuse never")), "ask")
	f.settled()
	f.want(f.submit(command("a", "read")), "ask /b-said-2-never-to-refuse never")
	if kept := f.refusals(); len(kept) != 0 {
		t.Errorf("kept %+v, want nothing", kept)
	}
	if kinds := f.kinds(); kinds[record.Effect] != 2 || kinds[record.Refused] != 0 {
		t.Errorf("the journal holds %v; want two effects and no refused record", kinds)
	}
}

// TestRefusalThatDoesNotMatter leaves nothing behind.
func TestRefusalThatDoesNotMatter(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	f.want(f.submit(command("a", "dare b refuse never")), "dare")
	f.settled()
	f.want(f.submit(command("a", "read")), "dare")
	if kept := f.refusals(); len(kept) != 0 {
		t.Errorf("kept %+v, want nothing", kept)
	}
}

// TestRefusalIsResolved: an operator drops one, and sends another one again, once.
func TestRefusalIsResolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		f.want(f.submit(command("a", "later b refuse one")), "later")
		f.settled()
		f.want(f.submit(command("a", "later c refuse two")), "later later")
		f.settled()
		kept := f.refusals()
		if len(kept) != 2 {
			t.Fatalf("%d refusals are kept, want 2", len(kept))
		}
		if err := f.m.ResolveRefusal(t.Context(), 0, kept[0].Offset, true); err != nil {
			t.Fatal(err)
		}
		if err := f.m.ResolveRefusal(t.Context(), 0, kept[1].Offset, false); err != nil {
			t.Fatal(err)
		}
		f.settled() // it was refused again
		f.until("one new refusal is kept", func() bool {
			now := f.refusals()
			return len(now) == 1 && now[0].Offset > kept[1].Offset && string(now[0].Payload.Value) == "refuse two"
		})
		if err := f.m.ResolveRefusal(t.Context(), 0, kept[0].Offset, true); err == nil {
			t.Error("a refusal was dropped twice")
		}
	})
}

// TestAnEffectThatTookEffectInPartIsNotRefused: its target stored something and forwarded, and the
// forward was refused. The entity that asked gets no refusal, which would make it undo what took
// effect; an operator sees the effect, and however often it is sent again, the target does its part
// once.
func TestAnEffectThatTookEffectInPartIsNotRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		f.want(f.submit(command("a", "ask b send c refuse no")), "ask")
		f.until("the effect is parked", func() bool { return f.p.Status().Parked == 1 })
		f.want(f.submit(command("a", "read")), "ask")
		took := f.submit(command("b", "read")).text
		if took == "" {
			t.Fatal("the target stored nothing: the test shows nothing")
		}
		if kept := f.refusals(); len(kept) != 0 {
			t.Errorf("kept as refused: %+v", kept)
		}
		if n, _, _, err := f.m.ResolveSome(
			t.Context(), ParkedPlace{}, materializer.ParkedFilter{}, false,
		); err != nil || n != 1 {
			t.Fatalf("sent %d again, %v", n, err)
		}
		f.until("it is parked again", func() bool {
			parked, _, _, err := f.m.Parked(ParkedPlace{}, materializer.ParkedFilter{}, 10)
			return err == nil && len(parked) == 1 && f.p.Status().Parked == 1
		})
		f.want(f.submit(command("b", "read")), took)
	})
}
