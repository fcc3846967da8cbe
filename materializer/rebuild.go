package materializer

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/broker-adapter"
)

const (
	// bulkThreshold is the lag, in records, from which a bulk rebuild pays.
	bulkThreshold = 20_000
	// bulkBytes is the size of the overlay that a bulk rebuild fills before it writes it out.
	bulkBytes = 96 << 20
	// recordBytes is what the rows of a record take in an overlay, roughly: many partitions are
	// rebuilt at a time, and few need one of full size.
	recordBytes = 128
	// commitRecords is how many records one batch of an ordinary catch-up holds.
	commitRecords = 2_000
)

// Progress says how far a catch-up is.
type Progress struct {
	Address Address
	// Next is the present offset, From the one where it began, Until the one where it ends.
	From, Next, Until int64
	// Bulk is true for a rebuild through sorted tables.
	Bulk bool
}

// Follower reads one partition for its fold and keeps the store up to date. It belongs to one
// goroutine at a time.
type Follower struct {
	journal *Journal
	store   Store
	fold    *Fold
}

// NewFollower returns a follower; the reader must stand at fold.Meta().Next.
func NewFollower(reader broker.Reader, store Store, fold *Fold) *Follower {
	return &Follower{journal: fold.Journal(reader), store: store, fold: fold}
}

// Position is the offset of the first record that was not folded. It is ahead of the fold's Next
// while a group is open.
func (f *Follower) Position() int64 { return f.journal.Position() }

// End is the end of the log as the last batch gave it, 0 before anything was read.
func (f *Follower) End() int64 { return f.journal.End() }

// Follow waits for the next records and folds them into the store. When ctx ended before there were
// any, nothing has happened and following may go on: then intact is true. After any other error the
// follower must not be used.
func (f *Follower) Follow(ctx context.Context) (intact bool, err error) {
	batch := f.store.NewBatch()
	defer batch.Close() //nolint:errcheck // what was not committed is read again
	if _, err := f.next(ctx, batch); err != nil {
		return ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))), err
	}
	if err := f.fold.WriteMeta(batch); err != nil {
		return false, err
	}
	if err := batch.Commit(); err != nil {
		return false, fmt.Errorf("apply %s up to offset %d: %w", f.fold.address, f.Position(), err)
	}
	return true, nil
}

// CatchUp folds into the store until position has reached until; it may go beyond. When far behind,
// it folds in memory and ingests sorted tables, otherwise it commits batches. Both use the same
// fold, and commit rows and position together. report may be nil.
func (f *Follower) CatchUp(ctx context.Context, until int64, report func(Progress)) error {
	p := Progress{Address: f.fold.address, From: f.Position(), Until: until, Bulk: until-f.Position() >= bulkThreshold}
	tell := func() {
		if p.Next = min(f.Position(), until); report != nil {
			report(p)
		}
	}
	if p.Bulk {
		return f.bulk(ctx, until, bulkBytes, tell)
	}
	return f.batched(ctx, until, tell)
}

// next reads once and folds what was read into rows.
func (f *Follower) next(ctx context.Context, rows Rows) (n int, err error) {
	for more := true; more; more = f.journal.Buffered() {
		r, err := f.journal.Next(ctx)
		if r == nil {
			return n, err
		}
		if err == nil {
			err = f.fold.Apply(rows, r)
		}
		if err != nil {
			return n, fmt.Errorf("fold %s: %w", f.fold.address, err)
		}
		n++
	}
	return n, nil
}

func (f *Follower) batched(ctx context.Context, until int64, tell func()) error {
	batch := f.store.NewBatch()
	defer batch.Close() //nolint:errcheck // what was not committed is read again
	for f.Position() < until {
		for n := 0; n < commitRecords && f.Position() < until; {
			read, err := f.next(ctx, batch)
			if err != nil {
				return err
			}
			n += read
		}
		if err := f.fold.WriteMeta(batch); err != nil {
			return err
		}
		if err := batch.Commit(); err != nil {
			return fmt.Errorf("apply %s up to offset %d: %w", f.fold.address, f.Position(), err)
		}
		tell()
	}
	return nil
}

func (f *Follower) bulk(ctx context.Context, until int64, size int, tell func()) error {
	rows := newOverlay(int(min(int64(size), (until-f.Position())*recordBytes)))
	nothingBelow := f.Position() == 0
	for f.Position() < until {
		for full := false; !full && f.Position() < until; full = rows.size() >= size {
			if _, err := f.next(ctx, rows); err != nil {
				return err
			}
			tell()
		}
		if err := f.fold.WriteMeta(rows); err != nil {
			return err
		}
		if err := f.store.Ingest(rows.sorted(nothingBelow)); err != nil {
			return fmt.Errorf("ingest %s up to offset %d: %w", f.fold.address, f.Position(), err)
		}
		nothingBelow = false
		rows.reset()
	}
	return nil
}
