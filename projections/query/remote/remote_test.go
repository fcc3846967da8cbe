package remote_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/millrace-io/millrace/internal/leaktest"
	"github.com/millrace-io/millrace/projections/query"
	"github.com/millrace-io/millrace/projections/query/remote"
	rowsv1 "github.com/millrace-io/millrace/proto/gen/millrace/rows/v1"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// worker has so many rows in partition 0; partition 1 is not there, and partition 2 never reaches a
// position.
type worker struct {
	count int
	asked []query.Scan
	// failAt is the row whose reading fails; -1 for none.
	failAt int
	closed chan struct{}
}

func (*worker) Partitions() int32        { return 3 }
func (*worker) PartitionOf(string) int32 { return 0 }

func (w *worker) Open(ctx context.Context, scan *query.Scan) (query.Rows, error) {
	w.asked = append(w.asked, *scan)
	switch scan.Partition {
	case 1:
		return nil, &query.NotHereError{Partition: 1, State: "BUILDING", Progress: "offset 3 of 9"}
	case 2:
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return &rows{worker: w}, nil
}

// Changes of partition 0 are told, those of 1 are not kept, and 2 is not here.
func (w *worker) Changes(
	_ context.Context, scan *query.Scan, from int64, wait time.Duration,
) (*query.Changes, error) {
	w.asked = append(w.asked, *scan)
	switch scan.Partition {
	case 1:
		return nil, &query.GapError{Partition: 1, Text: fmt.Sprintf("nothing is kept since %d", from)}
	case 2:
		return nil, &query.NotHereError{Partition: 2, State: "BUILDING", Progress: wait.String()}
	}
	return &query.Changes{
		At: query.At{Worker: "w1", Position: 7, End: 9, Age: time.Second}, Through: from + 1, Rows: []query.Change{
			{Key: []byte("gone")}, {Key: []byte("empty"), Row: []byte{}}, {Key: []byte("k"), Row: []byte("row"), Stale: true},
		},
	}, nil
}

type rows struct {
	worker *worker
	next   int
}

func (*rows) At() query.At { return query.At{Position: 7, End: 9, Age: time.Second} }

func (r *rows) Next(context.Context) (*query.Entry, error) {
	if r.next == r.worker.failAt {
		return nil, errors.New("the disk is gone")
	}
	if r.next == r.worker.count {
		return nil, nil
	}
	r.next++
	return &query.Entry{
		Tuple: fmt.Appendf(nil, "%05d", r.next), Row: []byte("row"), Stale: r.next%2 == 0, Count: int64(r.next),
		Sums: []query.Sum{{High: -1, Low: uint64(r.next)}},
	}, nil
}

func (r *rows) Close() { close(r.worker.closed) }

func serve(t *testing.T, w *worker) grpc.ClientConnInterface {
	t.Helper()
	w.closed = make(chan struct{})
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	rowsv1.RegisterRowsServiceServer(server, remote.NewServer(w, "w1"))
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }() // ended by Stop
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return conn
}

// TestRows: every entry arrives as it is, in order, also those behind the limit, which is the size
// of the first message only; and after the context of Open has ended.
func TestRows(t *testing.T) {
	for _, limit := range []int{1, 16, 10_000} {
		w := &worker{count: 1000, failAt: -1}
		conn := serve(t, w)
		scan := query.Scan{
			Dataset: 4, Table: query.Groups, Number: 2, Lower: []byte("a"), Upper: []byte("b"), Reverse: true, Limit: limit,
			Reach: 5,
		}
		opening, opened := context.WithCancel(t.Context())
		got, err := remote.Open(opening, conn, &scan)
		opened()
		if err != nil {
			t.Fatal(err)
		}
		if at := got.At(); at != (query.At{Worker: "w1", Position: 7, End: 9, Age: time.Second}) {
			t.Errorf("the rows are of %+v", at)
		}
		if asked := fmt.Sprintf("%+v", w.asked); asked != fmt.Sprintf("%+v", []query.Scan{scan}) {
			t.Errorf("the worker was asked for %s", asked)
		}
		for i := 1; ; i++ {
			e, err := got.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if e == nil {
				if i != 1001 {
					t.Errorf("limit %d: %d entries, want 1000", limit, i-1)
				}
				break
			}
			if string(e.Tuple) != fmt.Sprintf("%05d", i) || string(e.Row) != "row" || e.Stale != (i%2 == 0) ||
				e.Count != int64(i) || len(e.Sums) != 1 || e.Sums[0] != (query.Sum{High: -1, Low: uint64(i)}) {
				t.Fatalf("entry %d is %+v", i, e)
			}
		}
		got.Close()
		<-w.closed
	}
}

