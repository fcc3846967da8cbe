package materializer

import (
	"bytes"
	"fmt"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
)

// Fold turns the records of one partition into rows: catch-up, standby, gap scan, bulk rebuild and
// the owner's own acknowledged records all go through Apply. It applies the reader rule as a
// Journal does. It belongs to one goroutine at a time.
//
// The rows that it produces are blind writes: nothing is read to fold, so that the same code can
// write into a batch of a store or into the overlay of a bulk rebuild.
type Fold struct {
	*reading

	// key and value are scratch space.
	key, value []byte
	// observe is called with every record that takes effect, before its rows are written; it may be
	// nil.
	observe func(*Entry)
}

// FoldCounts are what a fold has read since it began.
type FoldCounts struct {
	// Records is the number of records, Events that of stored events.
	Records, Events uint64
	// Void records did not count by the reader rule, Foreign ones had no readable envelope.
	Void, Foreign uint64
	// DroppedGroups were incomplete when another group began under the same owner: an alarm.
	DroppedGroups uint64
	// Jumped are claims that were void because their epoch was absurdly high: an alarm.
	Jumped uint64
}

// NewFold returns a fold that continues at meta.Next. A zero meta is an empty partition of the
// given topic.
func NewFold(a Address, topicID string, meta Meta) *Fold {
	return &Fold{reading: newReading(a, topicID, meta)}
}

// Observe calls each with every record that takes effect from now on, in order, before its rows are
// written. The entry is valid only during the call. Meta is by then that after the record's group.
func (f *Fold) Observe(each func(*Entry)) { f.observe = each }

// Journal returns a journal that continues at the fold's position, where the reader must be too.
// What it reads is for Apply.
func (f *Fold) Journal(reader broker.Reader) *Journal { return newJournal(reader, f.reading) }

// Record folds a record as it was read from the log. The record is not kept. A *LostError (ErrLost)
// says that the log has lost records before this one; after that, and after ErrUnfoldable, the fold
// must not be used.
func (f *Fold) Record(rows Rows, r *broker.Record) (record.Verdict, error) {
	read, err := f.read(r)
	if err == nil {
		err = f.Apply(rows, read)
	}
	return read.Verdict, err
}

// Step folds one decoded record, which was not read: an owner's own. The entry is not kept. Errors
// are those of Record.
func (f *Fold) Step(rows Rows, e *Entry) (record.Verdict, error) {
	read, err := f.classify(nil, e)
	if err == nil {
		err = f.Apply(rows, read)
	}
	return read.Verdict, err
}

// Apply writes the rows of the records that take effect with one that the fold's journal has read.
// After ErrUnfoldable the fold must not be used.
func (f *Fold) Apply(rows Rows, r *Read) error {
	if !r.effective() {
		return nil
	}
	for i := range r.group {
		if err := f.write(rows, &r.group[i]); err != nil {
			return err
		}
	}
	return f.write(rows, r.Entry)
}

// misplaced returns an error for a record that belongs to another partition. Owners whose claim has
// the layout write to the right partition.
func (f *Fold) misplaced(id []byte, e *Entry) error {
	l := &f.meta.Layout
	if f.rule.Current == f.attested || l.Partitions == 0 {
		return nil
	}
	if belongs := entities.Partition(string(id), int(l.Partitions)); belongs != int32(f.address.Partition) {
		return fmt.Errorf(
			"%w: offset %d: %w: %q belongs to partition %d of %d and is in %s: the journal was written with another number of partitions; "+
				"start with --partitions and that number", ErrUnfoldable, e.Offset, entities.ErrLayout, e.Key, belongs,
			l.Partitions, f.address)
	}
	return nil
}

// WriteMeta writes the meta row of all rows written so far. It must be in the same batch.
func (f *Fold) WriteMeta(rows Rows) error {
	f.value = f.meta.Append(f.value[:0])
	return rows.Put(f.address.metaKey(), f.value)
}

// write turns one valid record into rows.
func (f *Fold) write(rows Rows, e *Entry) error {
	if f.observe != nil {
		f.observe(e)
	}
	switch {
	case e.Envelope.Kind == record.Settled:
		return f.settled(rows, e)
	case e.Envelope.Kind == record.Answered && e.Envelope.Cause != nil:
		return f.remember(rows, nil, e) // an effect is known by its address, not by an entity
	}
	typ, id, found := bytes.Cut(e.Key, []byte{'/'})
	if !found {
		return fmt.Errorf("%w: offset %d: key %q of a %s record names no entity", ErrUnfoldable, e.Offset,
			e.Key, e.Envelope.Kind)
	}
	if err := f.misplaced(id, e); err != nil {
		return err
	}
	f.key = appendEntity(f.key[:0], f.address, typ, id)
	var err error
	switch e.Envelope.Kind {
	case record.Effect:
		err = f.effect(rows, e)
	case record.TimerSet, record.TimerCancelled, record.TimerFired:
		err = f.timer(rows, f.key, e)
	case record.Refused:
		err = f.refused(rows, f.key, e)
	case record.Answered:
	default:
		err = f.state(rows, f.key, e)
	}
	if err != nil || e.Envelope.Index+1 != e.Envelope.Size() {
		return err
	}
	return f.remember(rows, f.key, e)
}

// state writes the rows of a record that changes what the entity is.
func (f *Fold) state(rows Rows, prefix []byte, e *Entry) error {
	env := &e.Envelope
	r, known := stateRecordOf(env.Kind)
	if !known {
		return fmt.Errorf(
			"%w: offset %d: kind %s is not known to this version: use the version that wrote it, or a newer one",
			ErrUnfoldable, e.Offset, env.Kind)
	}
	deleted, content, err := entityKinds[r.of].fold(f, rows, prefix, e)
	if err != nil {
		return err
	}
	if err := rows.Put(appendIndex(prefix, e.Offset), nil); err != nil {
		return err
	}
	head := Head{Kind: r.of, Sequence: env.Sequence, Offset: env.Address(e.Offset), Deleted: deleted}
	f.value = head.append(f.value[:0])
	if content {
		f.value = appendContent(f.value, 0, entities.Payload{TypeURL: env.TypeURL, Value: e.Value})
	}
	return rows.Put(entityRow(prefix, entityHead), f.value)
}

// remember writes the dedup rows of a command, with its last record.
func (f *Fold) remember(rows Rows, prefix []byte, e *Entry) error {
	stored := Stored{
		PayloadHash: e.Envelope.PayloadHash, Offset: e.Envelope.Address(e.Offset),
		LogTime: e.Envelope.LogTime, Answer: e.Envelope.Answer,
	}
	if e.Envelope.Cause != nil {
		if err := f.delivered(rows, e, &stored); err != nil {
			return err
		}
	}
	if e.Envelope.CommandID == "" {
		return nil
	}
	f.value = stored.append(f.value[:0])
	key := appendDedup(prefix, e.Envelope.Principal, e.Envelope.CommandID)
	if err := rows.Put(key, f.value); err != nil {
		return err
	}
	kind := byte(rowExpiry)
	if entities.IsRouted(e.Envelope.CommandID) {
		kind = rowRouted
	}
	return rows.Put(appendExpiry(nil, f.address, kind, e.Envelope.LogTime, key), nil)
}
