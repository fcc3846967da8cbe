package materializer

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
)

// Due is an entry of the index of timers. It may be out of date: see Timer.
type Due struct {
	// At is the due time, in nanoseconds by the log's clock; Offset that of the record that set the
	// timer.
	At     int64
	Offset int64
	Key    entities.Key
	Name   string
}

// Timer is a timer of an entity, as it was last set.
type Timer struct {
	// Offset is that of the record that set it.
	Offset int64
	// Due is in nanoseconds by the log's clock. Schedule is that of a recurring timer, else empty.
	Due      int64
	Schedule string
	// Target is an encoded millrace.record.v1.Target.
	Target  []byte
	Payload entities.Payload
}

// Due yields the index of timers after (at, offset), in the order in which they are due, until
// yield returns false.
func (p Partition) Due(at, offset int64, yield func(Due) bool) error {
	lower := dueKey(p.Address, at, offset+1)
	_, upper := p.Address.rows(rowTimer)
	var failed error
	err := p.Rows.Scan(lower, upper, func(key, value []byte) bool {
		due := Due{
			At:     numberAt(key[len(key)-16:]),
			Offset: tailOffset(key),
		}
		d := decoder{rest: value}
		typ, id, found := bytes.Cut(d.bytes(d.uvarint()), []byte{'/'})
		due.Key, due.Name = entities.Key{Type: string(typ), ID: string(id)}, string(d.rest)
		failed = d.error("timer row")
		if failed == nil && !found {
			failed = fmt.Errorf("%w: timer row without an entity", ErrCorrupt)
		}
		return failed == nil && yield(due)
	})
	if err == nil {
		err = failed
	}
	return err
}

// Timer returns an entity's timer; ok is false when it has none of this name.
func (p Partition) Timer(key entities.Key, name string) (t Timer, ok bool, err error) {
	b, err := p.Rows.Get(appendTimer(appendEntity(nil, p.Address, key.Type, key.ID), name))
	if err != nil || b == nil {
		return Timer{}, false, err
	}
	t, err = parseTimer(b)
	return t, err == nil, err
}

// parseTimer keeps a part of the row.
func parseTimer(row []byte) (t Timer, err error) {
	d := decoder{rest: row}
	t.Offset, t.Due = d.varint(), d.varint()
	t.Schedule = string(d.bytes(d.uvarint()))
	t.Target = d.bytes(d.uvarint())
	t.Payload.TypeURL = string(d.bytes(d.uvarint()))
	t.Payload.Value = d.rest
	return t, d.error("timer of an entity")
}

// Sweep removes an entry of the index that is out of date.
func Sweep(store Store, a Address, d Due) error {
	batch := store.NewBatch()
	defer batch.Close() //nolint:errcheck // nothing to lose
	if err := batch.Delete(dueKey(a, d.At, d.Offset)); err != nil {
		return err
	}
	return batch.Commit()
}

func dueKey(a Address, due, offset int64) []byte {
	return appendNumber(appendNumber(a.row(nil, rowTimer), due), offset)
}

func appendTimer(prefix []byte, name string) []byte {
	return append(entityRow(prefix, entityTimer), name...)
}

// timerName is the name in the key of an entity's timer.
func timerName(key []byte) string { return string(key[entityPrefix(key)+1:]) }

// timer folds a record about a timer.
func (f *Fold) timer(rows Rows, prefix []byte, e *Entry) error {
	t, err := record.ParseTimer(e.Envelope.Timer)
	if err != nil {
		return fmt.Errorf("%w: offset %d: %w", ErrUnfoldable, e.Offset, err)
	}
	row := appendTimer(prefix, t.GetName())
	if e.Envelope.Kind == record.TimerFired {
		if err := rows.Delete(dueKey(f.address, t.GetDue(), record.Offset(t.GetSetOffset()))); err != nil {
			return err
		}
	}
	if e.Envelope.Kind != record.TimerSet {
		return rows.Delete(row)
	}
	offset := e.Envelope.Address(e.Offset)
	v := binary.AppendVarint(f.value[:0], offset)
	v = binary.AppendVarint(v, t.GetDue())
	v = binary.AppendUvarint(v, uint64(len(t.GetSchedule())))
	v = append(v, t.GetSchedule()...)
	v = binary.AppendUvarint(v, uint64(len(e.Envelope.Target)))
	v = append(v, e.Envelope.Target...)
	v = binary.AppendUvarint(v, uint64(len(e.Envelope.TypeURL)))
	v = append(v, e.Envelope.TypeURL...)
	f.value = append(v, e.Value...)
	if err := rows.Put(row, f.value); err != nil {
		return err
	}
	f.value = append(binary.AppendUvarint(f.value[:0], uint64(len(e.Key))), e.Key...)
	f.value = append(f.value, t.GetName()...)
	return rows.Put(dueKey(f.address, t.GetDue(), offset), f.value)
}
