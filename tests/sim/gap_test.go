package sim

import (
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/partitions/core"
)

// removeRecord removes a record from the middle of one partition. Its owner, whose store is
// complete, goes on; a worker without a store halts there. When an operator has accepted the loss,
// that worker and the next one without a store own the partition.
func (w *world) removeRecord(t *testing.T) {
	t.Helper()
	lost := int32(w.rng.IntN(parts))
	p := broker.Partition{Topic: topic, ID: lost}
	end := len(w.log.Records(p))
	at := int64(w.rng.IntN(end - 1)) // not the last one, which would be a lost tail
	w.fault("record vanished")
	w.note("partition %d loses the record at offset %d of %d", lost, at, end)
	w.log.Remove(p, at, at+1)
	w.gapped[lost] = true
	if w.rng.IntN(2) == 0 {
		w.readAll(t)
		for _, o := range w.history[len(w.history)-len(all):] {
			if o.result.class != done {
				w.wrong("the owner's store is complete, and %s is answered %+v", o, o.result)
			}
		}
	}
	w.begin(t)
	asked := len(w.history)
	w.askAll()
	halted := func() bool { return w.state(lost) == core.Halted }
	w.bring(t, "the partition halts and all callers are answered", func() bool { return halted() && len(w.waiting) == 0 })
	for _, o := range w.history[asked:] {
		switch there := entities.Partition(o.key, parts) == lost; {
		case there && o.result.class == done:
			w.wrong("partition %d has lost a record, and %s is answered %q by a worker that never had it", lost, o,
				o.result.text)
		case !there && o.result.class != done:
			w.wrong("partition %d has lost nothing, and %s is answered %+v", 1-lost, o, o.result)
		}
	}
	if why := w.workers[0].m.Partitions()[lost].Status().LastError; !strings.Contains(why, materializer.ErrLost.Error()) {
		w.wrong("partition %d halts because of %q", lost, why)
	}
	if !halted() {
		return
	}
	w.repair(t, lost, end, materializer.AcceptLoss)
	w.begin(t)
	w.bring(t, "another worker without a store owns it", func() bool { return w.state(lost) == core.Active })
	w.compareStore(t)
}

// begin replaces the first worker by one without a store, which owns everything.
func (w *world) begin(t *testing.T) {
	t.Helper()
	w.endLife(w.workers[0])
	w.start(t, 0, memstore.New())
	for id := range int32(parts) {
		w.assign(0, id)
	}
}
