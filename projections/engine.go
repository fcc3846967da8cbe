package projections

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/projections/definition"
)

// Replica is the image of a partition on this worker.
type Replica interface {
	Address() materializer.Address
	// Feed is what is folded into the image. It is the same one as long as the replica is attached.
	Feed() *materializer.Feed
	Role() materializer.Role
	// Folded is the offset after what is folded; ok is false while the image is not kept current.
	Folded() (next int64, ok bool)
}

// Options says what an Engine works with.
type Options struct {
	// Store returns the store of the views, which it opens if need be. It is called when there is
	// something to fold, and again after each error of the store.
	Store func() (materializer.Store, error)
	// Clock is the machine's if it is nil, and Logger discards if it is nil.
	Clock  clock.Clock
	Logger *slog.Logger
	// Folding is how many partitions are folded at a time, GOMAXPROCS if it is 0; Reading is how
	// many others read the log at a time, 2 if it is 0.
	Folding, Reading int

	// compile makes folds; tests replace it.
	compile func(*definition.Projection) (fold, error)
}

// Engine folds the partitions of which this worker has an image into the datasets of the views, and
// reads them. Safe for concurrent use.
//
// Each partition has a goroutine, which Run owns. It waits for the feed of its image, and works
// while it has one of a few places: those for what the feed has in memory, or those for what is
// read from the log, so that builds do not delay what is current.
type Engine struct {
	options Options
	plans   atomic.Pointer[plans]
	// folding and reading are the places. never has ended.
	folding, reading chan struct{}
	never            context.Context //nolint:containedctx // to ask without a wait

	// mu guards the fields below.
	mu         sync.Mutex
	partitions map[uint16]*partition
	// ending are the goroutines of partitions that were detached, by their channels.
	ending map[uint16]<-chan struct{}
	// running is there while Run runs; goroutines are those of the partitions.
	running    context.Context //nolint:containedctx // what goroutines of later partitions end with
	goroutines sync.WaitGroup
}

// New returns an engine without views and partitions.
func New(o Options) *Engine {
	if o.Clock == nil {
		o.Clock = clock.Wall{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Folding == 0 {
		o.Folding = runtime.GOMAXPROCS(0)
	}
	if o.Reading == 0 {
		o.Reading = 2
	}
	if o.compile == nil {
		o.compile = compile
	}
	e := &Engine{
		options: o, partitions: map[uint16]*partition{}, ending: map[uint16]<-chan struct{}{},
		folding: make(chan struct{}, o.Folding), reading: make(chan struct{}, o.Reading),
	}
	e.plans.Store(&plans{})
	var cancel context.CancelFunc
	e.never, cancel = context.WithCancel(context.Background())
	cancel()
	return e
}

// Define says which views there are. Rows that no view needs are dropped, others are built; what
// is the same goes on. Before the first call nothing is folded and nothing is dropped.
func (e *Engine) Define(views []*View) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.plans.Store(planned(views, e.plans.Load(), e.options.compile))
	for _, p := range e.partitions {
		select {
		case p.wake <- struct{}{}:
		default: // it is awake
		}
	}
}

// Attach begins to fold a partition. One that is attached already is replaced.
func (e *Engine) Attach(r Replica) {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := r.Address()
	p := &partition{
		engine: e, replica: r, address: a, done: make(chan struct{}), wake: make(chan struct{}, 1),
		plans: &plans{}, shown: map[uint32]*shown{},
	}
	if p.after = e.ending[a.Partition]; e.partitions[a.Partition] != nil {
		p.after = e.partitions[a.Partition].end()
	}
	delete(e.ending, a.Partition)
	e.partitions[a.Partition] = p
	if e.running != nil {
		e.start(p)
	}
}

// start starts the goroutine of a partition. The lock is held.
func (e *Engine) start(p *partition) {
	ctx, cancel := context.WithCancel(e.running)
	p.cancel = cancel
	e.goroutines.Go(func() { p.run(ctx) }) // ends with ctx
}

// end ends the goroutine of a partition, and returns a channel that is closed when it has ended.
func (p *partition) end() <-chan struct{} {
	if p.cancel == nil {
		return p.after // it has not begun
	}
	p.cancel()
	return p.done
}

// Detach ends the folding of a partition. Its rows stay in the store.
func (e *Engine) Detach(a materializer.Address) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.partitions[a.Partition]
	if p == nil || p.address != a {
		return
	}
	p.gone()
	delete(e.partitions, a.Partition)
	if ended := p.end(); ended != nil {
		e.ending[a.Partition] = ended
	}
}

// Run folds until ctx ends. It returns when all that it has started has ended.
func (e *Engine) Run(ctx context.Context) error {
	if err := e.begin(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	e.mu.Lock()
	e.running = nil
	e.mu.Unlock()
	e.goroutines.Wait()
	return nil
}

var errRunning = errors.New("the engine of the projections runs already")

func (e *Engine) begin(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running != nil {
		return errRunning
	}
	e.running = ctx
	for _, number := range slices.Sorted(maps.Keys(e.partitions)) {
		e.start(e.partitions[number])
	}
	return nil
}

// partition returns an attached partition, nil if there is none.
func (e *Engine) partition(number int32) *partition {
	e.mu.Lock()
	defer e.mu.Unlock()
	if number < 0 || number > 1<<16-1 {
		return nil
	}
	return e.partitions[uint16(number)]
}

// attached returns the attached partitions in order.
func (e *Engine) attached() []*partition {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]*partition, 0, len(e.partitions))
	for _, number := range slices.Sorted(maps.Keys(e.partitions)) {
		all = append(all, e.partitions[number])
	}
	return all
}
