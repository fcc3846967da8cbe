package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	shopv1 "github.com/millrace-io/millrace/examples/shoppingcart/shop/v1"

	"github.com/millrace-io/millrace/tests/kit"
)

const (
	// callers is how many there are at a time, sharedCounters how many counters they all increment.
	callers        = 24
	sharedCounters = 3
	// basketItems is how many items a caller puts into one cart: enough for a snapshot, and for events behind it.
	basketItems = 120
	// callTimeout bounds one call, and progressTimeout the time until the next command is answered. Whatever is killed in
	// these tests is back long before.
	callTimeout     = 2 * time.Minute
	progressTimeout = 2 * time.Minute
)

// loadOptions say what a load is made of.
type loadOptions struct {
	// conn leads to the public port. counters and carts say which services are there.
	conn            grpc.ClientConnInterface
	counters, carts bool
	// ids gives every command an id; it is sent again under it until there is an answer.
	ids bool
	// mayFail are the codes that callers may see once trouble was announced. Before that they may see none.
	mayFail []codes.Code
}

// load is many callers at a time, who remember what they were promised.
type load struct {
	loadOptions
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	counter counterv1.CounterServiceClient
	cart    shopv1.CartServiceClient
	callers []*caller
	shared  []*sharedTally
	running sync.WaitGroup

	trouble                                       atomic.Bool
	acknowledged, refused, lost, repeated, broken atomic.Int64
	// stopping is closed when callers should end.
	stopping chan struct{}
	stopOnce sync.Once

	// mu guards what follows. reached is closed when goal commands were answered.
	mu      sync.Mutex
	goal    int64
	reached chan struct{}
	// saw has the first error of each kind that callers have seen.
	saw map[string]error
}

// newLoad returns a load that does not run yet. It prints the seed.
func newLoad(t *testing.T, o loadOptions) *load {
	t.Helper()
	seed := kit.CrashSeed.Seed(t)
	l := &load{
		loadOptions: o, t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 0)),
		stopping: make(chan struct{}), saw: map[string]error{},
		counter: counterv1.NewCounterServiceClient(o.conn), cart: shopv1.NewCartServiceClient(o.conn),
	}
	for range sharedCounters {
		l.shared = append(l.shared, &sharedTally{seen: map[int64]bool{}})
	}
	for i := range callers {
		l.callers = append(l.callers, newCaller(l, i))
	}
	return l
}

// start lets the callers run until stop.
func (l *load) start() {
	l.t.Cleanup(l.stop)
	for _, c := range l.callers {
		l.running.Go(c.run) // stop waits for it
	}
}

// stop lets every caller finish what it does, and waits for them.
func (l *load) stop() {
	l.stopOnce.Do(func() { close(l.stopping) })
	l.running.Wait()
}

// expectTrouble allows callers to see errors from now on.
func (l *load) expectTrouble() { l.trouble.Store(true) }

// awaitAnswers waits until some more commands were answered; how many is up to the seed.
func (l *load) awaitAnswers() {
	l.t.Helper()
	const least, most = 50, 1000
	reached := make(chan struct{})
	l.mu.Lock()
	l.goal, l.reached = l.acknowledged.Load()+int64(least+l.rng.IntN(most-least)), reached
	l.mu.Unlock()
	patience := time.NewTimer(progressTimeout)
	defer patience.Stop()
	select {
	case <-reached:
	case <-l.stopping:
		l.t.Fatalf("a promise was broken: %s", l.figures())
	case <-patience.C:
		l.t.Fatalf("commands are not answered any more: %s", l.figures())
	}
}

// answered counts an answer.
func (l *load) answered() {
	n := l.acknowledged.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reached != nil && n >= l.goal {
		close(l.reached)
		l.reached = nil
	}
}

// wrong counts a broken promise, and ends the load: what follows would only repeat it.
func (l *load) wrong(err error) {
	if err != nil {
		l.t.Helper()
		l.t.Error(err)
		l.broken.Add(1)
		l.stopOnce.Do(func() { close(l.stopping) })
	}
}

