// Package local answers scans of queries from the rows of this worker.
package local

import (
	"context"
	"errors"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/projections"
	"github.com/millrace-io/millrace/projections/query"
)

// Executor reads the rows of an engine. It has one engine, and the datasets that are there: a scan
// of another one is a *query.NotHereError.
type Executor struct {
	// Engine has the rows.
	Engine *projections.Engine
	// Count is how many partitions the journal has.
	Count int32
	// Worker is the name of this worker, for explain.
	Worker string
	// Known returns the newest end of a partition's log that this worker knows of, and how long ago
	// rows at a position had everything that was committed; nil if that is not known.
	Known func(partition int32, position int64) (end int64, age time.Duration)
}

// Partitions is how many the journal has.
func (e *Executor) Partitions() int32 { return e.Count }

// PartitionOf returns the partition of an entity id.
func (e *Executor) PartitionOf(entity string) int32 { return entities.Partition(entity, int(e.Count)) }

// Open waits until the rows have reached Scan.Reach, and reads them.
func (e *Executor) Open(ctx context.Context, scan *query.Scan) (query.Rows, error) {
	s, err := e.open(ctx, scan, scan.Reach)
	if err != nil {
		return nil, err
	}
	r := &rows{snapshot: s, table: scan.Table, at: e.at(scan.Partition, s)}
	switch scan.Table {
	case query.ByIndex:
		r.rows = s.Index(scan.Number, scan.Lower, scan.Upper, scan.Reverse)
	case query.Groups:
		r.rows = s.Groups(scan.Number, scan.Lower, scan.Upper, scan.Reverse)
	default:
		r.rows = s.Rows(scan.Lower, scan.Upper, scan.Reverse)
	}
	return r, nil
}

// changesAtOnce is about how many rows that have changed are returned at a time.
const changesAtOnce = 256

// Changes waits until rows within the bounds of a scan have changed, at most until wait is over.
func (e *Executor) Changes(
	ctx context.Context, scan *query.Scan, from int64, wait time.Duration,
) (*query.Changes, error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	follower, err := e.Engine.Follow(e.ask(scan, 0), rangeOf(scan))
	if err != nil {
		return nil, asNotHere(err)
	}
	defer follower.Close()
	for {
		var s *projections.Snapshot
		if from, err = follower.Await(waiting, from); err == nil {
			s, err = e.open(waiting, scan, from)
		}
		switch {
		case err != nil && waiting.Err() != nil && ctx.Err() == nil:
			return e.unchanged(ctx, scan, from)
		case err != nil:
			return nil, asNotHere(err)
		}
		changes, err := e.changes(s, scan, from)
		if err = errors.Join(err, s.Close()); err != nil {
			if gap, is := errors.AsType[*projections.GapError](err); is {
				err = &query.GapError{Partition: gap.Partition, Text: gap.Error()}
			}
			return nil, err
		}
		if len(changes.Rows) > 0 || waiting.Err() != nil {
			return changes, ctx.Err()
		}
		from = changes.Through
	}
}

func rangeOf(scan *query.Scan) projections.Range {
	return projections.Range{
		ByIndex: scan.Table == query.ByIndex, Index: scan.Number, Lower: scan.Lower, Upper: scan.Upper,
	}
}

// changes reads what records from an offset on have changed.
func (e *Executor) changes(s *projections.Snapshot, scan *query.Scan, from int64) (*query.Changes, error) {
	found, through, err := s.Changes(from, rangeOf(scan), changesAtOnce)
	changes := &query.Changes{At: e.at(scan.Partition, s), Through: through}
	for _, c := range found {
		changes.Rows = append(changes.Rows, query.Change(c))
	}
	return changes, err
}

// unchanged is the answer when no record came: how far the rows are.
func (e *Executor) unchanged(ctx context.Context, scan *query.Scan, from int64) (*query.Changes, error) {
	s, err := e.open(ctx, scan, 0)
	if err != nil {
		return nil, err
	}
	return &query.Changes{At: e.at(scan.Partition, s), Through: from}, s.Close()
}

// ask says what a scan reads.
func (e *Executor) ask(scan *query.Scan, reach int64) projections.Ask {
	ask := projections.Ask{Dataset: scan.Dataset, Partition: scan.Partition, Reach: reach}
	switch scan.Table {
	case query.ByIndex:
		ask.Indexes = []uint16{scan.Number}
	case query.Groups:
		ask.Aggregates = []uint16{scan.Number}
	default:
	}
	if mutation.On(mutation.Chosen) { // by this worker, and not by the process that asks
		for _, s := range e.Engine.Status() {
			ask.Dataset = max(ask.Dataset, s.Dataset)
		}
	}
	return ask
}

// open returns a snapshot of what a scan reads.
func (e *Executor) open(ctx context.Context, scan *query.Scan, reach int64) (*projections.Snapshot, error) {
	s, err := e.Engine.Open(ctx, e.ask(scan, reach))
	return s, asNotHere(err)
}

// asNotHere returns the error of queries for one of an engine.
func asNotHere(err error) error {
	if missing, is := errors.AsType[*projections.NotHereError](err); is {
		return &query.NotHereError{Partition: missing.Partition, State: missing.State.String(), Progress: missing.Progress}
	}
	return err
}

// at says as of which moment a snapshot is.
func (e *Executor) at(partition int32, s *projections.Snapshot) query.At {
	at := query.At{Worker: e.Worker, Position: s.Position().Next}
	if at.End = at.Position; e.Known != nil {
		at.End, at.Age = e.Known(partition, at.Position)
	}
	return at
}

// rows are those of a snapshot.
type rows struct {
	snapshot *projections.Snapshot
	table    query.Table
	at       query.At
	rows     *projections.Rows
	entry    query.Entry
	// isOver: rows is at its end, and closed.
	isOver bool
}

// At says as of which moment.
func (r *rows) At() query.At { return r.at }

// Next returns the next entry.
func (r *rows) Next(context.Context) (*query.Entry, error) {
	if r.isOver {
		return nil, nil //nolint:nilnil // the end
	}
	if !r.rows.Next() {
		r.isOver = true
		return nil, r.rows.Close()
	}
	r.entry = query.Entry{Tuple: r.rows.Tuple(), Sums: r.entry.Sums[:0]}
	if r.table == query.Groups {
		count, sums := r.rows.Group()
		r.entry.Count = count
		for _, s := range sums {
			r.entry.Sums = append(r.entry.Sums, query.Sum(s))
		}
		return &r.entry, nil
	}
	var err error
	r.entry.Row, r.entry.Stale, err = r.rows.Row()
	return &r.entry, err
}

// Close releases the snapshot. Errors of what was read came from Next.
func (r *rows) Close() {
	if !r.isOver {
		r.isOver = true
		_ = r.rows.Close()
	}
	_ = r.snapshot.Close()
}
