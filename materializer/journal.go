package materializer

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"math"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
)

// Entry is one record of a journal, with its envelope decoded.
type Entry struct {
	Offset   int64
	Key      []byte
	Value    []byte
	Envelope record.Envelope
}

// Size is what the entry counts in an append, as broker.Size counts it.
func (e *Entry) Size() int {
	size := broker.RecordOverhead + len(e.Key) + len(e.Value) + broker.HeaderOverhead + len(record.HeaderKey) +
		e.Envelope.EncodedSize()
	if name := e.Envelope.TypeName(); name != "" {
		size += broker.HeaderOverhead + len(record.TypeHeader) + len(name)
	}
	return size
}

// Clone returns a copy that shares no bytes with the entry.
func (e *Entry) Clone() Entry {
	c := *e
	c.Key = bytes.Clone(e.Key)
	c.Value = bytes.Clone(e.Value)
	c.Envelope.Answer = bytes.Clone(e.Envelope.Answer)
	c.Envelope.Target = bytes.Clone(e.Envelope.Target)
	c.Envelope.Timer = bytes.Clone(e.Envelope.Timer)
	return c
}

// Read is a record of a journal and what the reader rule says of it. It is valid until the next one
// is read.
type Read struct {
	*Entry

	// Record is the record as it was read; nil where it was not (Fold.Step).
	Record *broker.Record
	// Foreign says why the record has no envelope (it is zero then); nil: it has one.
	Foreign error
	Verdict record.Verdict
	// Before is the owner before the record.
	Before record.Owner
	// Dropped: this record voids an incomplete group before it.
	Dropped bool
	// Accepts: it is the claim of a repair that accepts all that the log has lost before it.
	Accepts bool
	// Strange: the claim of its owner has another layout, so that it has no effect.
	Strange bool
	// group are the earlier records of the group that it completes.
	group []Entry
}

// effective reports whether records take effect with this one.
func (r *Read) effective() bool { return r.Verdict == record.Complete && !r.Strange }

// Effective yields the records that take effect with this one, in order: the group that it
// completes. It yields none for any other record.
func (r *Read) Effective(yield func(*Entry) bool) {
	if !r.effective() {
		return
	}
	for i := range r.group {
		if !yield(&r.group[i]) {
			return
		}
	}
	yield(r.Entry)
}

// Journal reads one partition of a journal in order: it decodes each record, applies the reader
// rule, assembles groups, detects what the log has lost, and keeps the position. All code that
// reads a journal in order uses it. It belongs to one goroutine at a time.
type Journal struct {
	*reading

	reader broker.Reader
	batch  broker.Batch
	last   broker.Record
	// position is the offset after the last record that was read.
	position int64
	// until is the offset below which a missing record counts at the end of a batch.
	until int64
}

// NewJournal returns a journal that continues at meta.Next, where the reader must be too. A zero
// meta is the beginning of the given topic.
func NewJournal(reader broker.Reader, a Address, topicID string, meta Meta) *Journal {
	return newJournal(reader, newReading(a, topicID, meta))
}

// Browse returns a journal from an offset on, where the reader must be, for a caller that looks at
// records and folds nothing: what the log has lost is passed over. From the middle, the writer of
// the first record is taken for the owner: what the journal says of records is certain from the
// next claim on.
func Browse(reader broker.Reader, a Address, from int64) *Journal {
	r := newReading(a, "", MetaFrom("", from))
	r.presuming = from > 0
	r.PassOver(nil)
	return newJournal(reader, r)
}

func newJournal(reader broker.Reader, r *reading) *Journal {
	return &Journal{reading: r, reader: reader, position: r.meta.Next, until: math.MaxInt64}
}

// Position is the offset after the last record that was read. It is ahead of Meta().Next while a
// group is open.
func (j *Journal) Position() int64 { return j.position }

// End is the end of the log as the last batch gave it, 0 before anything was read.
func (j *Journal) End() int64 { return j.batch.End }

// Buffered reports whether Next has a record without waiting for the log.
func (j *Journal) Buffered() bool { return len(j.batch.Records) > 0 }

// Next waits for the next record. Without one, the error says why the log could not be read, or
// that it has lost what was there; without an error, too, the log has no records up to Position,
// and that was passed over. With a record, the error says what is wrong with the log at this place:
// *LostError (ErrLost), or ErrUnfoldable where no claim has the expected layout. A caller may go on
// in spite of it.
func (j *Journal) Next(ctx context.Context) (r *Read, err error) {
	if !j.Buffered() {
		batch, err := j.reader.Next(ctx)
		if err != nil {
			return nil, fmt.Errorf("read %s from offset %d: %w", j.address, j.position, err)
		}
		j.batch = batch
	}
	if j.Buffered() {
		if r, err = j.read(j.take()); j.Buffered() || err != nil {
			j.position = r.Offset + 1
			return r, err
		}
	}
	if err = j.upTo(min(j.batch.Next, max(j.until, j.next))); err != nil && r == nil {
		err = fmt.Errorf("read %s from offset %d: %w", j.address, j.position, err)
	}
	j.position = j.batch.Next
	return r, err
}

