package materializer

import (
	"bytes"
	"fmt"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
)

// Entry is one record of a journal with its envelope decoded.
type Entry struct {
	Offset   int64
	Key      []byte
	Value    []byte
	Envelope record.Envelope
}

// Size is what the entry counts in an append, as broker.Size counts it.
func (e *Entry) Size() int {
	return broker.RecordOverhead + len(e.Key) + len(e.Value) + broker.HeaderOverhead + len(record.HeaderKey) + e.Envelope.EncodedSize()
}

// Fold is the one way from records to rows, for one partition: catch-up, standby, gap scan, bulk rebuild and the owner's
// own acknowledged records all go through Step. It belongs to one goroutine at a time.
//
// The rows that it produces are blind writes: nothing is read to fold, so that the same code can write into a batch of a
// store or into the overlay of a bulk rebuild.
type Fold struct {
	address Address
	rule    record.Rule
	meta    Meta
	parser  record.Parser
	group   []Entry
	entry   Entry
	// key and value are scratch space.
	key, value []byte
	counts     FoldCounts
	// next is the offset that the next record must have.
	next int64
	// lost counts losses that were passed over: those before accepted, or all of them, of which met is told.
	lost     uint64
	accepted int64
	met      func(*LostError)
	// released is the last owner that this fold saw release the partition.
	released record.Owner
	// attested is the last owner whose claim had the layout of this fold: its records lie where they belong.
	attested record.Owner
	// stranger is the last owner whose claim has another layout, as strange says; nothing of it is folded. vouched: rows were folded by the
	// layout of this fold, or a claim has it, so that the stranger is the exception.
	stranger record.Owner
	strange  error
	vouched  bool
	// each is told of every record that takes effect, before its rows are written. Nil: nobody is.
	each func(*Entry)
}

// FoldCounts are what a fold met, since it began.
type FoldCounts struct {
	// Records is the number of records, Events that of stored events.
	Records, Events uint64
	// Stale records were void by the reader rule, Foreign ones had no readable envelope.
	Stale, Foreign uint64
	// DroppedGroups were incomplete when another group began under the same owner: an alarm.
	DroppedGroups uint64
	// Jumped are claims that were void because their epoch was absurdly high: an alarm.
	Jumped uint64
}

// NewFold returns a fold that goes on where meta says. A zero meta is an empty partition of the given topic.
func NewFold(a Address, topicID string, meta Meta) *Fold {
	if meta == (Meta{}) {
		meta = Meta{FoldVersion: FoldVersion, TopicID: topicID}
	}
	f := &Fold{address: a, meta: meta, next: meta.Next, lost: meta.Lost}
	f.rule = record.Rule{Current: meta.Owner, Ordinal: meta.Ordinal}
	f.vouched = meta.Layout != (entities.Layout{}) && meta.Next > 0
	return f
}

// Expect says by which layout the journal must have been written. Without it, it is that of the store, else of the first claim that
// has one. The error says that the store was folded by another one.
func (f *Fold) Expect(l entities.Layout) error {
	if f.meta.Layout != (entities.Layout{}) {
		return l.Differs(f.meta.Layout, "the store of "+f.address.String())
	}
	f.meta.Layout = l
	return nil
}

// Meta returns what the rows written so far vouch for. Next never points inside an open group.
func (f *Fold) Meta() Meta { return f.meta }

// Owner returns the owner by the reader rule after the last record.
func (f *Fold) Owner() record.Owner { return f.rule.Current }

// Released says whether nobody owns the partition after the last record: nobody ever did, or this fold has seen its owner's release.
// One that began behind that does not know of it.
func (f *Fold) Released() bool { return f.rule.Current == f.released }

// Counts returns what the fold met.
func (f *Fold) Counts() FoldCounts { return f.counts }

