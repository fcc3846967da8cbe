package materializer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/plural"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// ErrNotAhead: the log is not the beginning of what the image was folded from, so that writing the
// rest again would mix two histories.
var ErrNotAhead = errors.New("the store is not ahead of the log")

// Restored counts what a restoration writes again.
type Restored struct {
	Records, Entities int64
	// Events are written again one by one. Behind are those that are only in a snapshot: their
	// entity is as it was, their history is not.
	Events, Behind  int64
	Values, Answers int64
	Effects, Timers int64
}

// Restoration finds the records by which the fold of a log that has lost its tail becomes what it
// was: those of the difference between an image, rows that were folded before the loss, and a base,
// the fold of the log as it is. The base is folded further between two pages, so that a page never
// holds what the log has received meanwhile, and another restoration continues one that was cut
// off.
//
// What it writes is known by the offsets at which it was known before (Envelope.Restores). Not in
// the image, and so lost for good: events before a snapshot, earlier values of a value entity, what
// has expired, and who asked for what when.
type Restoration struct {
	image, base Partition
	meta        Meta
	// records and bytes bound a page, as broker.Size counts without what is once for an append; 0
	// records: no bound, and only counts are kept.
	records, bytes int
	steps          []restoring
	from           []byte

	page []Entry
	size int
	full bool
	// done are effects that the image knows to be settled.
	done    []uint64
	counts  Restored
	changed []byte
}

// NewRestoration returns a restoration whose pages have at most so many records and, unless a
// single one is larger, bytes, as Entry.Size counts them.
func NewRestoration(image, base Partition, records, bytes int) (*Restoration, error) {
	meta, known, err := image.Meta()
	switch {
	case err != nil:
		return nil, err
	case !known:
		return nil, fmt.Errorf("%w: it is empty", ErrNotAhead)
	case meta.FoldVersion != FoldVersion:
		return nil, fmt.Errorf(
			"%w: it was folded by version %d, this program folds by version %d: use the version of millrace that made it",
			ErrNotAhead, meta.FoldVersion, FoldVersion)
	}
	return &Restoration{image: image, base: base, meta: meta, records: records, bytes: bytes, steps: restoringSteps()}, nil
}

// Counts is what was written until now.
func (r *Restoration) Counts() Restored { return r.counts }

// restoring is one way through the rows of a kind, and of those that lie among them: of the log's
// fold, or of the image.
type restoring struct {
	rows byte
	base bool
}

// restoringSteps are what a restoration does, one after the other, by the table of kinds.
func restoringSteps() (steps []restoring) {
	add := func(needed bool, s restoring) {
		if needed && !slices.Contains(steps, s) {
			steps = append(steps, s)
		}
	}
	for i := range rowKinds {
		k := &rowKinds[i]
		add(k.base != nil, restoring{k.within(), true})
		add(k.image != nil, restoring{k.within(), false})
	}
	return steps
}

// Next returns the next page; an empty one at the end. Epoch, nonce and ordinals are the caller's
// to set. ErrNotAhead and ErrCorrupt say that the image cannot be restored.
func (r *Restoration) Next() ([]Entry, error) {
	r.page, r.size, r.full = nil, 0, false
	r.settle()
	for ; len(r.steps) > 0 && !r.full; r.steps = r.steps[1:] {
		if err := r.walk(r.steps[0]); err != nil {
			return nil, err
		}
		if r.full {
			break
		}
		r.from = nil
		r.settle() // what has no room is first on the next page
	}
	return r.page, nil
}

// walk visits the rows of a step, from where the page before ended.
func (r *Restoration) walk(s restoring) error {
	of, each := r.image, r.imageRow
	if s.base {
		of, each = r.base, r.baseRow
	}
	lower, upper := of.Address.rows(s.rows)
	if r.from != nil {
		lower = r.from
	}
	var failed error
	err := of.Rows.Scan(lower, upper, func(key, value []byte) bool {
		if k, _ := kindOf(key); k != nil {
			failed = each(k, key, value)
		}
		if r.full {
			r.from = bytes.Clone(key) // once more: the base has by then what of it is on this page
		}
		return failed == nil && !r.full
	})
	return errors.Join(err, failed)
}

// baseRow restores what became of a row that only the log's fold has.
func (r *Restoration) baseRow(k *rowKind, key, _ []byte) error {
	if k.base == nil {
		return nil
	}
	if known, err := counterpart(r.image, key); err != nil || known != nil {
		return err
	}
	return k.base(r, key)
}

