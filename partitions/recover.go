package partitions

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/materializer"
)

// recovery is a partition being read from the log into the store. It belongs to one background goroutine at a time; the
// loop has it only while none runs.
type recovery struct {
	reader   broker.Reader
	follower *materializer.Follower
	fold     *materializer.Fold
	// following: everything that was folded is in the store, and reading can go on where it stands.
	following bool
}

func (r *recovery) close() { _ = r.reader.Close() }

// catchUp reads the log from where the store stands to its end, or to where its owner has released the partition.
func (p *Partition) catchUp(ctx context.Context, e effect) {
	p.oneReader <- struct{}{}
	defer func() { <-p.oneReader }()
	defer p.log.Hurry()()
	next, err := p.caughtUp(ctx, e.handedOver)
	if err != nil {
		p.post(input{kind: inFailed, incarnation: e.incarnation, fail: err})
		return
	}
	p.post(input{kind: inCaughtUp, incarnation: e.incarnation, owner: p.reading.fold.Owner(), next: next})
}

// caughtUp returns the offset behind what is folded. A warm image need not ask how far the log is: what is missing comes when the
// claim is read back.
func (p *Partition) caughtUp(ctx context.Context, handedOver bool) (int64, error) {
	r := p.reading
	if r == nil || !r.following || r.follower.End()-r.follower.Position() > broker.Warm {
		if next, err := p.recover(ctx); err != nil || !handedOver {
			return next, err
		}
	}
	if handedOver {
		if err := p.awaitRelease(ctx); err != nil {
			return 0, err
		}
	}
	p.reading.following = false
	return p.reading.follower.Position(), nil
}

// awaitRelease follows the log until the partition's owner has released it, or should have done so long ago: it may have died in
// between, or have had nothing to release.
func (p *Partition) awaitRelease(ctx context.Context) error {
	waiting, giveUp := context.WithCancel(ctx)
	over, stop := p.clock.After(p.limits.ReleaseTimeout)
	var timer sync.WaitGroup
	timer.Go(func() { // ends with waiting
		select {
		case <-over:
			giveUp()
		case <-waiting.Done():
			stop()
		}
	})
	defer timer.Wait()
	defer giveUp()
	for !p.reading.fold.Released() {
		intact, err := p.reading.follower.Follow(waiting)
		switch {
		case err == nil:
		case intact && ctx.Err() == nil:
			return nil
		case errors.Is(err, materializer.ErrLost):
			_, err = p.recover(ctx)
			return err
		default:
			return err
		}
	}
	return nil
}

// recover folds up to the end of the log as it is now: from where the partition was followed to, else from what the store holds.
// Where the log has lost records it goes on only if a repair has accepted that.
func (p *Partition) recover(ctx context.Context) (int64, error) {
	end, err := p.log.End(ctx, p.journal)
	if err != nil {
		return 0, fmt.Errorf("ask for the end of %s: %w", p.address, err)
	}
	if r := p.reading; r != nil && r.following && r.follower.Position() <= end {
		r.following = false
		err = p.follow(ctx, end)
	} else {
		err = p.read(ctx, end, 0)
	}
	if !errors.Is(err, materializer.ErrLost) || errors.Is(err, materializer.ErrOnlyCopy) {
		return end, err
	}
	switch accepted, failed := p.accepted(ctx, end); {
	case failed != nil:
		return end, failed
	case accepted == 0:
		return end, err
	default:
		return end, p.read(ctx, end, accepted)
	}
}

// read folds from what the store holds up to an offset. What the log has lost before accepted is passed over.
func (p *Partition) read(ctx context.Context, until, accepted int64) error {
	if p.reading != nil {
		p.reading.close()
		p.reading = nil
	}
	meta, err := p.stored(ctx, until)
	if err != nil {
		return err
	}
	reader, err := p.log.Read(p.journal, meta.Next)
	if err != nil {
		return fmt.Errorf("read %s from offset %d: %w", p.address, meta.Next, err)
	}
	fold := materializer.NewFold(p.address, p.topicID, meta)
	if err := fold.Expect(p.layout); err != nil {
		return errors.Join(err, reader.Close())
	}
	fold.Accept(accepted)
	p.reading = &recovery{reader: reader, fold: fold, follower: materializer.NewFollower(reader, p.store, fold)}
	return p.follow(ctx, until)
}

// accepted returns below which offset a repair has accepted what the log has lost behind the store's position; 0: nowhere.
func (p *Partition) accepted(ctx context.Context, end int64) (int64, error) {
	meta, err := p.stored(ctx, end)
	if err != nil {
		return 0, err
	}
	reader, err := p.log.Read(p.journal, meta.Next)
	if err != nil {
		return 0, fmt.Errorf("read %s from offset %d: %w", p.address, meta.Next, err)
	}
	defer reader.Close() //nolint:errcheck // only read
	journal := materializer.NewJournal(reader, p.address, p.topicID, meta)
	if err := journal.Expect(p.layout); err != nil {
		return 0, err
	}
	found, err := journal.Inspect(ctx, end, nil)
	return found.Accepted, err
}

