package partitions

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/partitions/core"
)

// open counts the effects in the store that are not settled.
func (f *fixture) open() int {
	f.t.Helper()
	n := 0
	if err := (materializer.Partition{
		Rows: f.store, Address: f.p.image.Address,
	}).Outbox(0, func(materializer.Effect) bool { n++; return true }); err != nil {
		f.t.Fatal(err)
	}
	return n
}

// settled waits until every effect is settled, in the log and in the store.
func (f *fixture) settled() {
	f.t.Helper()
	f.until("the outbox is empty", func() bool { return f.open() == 0 })
	f.pause() // and what follows from it has happened
}

// TestEffectTakesEffectOnce: an effect without a waiting caller reaches its target, and is settled.
func TestEffectTakesEffectOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		f.want(f.submit(command("a", "later b add x")), "later")
		f.settled()
		f.want(f.submit(command("b", "read")), "x")
		if kinds := f.kinds(); kinds[record.Effect] != 1 || kinds[record.Settled] != 1 || kinds[record.Event] != 2 {
			t.Errorf("the journal holds %v; want one effect, one settled record and two events", kinds)
		}
	})
}

// TestEffectSurvivesWorker: an effect whose target cannot be reached is sent by the next worker,
// which has only the log.
func TestEffectSurvivesWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := start(t, setup{world: alone})
		first.await(core.Active)
		first.want(first.submit(command("a", "later b add x")), "later")
		first.settled()
		first.words.mu.Lock()
		first.words.downFor = "c"
		first.words.down = entities.Errorf(entities.Unavailable, entities.NotApplied, "down")
		first.words.mu.Unlock()
		first.want(first.submit(command("a", "later c add y")), "later later")
		if err := first.stop(); err != nil {
			t.Fatal(err)
		}
		if first.open() != 1 {
			t.Fatalf("%d effects are open; want that on c", first.open())
		}
		next := start(t, setup{world: alone, on: first.world, store: memstore.New(), name: "w2"})
		next.await(core.Active)
		next.settled()
		next.want(next.submit(command("b", "read")), "x")
		next.want(next.submit(command("c", "read")), "y")
	})
}

// TestEffectIsDeduplicated: the target recognizes an effect by its address, as long as its source
// has not settled it, and after.
func TestEffectIsDeduplicated(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	source := entities.Source{Generation: 1, Partition: 7, Offset: 10, Settled: 5}
	target := entities.Target{Method: "b", Payload: entities.Payload{Value: []byte("add x")}}
	for range 3 {
		reply, err := f.router.Send(t.Context(), source, target)
		if err != nil || string(reply.Payload.Value) != "x" {
			t.Fatalf("%v, %v; want the first answer again", reply, err)
		}
	}
	other := source
	other.Index = 1
	if _, err := f.router.Send(t.Context(), other, target); err != nil {
		t.Fatal(err)
	}
	f.want(f.submit(command("b", "read")), "x x")

	// The source settles both; their rows may be removed, and a late copy still does nothing.
	// A late copy does not turn progress back.
	for _, s := range []entities.Source{{Offset: 20, Settled: 15}, {Offset: 21, Settled: 8}} {
		s.Generation, s.Partition = 1, 7
		if _, err := f.router.Send(t.Context(), s, target); err != nil {
			t.Fatal(err)
		}
	}
	_, n, err := materializer.Forget(f.store, f.p.image.Address, nil, 100)
	if err != nil || n != 2 {
		t.Fatalf("forgot %d rows, %v; want the two below offset 15", n, err)
	}
	if _, err := f.router.Send(t.Context(), source, target); err != nil {
		t.Fatal(err)
	}
	f.want(f.submit(command("b", "read")), "x x x x")
}

// TestConcurrentCopiesOfAnEffect: copies that arrive while the first one runs wait for it.
func TestConcurrentCopiesOfAnEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		source := entities.Source{Generation: 1, Partition: 7, Offset: 10}
		target := entities.Target{Method: "b", Payload: entities.Payload{Value: []byte("wait x")}}
		errs := make(chan error, 3)
		for range 3 {
			go func() { // received below
				_, err := f.router.Send(t.Context(), source, target)
				errs <- err
			}()
		}
		<-f.words.entered
		synctest.Wait() // the copies have arrived
		close(f.words.gate)
		for range 3 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		f.want(f.submit(command("b", "read")), "x")
	})
}

