package materializer

import (
	"encoding/binary"
	"fmt"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
)

// Effect is an entry of the outbox: a command that a committed record asks for, not settled yet.
type Effect struct {
	// Offset is that of its record, which together with the partition names it.
	Offset int64
	// From is the entity that asked for it, as type/id.
	From string
	// Target is an encoded millrace.record.v1.Target.
	Target  []byte
	Payload entities.Payload
	// Parked says why it waits for an operator; empty when it does not. Attempts is how often it was tried until then.
	Parked   string
	Attempts uint32
}

// Outbox yields the partition's open effects from an offset on, in the order of their records, until yield returns false.
func (p Partition) Outbox(from int64, yield func(Effect) bool) error {
	upper := append(p.Address.append(nil), rowOutbox+1)
	var failed error
	err := p.Rows.Scan(appendOffset(p.Address, rowOutbox, from), upper, func(key, value []byte) bool {
		var e Effect
		if e, failed = p.effect(key, value); failed != nil {
			return false
		}
		return yield(e)
	})
	if err == nil {
		err = failed
	}
	return err
}

// Parked yields those that wait for an operator.
func (p Partition) Parked(yield func(Effect) bool) error {
	lower, upper := append(p.Address.append(nil), rowParked), append(p.Address.append(nil), rowParked+1)
	var failed error
	err := p.Rows.Scan(lower, upper, func(key, _ []byte) bool {
		row := append(append(p.Address.append(nil), rowOutbox), key[len(key)-8:]...)
		var (
			value []byte
			e     Effect
		)
		if value, failed = p.Rows.Get(row); failed == nil && value != nil {
			e, failed = p.effect(row, value)
		}
		return failed == nil && (value == nil || yield(e))
	})
	if err == nil {
		err = failed
	}
	return err
}

// effect takes a row of the outbox apart.
func (p Partition) effect(key, value []byte) (Effect, error) {
	e := Effect{Offset: int64(binary.BigEndian.Uint64(key[len(key)-8:]))} //nolint:gosec // offsets are positive
	d := decoder{rest: value}
	e.From = string(d.bytes(d.uvarint()))
	e.Target = append(e.Target, d.bytes(d.uvarint())...)
	e.Payload.TypeURL = string(d.bytes(d.uvarint()))
	e.Payload.Value = append(e.Payload.Value, d.rest...)
	if err := d.error("outbox row"); err != nil {
		return Effect{}, err
	}
	return e, p.parked(&e)
}

func (p Partition) parked(e *Effect) error {
	b, err := p.Rows.Get(appendOffset(p.Address, rowParked, e.Offset))
	if err != nil || b == nil {
		return err
	}
	d := decoder{rest: b}
	e.Attempts = uint32(d.uvarint()) //nolint:gosec // written from one
	e.Parked = string(d.rest)
	return d.error("parked row")
}

// Delivered returns what is remembered of an effect of another partition that took effect here, and below which offset that
// partition is known to be done with its effects.
func (p Partition) Delivered(s entities.Source) (stored Stored, ok bool, settled int64, err error) {
	b, err := p.Rows.Get(appendSource(nil, p.Address, s.Generation, s.Partition))
	if err != nil {
		return Stored{}, false, 0, err
	}
	if b != nil {
		d := decoder{rest: b}
		settled = int64(d.uvarint()) //nolint:gosec // offsets are positive
		if err := d.error("settled row"); err != nil {
			return Stored{}, false, 0, err
		}
	}
	b, err = p.Rows.Get(appendDelivered(nil, p.Address, s))
	if err != nil || b == nil {
		return Stored{}, false, settled, err
	}
	stored, err = parseStored(b)
	return stored, err == nil, settled, err
}

// Forget removes what is remembered of effects that their partitions have settled, at most limit of them, and returns how
// many. It only frees space: nothing that is settled is sent again.
func Forget(store Store, a Address, limit int) (int, error) {
	batch := store.NewBatch()
	defer batch.Close() //nolint:errcheck // nothing to lose
	var (
		settled uint64
		source  []byte
		failed  error
		n       int
	)
	lower, upper := append(a.append(nil), rowDelivered), append(a.append(nil), rowDelivered+1)
	err := store.Scan(lower, upper, func(key, value []byte) bool {
		if len(key) == sourceHeader {
			d := decoder{rest: value}
			source, settled = append(source[:0], key...), d.uvarint()
			failed = d.error("settled row")
			return failed == nil
		}
		if string(key[:sourceHeader]) == string(source) && binary.BigEndian.Uint64(key[sourceHeader:]) < settled {
			failed = batch.Delete(key)
			n++
		}
		return failed == nil && n < limit
	})
	if err == nil {
		err = failed
	}
	if err != nil || n == 0 {
		return 0, err
	}
	return n, batch.Commit()
}

