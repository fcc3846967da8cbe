package simlog

import broker "github.com/millrace-io/millrace/broker-adapter"

// Compact compacts the records of a partition below an offset, as far as compaction ever goes: only
// the newest record of each key in the whole partition is left, and tombstones that have nothing
// left to delete are gone. Records from the offset on stay, like those of Kafka's active segment.
// The topic must be a compacted one.
func (w *World) Compact(p broker.Partition, below int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	part := w.mustPartition(p)
	if !w.topics[p.Topic].spec.Compacted {
		panic("simlog: compact " + p.Topic + ": it was not created as a compacted topic")
	}
	newest := map[string]int64{}
	for i := range part.records {
		if offset := part.start + int64(i); !part.gone[offset] {
			newest[string(part.records[i].Key)] = offset
		}
	}
	if part.gone == nil {
		part.gone = map[int64]bool{}
	}
	for offset := part.start; offset < min(below, part.end()); offset++ {
		r := &part.records[offset-part.start]
		if r.Value == nil || newest[string(r.Key)] > offset {
			part.gone[offset] = true
		}
	}
	w.wake()
}
