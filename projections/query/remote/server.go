package remote

import (
	"context"
	"errors"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/plural"
	"github.com/millrace-io/millrace/projections/query"
	rowsv1 "github.com/millrace-io/millrace/proto/gen/millrace/rows/v1"
)

const (
	// mostEntries and mostBytes bound a message with entries. It may be larger by its last entry.
	mostEntries = 256
	mostBytes   = 256 << 10
)

// Server streams the rows of an executor.
type Server struct {
	rowsv1.UnimplementedRowsServiceServer

	rows   query.Executor
	worker string
}

// NewServer returns the service over the rows that a worker itself has.
func NewServer(rows query.Executor, worker string) *Server {
	return &Server{rows: rows, worker: worker}
}

// Scan reads the rows of one partition. It is called by grpc-go.
func (s *Server) Scan(r *rowsv1.ScanRequest, out grpc.ServerStreamingServer[rowsv1.ScanResponse]) error {
	scan, err := s.scanOf(r)
	if err != nil {
		return err
	}
	ctx := out.Context()
	rows, err := s.rows.Open(ctx, scan)
	if gone, not := errors.AsType[*query.NotHereError](err); not {
		return out.Send(&rowsv1.ScanResponse{NotHere: &rowsv1.NotHere{State: gone.State, Progress: gone.Progress}})
	}
	if err != nil {
		return statusOf(ctx, err)
	}
	defer rows.Close()
	page := &rowsv1.ScanResponse{At: s.at(rows.At())}
	if err := out.Send(page); err != nil {
		return err
	}
	if scan.Limit <= 0 { // only whether they are here is asked
		return nil
	}
	return s.send(ctx, rows, scan.Limit, out)
}

// mostWait is how long a question for changes may wait. A caller that waits longer asks again.
const mostWait = time.Minute

// Changes returns what has changed of rows of one partition. It is called by grpc-go.
func (s *Server) Changes(ctx context.Context, r *rowsv1.ChangesRequest) (*rowsv1.ChangesResponse, error) {
	scan, err := s.scanOf(r.GetScan())
	if err != nil {
		return nil, err
	}
	wait := min(max(r.GetWait().AsDuration(), 0), mostWait)
	changes, err := s.rows.Changes(ctx, scan, r.GetFrom(), wait)
	if gone, not := errors.AsType[*query.NotHereError](err); not {
		return &rowsv1.ChangesResponse{NotHere: &rowsv1.NotHere{State: gone.State, Progress: gone.Progress}}, nil
	}
	if gap, is := errors.AsType[*query.GapError](err); is {
		return &rowsv1.ChangesResponse{Gap: gap.Text}, nil
	}
	if err != nil {
		return nil, statusOf(ctx, err)
	}
	answer := &rowsv1.ChangesResponse{At: s.at(changes.At), Through: changes.Through}
	for _, c := range changes.Rows {
		answer.Changes = append(answer.Changes, &rowsv1.Change{Key: c.Key, Row: c.Row, Stale: c.Stale})
	}
	return answer, nil
}

func (s *Server) at(at query.At) *rowsv1.At {
	return &rowsv1.At{Worker: s.worker, Position: at.Position, End: at.End, Age: durationpb.New(at.Age)}
}

// send streams all entries, as fast as they are taken: first as many as are wanted in any case. The
// caller ends the stream when it has enough.
func (s *Server) send(ctx context.Context, rows query.Rows, first int,
	out grpc.ServerStreamingServer[rowsv1.ScanResponse],
) error {
	for want := min(first, mostEntries); ; want = mostEntries {
		page, size := &rowsv1.ScanResponse{}, 0
		for len(page.GetEntries()) < want && size < mostBytes {
			e, err := rows.Next(ctx)
			if err != nil {
				return statusOf(ctx, err)
			}
			if e == nil {
				return sendLast(page, out)
			}
			page.Entries = append(page.Entries, entryOf(e))
			size += len(e.Tuple) + len(e.Row)
		}
		if err := out.Send(page); err != nil {
			return err
		}
	}
}

// sendLast sends what is left, if anything.
func sendLast(page *rowsv1.ScanResponse, out grpc.ServerStreamingServer[rowsv1.ScanResponse]) error {
	if len(page.GetEntries()) == 0 {
		return nil
	}
	return out.Send(page)
}

// entryOf copies an entry: the next one takes its place.
func entryOf(e *query.Entry) *rowsv1.Entry {
	copied := &rowsv1.Entry{
		Tuple: append([]byte(nil), e.Tuple...), Row: append([]byte(nil), e.Row...), Stale: e.Stale, Count: e.Count,
	}
	for _, s := range e.Sums {
		copied.Sums = append(copied.Sums, &rowsv1.Sum{High: s.High, Low: s.Low})
	}
	return copied
}

// scanOf checks a request: it comes from another process.
func (s *Server) scanOf(r *rowsv1.ScanRequest) (*query.Scan, error) {
	scan := &query.Scan{
		Dataset: r.GetDataset(), Partition: r.GetPartition(), Lower: r.GetLower(), Reverse: r.GetReverse(),
		Limit: int(r.GetLimit()), Reach: r.GetReach(),
	}
	if len(r.GetUpper()) > 0 {
		scan.Upper = r.GetUpper()
	}
	switch r.GetTable() {
	case rowsv1.Table_TABLE_UNSPECIFIED:
		scan.Table = query.ByKey
	case rowsv1.Table_TABLE_INDEX:
		scan.Table = query.ByIndex
	case rowsv1.Table_TABLE_GROUPS:
		scan.Table = query.Groups
	default:
		return nil, status.Errorf(codes.Unimplemented, "table %d is not known to this version", r.GetTable())
	}
	if scan.Partition < 0 || scan.Partition >= s.rows.Partitions() || r.GetNumber() > math.MaxUint16 {
		return nil, status.Errorf(codes.InvalidArgument, "there is no partition %d, or no index %d: the journal has %s",
			scan.Partition, r.GetNumber(), plural.Of(s.rows.Partitions(), "partition"))
	}
	scan.Number = uint16(r.GetNumber()) //nolint:gosec // looked at
	return scan, nil
}

// statusOf is the error of a call for another worker.
func statusOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	code := codes.Unavailable // another replica may have the rows
	if e := entities.AsError(err); e.Reason == entities.InvalidCommand {
		code = codes.InvalidArgument
	}
	return status.Error(code, err.Error())
}
