package materializer

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/broker-adapter"
)

const (
	// bulkThreshold is how many records behind a partition must be for the bulk way to pay.
	bulkThreshold = 20_000
	// bulkBytes is the size of the overlay that a bulk rebuild fills before it writes it out.
	bulkBytes = 96 << 20
	// recordBytes is what the rows of a record take in an overlay, roughly: many partitions are rebuilt at a time, and few need one of
	// full size.
	recordBytes = 128
	// commitRecords is how many records one batch of an ordinary catch-up holds.
	commitRecords = 2_000
)

// Progress says how far a catch-up is.
type Progress struct {
	Address Address
	// Next is where it stands and Until where it goes, From where it began.
	From, Next, Until int64
	// Bulk is true for a rebuild through sorted tables.
	Bulk bool
}

// Follower reads one partition behind its fold and keeps the store up to date. It belongs to one goroutine at a time.
type Follower struct {
	reader   broker.Reader
	store    Store
	fold     *Fold
	position int64
	end      int64
}

// NewFollower returns a follower; the reader must stand at fold.Meta().Next.
func NewFollower(reader broker.Reader, store Store, fold *Fold) *Follower {
	return &Follower{reader: reader, store: store, fold: fold, position: fold.Meta().Next}
}

// Position is the offset of the first record that was not folded. It is ahead of the fold's Next while a group is open.
func (f *Follower) Position() int64 { return f.position }

// End is the end of the log as last heard, 0 before anything was read.
func (f *Follower) End() int64 { return f.end }

// Follow waits for the next records and folds them into the store. When ctx ended before there were any, nothing has happened
// and following may go on: then intact is true. After any other error the follower is of no use.
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
		return false, fmt.Errorf("apply %s up to offset %d: %w", f.fold.address, f.position, err)
	}
	return true, nil
}

// CatchUp folds into the store until position has reached until; it may go beyond. Far behind, it folds in memory and
// ingests sorted tables, otherwise it commits batches. Both ways are the same fold, and rows and position are always
// committed together. report may be nil.
func (f *Follower) CatchUp(ctx context.Context, until int64, report func(Progress)) error {
	p := Progress{Address: f.fold.address, From: f.position, Until: until, Bulk: until-f.position >= bulkThreshold}
	tell := func() {
		if p.Next = min(f.position, until); report != nil {
			report(p)
		}
	}
	if p.Bulk {
		return f.bulk(ctx, until, bulkBytes, tell)
	}
	return f.batched(ctx, until, tell)
}

// next reads once and folds what was read into rows.
func (f *Follower) next(ctx context.Context, rows Rows) (int, error) {
	batch, err := f.reader.Next(ctx)
	if err != nil {
		return 0, fmt.Errorf("read %s from offset %d: %w", f.fold.address, f.position, err)
	}
	for i := range batch.Records {
		if _, err := f.fold.Record(rows, &batch.Records[i]); err != nil {
			return 0, fmt.Errorf("fold %s: %w", f.fold.address, err)
		}
	}
	if err := f.fold.UpTo(batch.Next); err != nil {
		return 0, fmt.Errorf("fold %s: %w", f.fold.address, err)
	}
	f.position, f.end = batch.Next, batch.End
	return len(batch.Records), nil
}

func (f *Follower) batched(ctx context.Context, until int64, tell func()) error {
	batch := f.store.NewBatch()
	defer batch.Close() //nolint:errcheck // what was not committed is read again
	for f.position < until {
		for n := 0; n < commitRecords && f.position < until; {
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
			return fmt.Errorf("apply %s up to offset %d: %w", f.fold.address, f.position, err)
		}
		tell()
	}
	return nil
}

func (f *Follower) bulk(ctx context.Context, until int64, size int, tell func()) error {
	rows := newOverlay(int(min(int64(size), (until-f.position)*recordBytes)))
	nothingBelow := f.position == 0
	for f.position < until {
		for full := false; !full && f.position < until; full = rows.size() >= size {
			if _, err := f.next(ctx, rows); err != nil {
				return err
			}
			tell()
		}
		if err := f.fold.WriteMeta(rows); err != nil {
			return err
		}
		if err := f.store.Ingest(rows.sorted(nothingBelow)); err != nil {
			return fmt.Errorf("ingest %s up to offset %d: %w", f.fold.address, f.position, err)
		}
		nothingBelow = false
		rows.reset()
	}
	return nil
}