// Record folds a record as it was read from the log. The record is not kept. A *LostError (ErrLost) says that the log has lost records
// before this one; then, and after ErrUnfoldable, the fold is of no use.
func (f *Fold) Record(rows Rows, r *broker.Record) (record.Verdict, error) {
	f.entry.Offset, f.entry.Key, f.entry.Value = r.Offset, r.Key, r.Value
	if err := f.parser.Parse(r.Header(record.HeaderKey), &f.entry.Envelope); err != nil {
		f.counts.Records++
		f.counts.Foreign++
		if err := f.at(r.Offset); err != nil {
			return record.Foreign, err
		}
		f.passed(r.Offset)
		return f.rule.Foreign(), nil
	}
	if f.entry.Envelope.Kind == record.Claim {
		// A claim cannot know the log's clock; every later record of its owner counts from its append time.
		f.entry.Envelope.LogTime = r.Time.UnixNano()
	}
	return f.Step(rows, &f.entry)
}

// Step folds one decoded record and writes the rows of the group that it completes. The entry is not kept. Errors are those of
// Record.
func (f *Fold) Step(rows Rows, e *Entry) (record.Verdict, error) {
	f.counts.Records++
	if err := f.at(e.Offset); err != nil {
		return record.Void, err
	}
	before := f.rule.Current
	verdict, dropped := f.rule.Step(&e.Envelope)
	if dropped {
		f.group = f.group[:0]
		if verdict != record.Claimed {
			f.counts.DroppedGroups++
		}
	}
	var err error
	switch verdict {
	case record.Void:
		f.counts.Stale++
		if e.Envelope.Kind == record.Claim && before.Jumps(e.Envelope.Epoch) {
			f.counts.Jumped++
		}
	case record.Pending:
		f.group = append(f.group, e.clone())
	case record.Complete:
		if f.estranged() {
			err = f.skip(e)
			break
		}
		for i := range f.group {
			if err = f.write(rows, &f.group[i]); err != nil {
				return verdict, err
			}
		}
		f.group = f.group[:0]
		err = f.write(rows, e)
	case record.Claimed:
		if err = f.follows(e, before); err != nil {
			return verdict, err
		}
		if c := e.Envelope.Claim; c != nil {
			f.meta.Floor = max(f.meta.Floor, int64(c.Floor)) //nolint:gosec // offsets are positive
			err = f.attest(e.Offset, c)
		}
	case record.Control:
		if e.Envelope.Kind == record.Release {
			f.released = f.rule.Current
		}
	case record.Foreign:
	}
	if verdict != record.Void {
		f.meta.LogTime = max(f.meta.LogTime, e.Envelope.LogTime)
	}
	f.passed(e.Offset)
	return verdict, err
}

// attest compares the layout of a claim that counts with that of this fold.
func (f *Fold) attest(offset int64, c *record.ClaimInfo) error {
	if c.Layout == (entities.Layout{}) {
		return nil // of an older version: its records are looked at one by one
	}
	if f.meta.Layout == (entities.Layout{}) {
		f.meta.Layout = c.Layout
	}
	if err := f.meta.Layout.Differs(c.Layout, fmt.Sprintf("the claim of worker %q at offset %d", c.Worker, offset)); err != nil && !mutation.On(mutation.Layout) {
		f.stranger, f.strange = f.rule.Current, err
		return f.loses(&LostError{Offset: offset, What: err.Error() + ": the claim counts, and nothing that its owner writes may", Layout: err})
	}
	f.attested, f.vouched = f.rule.Current, true
	return nil
}

// estranged says whether the present owner's claim has another layout: what it writes is of another journal.
func (f *Fold) estranged() bool {
	return f.strange != nil && f.rule.Current == f.stranger && !mutation.On(mutation.Stranger)
}

// skip takes a group of an owner of another layout. It is a loss that a repair may accept; but where the log has no claim of the layout of
// this fold, it is this fold that is wrong about it.
func (f *Fold) skip(e *Entry) error {
	n := int64(len(f.group)) + 1
	f.group = f.group[:0]
	if !f.vouched {
		return fmt.Errorf("%w: %w: no claim before offset %d has the layout of this worker", ErrUnfoldable, f.strange, e.Offset)
	}
	return f.loses(&LostError{Offset: e.Offset, Missing: n, What: fmt.Sprintf("the record at offset %d is of an owner of another layout: %v", e.Offset, f.strange), Layout: f.strange})
}

