package readside

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	// orders is the program, below the module.
	orders = "examples/orders"
	// app is the app's name.
	app = "millrace"
	// callTimeout bounds one attempt of a call, patience all attempts, pause is between two of them.
	callTimeout, patience, pause = 5 * time.Second, 2 * time.Minute, 20 * time.Millisecond
	// session is how long the group waits for a silent worker.
	session = 2 * time.Second
)

// world is workers that are killed at times, and what their callers count.
type world struct {
	t       *testing.T
	workers []*harness.Process
	// doors are the addresses that callers use, at random: of the workers, and of gateways.
	doors  []string
	client *http.Client
	// down is held while no worker is there.
	down sync.RWMutex
	// acknowledged are commands. pairs are writes whose rows were asked for with their token, misses
	// those whose rows were not there, and late how often the rows were not there within the wait
	// and were asked for again. unmarked were asked for without a token, and behind of them were not
	// there yet.
	acknowledged, pairs, misses, late, unmarked, behind atomic.Int64
	// unserved answers said that there is no such query, which a client takes for its own mistake.
	unserved atomic.Int64
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	t.Cleanup(w.client.CloseIdleConnections)
	return w
}

// start starts a worker of the example with its definitions, or a gateway.
func (w *world) start(command string, args ...string) {
	w.t.Helper()
	if command != "gateway" {
		definitions, err := filepath.Abs(filepath.Join("..", "..", "..", orders, "definitions"))
		w.must(err)
		args = append(args, "--definitions", definitions)
	}
	p := harness.Start(w.t, harness.Options{Program: orders, Command: command, Args: args})
	w.doors = append(w.doors, p.Public())
	if command != "gateway" {
		w.workers = append(w.workers, p)
	}
}

// awaitViews waits until both projections answer at every door.
func (w *world) awaitViews() {
	w.t.Helper()
	for _, door := range w.doors {
		for _, path := range []string{"/v1/orders:countByStatus", "/v1/customers:listByCity"} {
			var last answer
			deadline := time.Now().Add(patience)
			kit.AwaitWithin(w.t, 2*patience, "the views", func() bool {
				if last = w.attempt(w.t.Context(), door, call{path: path}); last.code == http.StatusOK {
					return true
				}
				if time.Now().After(deadline) {
					w.t.Fatalf("%s%s has no answer: %s", door, path, last)
				}
				return false
			})
		}
	}
}

// kill kills a worker and starts it again. Where it is the only one callers wait.
func (w *world) kill(p *harness.Process) {
	w.t.Helper()
	if len(w.workers) == 1 {
		w.down.Lock()
		defer w.down.Unlock()
	}
	p.Kill(w.t)
	p.Restart(w.t)
}

// freeze stops a worker for longer than its session, and until others have taken commands for it.
func (w *world) freeze(p *harness.Process) {
	w.t.Helper()
	p.Pause(w.t)
	over := time.Now().Add(2 * session)
	kit.AwaitWithin(w.t, patience, "the worker's session to end", func() bool { return time.Now().After(over) })
	p.Resume(w.t)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// call is a request. One with a body is a command, with an id.
type call struct {
	method, path string
	body         any
	id, token    string
	// strong: the answer must have everything that was committed before.
	strong bool
}

// answer is what came of it; without a code there was none.
type answer struct {
	code    int
	token   string
	outcome string
	body    []byte
	err     error
}

func (a answer) String() string {
	if a.err != nil {
		return a.err.Error()
	}
	return fmt.Sprintf("%d %s", a.code, bytes.TrimSpace(a.body))
}

// attempt sends a request once.
func (w *world) attempt(ctx context.Context, door string, c call) (a answer) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var body io.Reader
	if c.body != nil {
		encoded, err := json.Marshal(c.body)
		if err != nil {
			return answer{err: err}
		}
		body = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, cmp.Or(c.method, http.MethodGet), "http://"+door+c.path, body)
	if err != nil {
		return answer{err: err}
	}
	for name, value := range map[string]string{
		"Content-Type": map[bool]string{true: "application/json"}[c.body != nil], "Idempotency-Key": c.id,
		"Millrace-Min-Token": c.token, "Millrace-Consistency": map[bool]string{true: "strong"}[c.strong],
	} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	res, err := w.client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	a = answer{
		code: res.StatusCode, token: res.Header.Get("Millrace-Token"), outcome: res.Header.Get("Millrace-Outcome"),
	}
	a.body, a.err = io.ReadAll(res.Body)
	return a
}

// do sends a request, to one door after the other, until it has an answer that is not about the
// worker: it may be gone, not ready, or late with its views.
func (w *world) do(rng *rand.Rand, c call) answer {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(pause)
	defer again.Stop()
	for {
		w.down.RLock()
		w.down.RUnlock() //nolint:staticcheck // it waits for the worker
		a := w.attempt(w.t.Context(), w.doors[rng.IntN(len(w.doors))], c)
		switch {
		case a.err == nil && a.code == http.StatusGatewayTimeout:
			w.late.Add(1)
		case a.err == nil && a.code == http.StatusNotFound && bytes.Contains(a.body, []byte("no route")):
			w.unserved.Add(1)
		case a.err == nil && a.code != http.StatusServiceUnavailable && a.code != http.StatusConflict:
			return a
		}
		select {
		case <-again.C:
		case <-deadline.C:
			return a
		case <-w.t.Context().Done():
			return a
		}
	}
}

// path is a path with a query of names and values.
func path(base string, pairs ...string) string {
	values := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			values.Set(pairs[i], pairs[i+1])
		}
	}
	if len(values) == 0 {
		return base
	}
	return base + "?" + values.Encode()
}

// newRandom is the random source of one caller.
func newRandom(seed, caller uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, caller)) }