// sourceHeader is the length of a delivered row's key up to and including the source partition.
const sourceHeader = 4 + 1 + 4

func appendOffset(a Address, row byte, offset int64) []byte {
	return binary.BigEndian.AppendUint64(append(a.append(nil), row), uint64(offset)) //nolint:gosec // offsets are positive
}

func appendSource(buf []byte, a Address, generation, partition uint16) []byte {
	buf = append(a.append(buf), rowDelivered)
	buf = binary.BigEndian.AppendUint16(buf, generation)
	return binary.BigEndian.AppendUint16(buf, partition)
}

func appendDelivered(buf []byte, a Address, s entities.Source) []byte {
	buf = appendSource(buf, a, s.Generation, s.Partition)
	buf = binary.BigEndian.AppendUint64(buf, uint64(s.Offset)) //nolint:gosec // offsets are positive
	return binary.BigEndian.AppendUint32(buf, s.Index)
}

// effect writes the outbox row of an effect.
func (f *Fold) effect(rows Rows, e *Entry) error {
	v := binary.AppendUvarint(f.value[:0], uint64(len(e.Key)))
	v = append(v, e.Key...)
	v = binary.AppendUvarint(v, uint64(len(e.Envelope.Target)))
	v = append(v, e.Envelope.Target...)
	v = binary.AppendUvarint(v, uint64(len(e.Envelope.TypeURL)))
	v = append(v, e.Envelope.TypeURL...)
	f.value = append(v, e.Value...)
	return rows.Put(appendOffset(f.address, rowOutbox, e.Envelope.Address(e.Offset)), f.value)
}

// settled folds what became of outbox entries.
func (f *Fold) settled(rows Rows, e *Entry) error {
	s, err := record.ParseSettled(e.Value)
	if err != nil {
		return fmt.Errorf("%w: offset %d: %w", ErrUnfoldable, e.Offset, err)
	}
	for _, offset := range s.GetDone() {
		if err := f.done(rows, int64(offset)); err != nil { //nolint:gosec // offsets are positive
			return err
		}
	}
	for _, p := range s.GetParked() {
		f.value = append(binary.AppendUvarint(f.value[:0], uint64(p.GetAttempts())), p.GetError()...)
		if err := rows.Put(appendOffset(f.address, rowParked, int64(p.GetOffset())), f.value); err != nil { //nolint:gosec // offsets are positive
			return err
		}
	}
	for _, offset := range s.GetReplayed() {
		if err := rows.Delete(appendOffset(f.address, rowParked, int64(offset))); err != nil { //nolint:gosec // offsets are positive
			return err
		}
	}
	for _, offset := range s.GetRefused() {
		if err := rows.Delete(appendOffset(f.address, rowRefused, int64(offset))); err != nil { //nolint:gosec // offsets are positive
			return err
		}
	}
	return nil
}

// delivered remembers, with the last record of its group, an effect of another partition that took effect here.
func (f *Fold) delivered(rows Rows, e *Entry, stored *Stored) error {
	c := e.Envelope.Cause
	s := Source(c)
	f.value = stored.append(f.value[:0])
	if err := rows.Put(appendDelivered(nil, f.address, s), f.value); err != nil {
		return err
	}
	if c.Settled == 0 {
		return nil
	}
	f.value = binary.AppendUvarint(f.value[:0], c.Settled)
	return rows.Put(appendSource(nil, f.address, s.Generation, s.Partition), f.value)
}

// Source returns the address of the effect that a record follows from.
func Source(c *record.Cause) entities.Source {
	return entities.Source{
		Generation: uint16(c.Generation), Partition: uint16(c.Partition), //nolint:gosec // at most 4096 partitions, few generations
		Offset: int64(c.Offset), Index: c.Index, Settled: int64(c.Settled), //nolint:gosec // offsets are positive
	}
}
