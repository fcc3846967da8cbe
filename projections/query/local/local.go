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
	ask := projections.Ask{Dataset: scan.Dataset, Partition: scan.Partition, Reach: scan.Reach}
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
	s, err := e.Engine.Open(ctx, ask)
	if err != nil {
		if missing, ok := errors.AsType[*projections.NotHereError](err); ok {
			return nil, &query.NotHereError{
				Partition: missing.Partition, State: missing.State.String(), Progress: missing.Progress,
			}
		}
		return nil, err
	}
	r := &rows{snapshot: s, table: scan.Table, at: query.At{Worker: e.Worker, Position: s.Position().Next}}
	if r.at.End = r.at.Position; e.Known != nil {
		r.at.End, r.at.Age = e.Known(scan.Partition, r.at.Position)
	}
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
