package readside

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-io/millrace/entities"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	"github.com/millrace-io/millrace/tests/kafkaserver"
	"github.com/millrace-io/millrace/tests/kit"
)

// marks is a projection whose rows say of which version they are: an answer that has rows of two
// datasets shows itself.
const marks = `apiVersion: millrace/v1
kind: Projection
metadata: {name: marks, version: %[1]d}
spec:
  row: {order_id: string, mark: int64}
  key: [order_id]
  from:
    - entity: order
      events:
        OrderPlaced: {set: {mark: %[1]d}}
        OrderDeleted: {delete: true}
      ignore: [OrderShipped, OrderCancelled, OrderNoted]
  aggregates:
    - {name: by_mark, groupBy: [mark], count: orders}
  queries:
    ListAll: {page: {default: 500, max: 500}}
    CountByMark: {aggregate: by_mark}
  rollout: {keepPrevious: 5m}
`

const (
	// askEvery is the pause between the questions of one asker: all of them ask 100 times a second.
	askEvery, askers = 20 * time.Millisecond, 2
	// cured is within which time a repeat must succeed of a question that failed, while nothing is
	// killed or frozen.
	cured = time.Second
	// betweenSwitches is how many questions are asked between two switches.
	betweenSwitches = 50
	// askTimeout bounds one attempt of a question.
	askTimeout = 2 * time.Second
	// placedPause is the pause between two orders.
	placedPause = 10 * time.Millisecond
	// keptOrders are placed in a row; then there are notes on them, which the projection ignores: so
	// positions go on, and the number of rows does not.
	keptOrders = 400
)

// TestSwitches puts versions of a projection in force and back while orders are placed and others
// ask for them, and kills and freezes workers meanwhile: while rows are folded, built, and read,
// and around the moment of the switch. No answer has rows of two versions, each has the orders that
// were placed before it was asked for, and a question that fails succeeds when it is repeated.
func TestSwitches(t *testing.T) {
	seed, switches := kit.ReadSideSeed.Seed(t), kit.ReadSideSwitches.Number(t)
	t.Run("embedded", func(t *testing.T) {
		w := newWorld(t)
		w.start("dev")
		s := w.switching(seed)
		s.run(switches, func() {})
		t.Logf("readside: switches: embedded: %s", s.figures())
	})
	t.Run("kafka", func(t *testing.T) {
		flags := []string{"--app", app, "--brokers", kafkaserver.Start(t, kafkaserver.Options{}).Addr()}
		w := newWorld(t)
		for i := range 3 {
			w.start("run", append(flags, "--worker", fmt.Sprintf("w%d", i), "--session-timeout", session.String())...)
		}
		w.start("gateway", flags...)
		s := w.switching(seed)
		s.run(switches, s.disturb)
		t.Logf("readside: switches: kafka: %s", s.figures())
	})
}

// switching is a run of switches.
type switching struct {
	*world

	rng *rand.Rand
	// placed are the orders that are there for certain: p-0 and so on. seen covers their writes.
	placed atomic.Int64
	mu     sync.Mutex
	seen   entities.Token
	// version is in force; newest was applied last.
	version, newest int
	// disturbed: a worker is killed or frozen, or was shortly before.
	disturbed atomic.Bool
	faults    int
	switches  int
	// asked are questions; failed are those that had to be repeated, slow those for longer than
	// cured. longest is the longest repeat.
	asked, failed, slow, longest atomic.Int64
	// versions are those of answers.
	versions map[int64]int
}

func (w *world) switching(seed uint64) *switching {
	w.t.Helper()
	w.awaitViews()
	return &switching{
		world: w, rng: newRandom(seed, 1<<34), seen: entities.Token{App: app, Generation: entities.Generation},
		versions: map[int64]int{},
	}
}

func (s *switching) figures() string {
	return fmt.Sprintf("%d switches of %d versions with %d faults, %d questions while %d orders were placed; "+
		"%d were repeated, for at most %d ms, %d of them for more than %d ms; %d before a worker knew its definitions; "+
		"answers of %d versions",
		s.switches, s.newest, s.faults, s.asked.Load(), s.placed.Load(), s.failed.Load(), s.longest.Load(), s.slow.Load(),
		cured.Milliseconds(), s.unserved.Load(), len(s.versions))
}

