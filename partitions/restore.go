package partitions

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/materializer"
)

// This file is what the loop does for a repair: reading, folding beside the store, comparing.

// restoration is the log of a halted partition being folded beside its store: into rows of their own when the image is to be
// written again, otherwise only to see who owns what. It belongs to one background goroutine at a time.
type restoration struct {
	reader broker.Reader
	fold   *materializer.Fold
	// follower and pages are for an image, journal is for any other repair.
	journal  *materializer.Journal
	follower *materializer.Follower
	pages    *materializer.Restoration
}

// restoreTimeout bounds the reading of what a repair has just appended.
const restoreTimeout = time.Minute

func (p *Partition) view() materializer.Partition {
	return materializer.Partition{Rows: p.store, Address: p.address}
}

// inBackground runs what reads for a repair, after whatever reads now.
func (p *Partition) inBackground(ctx context.Context, read func(context.Context)) {
	p.stopReading()
	reading, stop := context.WithCancel(ctx)
	p.stopReading = stop
	p.background(func() {
		p.oneReader <- struct{}{}
		defer func() { <-p.oneReader }()
		read(reading)
	})
}

func (p *Partition) surveyed(ctx context.Context, incarnation uint64, r *repair) {
	s, err := p.survey(ctx, r.choice)
	p.post(input{kind: inSurveyed, incarnation: incarnation, survey: s, fail: err})
}

// survey looks at store and log.
func (p *Partition) survey(ctx context.Context, choice materializer.Choice) (s materializer.Survey, err error) {
	meta, known, err := p.view().Meta()
	if err != nil {
		return s, fmt.Errorf("read the store of %s: %w", p.address, err)
	}
	halt, _, err := p.view().Halted()
	if err != nil {
		return s, fmt.Errorf("read the store of %s: %w", p.address, err)
	}
	if s.Start, err = p.log.Start(ctx, p.journal); err != nil {
		return s, fmt.Errorf("ask for the start of %s: %w", p.address, err)
	}
	if s.End, err = p.log.End(ctx, p.journal); err != nil {
		return s, fmt.Errorf("ask for the end of %s: %w", p.address, err)
	}
	if choice == materializer.Retry && !known {
		return s, nil // there is nothing that the log could contradict
	}
	if err := p.openRestoration(choice, &meta, &s); err != nil {
		return s, err
	}
	until := s.End
	if choice == materializer.Retry {
		until = meta.Next
	}
	if err := p.foldBeside(ctx, until); err != nil {
		return s, err
	}
	now := p.restoring.fold.Meta()
	s.Owner = p.restoring.fold.Owner()
	s.Epoch = max(s.Owner.Epoch, meta.Owner.Epoch)
	s.Floor = max(meta.Next, halt.Position, meta.Floor, now.Floor)
	s.Lost = p.restoring.fold.Lost()
	switch choice {
	case materializer.Retry:
		if now.Owner != meta.Owner || now.Ordinal != meta.Ordinal || now.Next != meta.Next || now.Lost != meta.Lost {
			return s, fmt.Errorf("the log is not what the store was folded from: before offset %d it has owner %d with %d records and %d losses, the store has owner %d with %d and %d",
				meta.Next, now.Owner.Epoch, now.Ordinal, now.Lost, meta.Owner.Epoch, meta.Ordinal, meta.Lost)
		}
	case materializer.AppendImage, materializer.Preview:
		if s.Lost > meta.Lost {
			return s, errors.New(imageBesideHoles)
		}
		s.Restored, err = p.whatIsMissing()
	case materializer.AcceptLoss:
	}
	return s, err
}

// imageBesideHoles is why an image is not written again where records are lost in the middle of a log.
const imageBesideHoles = "the log has offsets without records, or records of another layout, where the store has others: what the store has cannot be put in between"

// openRestoration begins to read, where the log begins.
func (p *Partition) openRestoration(choice materializer.Choice, meta *materializer.Meta, s *materializer.Survey) error {
	p.closeRestoration()
	image := choice == materializer.AppendImage || choice == materializer.Preview
	switch {
	case choice == materializer.Retry && meta.TopicID != p.topicID:
		return materializer.TopicReplaced(meta.TopicID, p.topicID)
	case choice == materializer.Retry && meta.Next > s.End:
		return fmt.Errorf("%w: the store has folded %s up to offset %d, the log ends at %d", broker.ErrRegressed, p.address, meta.Next, s.End)
	case choice != materializer.AcceptLoss && s.Start > 0:
		return fmt.Errorf("%w: the log of %s begins at offset %d, so that what was before it cannot be compared", broker.ErrOutOfRange, p.address, s.Start)
	}
	reader, err := p.log.Read(p.journal, s.Start)
	if err != nil {
		return fmt.Errorf("read %s from offset %d: %w", p.address, s.Start, err)
	}
	address := p.address
	if image {
		address = p.address.ForRepair()
	}
	from := materializer.Meta{}
	if s.Start > 0 {
		from = materializer.MetaFrom(p.topicID, s.Start)
	}
	r := &restoration{reader: reader, fold: materializer.NewFold(address, p.topicID, from)}
	if err := r.fold.Expect(p.layout); err != nil {
		return errors.Join(err, reader.Close())
	}
	r.fold.PassOver(nil) // what is lost is counted, and written into the claim of the repair
	p.restoring = r
	if !image {
		r.journal = r.fold.Journal(reader)
		return nil
	}
	if err := p.dropBeside(); err != nil {
		return err
	}
	r.follower = materializer.NewFollower(reader, p.store, r.fold)
	return nil
}