// imageRow restores a row of the image, unless the log's fold has the same.
func (r *Restoration) imageRow(k *rowKind, key, value []byte) error {
	if k.image == nil {
		return nil
	}
	base, err := counterpart(r.base, key)
	if err != nil || (base != nil && bytes.Equal(base, value)) {
		return err
	}
	return k.image(r, key, value, base)
}

// ownerBytes is what epoch, nonce and ordinal, which are set later, take at most.
const ownerBytes = 11 + 9 + 11

// put adds a record to the page. It returns false when there is no room: then the page is full, and
// the next page begins with the row of the record.
func (r *Restoration) put(key, value []byte, env record.Envelope) bool {
	if env.LogTime == 0 {
		env.LogTime = r.meta.LogTime
	}
	if r.records > 0 {
		e := Entry{Key: key, Value: value, Envelope: env}
		size := e.Size() + ownerBytes
		if r.full = len(r.page) > 0 && (r.full || r.size+size > r.bytes); r.full {
			return false
		}
		r.page = append(r.page, e.Clone())
		r.size += size
		r.full = len(r.page) >= r.records
	}
	r.counts.Records++
	return true
}

// settle writes that effects are done, for as many as were found. Without room for it they stay for
// the next page.
func (r *Restoration) settle() {
	if len(r.done) > 0 &&
		r.put(nil, record.EncodeSettled(&recordv1.Settled{Done: r.done}), record.Envelope{Kind: record.Settled}) {
		r.done = nil
	}
}

// counterpart returns the row of another fold that a row corresponds to.
func counterpart(p Partition, key []byte) ([]byte, error) {
	return p.Rows.Get(readdressed(p.Address, key))
}

// readdressed is a key with another address.
func readdressed(a Address, key []byte) []byte {
	return append(a.append(make([]byte, 0, len(key))), key[addressSize:]...)
}

// baseHead refuses an entity that only the log has.
func (*Restoration) baseHead(key []byte) error {
	return fmt.Errorf("%w: it does not know %s, which the log has", ErrNotAhead, entityOf(key))
}

// baseTimer cancels a timer that has fired or was cancelled.
func (r *Restoration) baseTimer(key []byte) error {
	if r.put([]byte(entityOf(key).String()), nil, record.Envelope{
		Kind: record.TimerCancelled, Timer: record.EncodeTimer(&recordv1.Timer{Name: timerName(key)}),
	}) {
		r.counts.Timers++
	}
	return nil
}

// imageHead restores the state of an entity.
func (r *Restoration) imageHead(key, value, base []byte) error {
	entity := entityOf(key)
	head, content, err := parseHead(value)
	if err != nil {
		return err
	}
	var before Head
	if base != nil {
		if before, _, err = parseHead(base); err != nil {
			return err
		}
		if err := r.checkGrown(entity, key, &head, &before); err != nil {
			return err
		}
	}
	if !bytes.Equal(r.changed, key) {
		r.changed = bytes.Clone(key)
		r.counts.Entities++
	}
	k := entityKinds[head.Kind]
	if k == nil {
		return errKind(entity, head.Kind)
	}
	return k.restore(r, entity, key[:len(key)-1], &head, &before, content)
}

// checkGrown reports whether what the image has of an entity may be what became of what the log
// has. Below the floor of an earlier repair an entity is known by offsets that its index does not
// have.
func (r *Restoration) checkGrown(entity entities.Key, key []byte, image, base *Head) error {
	at, err := r.image.Rows.Get(appendIndex(bytes.Clone(key[:len(key)-1]), base.Offset))
	switch {
	case err != nil:
		return err
	case image.Kind != base.Kind || image.Sequence < base.Sequence:
		return fmt.Errorf("%w: of %s the log has %s and the store %d", ErrNotAhead, entity,
			plural.Of(base.Sequence, "event"), image.Sequence)
	case at == nil && base.Offset >= r.meta.Floor, image.Offset == base.Offset && image.Sequence == base.Sequence:
		return fmt.Errorf(
			"%w: the record of %s at offset %d of the log is not the one that the store has folded", ErrNotAhead, entity,
			base.Offset)
	default:
		return nil
	}
}

// imageTimer restores a timer.
func (r *Restoration) imageTimer(key, _, _ []byte) error {
	entity, name := entityOf(key), timerName(key)
	t, _, err := r.image.Timer(entity, name)
	if err != nil {
		return err
	}
	if r.put([]byte(entity.String()), t.Payload.Value, record.Envelope{
		Kind: record.TimerSet, TypeURL: t.Payload.TypeURL, Target: t.Target, Restores: record.Unsigned(t.Offset),
		Timer: record.EncodeTimer(&recordv1.Timer{Name: name, Due: t.Due, Schedule: t.Schedule}),
	}) {
		r.counts.Timers++
	}
	return nil
}