// take takes the next record out of the batch. The last one is copied, so that the batch need not
// be kept until the next one.
func (j *Journal) take() *broker.Record {
	r := &j.batch.Records[0]
	if j.batch.Records = j.batch.Records[1:]; len(j.batch.Records) == 0 {
		j.last, j.batch.Records = *r, nil
		return &j.last
	}
	return r
}

// Until yields the records up to an offset, each as Next returns it. After a nil record there are
// no others.
func (j *Journal) Until(ctx context.Context, until int64) iter.Seq2[*Read, error] {
	return func(yield func(*Read, error) bool) {
		j.until = until
		defer func() { j.until = math.MaxInt64 }()
		for j.position < until {
			r, err := j.Next(ctx)
			if r == nil && err == nil {
				continue
			}
			if !yield(r, err) || r == nil {
				return
			}
		}
	}
}

// GapRecord is a record at an offset where the owner expected its own.
type GapRecord struct {
	Record   broker.Record
	Envelope record.Envelope
	// Foreign records have no readable envelope.
	Foreign bool
}

// reading is how far a partition was read, and the state by which the next record is classified.
// Journal and Fold share it, so that an owner classifies its own records, which it does not read,
// in the same way.
type reading struct {
	address Address
	rule    record.Rule
	meta    Meta
	parser  record.Parser
	group   []Entry
	entry   Entry
	current Read
	counts  FoldCounts
	// next is the offset that the next record must have.
	next int64
	// lost counts losses that were passed over: those before accepted, or all of them, each of which
	// onLoss receives.
	lost     uint64
	accepted int64
	onLoss   func(*LostError)
	// released is the last owner that was seen to release the partition.
	released record.Owner
	// attested is the last owner whose claim had the expected layout: its records lie where they
	// belong.
	attested record.Owner
	// other is the last owner whose claim has another layout, and strange says which; none of its
	// records takes effect. vouched: rows were folded by the expected layout, or a claim has it, so
	// that such an owner is the exception.
	other   record.Owner
	strange error
	vouched bool
	// presuming: the writer of the first record is taken for the owner.
	presuming bool
}

func newReading(a Address, topicID string, meta Meta) *reading {
	if meta == (Meta{}) {
		meta = Meta{FoldVersion: FoldVersion, TopicID: topicID}
	}
	return &reading{
		address: a, meta: meta, next: meta.Next, lost: meta.Lost,
		rule:    record.Rule{Current: meta.Owner, Ordinal: meta.Ordinal},
		vouched: meta.Layout != (entities.Layout{}) && meta.Next > 0,
	}
}

// Expect says by which layout the journal must have been written. Without it, it is that of the
// store, else of the first claim that has one. The error says that the store was folded by another
// one.
func (r *reading) Expect(l entities.Layout) error {
	if r.meta.Layout != (entities.Layout{}) {
		return l.Differs(r.meta.Layout, "the store of "+r.address.String())
	}
	r.meta.Layout = l
	return nil
}

// Meta returns the meta row that belongs to rows folded from the records so far. Next never points
// inside an open group.
func (r *reading) Meta() Meta { return r.meta }

// Owner returns the owner by the reader rule after the last record.
func (r *reading) Owner() record.Owner { return r.rule.Current }

// Released reports whether the partition has no owner after the last record: it never had one, or
// the owner's release was read. If reading began after the release, it is not known.
func (r *reading) Released() bool { return r.rule.Current == r.released }

// Counts returns what was read so far.
func (r *reading) Counts() FoldCounts { return r.counts }

// read classifies a record of the log.
func (r *reading) read(rec *broker.Record) (*Read, error) {
	r.entry.Offset, r.entry.Key, r.entry.Value = rec.Offset, rec.Key, rec.Value
	if err := r.parser.Parse(rec.Header(record.HeaderKey), &r.entry.Envelope); err != nil {
		return r.foreign(rec, err)
	}
	if r.entry.Envelope.Kind == record.Claim {
		// A claim cannot know the log's clock; every later record of its owner counts from its
		// append time.
		r.entry.Envelope.LogTime = rec.Time.UnixNano()
	}
	return r.classify(rec, &r.entry)
}

