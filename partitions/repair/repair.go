package repair

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/plural"
	"github.com/millrace-io/millrace/materializer"
)

// This file holds what a repair reads, folds beside the store, and compares.

// Repair folds the log of a halted partition beside its store: into separate rows if the image is
// to be written again, otherwise only to see who owns what. Its caller runs one method at a time.
type Repair struct {
	o Options

	// log is the reading that Survey has begun; nil if there is none.
	log *logBeside
}

// Options are the parameters of a Repair.
type Options struct {
	Image *materializer.Image
	// PageRecords and PageBytes bound what is written again in one append.
	PageRecords, PageBytes int
}

// New returns the repair of a partition.
func New(o Options) *Repair { return &Repair{o: o} }

// logBeside is the log being folded beside the store.
type logBeside struct {
	reader broker.Reader
	fold   *materializer.Fold
	// follower and pages are for an image, journal is for any other repair.
	journal  *materializer.Journal
	follower *materializer.Follower
	pages    *materializer.Restoration
}

// restoreTimeout bounds the reading of the records that a repair has just appended.
const restoreTimeout = time.Minute

// Survey examines store and log.
func (r *Repair) Survey(ctx context.Context, choice materializer.Choice) (s materializer.Survey, err error) {
	meta, known, err := r.o.Image.View().Meta()
	if err != nil {
		return s, fmt.Errorf("read the store of %s: %w", r.o.Image.Address, err)
	}
	halt, _, err := r.o.Image.View().Halted()
	if err != nil {
		return s, fmt.Errorf("read the store of %s: %w", r.o.Image.Address, err)
	}
	if s.Start, err = r.o.Image.Start(ctx); err != nil {
		return s, err
	}
	if s.End, err = r.o.Image.End(ctx); err != nil {
		return s, err
	}
	if choice == materializer.Retry && !known {
		return s, nil // there is nothing that the log could contradict
	}
	if err := r.open(choice, &meta, &s); err != nil {
		return s, err
	}
	until := s.End
	if choice == materializer.Retry {
		until = meta.Next
	}
	if err := r.foldTo(ctx, until); err != nil {
		return s, err
	}
	now := r.log.fold.Meta()
	s.Owner = r.log.fold.Owner()
	s.Epoch = max(s.Owner.Epoch, meta.Owner.Epoch)
	s.Floor = max(meta.Next, halt.Position, meta.Floor, now.Floor)
	s.Lost = r.log.fold.Lost()
	switch choice {
	case materializer.Retry:
		if now.Owner != meta.Owner || now.Ordinal != meta.Ordinal || now.Next != meta.Next || now.Lost != meta.Lost {
			return s, fmt.Errorf("the log is not what the store was folded from: before offset %d it has owner %d with %s and %s, the store has owner %d with %d and %d",
				meta.Next, now.Owner.Epoch, plural.Of(now.Ordinal, "record"), plural.Of(now.Lost, "loss"),
				meta.Owner.Epoch, meta.Ordinal, meta.Lost)
		}
	case materializer.AppendImage, materializer.Preview:
		if s.Lost > meta.Lost {
			return s, errors.New(imageBesideHoles)
		}
		s.Restored, err = r.missing()
	case materializer.AcceptLoss:
	}
	return s, err
}

// imageBesideHoles is why an image is not written again if records are lost in the middle of a log.
const imageBesideHoles = "the log has offsets without records, or records of another layout, where the store has others: what the store has cannot be put in between"

// open begins to read, at the beginning of the log.
func (r *Repair) open(choice materializer.Choice, meta *materializer.Meta, s *materializer.Survey) error {
	r.Close()
	image := choice == materializer.AppendImage || choice == materializer.Preview
	switch {
	case choice == materializer.Retry && meta.TopicID != r.o.Image.TopicID:
		return materializer.TopicReplaced(meta.TopicID, r.o.Image.TopicID)
	case choice == materializer.Retry && meta.Next > s.End:
		return fmt.Errorf("%w: the store has folded %s up to offset %d, the log ends at %d",
			broker.ErrRegressed, r.o.Image.Address, meta.Next, s.End)
	case choice != materializer.AcceptLoss && s.Start > 0:
		return fmt.Errorf("%w: the log of %s begins at offset %d, so that what was before it cannot be compared",
			broker.ErrOutOfRange, r.o.Image.Address, s.Start)
	}
	reader, err := r.o.Image.Read(s.Start)
	if err != nil {
		return err
	}
	address := r.o.Image.Address
	if image {
		address = address.ForRepair()
	}
	from := materializer.Meta{}
	if s.Start > 0 {
		from = materializer.MetaFrom(r.o.Image.TopicID, s.Start)
	}
	log := &logBeside{reader: reader, fold: materializer.NewFold(address, r.o.Image.TopicID, from)}
	if err := log.fold.Expect(r.o.Image.Layout); err != nil {
		return errors.Join(err, reader.Close())
	}
	log.fold.PassOver(nil) // what is lost is counted, and written into the claim of the repair
	r.log = log
	if !image {
		log.journal = log.fold.Journal(reader)
		return nil
	}
	if err := r.dropBeside(); err != nil {
		return err
	}
	log.follower = materializer.NewFollower(reader, r.o.Image.Store, log.fold)
	return nil
}

