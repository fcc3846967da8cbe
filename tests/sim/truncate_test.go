package sim

import (
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/partitions"
)

// truncate takes acknowledged records from the end of one partition, and looks that nobody is answered there any more, while the
// other one goes on. Sometimes the owner dies at the same moment: its store remembers. What nobody knows of any more, because
// the store is gone as well, cannot be missed.
func (w *world) truncate(t *testing.T) {
	t.Helper()
	lost := int32(w.rng.IntN(parts))
	p := broker.Partition{Topic: topic, ID: lost}
	end := len(w.log.Records(p))
	n := 1 + w.rng.IntN(min(end, 4))
	w.fault("log lost its tail")
	w.note("partition %d loses its last %d of %d records", lost, n, end)
	w.log.Truncate(p, int64(end-n))
	if w.rng.IntN(2) == 0 {
		old := w.workers[0]
		w.note("%s dies", old.name)
		w.bury(old)
		w.start(t, 0, old.store.Clone())
		for id := range int32(parts) {
			w.assign(0, id)
		}
	}
	asked := len(w.history)
	w.askAll()
	halted := func() bool { return w.state(lost) == partitions.Halted }
	w.settle(t, "the partition halts and everybody is answered", func() bool { return halted() && w.open == 0 })
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
}

func (w *world) state(partition int32) partitions.State {
	return w.workers[0].m.Partitions()[partition].Status().State
}
