package projections_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/projections"
)

// watchedYAML are the watched queries of the orders of these tests.
const watchedYAML = `  queries:
    ListByCustomer:
      params: {customer_id: string}
      where: row.customer_id == params.customer_id
      filterable: [status, total_cents]
      page: {default: 500, max: 500}
      watch: {resume: %s}
    ListOpen: {where: row.status == Status.OPEN, index: open_only, page: {default: 500, max: 500}, watch: true}
    ListAll: {page: {default: 500, max: 500}, watch: true}
`

func (w *world) watchedOrders(resume string) *projections.View {
	w.t.Helper()
	v := w.ordersView("skip", 1, 2)
	text := fmt.Sprintf(ordersYAML, "skip", orderParts[1]+", "+orderParts[2], "")
	v.Projection = projection(w.t, text+fmt.Sprintf(watchedYAML, resume))
	return v
}

// watcher is a client of a watch: it keeps a map, and shows it when it is synced.
type watcher struct {
	list, request string

	// mu guards the fields below where nothing else orders what the test and the stream do.
	mu     sync.Mutex
	rows   map[string]string
	token  string
	synced bool
	resets int
	end    context.CancelFunc
	ended  chan error
}

// watch begins to watch, with the token of the last time if there is one.
func (q *queries) watch(w *watcher) {
	q.t.Helper()
	request := w.request
	if w.token != "" {
		request += fmt.Sprintf(" resume: %q", w.token)
	}
	if w.token == "" || w.rows == nil {
		w.rows = map[string]string{}
	}
	m := q.service.Catalog().Service("millrace.query.orders.OrdersQuery").Method("Watch" + strings.TrimPrefix(w.list, "List"))
	in := dynamicpb.NewMessage(m.Input)
	read := prototext.UnmarshalOptions{Resolver: q.service.Catalog().Types()}
	if err := read.Unmarshal([]byte(request), in); err != nil {
		q.t.Fatal(err)
	}
	payload, err := proto.Marshal(in)
	if err != nil {
		q.t.Fatal(err)
	}
	cmd, err := m.Command(payload, nil)
	if err != nil {
		q.t.Fatal(err)
	}
	cmd.Consistency = entities.Eventual
	ctx, end := context.WithCancel(q.t.Context())
	w.end, w.ended, w.synced = end, make(chan error, 1), false
	go func() {
		w.ended <- q.service.HandleStream(ctx, cmd, func(reply *entities.Reply) error {
			out := dynamicpb.NewMessage(m.Output)
			if err := proto.Unmarshal(reply.Payload.Value, out); err != nil {
				return err
			}
			return w.take(out)
		})
	}()
}

// take applies a frame.
func (w *watcher) take(out *dynamicpb.Message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	fields := out.Descriptor().Fields()
	keyOf := func(name string) string {
		m := out.Get(fields.ByName(protoreflect.Name(name))).Message()
		return m.Get(m.Descriptor().Fields().ByName("order_id")).String()
	}
	frame := out.WhichOneof(out.Descriptor().Oneofs().ByName("frame"))
	if frame == nil {
		return errors.New("a message without a frame")
	}
	w.synced = frame.Name() == "synced" || frame.Name() == "bookmark"
	switch frame.Name() {
	case "upsert":
		encoded, err := protojson.Marshal(out.Get(frame).Message().Interface())
		if err != nil {
			return err
		}
		w.rows[keyOf("upsert")] = strings.ReplaceAll(string(encoded), " ", "")
	case "delete":
		delete(w.rows, keyOf("delete"))
	case "reset":
		clear(w.rows)
		w.resets++
	}
	if token := out.Get(fields.ByName("token")).String(); token != "" {
		w.token = token
	}
	return nil
}

// endedWith waits for the end of a watch.
func (w *watcher) endedWith() string {
	err := <-w.ended
	w.end()
	w.end = nil
	return fmt.Sprint(err)
}

// lastToken is the last one that came.
func (w *watcher) lastToken() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.token
}

// leave ends a watch. The map and the token stay.
func (w *watcher) leave(t testing.TB) {
	t.Helper()
	w.end()
	if err := <-w.ended; !strings.Contains(fmt.Sprint(err), "cancelled") {
		t.Fatalf("%s {%s} has ended with %v", w.list, w.request, err)
	}
	w.end = nil
}