// stored returns what the store vouches for, of a log that ends at end. What another version of the fold left is dropped, once the log
// is known to have everything that it was folded from.
func (p *Partition) stored(ctx context.Context, end int64) (materializer.Meta, error) {
	meta, known, err := p.view().Meta()
	if err != nil {
		return materializer.Meta{}, fmt.Errorf("read the store of %s: %w", p.address, err)
	}
	halt, halted, err := p.view().Halted()
	if err != nil {
		return materializer.Meta{}, fmt.Errorf("read the store of %s: %w", p.address, err)
	}
	switch {
	case halted:
		return materializer.Meta{}, fmt.Errorf("%w: %s", materializer.ErrHaltedBefore, halt.Why)
	case !known:
		return materializer.Meta{}, nil
	case meta.TopicID != p.topicID:
		return materializer.Meta{}, materializer.TopicReplaced(meta.TopicID, p.topicID)
	case meta.Next > end:
		return materializer.Meta{}, fmt.Errorf("%w: the store has folded %s up to offset %d, the log ends at %d", broker.ErrRegressed, p.address, meta.Next, end)
	case meta.FoldVersion != materializer.FoldVersion:
		if err := p.replaceable(ctx, &meta, end); err != nil {
			return materializer.Meta{}, err
		}
		lower, upper := p.address.Range()
		return materializer.Meta{}, p.store.DropRange(lower, upper)
	default:
		return meta, nil
	}
}

// replaceable returns an error unless the log, up to end, has everything that the store was folded from: otherwise the store may be the
// only copy of what is missing.
func (p *Partition) replaceable(ctx context.Context, meta *materializer.Meta, end int64) error {
	select {
	case p.rebuilds <- struct{}{}:
		defer func() { <-p.rebuilds }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	damage, err := materializer.Losses(ctx, p.log, p.journal, p.address, meta, end, nil)
	switch {
	case err != nil:
		return fmt.Errorf("the store of %s has format %d, this program has format %d, and whether the log can replace it is not known: %w",
			p.address, meta.FoldVersion, materializer.FoldVersion, err)
	case damage != nil && !mutation.On(mutation.OnlyCopy):
		return fmt.Errorf("%w: the store of %s has format %d, this program has format %d and would fold the log anew, and %w. Nothing was dropped. "+
			"Run the version of millrace whose stores have format %d: it serves from this store where the log is lost only below the store's position, "+
			"and has `millrace repair --append-image` for a lost end. Or restore the log and use `millrace repair --retry`. "+
			"`millrace repair --accept-loss` drops the store, with all that the log does not have",
			materializer.ErrOnlyCopy, p.address, meta.FoldVersion, materializer.FoldVersion, damage, meta.FoldVersion)
	}
	return nil
}

// follow folds up to an offset; what is far behind only as many partitions at a time as there is room for.
func (p *Partition) follow(ctx context.Context, until int64) error {
	if until-p.reading.follower.Position() > broker.Warm {
		select {
		case p.rebuilds <- struct{}{}:
			defer func() { <-p.rebuilds }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return p.reading.follower.CatchUp(ctx, until, p.hooks.Progress)
}

// readBack folds up to and including the claim at offset, and lets the core see who owns the partition then.
func (p *Partition) readBack(ctx context.Context, incarnation uint64, offset int64) {
	p.oneReader <- struct{}{}
	defer func() { <-p.oneReader }()
	defer p.log.Hurry()()
	if p.reading == nil {
		return // a later catch-up took its place
	}
	if err := p.follow(ctx, offset+1); err != nil {
		p.post(input{kind: inFailed, incarnation: incarnation, fail: fmt.Errorf("read the claim back: %w", err)})
		return
	}
	r := p.reading
	p.reading = nil
	next := r.follower.Position()
	r.close()
	p.post(input{kind: inReadBack, incarnation: incarnation, owner: r.fold.Owner(), next: next, fold: r.fold})
}

// readGap reads the records that stand where own ones were expected: from (inclusive) to until (exclusive).
func (p *Partition) readGap(ctx context.Context, incarnation uint64, from, until int64) {
	gap, err := p.gap(ctx, from, until)
	p.post(input{kind: inGapRead, incarnation: incarnation, gap: gap, fail: err})
}

func (p *Partition) gap(ctx context.Context, from, until int64) ([]materializer.GapRecord, error) {
	reader, err := p.log.Read(p.journal, from)
	if err != nil {
		return nil, err
	}
	defer reader.Close() //nolint:errcheck // only read
	var gap []materializer.GapRecord
	for r, err := range materializer.Browse(reader, p.address, from).Until(ctx, until) {
		if r == nil {
			return nil, err
		}
		if r.Offset >= until {
			break
		}
		e := r.Clone()
		gap = append(gap, materializer.GapRecord{Envelope: e.Envelope, Foreign: r.Foreign != nil, Record: broker.Record{
			Key: e.Key, Value: e.Value, Offset: e.Offset, Time: r.Record.Time,
			Headers: []broker.Header{{Key: record.HeaderKey, Value: bytes.Clone(r.Record.Header(record.HeaderKey))}},
		}})
	}
	return gap, nil
}
