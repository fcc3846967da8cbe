package sim

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/partitions/core"
)

// truncate removes acknowledged records from the end of one partition, and checks that no caller is
// answered there any more, while the other one goes on. Sometimes the owner dies at the same
// moment: its store remembers. If the store is lost, too, the loss cannot be detected.
func (w *world) truncate(t *testing.T) {
	t.Helper()
	lost := int32(w.rng.IntN(parts))
	p := broker.Partition{Topic: topic, ID: lost}
	end := len(w.log.Records(p))
	n := 1 + w.rng.IntN(min(end, 4))
	if w.rng.IntN(2) == 0 {
		n = 1 + w.rng.IntN(end)
	}
	w.fault("log lost its tail")
	w.note("partition %d loses its last %d of %d records", lost, n, end)
	w.log.Truncate(p, int64(end-n))
	if w.rng.IntN(2) == 0 {
		old := w.workers[0]
		w.note("%s dies", old.name)
		w.endLife(old)
		w.start(t, 0, old.store.Clone())
		for id := range int32(parts) {
			w.assign(0, id)
		}
	}
	asked := len(w.history)
	w.askAll()
	halted := func() bool { return w.state(lost) == core.Halted }
	w.bring(t, "the partition halts and all callers are answered", func() bool { return halted() && len(w.waiting) == 0 })
	for _, o := range w.history[asked:] {
		switch there := entities.Partition(o.key, parts) == lost; {
		case there && o.result.class == done:
			w.wrong("partition %d has lost what was acknowledged, and %s is answered %q", lost, o, o.result.text)
		case !there && o.result.class != done:
			w.wrong("partition %d has lost nothing, and %s is answered %+v", 1-lost, o, o.result)
		}
	}
	if why := w.workers[0].m.Partitions()[lost].Status().LastError; !strings.Contains(why, broker.ErrRegressed.Error()) {
		w.wrong("partition %d halts because of %q", lost, why)
	}
	if halted() {
		w.repair(t, lost, end, []materializer.Choice{materializer.AcceptLoss, materializer.AppendImage}[w.rng.IntN(2)])
	}
}

// repair makes an operator choose, and checks the result: nothing that the log still has is lost,
// with append-image nothing that was acknowledged, and effects sent afterwards arrive once.
func (w *world) repair(t *testing.T, lost int32, end int, choice materializer.Choice) {
	t.Helper()
	w.fault("repaired by " + choice.String())
	w.note("an operator repairs partition %d by %s", lost, choice)
	before := map[string]string{}
	for _, key := range all {
		before[key] = string(w.stored(key))
	}
	kept := w.fold(t, lost)
	w.forgotten[lost] = choice == materializer.AcceptLoss
	if w.rng.IntN(3) == 0 {
		w.interrupt(t, lost, choice)
	}
	ended := make(chan error, 1)
	if w.state(lost) == core.Halted {
		go w.choose(lost, choice, ended) // ends with the repair; received below
	} else {
		ended <- nil // the interrupted repair only had to claim
	}
	w.bring(t, "the partition is owned again", func() bool { return len(ended) > 0 && w.state(lost) == core.Active })
	if err := <-ended; err != nil {
		w.wrong("repair of partition %d: %v", lost, err)
		return
	}
	w.operate(t) // that an operator has dropped an effect may be lost, too
	w.bring(t, "effects and timers are done", func() bool { return w.openEffects() == 0 && w.openTimers() == 0 })
	if now := len(w.log.Records(broker.Partition{Topic: topic, ID: lost})); now < end {
		w.wrong("after its repair partition %d ends at %d, before it was %d: offsets are used again", lost, now, end)
	}
	for _, key := range all {
		// those change by themselves
		if entities.Partition(key, parts) != lost || strings.ContainsRune("btge", rune(key[0])) {
			continue
		}
		want := before[key]
		if choice == materializer.AcceptLoss {
			want = string(w.storedIn(kept, key))
		}
		if got := string(w.stored(key)); got != want {
			w.wrong("after %s, %s is %q; want %q", choice, key, got, want)
		}
	}
	w.compareStore(t)
	if choice == materializer.AppendImage {
		w.compareEffects()
		w.compareAlarms()
	}
	w.sendMore(t)
}

func (w *world) choose(lost int32, choice materializer.Choice, ended chan<- error) {
	_, err := w.workers[0].m.Repair(w.ctx, lost, choice)
	ended <- err
}

// interrupt begins a repair and kills its worker in the middle.
func (w *world) interrupt(t *testing.T, lost int32, choice materializer.Choice) {
	t.Helper()
	ended := make(chan error, 1)
	go w.choose(lost, choice, ended) // ends with the worker; received below
	synctest.Wait()
	for range w.rng.IntN(4) {
		if queues := w.queues(func(op simlog.Op) bool { return !op.Answered }); len(queues) > 0 {
			w.log.Deliver(queues[0][0].ID)
			synctest.Wait()
		}
	}
	old := w.workers[0]
	w.fault("repair interrupted")
	w.note("%s dies in a repair", old.name)
	w.endLife(old)
	<-ended
	w.start(t, 0, old.store.Clone())
	for id := range int32(parts) {
		w.assign(0, id)
	}
	w.bring(t, "the partition halts again, or is owned", func() bool {
		s := w.state(lost)
		return s == core.Halted || s == core.Active
	})
}

// sendMore makes cells send once more: what targets know of lost offsets must not suppress new
// effects.
func (w *world) sendMore(t *testing.T) {
	t.Helper()
	had := map[string]int{}
	for range 4 {
		for _, n := range []string{"0", "1"} {
			if _, known := had[n]; !known {
				had[n] = number(w.stored("b" + n))
			}
			o := &operation{number: len(w.history), key: "s" + n, text: "send 1 b" + n, called: w.next()}
			w.history = append(w.history, o)
			w.attempt(o)
			synctest.Wait()
		}
	}
	w.bring(t, "what was sent after the repair has arrived",
		func() bool { return len(w.waiting) == 0 && w.healthyEffects() == 0 })
	for n, before := range had {
		if now := number(w.stored("b" + n)); now != before+4 {
			w.wrong("after the repair s%s has sent 4 more, and b%s went from %d to %d", n, n, before, now)
		}
	}
}

// fold returns the fold of a partition's present log.
func (w *world) fold(t *testing.T, p int32) *memstore.Store {
	t.Helper()
	store := memstore.New()
	fold := materializer.NewFold(materializer.Address{Generation: 1, Partition: uint16(p)}, topicID(w),
		materializer.Meta{})
	if w.gapped[p] {
		fold.PassOver(nil)
	}
	batch := store.NewBatch()
	records := w.log.Records(broker.Partition{Topic: topic, ID: p})
	for i := range records {
		if _, err := fold.Record(batch, &records[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(fold.WriteMeta(batch), batch.Commit()); err != nil {
		t.Fatal(err)
	}
	return store
}

func (w *world) state(partition int32) core.State {
	return w.workers[0].m.Partitions()[partition].Status().State
}
