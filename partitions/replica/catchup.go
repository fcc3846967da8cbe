package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/materializer"
)

// reading is a partition being read from the log into the store.
type reading struct {
	reader   broker.Reader
	follower *materializer.Follower
	fold     *materializer.Fold
	// following: everything that was folded is in the store, and reading can go on where it stands.
	following bool
}

// Close ends the reading of the log.
func (r *Replica) Close() {
	if r.reading != nil {
		_ = r.reading.reader.Close() // only read
		r.reading = nil
	}
}

// CatchUp folds the log from the store's position to its end or, with handedOver, to where its
// owner has released the partition. It returns who owns the partition there, and the offset after
// what is folded.
func (r *Replica) CatchUp(ctx context.Context, handedOver bool) (owner record.Owner, next int64, err error) {
	defer r.o.Image.Log.Expedite()()
	if next, err = r.caughtUp(ctx, handedOver); err != nil {
		return record.Owner{}, 0, err
	}
	return r.reading.fold.Owner(), next, nil
}

// caughtUp returns the offset after what is folded. A warm image need not ask for the log's end:
// the missing part comes when the claim is read back.
func (r *Replica) caughtUp(ctx context.Context, handedOver bool) (int64, error) {
	if now := r.reading; now == nil || !now.following || now.follower.End()-now.follower.Position() > broker.Warm {
		if next, err := r.toEnd(ctx); err != nil || !handedOver {
			return next, err
		}
	}
	if handedOver {
		if err := r.awaitRelease(ctx); err != nil {
			return 0, err
		}
	}
	r.reading.following = false
	return r.reading.follower.Position(), nil
}

// awaitRelease follows the log until the partition's owner has released it, or should have done so
// long ago: it may have died in between, or have had nothing to release.
func (r *Replica) awaitRelease(ctx context.Context) error {
	waiting, giveUp := context.WithCancel(ctx)
	over, stop := r.o.Clock.After(r.o.ReleaseTimeout)
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
	for !r.reading.fold.Released() {
		intact, err := r.reading.follower.Follow(waiting)
		switch {
		case err == nil:
		case intact && ctx.Err() == nil:
			return nil
		case errors.Is(err, materializer.ErrLost):
			_, err = r.toEnd(ctx)
			return err
		default:
			return err
		}
	}
	return nil
}

// toEnd folds up to the present end of the log, which it returns: from where the partition was
// followed to, else from the store's position. If the log has lost records it goes on only if a
// repair has accepted that.
func (r *Replica) toEnd(ctx context.Context) (end int64, err error) {
	if end, err = r.o.Image.End(ctx); err != nil {
		return 0, err
	}
	if now := r.reading; now != nil && now.following && now.follower.Position() <= end {
		now.following = false
		err = r.foldTo(ctx, end)
	} else {
		err = r.reopen(ctx, end, 0)
	}
	if !errors.Is(err, materializer.ErrLost) || errors.Is(err, materializer.ErrOnlyCopy) {
		return end, err
	}
	switch accepted, failed := r.accepted(ctx, end); {
	case failed != nil:
		return end, failed
	case accepted == 0:
		return end, err
	default:
		return end, r.reopen(ctx, end, accepted)
	}
}

// reopen folds from the store's position up to an offset. What the log has lost before accepted is
// passed over.
func (r *Replica) reopen(ctx context.Context, until, accepted int64) error {
	r.Close()
	meta, err := r.stored(ctx, until)
	if err != nil {
		return err
	}
	reader, err := r.o.Image.Read(meta.Next)
	if err != nil {
		return err
	}
	fold := materializer.NewFold(r.o.Image.Address, r.o.Image.TopicID, meta)
	if err := fold.Expect(r.o.Image.Layout); err != nil {
		return errors.Join(err, reader.Close())
	}
	fold.Accept(accepted)
	r.reading = &reading{reader: reader, fold: fold, follower: materializer.NewFollower(reader, r.o.Image.Store, fold)}
	return r.foldTo(ctx, until)
}

// accepted returns below which offset a repair has accepted what the log has lost after the store's
// position; 0: at no offset.
func (r *Replica) accepted(ctx context.Context, end int64) (int64, error) {
	meta, err := r.stored(ctx, end)
	if err != nil {
		return 0, err
	}
	reader, err := r.o.Image.Read(meta.Next)
	if err != nil {
		return 0, err
	}
	defer reader.Close() //nolint:errcheck // only read
	journal := materializer.NewJournal(reader, r.o.Image.Address, r.o.Image.TopicID, meta)
	if err := journal.Expect(r.o.Image.Layout); err != nil {
		return 0, err
	}
	found, err := journal.Inspect(ctx, end, nil)
	return found.Accepted, err
}