// foreign takes a record without an envelope, which changes nothing.
func (r *reading) foreign(rec *broker.Record, why error) (*Read, error) {
	r.counts.Records++
	r.counts.Foreign++
	r.entry.Envelope = record.Envelope{}
	r.current = Read{Entry: &r.entry, Record: rec, Foreign: why, Verdict: record.Foreign, Before: r.rule.Current}
	if err := r.at(rec.Offset); err != nil {
		return &r.current, err
	}
	r.passed(rec.Offset)
	return &r.current, nil
}

// classify applies the reader rule to a decoded record.
func (r *reading) classify(rec *broker.Record, e *Entry) (*Read, error) {
	r.counts.Records++
	now := &r.current
	*now = Read{Entry: e, Record: rec, Before: r.rule.Current}
	if err := r.at(e.Offset); err != nil {
		return now, err
	}
	if r.presuming && r.rule.Current == (record.Owner{}) && e.Envelope.Kind != record.Claim {
		r.rule = record.Presumed(&e.Envelope)
	}
	now.Verdict, now.Dropped = r.rule.Step(&e.Envelope)
	if now.Dropped {
		r.group = r.group[:0]
		if now.Verdict != record.Claimed {
			r.counts.DroppedGroups++
		}
	}
	switch now.Verdict {
	case record.Void:
		r.counts.Void++
		if now.Jumps() {
			r.counts.Jumped++
		}
	case record.Pending:
		r.group = append(r.group, e.Clone())
	case record.Complete:
		now.group, r.group = r.group, r.group[:0]
		if now.Strange = r.estranged(); now.Strange {
			if err := r.skip(now); err != nil {
				return now, err
			}
		}
	case record.Claimed:
		if err := r.claimed(now); err != nil {
			return now, err
		}
	case record.Control:
		if e.Envelope.Kind == record.Release {
			r.released = r.rule.Current
		}
	case record.Foreign:
	}
	if now.Verdict != record.Void {
		r.meta.LogTime = max(r.meta.LogTime, e.Envelope.LogTime)
	}
	r.passed(e.Offset)
	return now, nil
}

// Jumps reports whether the record is a claim that is void because its epoch is absurdly high.
func (r *Read) Jumps() bool {
	return r.Verdict == record.Void && r.Envelope.Kind == record.Claim && r.Before.Jumps(r.Envelope.Epoch)
}

// claimed takes a claim that counts.
func (r *reading) claimed(now *Read) error {
	if err := r.follows(now.Entry, now.Before); err != nil {
		return err
	}
	c := now.Envelope.Claim
	if c == nil {
		return nil
	}
	r.meta.Floor = max(r.meta.Floor, record.Offset(c.Floor))
	err := r.attest(now.Offset, c)
	// A repair accepts as many losses as it counted. If there are more, they came later.
	now.Accepts = (c.Lost > 0 || c.Floor > 0) && c.Lost == r.lost
	return err
}

// attest compares the layout of a claim that counts with the expected one.
func (r *reading) attest(offset int64, c *record.ClaimInfo) error {
	if c.Layout == (entities.Layout{}) {
		return nil // of an older version: its records are checked one by one
	}
	if r.meta.Layout == (entities.Layout{}) {
		r.meta.Layout = c.Layout
	}
	if err := r.meta.Layout.Differs(c.Layout, fmt.Sprintf("the claim of worker %q at offset %d", c.Worker,
		offset)); err != nil && !mutation.On(mutation.Layout) {
		r.other, r.strange = r.rule.Current, err
		return r.lose(&LostError{Offset: offset, What: err.Error() + ": the claim counts, and nothing that its owner writes may", Layout: err})
	}
	r.attested, r.vouched = r.rule.Current, true
	return nil
}

// estranged reports whether the present owner's claim has another layout: what it writes is of
// another journal.
func (r *reading) estranged() bool {
	return r.strange != nil && r.rule.Current == r.other && !mutation.On(mutation.OtherLayout)
}

// skip takes a group of an owner of another layout. It is a loss that a repair may accept; but
// where the log has no claim of the expected layout, the expectation is wrong.
func (r *reading) skip(now *Read) error {
	if !r.vouched {
		return fmt.Errorf("%w: %w: no claim before offset %d has the layout of this worker", ErrUnfoldable,
			r.strange, now.Offset)
	}
	return r.lose(&LostError{
		Offset: now.Offset, Missing: int64(len(now.group)) + 1, Layout: r.strange,
		What: fmt.Sprintf("the record at offset %d is of an owner of another layout: %v", now.Offset, r.strange),
	})
}

// passed moves Next past an offset, unless a group is open. A fold that goes on from Next must read
// a claim of another layout again.
func (r *reading) passed(offset int64) {
	if !r.rule.Open() && !r.estranged() {
		r.meta.Next, r.meta.Owner, r.meta.Ordinal, r.meta.Lost = offset+1, r.rule.Current, r.rule.Ordinal, r.lost
	}
}
