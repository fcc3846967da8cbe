package node

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/broker-adapter/simlog"
)

// watchedFile defines the rows of the counters, with a list that is watched.
const watchedFile = countersFile + "  queries: {ListAll: {watch: true, page: {max: 500}}}\n"

// eventSource follows server-sent events as browsers do: it connects again with the id of the last
// event that has one.
type eventSource struct {
	t    *testing.T
	path string

	// mu guards the fields below.
	mu sync.Mutex
	// rows are those of the frames so far, shown those of the last frame that was one state.
	rows, shown map[string]string
	last        string
	resets      int
	// problem is what the stream ended with, failed what this test cannot explain.
	problem string
}

// follow reads events from an address until the stream ends, and adds them to the map.
func (s *eventSource) follow(ctx context.Context, address string) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+s.path, nil)
	if err != nil {
		s.t.Error(err)
		return
	}
	r.Header.Set("Accept", "text/event-stream")
	s.mu.Lock()
	if s.last != "" {
		r.Header.Set("Last-Event-ID", s.last)
	}
	if s.rows == nil {
		s.rows = map[string]string{}
	}
	s.mu.Unlock()
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return // it is tried again
	}
	defer answer.Body.Close()
	id, name := "", ""
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "id":
			id = value
		case "event":
			name = value
		case "data":
			s.take(name, id, value)
			id, name = "", ""
		}
	}
}

// take takes an event.
func (s *eventSource) take(name, id, data string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var frame struct {
		Upsert, Delete          *struct{ CounterID, Value string }
		Synced, Bookmark, Reset *struct{}
	}
	if name == "error" {
		s.problem = data
		return
	}
	if err := json.Unmarshal([]byte(data), &frame); err != nil {
		s.t.Errorf("%s: %v", data, err)
	}
	if id != "" {
		s.last = id
	}
	switch {
	case frame.Upsert != nil:
		s.rows[frame.Upsert.CounterID] = frame.Upsert.Value
	case frame.Delete != nil:
		delete(s.rows, frame.Delete.CounterID)
	case frame.Reset != nil:
		clear(s.rows)
		s.resets++
	default:
		s.shown = maps.Clone(s.rows)
	}
}

func (s *eventSource) shows(id, value string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown[id] == value
}

// TestWatchOfSeveralWorkers: a client of a gateway sees each change, wherever its row is; it goes
// on without a gap when its worker leaves, and again when that comes back.
func TestWatchOfSeveralWorkers(t *testing.T) {
	dir := t.TempDir()
	define(t, dir, map[string]string{"counters.yaml": watchedFile})
	a := &app{t: t, world: simlog.New(simlog.Options{}), definitions: dir}
	for range 3 {
		a.add()
	}
	a.balanced()
	for _, n := range a.workers {
		awaitQueries(t, n.PublicAddress())
	}
	g := startGateway(t, a)
	awaitQueries(t, g.PublicAddress())
	addresses := []string{g.PublicAddress(), a.workers[0].PublicAddress(), a.workers[1].PublicAddress()}
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer stop()
	sources := make([]*eventSource, len(addresses))
	for i := range addresses {
		s := &eventSource{t: t, path: "/v1/counters:watchAll"}
		sources[i] = s
		clients.Go(func() {
			for n := i; ctx.Err() == nil; n++ { // the next time at another one
				s.follow(ctx, addresses[n%len(addresses)])
			}
		})
	}
	values := map[string]int64{}
	change := func(times int) {
		for i := range times {
			id := fmt.Sprint("w", i%11)
			values[id], _ = incrementAt(t, addresses[0], id)
		}
		for _, s := range sources {
			for id, value := range values {
				eventually(t, fmt.Sprintf("%s to be %d", id, value), func() bool { return s.shows(id, fmt.Sprint(value)) })
			}
		}
	}
	change(30)
	end(t, a.workers[2]) // rows of its partitions are elsewhere then
	a.workers = a.workers[:2]
	a.balanced()
	change(30)
	for _, s := range sources {
		s.mu.Lock()
		if s.last == "" {
			t.Error("no event had an id")
		}
		s.mu.Unlock()
	}
}

// TestWatchesEndWithTheProcess: they do not hold up its end, and clients are told to go on.
func TestWatchesEndWithTheProcess(t *testing.T) {
	c := testConfig(t)
	c.Definitions = t.TempDir()
	define(t, c.Definitions, map[string]string{"counters.yaml": watchedFile})
	n := started(t, Options{Config: c, Local: local(t, "counter")})
	awaitQueries(t, n.PublicAddress())
	s := &eventSource{t: t, path: "/v1/counters:watchAll"}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.follow(context.WithoutCancel(t.Context()), n.PublicAddress())
	}()
	eventually(t, "the first rows", func() bool { return s.shows("first", "1") })
	end(t, n)
	<-ended
	if !strings.Contains(s.problem, "the process ends; another one goes on from the last token") {
		t.Errorf("the stream ended with %q", s.problem)
	}
	err := call(t, n.PublicAddress(), "millrace.query.counters.CountersQuery/WatchAll")
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a process that has ended: %v", err)
	}
}
