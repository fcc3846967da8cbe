package materializer

import (
	"bytes"
	"encoding/binary"
	"errors"
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
	// IsParked: it waits for an operator. Parked says why, and Attempts how often it was tried
	// until then.
	IsParked bool
	Parked   string
	Attempts uint32
	// Timer is set when it is the command of a parked timer: its name, and Due when it was due, in
	// nanoseconds by the log's clock.
	Timer string
	Due   int64
}

// Outbox yields the partition's open effects from an offset on, in the order of their records,
// until yield returns false.
func (p Partition) Outbox(from int64, yield func(Effect) bool) error {
	_, upper := p.Address.rows(rowOutbox)
	var failed error
	err := p.Rows.Scan(appendOffset(p.Address, rowOutbox, from), upper, func(key, value []byte) bool {
		var e Effect
		if e, failed = outboxRow(key, value); failed == nil {
			failed = p.parked(&e)
		}
		return failed == nil && yield(e)
	})
	return errors.Join(err, failed)
}

// Open returns the offsets of the first open effects from an offset on, parked ones included, at
// most limit of them.
func (p Partition) Open(from int64, limit int) (open []int64, err error) {
	_, upper := p.Address.rows(rowOutbox)
	err = p.Rows.Scan(appendOffset(p.Address, rowOutbox, from), upper, func(key, _ []byte) bool {
		open = append(open, tailOffset(key))
		return len(open) < limit
	})
	return open, err
}

// Unparked returns the first open effects from an offset on that do not wait for an operator. It
// looks at no more than limit effects, and stops where they take more than size bytes. next is
// where to go on; more is false when there are no others after it.
func (p Partition) Unparked(from int64, limit, size int) (found []Effect, next int64, more bool, err error) {
	next = from
	parked, err := p.parkedFrom(from, limit)
	if err != nil {
		return nil, from, true, err
	}
	var failed error
	seen := 0
	_, upper := p.Address.rows(rowOutbox)
	err = p.Rows.Scan(appendOffset(p.Address, rowOutbox, from), upper, func(key, value []byte) bool {
		if more = seen == limit || size < 0; more {
			return false
		}
		seen++
		offset := tailOffset(key)
		next = offset + 1
		for len(parked) > 0 && parked[0] < offset {
			parked = parked[1:]
		}
		if len(parked) > 0 && parked[0] == offset {
			return true
		}
		var e Effect
		if e, failed = outboxRow(key, value); failed != nil {
			return false
		}
		found, size = append(found, e), size-len(key)-len(value)
		return true
	})
	return found, next, more, errors.Join(err, failed)
}

// parkedFrom returns the offsets of the first parked effects from an offset on.
func (p Partition) parkedFrom(from int64, limit int) (parked []int64, err error) {
	_, upper := p.Address.rows(rowParked)
	err = p.Rows.Scan(appendOffset(p.Address, rowParked, from), upper, func(key, _ []byte) bool {
		parked = append(parked, tailOffset(key))
		return len(parked) < limit
	})
	return parked, err
}

// CountParked returns how many effects wait for an operator.
func (p Partition) CountParked() (n int, err error) {
	lower, upper := p.Address.rows(rowParked)
	err = p.Rows.Scan(lower, upper, func(_, _ []byte) bool { n++; return true })
	return n, err
}

// Parked yields those from an offset on that wait for an operator.
func (p Partition) Parked(from int64, yield func(Effect) bool) error {
	_, upper := p.Address.rows(rowParked)
	var failed error
	err := p.Rows.Scan(appendOffset(p.Address, rowParked, from), upper, func(key, _ []byte) bool {
		var (
			e     Effect
			found bool
		)
		e, found, failed = p.ParkedEffect(tailOffset(key))
		return failed == nil && (!found || yield(e))
	})
	return errors.Join(err, failed)
}

// ParkedEffect returns one effect that waits for an operator; ok is false when there is none.
func (p Partition) ParkedEffect(offset int64) (e Effect, ok bool, err error) {
	key := appendOffset(p.Address, rowOutbox, offset)
	value, err := p.Rows.Get(key)
	if err != nil || value == nil {
		return Effect{}, false, err
	}
	if e, err = outboxRow(key, value); err == nil {
		err = p.parked(&e)
	}
	return e, err == nil && e.IsParked, err
}

// outboxRow takes a row of the outbox apart.
func outboxRow(key, value []byte) (Effect, error) {
	e := Effect{Offset: tailOffset(key)}
	d := decoder{rest: value}
	e.From = string(d.bytes(d.uvarint()))
	e.Target = append(e.Target, d.bytes(d.uvarint())...)
	e.Payload.TypeURL = string(d.bytes(d.uvarint()))
	e.Payload.Value = append(e.Payload.Value, d.rest...)
	return e, d.error("outbox row")
}

func (p Partition) parked(e *Effect) error {
	b, err := p.Rows.Get(appendOffset(p.Address, rowParked, e.Offset))
	if err != nil || b == nil {
		return err
	}
	d := decoder{rest: b}
	e.Attempts = uint32(d.uvarint()) //nolint:gosec // written from one
	e.Timer, e.Due = string(d.bytes(d.uvarint())), d.varint()
	e.Parked, e.IsParked = string(d.rest), true
	return d.error("parked row")
}

// Delivered returns what is remembered of an effect of another partition that took effect here, and
// which effects that partition is known to be done with.
func (p Partition) Delivered(s entities.Source) (stored Stored, ok bool, known entities.Progress, err error) {
	b, err := p.Rows.Get(appendSource(nil, p.Address, s.Generation, s.Partition))
	if err != nil {
		return Stored{}, false, entities.Progress{}, err
	}
	if b != nil {
		if known, err = parseProgress(b); err != nil {
			return Stored{}, false, entities.Progress{}, err
		}
	}
	b, err = p.Rows.Get(appendDelivered(nil, p.Address, s))
	if err != nil || b == nil {
		return Stored{}, false, known, err
	}
	stored, err = parseStored(b)
	return stored, err == nil, known, err
}

