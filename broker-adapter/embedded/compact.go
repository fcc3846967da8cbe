package embedded

import (
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// Compacted topics are compacted while they are written: a row per key finds its newest record, and
// a newer one deletes the older in the same batch. A tombstone has nothing to do after that batch,
// but the last record of a partition must stay, because its end is found by it at the next start.
// So a tombstone goes, with the row of its key, in the batch of the record that follows it. There
// is no background work, and a crash comes before or after a batch, never between two of its steps.

// noRecord is the offset of a key that has no record yet.
const noRecord = -1

// findNewest looks up the newest records of the request's keys. The committer remembers them until
// the group is staged, since a key may come twice in a group.
func (l *Log) findNewest(r *request) error {
	p := r.partition
	for i := range r.records {
		row := newestKey(p.topic.Number, p.id, r.records[i].Key)
		if _, known := l.newest[string(row)]; known {
			continue
		}
		value, closer, err := l.db.Get(row)
		if errors.Is(err, pebble.ErrNotFound) {
			l.newest[string(row)] = noRecord
			continue
		}
		if err != nil {
			return err
		}
		l.newest[string(row)] = int64(binary.BigEndian.Uint64(value)) //nolint:gosec // written by supersede
		if err := closer.Close(); err != nil {
			return err
		}
	}
	return nil
}

// supersede stages that the record at offset is now the newest of its key. findNewest has been
// called for it.
func (l *Log) supersede(p *partition, r *broker.Record, offset int64) {
	number, id := p.topic.Number, p.id
	l.dropTombstone(p, offset-1)
	row := newestKey(number, id, r.Key)
	if older := l.newest[string(row)]; older != noRecord {
		_ = l.batch.Delete(recordKey(number, id, older), nil) // cannot fail: it only writes to memory
	}
	op := l.batch.SetDeferred(len(row), 8)
	copy(op.Key, row)
	binary.BigEndian.PutUint64(op.Value, uint64(offset)) //nolint:gosec // offsets are never negative
	_ = op.Finish()                                      // cannot fail: the batch has no index
	l.newest[string(row)] = offset
	if r.Value == nil {
		p.tombstone = row
	}
}

// dropTombstone stages the end of the tombstone at offset, the last record so far, if it is one.
func (l *Log) dropTombstone(p *partition, offset int64) {
	row := p.tombstone
	if row == nil {
		return
	}
	p.tombstone = nil
	_ = l.batch.Delete(recordKey(p.topic.Number, p.id, offset), nil) // cannot fail: it only writes to memory
	_ = l.batch.Delete(row, nil)                                     // nor this
	l.newest[string(row)] = noRecord
}