// TestRefusedEffectIsDone: a refusal is an answer.
func TestRefusedEffectIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		f.want(f.submit(command("a", "later b refuse no")), "later")
		f.settled()
		if s := f.p.Status(); s.Parked != 0 {
			t.Errorf("%d effects are parked; want none", s.Parked)
		}
	})
}

// TestParked: effects that can never be delivered, and those on which the function fails again and
// again, wait for an operator and survive the worker; they can be sent again or dropped.
func TestParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		f.want(f.submit(command("a", "later absent add x")), "later")
		f.want(f.submit(command("a", "later b crash")), "later later")
		f.until("both are parked", func() bool { return f.p.Status().Parked == 2 })
		parked := f.parked(2)
		if parked[0].Parked != "there is no absent" || parked[1].Attempts != core.MaxFailures {
			t.Errorf("parked: %+v", parked)
		}
		if err := f.stop(); err != nil {
			t.Fatal(err)
		}
		next := start(t, setup{world: alone, on: f.world, store: memstore.New(), name: "w2"})
		next.await(core.Active)
		parked = next.parked(2)
		for i, drop := range []bool{true, false} {
			if err := next.m.Resolve(t.Context(), 0, parked[i].Offset, drop); err != nil {
				t.Fatal(err)
			}
		}
		next.until("the one that was sent again is parked once more", func() bool {
			return next.p.Status().Parked == 1 && next.open() == 1
		})
		if err := next.m.Resolve(t.Context(), 0, parked[0].Offset, true); !errors.Is(err, ErrNotParked) {
			t.Errorf("dropping it twice: %v; want ErrNotParked", err)
		}
	})
}

func (f *fixture) parked(want int) []Parked {
	f.t.Helper()
	var parked []Parked
	f.until("parked effects are listed", func() bool {
		var err error
		if parked, _, _, err = f.m.Parked(ParkedPlace{}, materializer.ParkedFilter{}, 100); err != nil {
			f.t.Fatal(err)
		}
		return len(parked) == want
	})
	return parked
}

// TestSynchronousEffectsInARing: a waits for b, which waits for a: nothing blocks, since a command
// is decided and committed before its effects are sent.
func TestSynchronousEffectsInARing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		if _, err := f.router.Dispatch(t.Context(), command("a", "ring b a")); err != nil {
			t.Fatal(err)
		}
		f.want(f.submit(command("a", "read")), "ring by-effect")
		f.want(f.submit(command("b", "read")), "ring")
		f.settled()
	})
}

// TestForwardIsRepeated: a command with an id that wrote something and was forwarded gets the
// target's first answer again.
func TestForwardIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone})
		f.await(core.Active)
		var answers []string
		for range 2 {
			reply, err := f.router.Dispatch(t.Context(), withID(command("a", "forwardadd b"), "id"))
			if err != nil {
				t.Fatal(err)
			}
			answers = append(answers, string(reply.Payload.Value))
		}
		if !slices.Equal(answers, []string{"x", "x"}) {
			t.Errorf("answers %q; want the target's twice", answers)
		}
		f.want(f.submit(command("b", "read")), "x")
		f.settled()
	})
}

// TestOutboxBeyondMemory: more open effects than are kept in memory are all delivered.
func TestOutboxBeyondMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, setup{world: alone, limits: Limits{
			MaxWaiting: 1 << 14, Limits: core.Limits{MaxWaitingEntity: 1 << 14},
		}})
		f.await(core.Active)
		const effects = core.OutboxWindow + 1000
		answers := make([]<-chan answer, effects)
		for i := range answers {
			answers[i] = f.later(command("a", "quiet b add x"))
		}
		for _, a := range answers {
			if got := f.receive(a); got.err != nil {
				t.Fatal(got.err)
			}
		}
		f.settled()
		if events := f.kinds()[record.Event]; events != effects {
			t.Errorf("%d events; want %d", events, effects)
		}
	})
}