// stored returns the store's position, checked against a log that ends at end. Rows of another
// version of the fold are dropped, once the log is known to have everything that they were folded
// from.
func (r *Replica) stored(ctx context.Context, end int64) (materializer.Meta, error) {
	meta, known, err := r.o.Image.View().Meta()
	if err != nil {
		return materializer.Meta{}, fmt.Errorf("read the store of %s: %w", r.o.Image.Address, err)
	}
	halt, halted, err := r.o.Image.View().Halted()
	if err != nil {
		return materializer.Meta{}, fmt.Errorf("read the store of %s: %w", r.o.Image.Address, err)
	}
	switch {
	case halted:
		return materializer.Meta{}, fmt.Errorf("%w: %s", materializer.ErrHaltedBefore, halt.Why)
	case !known:
		return materializer.Meta{}, nil
	case meta.TopicID != r.o.Image.TopicID:
		return materializer.Meta{}, materializer.TopicReplaced(meta.TopicID, r.o.Image.TopicID)
	case meta.Next > end:
		return materializer.Meta{}, fmt.Errorf("%w: the store has folded %s up to offset %d, the log ends at %d",
			broker.ErrRegressed, r.o.Image.Address, meta.Next, end)
	case meta.FoldVersion != materializer.FoldVersion:
		if err := r.replaceable(ctx, &meta, end); err != nil {
			return materializer.Meta{}, err
		}
		lower, upper := r.o.Image.Address.Range()
		return materializer.Meta{}, r.o.Image.Store.DropRange(lower, upper)
	default:
		return meta, nil
	}
}

// replaceable returns an error unless the log, up to end, has everything that the store was folded
// from: otherwise the store may be the only copy of what is missing.
func (r *Replica) replaceable(ctx context.Context, meta *materializer.Meta, end int64) error {
	done, err := r.o.Image.AwaitRebuild(ctx)
	if err != nil {
		return err
	}
	defer done()
	damage, err := r.o.Image.Losses(ctx, meta, end, nil)
	switch {
	case err != nil:
		return fmt.Errorf("the store of %s has format %d, this program has format %d, and whether the log can replace it is not known: %w",
			r.o.Image.Address, meta.FoldVersion, materializer.FoldVersion, err)
	case damage != nil && !mutation.On(mutation.OnlyCopy):
		return fmt.Errorf("%w: the store of %s has format %d, this program has format %d and would fold the log again, and %w. Nothing was dropped. "+
			"Run the version of millrace whose stores have format %d: it serves from this store where the log is lost only below the store's position, "+
			"and has `millrace repair --append-image` for a lost end. Or restore the log and use `millrace repair --retry`. "+
			"`millrace repair --accept-loss` drops the store, with all that the log does not have",
			materializer.ErrOnlyCopy, r.o.Image.Address, meta.FoldVersion, materializer.FoldVersion, damage, meta.FoldVersion)
	}
	return nil
}

// foldTo folds up to an offset. Only a limited number of partitions that are far behind fold at a
// time.
func (r *Replica) foldTo(ctx context.Context, until int64) error {
	if until-r.reading.follower.Position() > broker.Warm {
		done, err := r.o.Image.AwaitRebuild(ctx)
		if err != nil {
			return err
		}
		defer done()
	}
	return r.reading.follower.CatchUp(ctx, until, r.o.Image.Progress)
}

// ReadBack folds up to and including the claim at an offset. It returns the fold, which belongs to
// the caller from then on and knows the owner of the partition, and the offset after what is
// folded. Without an error, the fold is nil if a later catch-up has replaced the one that the claim
// came from.
func (r *Replica) ReadBack(ctx context.Context, claim int64) (fold *materializer.Fold, next int64, err error) {
	defer r.o.Image.Log.Expedite()()
	if r.reading == nil {
		return nil, 0, nil
	}
	if err := r.foldTo(ctx, claim+1); err != nil {
		return nil, 0, fmt.Errorf("read the claim back: %w", err)
	}
	fold, next = r.reading.fold, r.reading.follower.Position()
	r.Close()
	return fold, next, nil
}