// run switches so often. fault is called before every second switch.
func (s *switching) run(switches int, fault func()) {
	s.t.Helper()
	s.apply()
	s.await(1)
	ctx, stop := context.WithCancel(s.t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.place(ctx) }) // ends with ctx
	for i := range askers {
		running.Go(func() { s.ask(ctx, uint64(i)) }) // ends with ctx
	}
	for s.switches < switches && !s.t.Failed() {
		disturbing, disturb := make(chan struct{}), s.switches%2 == 0
		go func() { // waited for below
			defer close(disturbing)
			if disturb {
				fault()
			}
		}()
		if s.switches%4 == 3 {
			s.rollBack()
		} else {
			s.apply()
		}
		s.await(s.version)
		s.switches++
		<-disturbing
		enough := s.asked.Load() + betweenSwitches
		kit.AwaitWithin(s.t, patience, "answers between two switches", func() bool {
			return s.asked.Load() >= enough || s.t.Failed()
		})
	}
	stop()
	running.Wait()
	if n := s.unserved.Load(); n > 0 {
		s.t.Errorf("%d answers said that there is no such query", n)
	}
	if len(s.versions) < 2 {
		s.t.Errorf("answers are of the versions %v: they were to change", slices.Sorted(maps.Keys(s.versions)))
	}
}

// disturb kills a worker, or freezes one beyond its session.
func (s *switching) disturb() {
	s.disturbed.Store(true)
	s.faults++
	p := s.workers[s.rng.IntN(len(s.workers))]
	if s.faults%2 == 0 {
		s.freeze(p)
	} else {
		s.kill(p)
	}
	p.AwaitReady(s.t)
	over := time.Now().Add(2 * session) // others may have to learn who owns what
	kit.AwaitWithin(s.t, patience, "the cluster to be as before", func() bool { return time.Now().After(over) })
	s.disturbed.Store(false)
}

// admin calls workers until one has answered.
func (s *switching) admin(what string, ask func(context.Context, adminv1.AdminServiceClient) error) {
	s.t.Helper()
	var err error
	for i := 0; ; i++ {
		ctx, cancel := context.WithTimeout(s.t.Context(), callTimeout)
		err = ask(ctx, adminv1.NewAdminServiceClient(s.workers[i%len(s.workers)].DialAdmin(s.t)))
		cancel()
		if err == nil {
			return
		}
		if i > 100 || s.t.Context().Err() != nil {
			s.t.Fatalf("%s: %v", what, err)
		}
	}
}

// apply applies the next version, which is promoted when its rows are there.
func (s *switching) apply() {
	s.t.Helper()
	s.newest++
	text := fmt.Appendf(nil, marks, s.newest)
	s.admin(fmt.Sprintf("apply version %d", s.newest), func(ctx context.Context, a adminv1.AdminServiceClient) error {
		res, err := a.ApplyDefinitions(ctx, &adminv1.ApplyDefinitionsRequest{
			Files: []*adminv1.DefinitionFile{{Name: "marks.yaml", Text: text}},
		})
		if problems := res.GetProblems(); len(problems) > 0 {
			s.t.Fatalf("version %d: %v", s.newest, problems)
		}
		return err
	})
	s.version = s.newest
}

// rollBack puts the version before in force.
func (s *switching) rollBack() {
	s.t.Helper()
	target := s.version - 1
	r := &adminv1.RollbackDefinitionRequest{Name: "marks", Version: fmt.Sprint(target)}
	s.admin(fmt.Sprintf("roll back to version %d", target), func(ctx context.Context, a adminv1.AdminServiceClient) error {
		_, err := a.RollbackDefinition(ctx, r)
		return err
	})
	s.version = target
}

// await waits until every door that answers answers from a version.
func (s *switching) await(version int) {
	s.t.Helper()
	for _, door := range s.doors {
		var last answer
		deadline := time.Now().Add(patience)
		kit.AwaitWithin(s.t, 2*patience, fmt.Sprintf("version %d", version), func() bool {
			last = s.attempt(s.t.Context(), door, call{path: "/v1/marks:countByMark"})
			groups, err := decodeMarks(last)
			if err == nil && (len(groups) == 0 || groups[0].Mark == int64(version)) {
				return true
			}
			if time.Now().After(deadline) {
				s.t.Fatalf("%s does not answer from version %d: %s", door, version, last)
			}
			return false
		})
	}
}