// listed are the rows that the list of a watch has now.
func (q *queries) listed(w *watcher) map[string]string {
	q.t.Helper()
	m := q.service.Catalog().Service("millrace.query.orders.OrdersQuery").Method(w.list)
	reply, _ := q.call(w.list, w.request)
	out := dynamicpb.NewMessage(m.Output)
	if err := protojson.Unmarshal([]byte(reply), out); err != nil {
		q.t.Fatalf("%s: %v", reply, err)
	}
	rows := map[string]string{}
	list := out.Get(m.Output.Fields().ByName("orders")).List()
	for i := range list.Len() {
		row := list.Get(i).Message()
		encoded, err := protojson.Marshal(row.Interface())
		if err != nil {
			q.t.Fatal(err)
		}
		rows[row.Get(row.Descriptor().Fields().ByName("order_id")).String()] = strings.ReplaceAll(string(encoded), " ", "")
	}
	return rows
}

// TestWatches: whatever happens, and wherever a client leaves and comes back, the map of a client
// that is synced is what the list returns.
func TestWatches(t *testing.T) {
	if _, err := schema(); err != nil {
		t.Fatal(err)
	}
	seeds := uint64(40)
	if testing.Short() {
		seeds = 8
	}
	resets, resumed := 0, 0
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 13))
			f := newFixture(t, seed, 1<<(8+rnd.IntN(14)))
			defer f.stop()
			view := f.watchedOrders([]string{"10m", "5s"}[rnd.IntN(2)])
			f.start(view)
			f.catchUp()
			q := newQueries(f, view)
			watchers := []*watcher{
				{list: "ListByCustomer", request: `customer_id: "c0"`},
				{list: "ListByCustomer", request: `customer_id: "c1"`},
				{list: "ListByCustomer", request: `customer_id: "c0" filter: "status = OPEN AND total_cents > 30"`},
				{list: "ListByCustomer", request: `customer_id: "none"`},
				{list: "ListOpen"},
				{list: "ListAll"},
			}
			defer func() {
				for _, w := range watchers {
					resets += w.resets
					if w.end != nil {
						w.leave(t)
					}
				}
			}()
			for range 30 {
				for range rnd.IntN(6) {
					f.command()
					if rnd.IntN(3) == 0 {
						f.turn(1 + rnd.IntN(4))
					}
				}
				if rnd.IntN(10) == 0 {
					f.noise()
				}
				f.catchUp()
				synctest.Wait()
				for _, w := range watchers {
					switch {
					case w.end == nil && rnd.IntN(3) == 0:
						if w.token != "" {
							resumed++
						}
						q.watch(w)
					case w.end != nil && rnd.IntN(6) == 0:
						w.leave(t)
					}
				}
				synctest.Wait()
				if rnd.IntN(8) == 0 { // the worker is started again, or its views are lost
					for _, w := range watchers {
						if w.end != nil {
							w.leave(t)
						}
					}
					f.stop()
					if rnd.IntN(3) == 0 {
						f.views = memstore.New()
					}
					f.start(view)
					synctest.Wait()
					q = newQueries(f, view)
				}
				for _, w := range watchers {
					if w.end == nil {
						continue
					}
					select {
					case err := <-w.ended:
						t.Fatalf("seed %d: %s {%s} has ended: %v", seed, w.list, w.request, err)
					default:
					}
					if want := q.listed(w); !w.synced || !maps.Equal(w.rows, want) {
						t.Fatalf("seed %d: a client of %s {%s} is synced %t and has\n%v\nand the list is\n%v", seed, w.list, w.request,
							w.synced, w.rows, want)
					}
				}
			}
		})
	}
	t.Logf("%d watches went on with a token, %d were reset", resumed, resets)
	if resumed < int(seeds) || resets == 0 {
		t.Errorf("%d watches went on with a token, %d were reset: the test is too gentle", resumed, resets)
	}
}

