package materializer

import (
	"context"
	"fmt"
	"hash/maphash"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
)

// Finding is something that must not be in a journal, or in a store.
type Finding struct {
	// Offset is that of the record; -1 for a row of the store.
	Offset int64
	What   string
}

// Verified is the result of a verification of one partition.
type Verified struct {
	// Start and Next are the offsets from and up to which the log was read.
	Start, Next int64
	// Claims and Repairs (claims of a repair) count; Records take effect, of them Events.
	Claims, Repairs, Records, Events uint64
	// Void records do not count by the reader rule, Foreign ones have no readable envelope: neither
	// is an error. Cut are groups that a later claim found incomplete.
	Void, Foreign, Cut uint64
	// Entities of events; Jumps are places where a repair had to leave events out that were only in
	// a snapshot.
	Entities, Jumps uint64
	// Accepted are losses of the log that a later repair has accepted: they are no findings.
	Accepted uint64
	// Compared says up to which offset the store was compared; -1: it was not.
	Compared int64
	// Layout is that of the log; zero: no claim says it.
	Layout   entities.Layout
	Findings uint64
}

// Verification walks one partition of a journal. It reads with the one reader rule and folds with
// the one fold; it holds 16 bytes for each entity with events, and with a store it also folds into
// rows of its own, which it drops at the end.
type Verification struct {
	Log       broker.Log
	Partition broker.Partition
	Address   Address
	TopicID   string
	// Layout is the one that the log must have; zero: that of the first claim that has one.
	Layout entities.Layout
	// Store is compared with the log, at the store's own position; nil: it is not.
	Store Store
	// Progress is called with the position from time to time, Found with every finding; its error ends
	// the verification.
	Progress func(next, end int64)
	Found    func(Finding) error

	seed   maphash.Seed
	result Verified
	// sequences are the last one of each entity, by a hash of its key: two keys with one hash would
	// be a false alarm, which 10^6 entities have with a probability of 10^-7.
	sequences map[uint64]uint64
	times     int64
	repairing bool
	// losses are those that no repair has accepted yet, the first of unaccepted.
	losses     []*LostError
	unaccepted uint64
	failed     error
}

// mostLosses bounds how many losses are reported one by one.
const mostLosses = 1000

// Run reads to the end of the log as it is now. An error says that something could not be read;
// findings are in the result.
func (v *Verification) Run(ctx context.Context) (Verified, error) {
	v.seed, v.sequences = maphash.MakeSeed(), map[uint64]uint64{}
	v.result.Compared = -1
	start, err := v.Log.Start(ctx, v.Partition)
	if err != nil {
		return v.result, err
	}
	end, err := v.Log.End(ctx, v.Partition)
	if err != nil {
		return v.result, err
	}
	v.result.Start, v.result.Next = start, start
	if start > 0 {
		v.found(start, "the log has lost its beginning: records count from the next claim on")
	}
	shadow, err := v.openShadow(end)
	if err != nil {
		return v.result, err
	}
	defer shadow.close()
	meta := Meta{}
	if start > 0 {
		meta = MetaFrom(v.TopicID, start)
	}
	fold := NewFold(v.Address.ForVerify(), v.TopicID, meta)
	if err := fold.Expect(v.Layout); err != nil { // never: the fold begins without one
		return v.result, err
	}
	fold.Observe(v.effective)
	fold.PassOver(v.addLoss)
	if start < end {
		if err := v.walk(ctx, fold, shadow, end); err != nil {
			return v.result, err
		}
	}
	v.reportLosses()
	v.result.Layout = fold.Meta().Layout
	v.result.Entities = uint64(len(v.sequences))
	if v.failed == nil && shadow != nil {
		v.failed = shadow.compare(v)
	}
	return v.result, v.failed
}