// appendProgress encodes the progress of a source.
func appendProgress(buf []byte, through uint64, open []uint64) []byte {
	buf = binary.AppendUvarint(buf, through)
	for _, offset := range open {
		buf = binary.AppendUvarint(buf, offset)
	}
	return buf
}

func parseProgress(b []byte) (entities.Progress, error) {
	d := decoder{rest: b}
	p := entities.Progress{Through: record.Offset(d.uvarint())}
	for len(d.rest) > 0 {
		p.Open = append(p.Open, record.Offset(d.uvarint()))
	}
	return p, d.error("progress row")
}

// Forget removes what is remembered of effects that their partitions are done with. It begins after
// the row from, nil for the first one, and returns the row at which to go on, nil at the end; n is
// how many rows it removed. It looks at limit rows or a few more. It only frees space: nothing that
// is done is sent again.
func Forget(store Store, a Address, from []byte, limit int) (next []byte, n int, err error) {
	batch := store.NewBatch()
	defer batch.Close() //nolint:errcheck // nothing to lose
	kind, upper := a.rows(rowDelivered)
	rows := store.Iterator(kind, upper)
	defer rows.Close() //nolint:errcheck // its error was looked at
	from = append(bytes.Clone(kind), from...)
	var (
		source []byte
		known  entities.Progress
	)
	if len(from) > sourceHeader { // go on in the middle of a source
		source = from[:sourceHeader]
		b, err := store.Get(source)
		if err != nil {
			return nil, 0, err
		}
		if b != nil {
			if known, err = parseProgress(b); err != nil {
				return nil, 0, err
			}
		}
	}
	for more := rows.SeekGE(from); more; limit-- {
		key := rows.Key()
		if limit <= 0 {
			next = bytes.Clone(key[len(kind):])
			break
		}
		if !bytes.HasPrefix(key, source) || source == nil {
			source, known = bytes.Clone(key[:sourceHeader]), entities.Progress{}
		}
		if len(key) == sourceHeader {
			if known, err = parseProgress(rows.Value()); err != nil {
				return nil, 0, err
			}
			more = rows.Next()
			continue
		}
		offset := numberAt(key[sourceHeader:])
		if offset >= known.Through {
			more = rows.SeekGE(nextSource(source))
			continue
		}
		if known.Done(offset) {
			if err := batch.Delete(key); err != nil {
				return nil, 0, err
			}
			n++
		}
		more = rows.Next()
	}
	if err := rows.Error(); err != nil {
		return nil, 0, err
	}
	if n > 0 {
		err = batch.Commit()
	}
	return next, n, err
}

// nextSource is the first key after all rows of a source.
func nextSource(source []byte) []byte {
	next := bytes.Clone(source)
	binary.BigEndian.PutUint32(next[len(next)-4:], binary.BigEndian.Uint32(next[len(next)-4:])+1)
	return next
}

// sourceHeader is the length of a delivered row's key up to and including the source partition.
const sourceHeader = addressSize + 1 + 4

func appendOffset(a Address, row byte, offset int64) []byte {
	return appendNumber(a.row(nil, row), offset)
}

func appendSource(buf []byte, a Address, generation, partition uint16) []byte {
	buf = a.row(buf, rowDelivered)
	buf = binary.BigEndian.AppendUint16(buf, generation)
	return binary.BigEndian.AppendUint16(buf, partition)
}

func appendDelivered(buf []byte, a Address, s entities.Source) []byte {
	buf = appendSource(buf, a, s.Generation, s.Partition)
	buf = appendNumber(buf, s.Offset)
	return binary.BigEndian.AppendUint32(buf, s.Index)
}

// effect writes the outbox row of an effect.
func (f *Fold) effect(rows Rows, e *Entry) error {
	v := appendBytes(f.value[:0], e.Key)
	v = appendBytes(v, e.Envelope.Target)
	v = appendBytes(v, e.Envelope.TypeURL)
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
		if err := f.done(rows, record.Offset(offset)); err != nil {
			return err
		}
	}
	for _, p := range s.GetParked() {
		f.value = binary.AppendUvarint(f.value[:0], uint64(p.GetAttempts()))
		f.value = binary.AppendVarint(appendBytes(f.value, p.GetTimer().GetName()), p.GetTimer().GetDue())
		f.value = append(f.value, p.GetError()...)
		if err := rows.Put(appendOffset(f.address, rowParked, record.Offset(p.GetOffset())), f.value); err != nil {
			return err
		}
	}
	for _, offset := range s.GetReplayed() {
		if err := rows.Delete(appendOffset(f.address, rowParked, record.Offset(offset))); err != nil {
			return err
		}
	}
	for _, offset := range s.GetRefused() {
		if err := rows.Delete(appendOffset(f.address, rowRefused, record.Offset(offset))); err != nil {
			return err
		}
	}
	return nil
}

// delivered remembers, with the last record of its group, an effect of another partition that took
// effect here.
func (f *Fold) delivered(rows Rows, e *Entry, stored *Stored) error {
	c := e.Envelope.Cause
	s := c.Source()
	f.value = stored.append(f.value[:0])
	if err := rows.Put(appendDelivered(nil, f.address, s), f.value); err != nil {
		return err
	}
	if c.Settled == 0 {
		return nil
	}
	f.value = appendProgress(f.value[:0], c.Settled, c.Open)
	return rows.Put(appendSource(nil, f.address, s.Generation, s.Partition), f.value)
}
