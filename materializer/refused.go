package materializer

import (
	"encoding/binary"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// Refusal is an effect that its target refused, kept for an operator. It is settled: it is not sent
// again.
type Refusal struct {
	// Offset is that of the refused record, by which the refusal is named; Effect is that of the
	// effect's record.
	Offset, Effect int64
	// LogTime is when the refusal was recorded, in nanoseconds.
	LogTime int64
	// From is the entity that asked for the effect, as type/id.
	From string
	// Target is an encoded millrace.record.v1.Target.
	Target  []byte
	Payload entities.Payload
	// Answer is an encoded millrace.record.v1.Answer with code and text of the refusal.
	Answer []byte
}

func (r *Refusal) append(buf []byte) []byte {
	buf = binary.AppendVarint(buf, r.Effect)
	buf = binary.AppendVarint(buf, r.LogTime)
	buf = appendBytes(buf, r.From)
	buf = appendBytes(buf, r.Target)
	buf = appendBytes(buf, r.Answer)
	buf = appendBytes(buf, r.Payload.TypeURL)
	return append(buf, r.Payload.Value...)
}

// appendBytes appends bytes after their length.
func appendBytes[S ~string | ~[]byte](buf []byte, b S) []byte {
	return append(binary.AppendUvarint(buf, uint64(len(b))), b...)
}

// parseRefusal keeps nothing of key and value.
func parseRefusal(key, value []byte) (Refusal, error) {
	d := decoder{rest: value}
	r := Refusal{Offset: tailOffset(key), Effect: d.varint(), LogTime: d.varint()}
	r.From = string(d.bytes(d.uvarint()))
	r.Target = append(r.Target, d.bytes(d.uvarint())...)
	r.Answer = append(r.Answer, d.bytes(d.uvarint())...)
	r.Payload.TypeURL = string(d.bytes(d.uvarint()))
	r.Payload.Value = append(r.Payload.Value, d.rest...)
	return r, d.error("refused row")
}

// Refusals yields the refusals of the partition that are kept, from an offset on, oldest first,
// until yield returns false.
func (p Partition) Refusals(from int64, yield func(Refusal) bool) error {
	_, upper := p.Address.rows(rowRefused)
	var failed error
	err := p.Rows.Scan(appendOffset(p.Address, rowRefused, from), upper, func(key, value []byte) bool {
		var r Refusal
		if r, failed = parseRefusal(key, value); failed != nil {
			return false
		}
		return yield(r)
	})
	if err == nil {
		err = failed
	}
	return err
}

// RefusalOffsets yields the offsets of all refusals that are kept, oldest first.
func (p Partition) RefusalOffsets(yield func(offset int64)) error {
	lower, upper := p.Address.rows(rowRefused)
	return p.Rows.Scan(lower, upper, func(key, _ []byte) bool {
		yield(tailOffset(key))
		return true
	})
}

// Refusal returns the refusal of an offset; ok is false when none is kept.
func (p Partition) Refusal(offset int64) (r Refusal, ok bool, err error) {
	key := appendOffset(p.Address, rowRefused, offset)
	b, err := p.Rows.Get(key)
	if err != nil || b == nil {
		return Refusal{}, false, err
	}
	r, err = parseRefusal(key, b)
	return r, err == nil, err
}

// refused settles an effect that its target refused, and keeps the refusal. The asking entity's
// history has it.
func (f *Fold) refused(rows Rows, prefix []byte, e *Entry) error {
	effect := record.Offset(e.Envelope.Refuses)
	if err := f.done(rows, effect); err != nil {
		return err
	}
	if err := rows.Put(appendIndex(prefix, e.Offset), nil); err != nil {
		return err
	}
	r := Refusal{
		Effect: effect, LogTime: e.Envelope.LogTime, From: string(e.Key), Target: e.Envelope.Target,
		Answer:  e.Envelope.Answer,
		Payload: entities.Payload{TypeURL: e.Envelope.TypeURL, Value: e.Value},
	}
	f.value = r.append(f.value[:0])
	return rows.Put(appendOffset(f.address, rowRefused, e.Envelope.Address(e.Offset)), f.value)
}

// done takes an effect out of the outbox.
func (f *Fold) done(rows Rows, offset int64) error {
	if err := rows.Delete(appendOffset(f.address, rowOutbox, offset)); err != nil {
		return err
	}
	return rows.Delete(appendOffset(f.address, rowParked, offset))
}

// baseRefused finds refusals that the log has kept and the image knows to be dropped.
func (r *Restoration) baseRefused(key []byte) error {
	r.put(nil, record.EncodeSettled(&recordv1.Settled{Refused: []uint64{record.Unsigned(tailOffset(key))}}),
		record.Envelope{Kind: record.Settled})
	return nil
}

// imageRefused restores a refusal that is kept.
func (r *Restoration) imageRefused(key, value, base []byte) error {
	if base != nil {
		return nil
	}
	kept, err := parseRefusal(key, value)
	if err != nil {
		return err
	}
	r.put([]byte(kept.From), kept.Payload.Value, record.Envelope{
		Kind: record.Refused, LogTime: kept.LogTime, TypeURL: kept.Payload.TypeURL, Target: kept.Target, Answer: kept.Answer,
		Refuses: record.Unsigned(kept.Effect), Restores: record.Unsigned(kept.Offset),
	})
	return nil
}