// misplaced returns an error for a record that belongs to another partition. Owners whose claim has the layout know where to write.
func (f *Fold) misplaced(id []byte, e *Entry) error {
	l := &f.meta.Layout
	if f.rule.Current == f.attested || l.Partitions == 0 {
		return nil
	}
	if belongs := entities.Partition(string(id), int(l.Partitions)); belongs != int32(f.address.Partition) {
		return fmt.Errorf("%w: offset %d: %w: %q belongs to partition %d of %d and is in %s: the journal was written with another number of partitions; "+
			"start with --partitions and that number", ErrUnfoldable, e.Offset, entities.ErrLayout, e.Key, belongs, l.Partitions, f.address)
	}
	return nil
}

// passed moves Next behind an offset, unless a group is open.
func (f *Fold) passed(offset int64) {
	if !f.rule.Open() && !f.estranged() { // who goes on from Next must meet the claim of another layout again
		f.meta.Next, f.meta.Owner, f.meta.Ordinal, f.meta.Lost = offset+1, f.rule.Current, f.rule.Ordinal, f.lost
	}
}

// WriteMeta writes the row that vouches for all rows written so far. It belongs into the same batch.
func (f *Fold) WriteMeta(rows Rows) error {
	f.value = f.meta.append(f.value[:0])
	return rows.Put(f.address.metaKey(), f.value)
}

func (e *Entry) clone() Entry {
	c := *e
	c.Key = bytes.Clone(e.Key)
	c.Value = bytes.Clone(e.Value)
	c.Envelope.Answer = bytes.Clone(e.Envelope.Answer)
	c.Envelope.Target = bytes.Clone(e.Envelope.Target)
	c.Envelope.Timer = bytes.Clone(e.Envelope.Timer)
	return c
}

// write turns one valid record into rows.
func (f *Fold) write(rows Rows, e *Entry) error {
	if f.each != nil {
		f.each(e)
	}
	switch {
	case e.Envelope.Kind == record.Settled:
		return f.settled(rows, e)
	case e.Envelope.Kind == record.Answered && e.Envelope.Cause != nil:
		return f.remember(rows, nil, e) // an effect is known by its address, not by an entity
	}
	typ, id, found := bytes.Cut(e.Key, []byte{'/'})
	if !found {
		return fmt.Errorf("%w: offset %d: key %q of a %s record names no entity", ErrUnfoldable, e.Offset, e.Key, e.Envelope.Kind)
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
	head := Head{Offset: env.Address(e.Offset), Sequence: env.Sequence}
	payload := entities.Payload{TypeURL: env.TypeURL, Value: e.Value}
	switch env.Kind {
	case record.Event:
		f.counts.Events++
		head.Kind = entities.EventSourced
		f.value = appendContent(f.value[:0], env.Sequence, payload)
		if err := rows.Put(appendTail(prefix, env.Sequence), f.value); err != nil {
			return err
		}
	case record.Snapshot:
		head.Kind = entities.EventSourced
		f.value = appendContent(f.value[:0], env.Sequence, payload)
		if err := rows.Put(entityRow(prefix, entityState), f.value); err != nil {
			return err
		}
		for seq := env.PreviousSnapshot + 1; seq <= env.Sequence; seq++ {
			if err := rows.Delete(appendTail(prefix, seq)); err != nil {
				return err
			}
		}
	case record.State:
		f.counts.Events++
		head.Kind = entities.Value
	case record.Delete:
		f.counts.Events++
		head.Kind, head.Deleted = entities.Value, true
	default:
		return fmt.Errorf("%w: offset %d: kind %s is not known to this version: use the version that wrote it, or a newer one", ErrUnfoldable, e.Offset, env.Kind)
	}
	if err := rows.Put(appendIndex(prefix, e.Offset), nil); err != nil {
		return err
	}
	f.value = head.append(f.value[:0])
	if env.Kind == record.State {
		f.value = appendContent(f.value, 0, payload)
	}
	return rows.Put(entityRow(prefix, entityHead), f.value)
}

// remember writes the dedup rows of a command, with its last record.
func (f *Fold) remember(rows Rows, prefix []byte, e *Entry) error {
	stored := Stored{PayloadHash: e.Envelope.PayloadHash, Offset: e.Envelope.Address(e.Offset), LogTime: e.Envelope.LogTime, Answer: e.Envelope.Answer}
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