// send makes a call that changes something and returns what is known of it. With an id it does so until there is an answer.
func (l *load) send(id string, call func(context.Context, ...grpc.CallOption) error) effect {
	ctx := l.t.Context()
	if id != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "millrace-command-id", id)
	}
	for {
		outcome, err := l.once(ctx, call)
		if err != nil {
			l.note(err, outcome)
		}
		switch {
		case err == nil:
			l.answered()
			return answered
		case l.hopeless(err):
			return unknown
		case id != "":
			l.repeated.Add(1)
		case outcome == "not_applied":
			l.refused.Add(1)
			return notApplied
		default:
			l.lost.Add(1)
			return unknown
		}
	}
}

// once makes a call. The outcome is the word of the gateway, if it came so far.
func (l *load) once(ctx context.Context, call func(context.Context, ...grpc.CallOption) error) (outcome string, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var trailer metadata.MD
	err = call(ctx, grpc.WaitForReady(true), grpc.Trailer(&trailer))
	if said := trailer.Get("millrace-outcome"); len(said) > 0 {
		outcome = said[0]
	}
	return outcome, err
}

// note remembers what an error looks like to a caller.
func (l *load) note(err error, outcome string) {
	kind := strings.TrimSpace(status.Code(err).String() + " " + outcome)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.saw[kind] == nil {
		l.saw[kind] = err
	}
}

// hopeless reports an error that callers must not see, and says whether it was one.
func (l *load) hopeless(err error) bool {
	if l.trouble.Load() && slices.Contains(l.mayFail, status.Code(err)) {
		return false
	}
	l.wrong(fmt.Errorf("a call got an error that it should not: %w", err))
	return true
}

// get makes a call that only reads. It must work, unless there is trouble; then the error is returned.
func (l *load) get(call func(context.Context, ...grpc.CallOption) error) error {
	_, err := l.once(l.t.Context(), call)
	if err != nil {
		l.hopeless(err)
	}
	return err
}

// check reads everything that was ever written and compares it with what was promised. Nothing may be in trouble.
func (l *load) check() {
	l.t.Helper()
	l.trouble.Store(false)
	var checking sync.WaitGroup
	for _, c := range l.callers {
		checking.Go(c.check)
	}
	checking.Wait()
	if !l.counters {
		return
	}
	for i, s := range l.shared {
		if value, err := l.readCounter(sharedName(i)); err == nil {
			l.wrong(named(sharedName(i), s.read(value)))
		}
	}
}

func (l *load) readCounter(id string) (value int64, err error) {
	err = l.get(func(ctx context.Context, opts ...grpc.CallOption) error {
		reply, err := l.counter.Get(ctx, &counterv1.GetRequest{CounterId: id}, opts...)
		value = reply.GetValue()
		return err
	})
	return value, err
}

func (l *load) readCart(id string) (cart *shopv1.Cart, err error) {
	err = l.get(func(ctx context.Context, opts ...grpc.CallOption) (err error) {
		cart, err = l.cart.GetCart(ctx, &shopv1.GetCartRequest{CartId: id}, opts...)
		return err
	})
	return cart, err
}

// figures are what happened, in a line.
func (l *load) figures() string {
	return fmt.Sprintf("acknowledged %d, unknown %d, not applied %d, repeated %d, missing %d",
		l.acknowledged.Load(), l.lost.Load(), l.refused.Load(), l.repeated.Load(), l.broken.Load())
}

// report prints the closing line.
func (l *load) report(kills int) {
	l.t.Helper()
	for _, kind := range slices.Sorted(maps.Keys(l.saw)) {
		l.t.Logf("callers saw %s, for example: %v", kind, l.saw[kind])
	}
	l.t.Logf("%s: seed %d, rounds %d, %s", l.t.Name(), l.seed, kills, l.figures())
}

func sharedName(i int) string { return fmt.Sprintf("shared-%d", i) }

// named says of which entity an error is.
func named(entity string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", entity, err)
}
