package simlog

import broker "github.com/millrace-io/millrace/broker-adapter"

// Restore brings a removed record back, as a replica does that was away while the others compacted,
// and becomes leader. It does nothing to an offset whose record is there.
func (w *World) Restore(p broker.Partition, offset int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.mustPartition(p).gone, offset)
	w.wake()
}