func (v *Verification) walk(ctx context.Context, fold *Fold, shadow *shadow, end int64) error {
	reader, err := v.Log.Read(v.Partition, v.result.Next)
	if err != nil {
		return err
	}
	defer reader.Close() //nolint:errcheck // only read
	journal := fold.Journal(reader)
	for r, err := range journal.Until(ctx, end) {
		if r == nil {
			return err
		}
		if err := v.step(fold, shadow, r, err); err != nil {
			return err
		}
		v.result.Next = journal.Position()
		if v.Progress != nil && !journal.Buffered() {
			v.Progress(v.result.Next, end)
		}
		if v.failed != nil {
			break
		}
	}
	v.result.Next = journal.Position()
	return shadow.commit(fold)
}

// step checks one record; failed is the error of its reading.
func (v *Verification) step(fold *Fold, shadow *shadow, r *Read, failed error) error {
	if failed == nil {
		failed = fold.Apply(shadow.rows(r.Offset), r)
	}
	if failed != nil {
		v.found(r.Offset, failed.Error())
		return shadow.abandon()
	}
	env := &r.Envelope
	switch r.Verdict {
	case record.Void:
		v.result.Void++
		if r.Jumps() {
			v.found(r.Offset, fmt.Sprintf(
				"a claim of epoch %d is void, the owner's is %d: no worker makes such a claim: check who may write to the topic",
				env.Epoch, r.Before.Epoch))
		}
	case record.Foreign:
		v.result.Foreign++
	case record.Claimed:
		v.claim(r.Offset, env)
		if r.Accepts {
			v.result.Accepted += v.unaccepted
			v.losses, v.unaccepted = nil, 0
		}
		if r.Dropped {
			v.result.Cut++
		}
	case record.Control, record.Pending, record.Complete:
		if r.Dropped {
			v.found(r.Offset, "the group before this record is incomplete, and its owner went on")
		}
		if env.LogTime < v.times && env.Restores == 0 {
			v.found(r.Offset, fmt.Sprintf("log time goes back by %d ns within an ownership", v.times-env.LogTime))
		}
		if env.Restores == 0 {
			v.times = max(v.times, env.LogTime)
		}
	}
	return shadow.passed(fold)
}

// addLoss takes a loss of the log. It is a finding unless a repair, further on, has accepted it.
func (v *Verification) addLoss(l *LostError) {
	if v.unaccepted++; len(v.losses) < mostLosses {
		v.losses = append(v.losses, l)
	}
}

func (v *Verification) reportLosses() {
	for _, l := range v.losses {
		v.found(l.Offset, l.What)
	}
	if more := v.unaccepted - uint64(len(v.losses)); more > 0 {
		v.found(v.losses[len(v.losses)-1].Offset, fmt.Sprintf("and behind it there are %d more", more))
	}
	v.losses, v.unaccepted = nil, 0
}

// claim checks a valid claim. The fold has checked what it says of the log before it.
func (v *Verification) claim(offset int64, env *record.Envelope) {
	v.result.Claims++
	v.times, v.repairing = 0, false
	c := env.Claim
	if c == nil {
		v.found(offset, "a claim does not say what it follows")
		return
	}
	if v.repairing = c.Floor > 0 || c.Lost > 0; v.repairing {
		v.result.Repairs++
		return
	}
	if env.Epoch != c.PreviousEpoch+1 {
		v.found(offset, fmt.Sprintf(
			"a claim of epoch %d follows owner %d: no worker makes such a claim: check who may write to the topic", env.Epoch,
			c.PreviousEpoch))
	}
}

// effective checks a record that takes effect: the events of each entity are numbered 1, 2, 3.
func (v *Verification) effective(e *Entry) {
	v.result.Records++
	env := &e.Envelope
	r, known := stateRecordOf(env.Kind)
	if !known {
		return
	}
	h := maphash.Bytes(v.seed, e.Key)
	last, numbered := v.sequences[h]
	if !r.isEvent && env.Sequence == 0 && !numbered {
		return // of an entity without events
	}
	switch {
	case r.isEvent:
		v.result.Events++
		if env.Sequence != last+1 && (v.result.Start == 0 || last > 0) {
			v.found(e.Offset, fmt.Sprintf("%s: event %d follows event %d", e.Key, env.Sequence, last))
		}
	case env.Sequence == last:
	case v.repairing && env.Restores > 0 && env.Sequence > last:
		v.result.Jumps++
	case v.result.Start == 0:
		v.found(e.Offset, fmt.Sprintf("%s: a snapshot of event %d follows event %d", e.Key, env.Sequence, last))
	}
	v.sequences[h] = env.Sequence
}