// TestWatchesBeginAgain: another dataset, and a token that does not fit, make a client forget its
// rows, or end its watch if it wants that; and what is no token is refused.
func TestWatchesBeginAgain(t *testing.T) {
	if _, err := schema(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1, 1<<20)
		defer f.stop()
		first, second := f.watchedOrders("10m"), f.watchedOrders("10m")
		text := fmt.Sprintf(ordersYAML, "skip", orderParts[1]+", "+orderParts[2], "") + fmt.Sprintf(watchedYAML, "10m")
		text = strings.Replace(text, "1000 / event.total_cents", "2000 / event.total_cents", 1)
		second.Projection = projection(t, strings.Replace(text, "version: 1", "version: 2", 1))
		second.Dataset = ordersDataset + 5
		f.start(first, second)
		f.event("order/o1", "OrderPlaced", placed("c0", 2))
		f.event("order/o2", "OrderPlaced", placed("c1", 4))
		f.catchUp()
		synctest.Wait()
		q := newQueries(f, first)
		w := &watcher{list: "ListByCustomer", request: `customer_id: "c0"`}
		strict := &watcher{list: "ListAll", request: "on_gap: ON_GAP_FAIL"}
		q.watch(w)
		q.watch(strict)
		synctest.Wait()
		if !w.synced || len(w.rows) != 1 || !strings.Contains(w.rows["o1"], `"totalCents":"500"`) || len(strict.rows) != 2 {
			t.Fatalf("the clients have %v and %v", w.rows, strict.rows)
		}
		before := w.token

		q.define(second)
		if got := strict.endedWith(); !strings.Contains(got, "(version 1 of the projection was promoted): begin again, without `resume`") {
			t.Errorf("a client that wants no reset got %s", got)
		}
		time.Sleep(2 * time.Second) //nolint:forbidigo // the bubble's time: resets are spread
		synctest.Wait()
		if !w.synced || w.resets != 1 || len(w.rows) != 1 || !strings.Contains(w.rows["o1"], `"totalCents":"1000"`) {
			t.Errorf("after a promotion a client has %v after %d resets", w.rows, w.resets)
		}
		w.leave(t)

		for _, c := range []struct {
			w      *watcher
			resets int
			want   string
		}{
			{&watcher{list: "ListByCustomer", request: `customer_id: "c0"`, token: before}, 1, ""},
			{&watcher{list: "ListByCustomer", request: `customer_id: "c1"`, token: w.token}, 1, ""},
			{&watcher{list: "ListAll", token: w.token}, 1, ""},
			{&watcher{list: "ListByCustomer", request: `customer_id: "c0"`, token: w.token}, 0, ""},
			{&watcher{list: "ListAll", token: "nonsense"}, 0, "the token in `resume` is not valid (it was not issued here, or is damaged)"},
			{&watcher{list: "ListAll", request: "on_gap: ON_GAP_FAIL", token: w.token}, 0, "the token is of a watch with other arguments"},
			{&watcher{list: "ListByCustomer", request: `customer_id: "c0" filter: "customer_name = 'x'"`}, 0, "customer_name"},
		} {
			q.watch(c.w)
			synctest.Wait()
			if c.want != "" {
				if got := c.w.endedWith(); !strings.Contains(got, c.want) {
					t.Errorf("%s {%s} ended with %s, want %s", c.w.list, c.w.request, got, c.want)
				}
				continue
			}
			if !c.w.synced || c.w.resets != c.resets {
				t.Errorf("%s {%s} with a token is synced %t after %d resets, want %d", c.w.list, c.w.request, c.w.synced,
					c.w.resets, c.resets)
			}
			c.w.leave(t)
		}

		idle := &watcher{list: "ListByCustomer", request: `customer_id: "none"`}
		q.watch(idle)
		synctest.Wait()
		last := idle.lastToken()
		time.Sleep(6 * time.Second) //nolint:forbidigo // the bubble's time: a bookmark is due
		synctest.Wait()
		if idle.lastToken() == last || !idle.synced {
			t.Error("a client on whose rows nothing happens hears nothing")
		}
		q.service.EndWatches()
		if got := idle.endedWith(); !strings.Contains(got, "the process ends; another one goes on from the last token") {
			t.Errorf("at the end of the process it got %s", got)
		}
	})
}
