package effects

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/internal/failpoint"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	// pairs is how many counters a-… are mirrored, callers how many callers increment each.
	pairs, callers = 16, 2
	// callTimeout bounds a call over all restarts.
	callTimeout = 2 * time.Minute
)

// load increments counters a-… without a pause. Every increment has an id and is sent until it has
// an answer, so that it happens once.
type load struct {
	t        *testing.T
	counters counterv1.CounterServiceClient
	stop     context.CancelFunc
	callers  sync.WaitGroup
	mu       sync.Mutex
	// answered is the number of increments of each pair.
	answered [pairs]int64
}

func start(t *testing.T, conn grpc.ClientConnInterface) *load {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l := &load{t: t, counters: counterv1.NewCounterServiceClient(conn), stop: stop}
	for i := range pairs * callers {
		l.callers.Go(func() { l.call(ctx, i) }) // ended by end
	}
	return l
}

func (l *load) call(stop context.Context, caller int) {
	pair := caller % pairs
	for n := 0; stop.Err() == nil; n++ {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(stop), callTimeout)
		ctx = metadata.AppendToOutgoingContext(ctx, "millrace-command-id", fmt.Sprintf("%d-%d", caller, n))
		err := fmt.Errorf("never sent")
		for err != nil && ctx.Err() == nil {
			_, err = l.counters.Increment(ctx, &counterv1.IncrementRequest{CounterId: name("a", pair)}, grpc.WaitForReady(true))
		}
		cancel()
		if err != nil {
			l.t.Errorf("an increment got no answer in %v: %v", callTimeout, err)
			return
		}
		l.mu.Lock()
		l.answered[pair]++
		l.mu.Unlock()
	}
}

func (l *load) end() {
	l.stop()
	l.callers.Wait()
}

func (l *load) count() (sum int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.answered {
		sum += n
	}
	return sum
}

func name(side string, pair int) string { return side + "-" + strconv.Itoa(pair) }

// check waits until nothing is open and compares both sides.
func (l *load) check(p *harness.Process) {
	l.t.Helper()
	admin := adminv1.NewAdminServiceClient(p.DialAdmin(l.t))
	kit.Await(l.t, "every effect is settled", func() bool {
		s, err := admin.Status(l.t.Context(), &adminv1.StatusRequest{})
		if err != nil {
			return false
		}
		for _, partition := range s.GetPartitions() {
			if partition.GetState() != "active" || partition.GetOpenEffects() > 0 || partition.GetMoreEffects() {
				return false
			}
		}
		return true
	})
	for pair := range pairs {
		a, b := l.read(name("a", pair)), l.read(name("b", pair))
		if want := l.answered[pair]; a != want || b != want {
			l.t.Errorf("pair %d: %d increments were acknowledged, a is %d, b is %d", pair, want, a, b)
		}
	}
}

func (l *load) read(id string) int64 {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), callTimeout)
	defer cancel()
	c, err := l.counters.Get(ctx, &counterv1.GetRequest{CounterId: id}, grpc.WaitForReady(true))
	if err != nil {
		l.t.Fatalf("read %s: %v", id, err)
	}
	return c.GetValue()
}

// TestEffectsHappenOnce kills the worker at every failpoint in turn, under load. From time to time
// its store is deleted, or the targets of all effects fail for a while. In the end both sides are
// equal.
func TestEffectsHappenOnce(t *testing.T) {
	kills := kit.EffectsKills.Number(t)
	seed := kit.EffectsSeed.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	closed := filepath.Join(t.TempDir(), "closed")
	p := harness.Launch(t,
		harness.Options{Program: "tests/e2e/mirror", Tags: "failpoints", Env: []string{"MIRROR_CLOSED=" + closed}})
	// There are no timers.
	points := slices.DeleteFunc(failpoint.Points(), func(point string) bool { return point == failpoint.BeforeTimer })
	p.Kill(t)
	l := start(t, p.Dial(t))
	counts := map[string]int{}
	for i := range kills {
		point := points[i%len(points)]
		p.Arm(fmt.Sprintf("%s=%s:%d", failpoint.Variable, point, 1+rng.IntN(400)))
		p.Respawn(t)
		if rng.IntN(5) == 0 {
			counts["targets broken"]++
			shut(t, closed)
		}
		p.AwaitExit(t)
		open(t, closed)
		counts[point]++
		if rng.IntN(5) == 0 {
			counts["store deleted"]++
			p.DeleteStore(t)
		}
		if i%50 == 49 {
			t.Logf("%d of %d kills, %d increments", i+1, kills, l.count())
		}
	}
	p.Arm()
	p.Restart(t)
	l.end()
	l.check(p)
	t.Logf("effects: %d kills %v, %d increments acknowledged, each mirrored once", kills, counts, l.count())
}

func shut(t *testing.T, file string) {
	t.Helper()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
}