func (v *Verification) found(offset int64, what string) {
	v.result.Findings++
	if v.failed == nil && v.Found != nil {
		v.failed = v.Found(Finding{Offset: offset, What: what})
	}
}

// shadow is the fold of the log up to the position of a store, in rows beside it. All methods of a
// nil shadow do nothing.
type shadow struct {
	store    Store
	snapshot Snapshot
	of       Partition
	meta     Meta
	batch    Batch
	records  int
	whole    bool
}

func (v *Verification) openShadow(end int64) (*shadow, error) {
	if v.Store == nil {
		return nil, nil //nolint:nilnil // nothing to compare
	}
	b := &shadow{store: v.Store, snapshot: v.Store.Snapshot()}
	b.of = Partition{Rows: b.snapshot, Address: v.Address}
	meta, known, err := b.of.Meta()
	what := ""
	switch {
	case err != nil:
		what = "position of the store: " + err.Error()
	case !known:
		what = "the store has nothing of this partition"
	case v.result.Start > 0:
		what = "the log has lost its beginning: the store cannot be compared with it"
	case meta.TopicID != v.TopicID:
		what = fmt.Sprintf("the store was folded from topic %s, the log is topic %s", meta.TopicID, v.TopicID)
	case meta.FoldVersion != FoldVersion:
		what = fmt.Sprintf("the store was folded by version %d, this program folds by version %d",
			meta.FoldVersion, FoldVersion)
	case meta.Next > end:
		what = fmt.Sprintf("the store has folded up to offset %d, the log ends at %d: see `millrace repair`",
			meta.Next, end)
	}
	if what != "" {
		if known || end > 0 {
			v.found(-1, what)
		}
		return nil, b.snapshot.Close()
	}
	lower, upper := v.Address.ForVerify().Range()
	if err := v.Store.DropRange(lower, upper); err != nil {
		_ = b.snapshot.Close() // err has the cause
		return nil, err
	}
	b.meta, b.batch = meta, v.Store.NewBatch()
	return b, nil
}

// rows are where the record at an offset is folded into.
func (b *shadow) rows(offset int64) Rows {
	if b == nil || b.whole || offset >= b.meta.Next {
		return Discard{}
	}
	b.records++
	return b.batch
}

// passed commits from time to time, and stops at the store's position.
func (b *shadow) passed(fold *Fold) error {
	if b == nil || b.whole || (fold.meta.Next < b.meta.Next && b.records < commitRecords) {
		return nil
	}
	return b.commit(fold)
}

func (b *shadow) commit(fold *Fold) error {
	if b == nil || b.whole {
		return nil
	}
	b.records, b.whole = 0, fold.meta.Next >= b.meta.Next
	if err := fold.WriteMeta(b.batch); err != nil {
		return err
	}
	return b.batch.Commit()
}

// abandon gives the comparison up: the log has what cannot be folded.
func (b *shadow) abandon() error {
	if b != nil {
		b.whole, b.meta.Next = true, -1
	}
	return nil
}

func (b *shadow) compare(v *Verification) error {
	if b.meta.Next < 0 {
		return nil
	}
	v.result.Compared = b.meta.Next
	fold := Partition{Rows: b.store, Address: v.Address.ForVerify()}
	return Compare(b.of, fold, false, func(d Difference) error {
		v.found(-1, "store: "+d.String())
		return v.failed
	})
}

func (b *shadow) close() {
	if b == nil {
		return
	}
	_ = b.batch.Close()
	lower, upper := b.of.Address.ForVerify().Range()
	_ = b.store.DropRange(lower, upper) // otherwise the next verification does it
	_ = b.snapshot.Close()
}