// TestCallerHasEnough: the worker releases the rows when the caller closes them.
func TestCallerHasEnough(t *testing.T) {
	w := &worker{count: 1 << 30, failAt: -1}
	got, err := remote.Open(t.Context(), serve(t, w), &query.Scan{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := got.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	got.Close()
	<-w.closed
}

// TestNoRows: the caller learns why, and does not wait longer than it wants.
func TestNoRows(t *testing.T) {
	w := &worker{failAt: 3, count: 9}
	conn := serve(t, w)
	_, err := remote.Open(t.Context(), conn, &query.Scan{Partition: 1, Limit: 1})
	missing, ok := errors.AsType[*query.NotHereError](err)
	if !ok || *missing != (query.NotHereError{Partition: 1, State: "BUILDING", Progress: "offset 3 of 9"}) {
		t.Errorf("rows that are not there: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := remote.Open(ctx, conn, &query.Scan{Partition: 2}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("rows that are behind: %v", err)
	}
	if _, err := remote.Open(t.Context(), conn, &query.Scan{Partition: 3}); err == nil ||
		!strings.Contains(err.Error(), "there is no partition 3") {
		t.Errorf("rows of no partition: %v", err)
	}
	got, err := remote.Open(t.Context(), conn, &query.Scan{Limit: 1})
	for err == nil {
		var e *query.Entry
		if e, err = got.Next(t.Context()); e == nil && err == nil {
			t.Fatal("the rows have an end, and reading them has failed")
		}
	}
	if !strings.Contains(err.Error(), "read rows of worker w1") || !strings.Contains(err.Error(), "the disk is gone") {
		t.Errorf("rows that cannot be read: %v", err)
	}
	got.Close()
	<-w.closed
}

// TestChanges: what has changed, why it is not known, and why it is not here come as they are.
func TestChanges(t *testing.T) {
	w := &worker{}
	conn := serve(t, w)
	scan := query.Scan{Dataset: 7, Table: query.ByIndex, Number: 3, Lower: []byte("a"), Upper: []byte("b")}
	got, err := remote.Changes(t.Context(), conn, &scan, 5, time.Minute)
	want, _ := (&worker{}).Changes(t.Context(), &scan, 5, time.Minute)
	if err != nil || !reflect.DeepEqual(got, want) || fmt.Sprint(w.asked) != fmt.Sprint([]query.Scan{scan}) {
		t.Errorf("got %+v, %v of %+v", got, err, w.asked)
	}
	scan.Partition = 1
	if _, err := remote.Changes(t.Context(), conn, &scan, 5, 0); fmt.Sprintf("%#v", err) !=
		fmt.Sprintf("%#v", &query.GapError{Partition: 1, Text: "nothing is kept since 5"}) {
		t.Errorf("a gap is %#v", err)
	}
	scan.Partition = 2
	var missing *query.NotHereError
	if _, err := remote.Changes(t.Context(), conn, &scan, 5, time.Hour); !errors.As(err, &missing) ||
		*missing != (query.NotHereError{Partition: 2, State: "BUILDING", Progress: "1m0s"}) {
		t.Errorf("rows that are not here are %#v", err)
	}
}