func (r *Repair) dropBeside() error {
	lower, upper := r.o.Image.Address.ForRepair().Range()
	if err := r.o.Image.Store.DropRange(lower, upper); err != nil {
		return fmt.Errorf("drop what an earlier repair of %s has folded: %w", r.o.Image.Address, err)
	}
	return nil
}

// Close ends the reading of the log.
func (r *Repair) Close() {
	if r.log != nil {
		_ = r.log.reader.Close() // only read
		r.log = nil
	}
}

// foldTo folds the log up to an offset.
func (r *Repair) foldTo(ctx context.Context, until int64) error {
	done, err := r.o.Image.AwaitRebuild(ctx)
	if err != nil {
		return err
	}
	defer done()
	if r.log.follower != nil {
		return r.log.follower.CatchUp(ctx, until, r.o.Image.Progress)
	}
	for read, err := range r.log.journal.Until(ctx, until) {
		if read == nil {
			return err
		}
		if err == nil {
			err = r.log.fold.Apply(materializer.Discard{}, read)
		}
		if err != nil {
			return fmt.Errorf("fold %s: %w", r.o.Image.Address, err)
		}
	}
	return nil
}

// beside returns the rows that are folded beside the store's.
func (r *Repair) beside() materializer.Partition {
	return materializer.Partition{Rows: r.o.Image.Store, Address: r.o.Image.Address.ForRepair()}
}

// missing goes through everything that would be written again, and writes nothing: what cannot be
// restored must be known before anything is changed.
func (r *Repair) missing() (materializer.Restored, error) {
	pages, err := materializer.NewRestoration(r.o.Image.View(), r.beside(), 0, 0)
	if err != nil {
		return materializer.Restored{}, err
	}
	_, err = pages.Next()
	return pages.Counts(), err
}

// Page is what a repair writes next.
type Page struct {
	// Entries is empty if nothing is missing any more.
	Entries []materializer.Entry
	// Restored is what was written again, with the entries.
	Restored materializer.Restored
	// Owner owns the partition, by the log as folded.
	Owner record.Owner
}

// Restore folds what the repair has appended, up to an offset, and finds what is still missing.
func (r *Repair) Restore(ctx context.Context, choice materializer.Choice, until int64) (page Page, err error) {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	if err := r.foldTo(ctx, until); err != nil {
		return page, fmt.Errorf("read back what the repair has written: %w", err)
	}
	page.Owner = r.log.fold.Owner()
	if choice != materializer.AppendImage {
		return page, nil
	}
	if r.log.pages == nil {
		if r.log.pages, err = materializer.NewRestoration(
			r.o.Image.View(), r.beside(), r.o.PageRecords, r.o.PageBytes,
		); err != nil {
			return page, err
		}
	}
	page.Entries, err = r.log.pages.Next()
	page.Restored = r.log.pages.Counts()
	if err == nil && len(page.Entries) == 0 {
		err = materializer.Compare(r.o.Image.View(), r.beside(), true, func(d materializer.Difference) error {
			return fmt.Errorf("what was written again does not make the store what it was: %s: nothing was dropped", d)
		})
	}
	return page, err
}

// StartOver drops what was folded before the repair, and what was folded beside it. The log begins
// at start.
func (r *Repair) StartOver(start int64) error {
	r.Close()
	if err := r.dropBeside(); err != nil {
		return err
	}
	return materializer.StartOver(r.o.Image.Store, r.o.Image.Address, r.o.Image.TopicID, start)
}

// Resume removes the mark from a partition whose log is what its store was folded from.
func (r *Repair) Resume() error {
	r.Close()
	return materializer.Resume(r.o.Image.Store, r.o.Image.Address)
}

// Mark marks the store of a partition that has halted, so that a restart does not forget it.
// position is the offset after the last one that is known to be used.
func (r *Repair) Mark(position int64, why error) error {
	meta, _, err := r.o.Image.View().Meta()
	if err != nil {
		return err
	}
	return materializer.MarkHalted(r.o.Image.Store, r.o.Image.Address, materializer.Halt{
		Position: max(position, meta.Next), Why: why.Error(),
	})
}
