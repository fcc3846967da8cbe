package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/broker-adapter/simlog"
	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/internal/app/inprocess"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	"github.com/millrace-io/millrace/sdk"
)

// reminding is a counter that sets a timer with each increment.
func reminding(t *testing.T) Local {
	t.Helper()
	f, err := inprocess.New(sdk.Value("counter",
		sdk.HandleValue(counterv1.CounterService_Increment_FullMethodName,
			func(cmd *sdk.ValueCommand[*counterv1.State], _ *counterv1.IncrementRequest) (*counterv1.Counter, error) {
				cmd.After(time.Hour, "later", counterv1.CounterService_Get_FullMethodName,
					&counterv1.GetRequest{CounterId: cmd.EntityID()})
				cmd.Update(&counterv1.State{Value: cmd.State().GetValue() + 1})
				return &counterv1.Counter{Value: cmd.State().GetValue()}, nil
			}),
		sdk.HandleValue(counterv1.CounterService_Get_FullMethodName,
			func(cmd *sdk.ValueCommand[*counterv1.State], _ *counterv1.GetRequest) (*counterv1.Counter, error) {
				return &counterv1.Counter{Value: cmd.State().GetValue()}, nil
			}),
	))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// listed is a list as far as it came: its rows, where it goes on, and why it ended; nil at the end.
type listed struct {
	rows []string
	next string
	err  error
}

// lists are the two lists of an admin service in pages.
var lists = map[string]func(ctx context.Context, at adminv1.AdminServiceClient, limit int64, token string) listed{
	"entities": func(ctx context.Context, at adminv1.AdminServiceClient, limit int64, token string) (l listed) {
		stream, err := at.ListEntities(ctx, &adminv1.ListEntitiesRequest{Type: "counter", Limit: limit, PageToken: token})
		for err == nil {
			var page *adminv1.ListEntitiesResponse
			if page, err = stream.Recv(); err == nil {
				l.next = page.GetNextPageToken()
				for _, e := range page.GetEntities() {
					l.rows = append(l.rows, e.GetType()+"/"+e.GetId())
				}
			}
		}
		l.err = err
		return l
	},
	"timers": func(ctx context.Context, at adminv1.AdminServiceClient, limit int64, token string) (l listed) {
		stream, err := at.ListTimers(ctx, &adminv1.ListTimersRequest{Type: "counter", Limit: limit, PageToken: token})
		for err == nil {
			var page *adminv1.ListTimersResponse
			if page, err = stream.Recv(); err == nil {
				l.next = page.GetNextPageToken()
				for _, timer := range page.GetTimers() {
					l.rows = append(l.rows, timer.GetEntity())
				}
			}
		}
		l.err = err
		return l
	},
}

// TestListsAcrossTheApp: each worker and a gateway list what all workers hold, page by page over
// the partitions, and one process goes on where another one has stopped.
func TestListsAcrossTheApp(t *testing.T) {
	a := &app{t: t, world: simlog.New(simlog.Options{})}
	for range 3 {
		a.join(reminding(t), nil)
	}
	a.balanced()
	g := startGateway(t, a)
	const entities = 40
	var want []string
	for i := range entities {
		id := fmt.Sprint("c", i)
		want = append(want, "counter/"+id)
		if _, err := a.increment(a.workers[i%3].PublicAddress(), id); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	asked := []adminv1.AdminServiceClient{adminv1.NewAdminServiceClient(dial(t, g.Status(t.Context()).GetAdminAddress()))}
	for _, n := range a.workers {
		asked = append(asked, adminOf(t, n))
	}
	for what, list := range lists {
		for i, at := range asked {
			// A follower shows the partition as of a moment ago.
			eventually(t, fmt.Sprintf("process %d to list all %s", i, what), func() bool {
				whole := list(t.Context(), at, 0, "")
				if !errors.Is(whole.err, io.EOF) || whole.next != "" {
					t.Fatalf("%s at %d: %v, go on at %q", what, i, whole.err, whole.next)
				}
				return slices.Equal(slices.Sorted(slices.Values(whole.rows)), want)
			})
		}
		var rows []string
		token, pages := "", 0
		for ; pages == 0 || token != ""; pages++ {
			page := list(t.Context(), asked[pages%len(asked)], 7, token)
			if !errors.Is(page.err, io.EOF) || len(page.rows) > 7 {
				t.Fatalf("page %d of %s: %d rows, %v", pages, what, len(page.rows), page.err)
			}
			rows, token = append(rows, page.rows...), page.next
		}
		if slices.Sort(rows); !slices.Equal(rows, want) || pages < entities/7 {
			t.Errorf("%s in %d pages: %q", what, pages, rows)
		}
	}
	for i, at := range asked {
		for _, limit := range []int64{0, 3} {
			stream, err := at.CountEntities(t.Context(), &adminv1.CountEntitiesRequest{Limit: limit})
			if err != nil {
				t.Fatal(err)
			}
			counted, partitions, more := int64(0), map[int32]bool{}, false
			for _, counts := range all(t, stream.Recv) {
				partitions[counts.GetPartition()] = true
				for _, c := range counts.GetTypes() {
					counted, more = counted+c.GetEntities(), more || c.GetMore()
				}
			}
			if want := map[int64]int64{0: entities, 3: 3 * 4}[limit]; counted != want || len(partitions) != 4 ||
				more != (limit > 0) {
				t.Errorf("process %d, limit %d: %d entities in %d partitions, more: %v", i, limit, counted, len(partitions), more)
			}
		}
	}
}

// TestAListSaysThatItIsIncomplete: while the owner of a partition cannot be asked, a list and a
// count end with an error that names it, and what came before goes on from its token.
func TestAListSaysThatItIsIncomplete(t *testing.T) {
	a := &app{t: t, world: simlog.New(simlog.Options{})}
	for range 2 {
		a.join(reminding(t), nil)
	}
	a.balanced()
	g := startGateway(t, a)
	for i := range 40 {
		if _, err := a.increment(a.workers[0].PublicAddress(), fmt.Sprint("c", i)); err != nil {
			t.Fatal(err)
		}
	}
	at := adminv1.NewAdminServiceClient(dial(t, g.Status(t.Context()).GetAdminAddress()))
	known := g.routes.Current()
	away := int(known.Owners[slices.IndexFunc(known.Owners, func(owner int32) bool { return owner != known.Owners[0] })])
	wrong := *known
	wrong.Members = slices.Clone(known.Members)
	wrong.Members[away].Address = freeAddress(t) // no process listens there
	for what, list := range lists {
		g.routes.Set(known)
		whole := list(t.Context(), at, 0, "")
		g.routes.Set(&wrong)
		part := list(t.Context(), at, 0, "")
		if status.Code(part.err) != codes.Unavailable || part.next == "" || len(part.rows) >= len(whole.rows) {
			t.Fatalf("%s: %d rows of %d, %v, go on at %q", what, len(part.rows), len(whole.rows), part.err, part.next)
		}
		mustContain(t, "the error", part.err.Error(), "is owned by worker "+wrong.Members[away].Name, "cannot be asked")
		g.routes.Set(known)
		rest := list(t.Context(), at, 0, part.next)
		if !errors.Is(rest.err, io.EOF) || !slices.Equal(append(part.rows, rest.rows...), whole.rows) {
			t.Errorf("%s: %q and then %q, want %q", what, part.rows, rest.rows, whole.rows)
		}
	}
	g.routes.Set(&wrong)
	stream, err := at.CountEntities(t.Context(), &adminv1.CountEntitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	partitions := 0
	for err == nil {
		if _, err = stream.Recv(); err == nil {
			partitions++
		}
	}
	if status.Code(err) != codes.Unavailable || partitions == 4 {
		t.Errorf("counted %d partitions, then %v", partitions, err)
	}
}