// place places orders until ctx ends.
func (s *switching) place(ctx context.Context) {
	rng := newRandom(1, 1<<35)
	again := time.NewTicker(placedPause)
	defer again.Stop()
	for n := int64(0); ctx.Err() == nil && !s.t.Failed(); n++ {
		c := call{
			method: http.MethodPost, path: fmt.Sprintf("/v1/orders/p-%d", n), id: fmt.Sprintf("p-%d", n),
			body: map[string]any{
				"customer_id": "p", "lines": []any{map[string]any{"sku": "bolt", "quantity": 1, "cents": 1}},
			},
		}
		if n >= keptOrders {
			c.path = fmt.Sprintf("/v1/orders/p-%d:note", n%keptOrders)
			c.body = map[string]any{"text": fmt.Sprint(n)}
		}
		a := s.do(rng, c)
		token, err := entities.DecodeToken(app, a.token)
		if a.code != http.StatusOK || err != nil {
			if ctx.Err() == nil {
				s.t.Errorf("%s: %s, token %q", c.path, a, a.token)
			}
			return
		}
		s.mu.Lock()
		s.seen.Merge(&token)
		s.mu.Unlock()
		if n < keptOrders {
			s.placed.Add(1)
		}
		select {
		case <-again.C:
		case <-ctx.Done():
		}
	}
}

// token covers all orders that count as placed.
func (s *switching) token() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.Encode()
}

// ask asks until ctx ends: for all rows and for their number, with the token of what was placed, or
// strong without one.
func (s *switching) ask(ctx context.Context, number uint64) {
	rng := newRandom(number, 1<<36)
	next := time.NewTicker(askEvery)
	defer next.Stop()
	for n := 0; ctx.Err() == nil && !s.t.Failed(); n++ {
		c := call{path: "/v1/marks:listAll"}
		if n%2 == 0 {
			c.path = "/v1/marks:countByMark"
		}
		least := s.placed.Load() // before the token
		if n%4 < 2 {
			c.token = s.token()
		} else {
			c.strong = true
		}
		s.askOnce(ctx, rng, c, least)
		select {
		case <-next.C:
		case <-ctx.Done():
		}
	}
}

// askOnce asks until there is an answer, and checks it.
func (s *switching) askOnce(ctx context.Context, rng *rand.Rand, c call, least int64) {
	s.asked.Add(1)
	undisturbed := !s.disturbed.Load()
	var failed time.Time
	var why answer
	for {
		attempt, cancel := context.WithTimeout(ctx, askTimeout)
		a := s.attempt(attempt, s.doors[rng.IntN(len(s.doors))], c)
		cancel()
		undisturbed = undisturbed && !s.disturbed.Load()
		switch {
		case ctx.Err() != nil:
			return
		case a.err == nil && a.code == http.StatusOK:
			s.check(a, least)
			if !failed.IsZero() {
				s.repeated(time.Since(failed), undisturbed, why)
			}
			return
		case !mayRepeat(a):
			s.t.Errorf("%s: %s, which no repeat cures", c.path, a)
			return
		}
		if failed.IsZero() {
			failed, why = time.Now(), a
		}
		if time.Since(failed) > patience {
			s.t.Errorf("%s has no answer for %v: %s", c.path, patience, a)
			return
		}
	}
}

// mayRepeat reports whether an error tells its caller to ask again.
func mayRepeat(a answer) bool {
	return a.err != nil || slices.Contains([]int{
		http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusConflict, http.StatusTooManyRequests,
	}, a.code)
}

// repeated counts a question that was repeated for so long.
func (s *switching) repeated(took time.Duration, undisturbed bool, why answer) {
	s.failed.Add(1)
	for {
		longest := s.longest.Load()
		if took.Milliseconds() <= longest || s.longest.CompareAndSwap(longest, took.Milliseconds()) {
			break
		}
	}
	if took > cured {
		s.slow.Add(1)
		if undisturbed {
			s.t.Errorf("a question was repeated for %v, and nothing was killed or frozen; first: %s", took, why)
		}
	}
}

// mark is a row, or a group.
type mark struct {
	OrderID string
	Mark    int64 `json:",string"`
	Orders  int64 `json:",string"`
}

func decodeMarks(a answer) ([]mark, error) {
	var res struct {
		Marks, Groups []mark
	}
	err := a.decode(&res)
	return append(res.Marks, res.Groups...), err
}

// check checks an answer: it is of one version, and has what was there for certain.
func (s *switching) check(a answer, least int64) {
	rows, err := decodeMarks(a)
	if err != nil {
		s.t.Error(err)
		return
	}
	orders := int64(0)
	for _, r := range rows {
		orders += max(r.Orders, 1)
		if r.Mark != rows[0].Mark {
			s.t.Errorf("one answer has rows of the versions %d and %d: %s", rows[0].Mark, r.Mark, a)
			return
		}
	}
	if orders < least {
		s.t.Errorf("%d orders were placed, and the answer has %d of them", least, orders)
	}
	if len(rows) > 0 {
		s.mu.Lock()
		s.versions[rows[0].Mark]++
		s.mu.Unlock()
	}
}