func (p *Partition) dropBeside() error {
	lower, upper := p.address.ForRepair().Range()
	if err := p.store.DropRange(lower, upper); err != nil {
		return fmt.Errorf("drop what an earlier repair of %s has folded: %w", p.address, err)
	}
	return nil
}

func (p *Partition) closeRestoration() {
	if p.restoring != nil {
		_ = p.restoring.reader.Close() // only read
		p.restoring = nil
	}
}

// foldBeside folds the log up to an offset.
func (p *Partition) foldBeside(ctx context.Context, until int64) error {
	select {
	case p.rebuilds <- struct{}{}:
		defer func() { <-p.rebuilds }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	r := p.restoring
	if r.follower != nil {
		return r.follower.CatchUp(ctx, until, p.hooks.Progress)
	}
	for read, err := range r.journal.Until(ctx, until) {
		if read == nil {
			return err
		}
		if err == nil {
			err = r.fold.Apply(materializer.Discard{}, read)
		}
		if err != nil {
			return fmt.Errorf("fold %s: %w", p.address, err)
		}
	}
	return nil
}

func (p *Partition) pages(records, bytes int) (*materializer.Restoration, error) {
	base := materializer.Partition{Rows: p.store, Address: p.address.ForRepair()}
	return materializer.NewRestoration(p.view(), base, records, bytes)
}

// whatIsMissing goes through everything that would be written again, and writes nothing: what cannot be restored must be known
// before anything is changed.
func (p *Partition) whatIsMissing() (materializer.Restored, error) {
	pages, err := p.pages(0, 0)
	if err != nil {
		return materializer.Restored{}, err
	}
	_, err = pages.Next()
	return pages.Counts(), err
}

// restored folds what the repair has appended, and finds what is still missing.
func (p *Partition) restored(ctx context.Context, incarnation uint64, r *repair, until int64) {
	in := input{kind: inRestored, incarnation: incarnation}
	in.page, in.restored, in.fail = p.restore(ctx, r, until)
	in.owner = p.restoring.fold.Owner()
	p.post(in)
}

func (p *Partition) restore(ctx context.Context, r *repair, until int64) ([]materializer.Entry, materializer.Restored, error) {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	if err := p.foldBeside(ctx, until); err != nil {
		return nil, materializer.Restored{}, fmt.Errorf("read back what the repair has written: %w", err)
	}
	if r.choice != materializer.AppendImage {
		return nil, materializer.Restored{}, nil
	}
	now := p.restoring
	if now.pages == nil {
		var err error
		if now.pages, err = p.pages(p.limits.MaxCommitRecords, p.limits.AppendBytes-broker.AppendOverhead); err != nil {
			return nil, materializer.Restored{}, err
		}
	}
	page, err := now.pages.Next()
	if err == nil && len(page) == 0 {
		base := materializer.Partition{Rows: p.store, Address: p.address.ForRepair()}
		err = materializer.Compare(p.view(), base, true, func(d materializer.Difference) error {
			return fmt.Errorf("what was written again does not make the store what it was: %s: nothing was dropped", d)
		})
	}
	return page, now.pages.Counts(), err
}

// startOver drops what was folded before the repair, and what was folded beside it.
func (p *Partition) startOver(r *repair) {
	p.closeRestoration()
	err := p.dropBeside()
	if err == nil {
		err = materializer.StartOver(p.store, p.address, p.topicID, r.survey.Start)
	}
	p.trustLog(err)
	p.core.StartedOver(err)
}

// resume takes the mark off a partition whose log is what its store was folded from.
func (p *Partition) resume() {
	p.closeRestoration()
	err := materializer.Resume(p.store, p.address)
	p.trustLog(err)
	p.core.StartedOver(err)
}

// halt marks the store of a partition that has halted, so that a restart does not forget it.
func (p *Partition) halt(position int64) {
	meta, _, err := p.view().Meta()
	if err == nil {
		err = materializer.MarkHalted(p.store, p.address, materializer.Halt{Position: max(position, meta.Next), Why: p.core.halted.Error()})
	}
	if err != nil {
		p.alarm("that the partition has halted could not be written down: " + err.Error())
	}
}
