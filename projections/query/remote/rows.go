package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/millrace-io/millrace/projections/query"
	rowsv1 "github.com/millrace-io/millrace/proto/gen/millrace/rows/v1"
)

// rows are streamed from another worker.
type rows struct {
	stream grpc.ServerStreamingClient[rowsv1.ScanResponse]
	end    context.CancelFunc
	at     query.At
	// entries are those that have come and were not returned yet. entry is the last that was.
	entries []*rowsv1.Entry
	entry   query.Entry
}

// Open asks the worker behind a connection for rows, and waits for the first answer until ctx ends.
// The error is a *query.NotHereError if that worker does not have them; any other one is of the
// connection, or of ctx. The rows are there until they are closed.
func Open(ctx context.Context, conn grpc.ClientConnInterface, scan *query.Scan) (query.Rows, error) {
	reading, end := context.WithCancel(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, end)()
	r := &rows{end: end}
	if err := r.open(reading, conn, scan); err != nil {
		end()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	return r, nil
}

func (r *rows) open(ctx context.Context, conn grpc.ClientConnInterface, scan *query.Scan) (err error) {
	r.stream, err = rowsv1.NewRowsServiceClient(conn).Scan(ctx, requestOf(scan))
	if err != nil {
		return fmt.Errorf("ask for rows of partition %d: %w", scan.Partition, err)
	}
	first, err := r.stream.Recv()
	switch {
	case errors.Is(err, io.EOF), err == nil && first.GetAt() == nil && first.GetNotHere() == nil:
		return fmt.Errorf("ask for rows of partition %d: the worker does not say where they are", scan.Partition)
	case err != nil:
		return fmt.Errorf("ask for rows of partition %d: %w", scan.Partition, err)
	case first.GetNotHere() != nil:
		not := first.GetNotHere()
		return &query.NotHereError{Partition: scan.Partition, State: not.GetState(), Progress: not.GetProgress()}
	}
	r.at = atOf(first.GetAt())
	r.entries = first.GetEntries()
	return nil
}

// Changes asks the worker behind a connection for what has changed of rows: query.Executor says
// what is returned. Errors are those of Open, and *query.GapError.
func Changes(
	ctx context.Context, conn grpc.ClientConnInterface, scan *query.Scan, from int64, wait time.Duration,
) (*query.Changes, error) {
	r, err := rowsv1.NewRowsServiceClient(conn).Changes(ctx, &rowsv1.ChangesRequest{
		Scan: requestOf(scan), From: from, Wait: durationpb.New(wait),
	})
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, fmt.Errorf("ask for changes of rows of partition %d: %w", scan.Partition, err)
	case r.GetNotHere() != nil:
		not := r.GetNotHere()
		return nil, &query.NotHereError{Partition: scan.Partition, State: not.GetState(), Progress: not.GetProgress()}
	case r.GetGap() != "":
		return nil, &query.GapError{Partition: scan.Partition, Text: r.GetGap()}
	case r.GetAt() == nil || r.GetThrough() < from:
		return nil, fmt.Errorf("ask for changes of rows of partition %d: the worker does not say where they are",
			scan.Partition)
	}
	changes := &query.Changes{At: atOf(r.GetAt()), Through: r.GetThrough()}
	for _, c := range r.GetChanges() {
		changes.Rows = append(changes.Rows, query.Change{Key: c.GetKey(), Row: c.Row, Stale: c.GetStale()}) //nolint:protogetter // nil is not empty
	}
	return changes, nil
}

func atOf(at *rowsv1.At) query.At {
	return query.At{
		Worker: at.GetWorker(), Position: at.GetPosition(), End: at.GetEnd(), Age: at.GetAge().AsDuration(),
	}
}

func requestOf(scan *query.Scan) *rowsv1.ScanRequest {
	r := &rowsv1.ScanRequest{
		Dataset: scan.Dataset, Partition: scan.Partition, Number: uint32(scan.Number), Lower: scan.Lower, Upper: scan.Upper,
		Reverse: scan.Reverse, Limit: int32(min(scan.Limit, math.MaxInt32)), Reach: scan.Reach, //nolint:gosec // bounded
	}
	switch scan.Table {
	case query.ByKey:
	case query.ByIndex:
		r.Table = rowsv1.Table_TABLE_INDEX
	case query.Groups:
		r.Table = rowsv1.Table_TABLE_GROUPS
	}
	return r
}

// At says where and as of when the rows were read.
func (r *rows) At() query.At { return r.at }

// Next returns the next entry, nil behind the last one.
func (r *rows) Next(ctx context.Context) (*query.Entry, error) {
	defer context.AfterFunc(ctx, r.end)()
	for len(r.entries) == 0 {
		page, err := r.stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil, nil //nolint:nilnil // as Rows says
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			return nil, fmt.Errorf("read rows of worker %s: %w", r.at.Worker, err)
		}
		r.entries = page.GetEntries()
	}
	e := r.entries[0]
	r.entries = r.entries[1:]
	r.entry = query.Entry{
		Tuple: e.GetTuple(), Row: e.GetRow(), Stale: e.GetStale(), Count: e.GetCount(), Sums: r.entry.Sums[:0],
	}
	for _, s := range e.GetSums() {
		r.entry.Sums = append(r.entry.Sums, query.Sum{High: s.GetHigh(), Low: s.GetLow()})
	}
	return &r.entry, nil
}

// Close ends the reading.
func (r *rows) Close() { r.end() }