// imageDedup restores what is remembered of a command with an id.
func (r *Restoration) imageDedup(key, value, _ []byte) error {
	_, rest := kindOf(key)
	d := decoder{rest: rest}
	principal := string(d.bytes(d.uvarint()))
	return r.answer([]byte(entityOf(key).String()), value,
		record.Envelope{Principal: principal, CommandID: string(d.rest)})
}

// answer restores what is remembered of a command.
func (r *Restoration) answer(key, row []byte, env record.Envelope) error {
	stored, err := parseStored(row)
	if err != nil {
		return err
	}
	env.Kind, env.LogTime = record.Answered, stored.LogTime
	env.PayloadHash, env.Answer, env.Restores = stored.PayloadHash, stored.Answer, record.Unsigned(stored.Offset)
	if r.put(key, nil, env) {
		r.counts.Answers++
	}
	return nil
}

// baseOutbox finds effects that the log has open and the image knows to be settled.
func (r *Restoration) baseOutbox(key []byte) error {
	const most = 1024
	if len(r.done) == most {
		if r.settle(); r.full {
			return nil
		}
	}
	r.counts.Effects++
	r.done = append(r.done, record.Unsigned(tailOffset(key)))
	return nil
}

// baseParked finds effects that the log has parked and the image has not.
func (r *Restoration) baseParked(key []byte) error {
	if open, err := r.image.Rows.Get(appendOffset(r.image.Address, rowOutbox, tailOffset(key))); err != nil ||
		open == nil {
		return err
	}
	r.put(nil, record.EncodeSettled(&recordv1.Settled{Replayed: []uint64{record.Unsigned(tailOffset(key))}}),
		record.Envelope{Kind: record.Settled})
	return nil
}

// imageOutbox restores an open effect.
func (r *Restoration) imageOutbox(key, value, base []byte) error {
	e, err := outboxRow(key, value)
	if err != nil {
		return err
	}
	if base != nil {
		return fmt.Errorf("%w: the effect of offset %d differs from the one in the log", ErrNotAhead, e.Offset)
	}
	if r.put([]byte(e.From), e.Payload.Value, record.Envelope{
		Kind: record.Effect, Target: e.Target, TypeURL: e.Payload.TypeURL, Restores: record.Unsigned(e.Offset),
	}) {
		r.counts.Effects++
	}
	return nil
}

// imageParked restores that an effect waits for an operator.
func (r *Restoration) imageParked(key, _, _ []byte) error {
	e := Effect{Offset: tailOffset(key)}
	if err := r.image.parked(&e); err != nil {
		return err
	}
	parked := &recordv1.Parked{Offset: record.Unsigned(e.Offset), Error: e.Parked, Attempts: e.Attempts}
	if e.Timer != "" {
		parked.Timer = &recordv1.ParkedTimer{Name: e.Timer, Due: e.Due}
	}
	r.put(nil, record.EncodeSettled(&recordv1.Settled{Parked: []*recordv1.Parked{parked}}),
		record.Envelope{Kind: record.Settled})
	return nil
}

// imageDelivered restores what is known of effects of other partitions: how far those have settled,
// and the answers that they may still ask for.
func (r *Restoration) imageDelivered(key, value, _ []byte) error {
	cause := &record.Cause{
		Generation: uint32(binary.BigEndian.Uint16(key[addressSize+1:])),
		Partition:  uint32(binary.BigEndian.Uint16(key[addressSize+3:])),
	}
	if len(key) > sourceHeader {
		cause.Offset, cause.Index = binary.BigEndian.Uint64(key[sourceHeader:]), binary.BigEndian.Uint32(key[sourceHeader+8:])
		return r.answer(nil, value, record.Envelope{Cause: cause})
	}
	known, err := parseProgress(value)
	if err != nil || known.Through == 0 {
		return err
	}
	cause.Settled = record.Unsigned(known.Through)
	for _, offset := range known.Open {
		cause.Open = append(cause.Open, record.Unsigned(offset))
	}
	// It comes with an answer, so with one that is done: that is forgotten the next time. Offset 0
	// is a claim's, so there is one.
	done := known.Through - 1
	for !known.Done(done) {
		done--
	}
	cause.Offset, cause.Index = record.Unsigned(done), math.MaxUint32
	r.put(nil, nil, record.Envelope{Kind: record.Answered, Cause: cause})
	return nil
}
