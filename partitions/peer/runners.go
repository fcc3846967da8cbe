package peer

import (
	"context"
	"sync"

	"github.com/millrace-io/millrace/entities"
)

// task is a command that runs here for another worker.
type task struct {
	received

	link *served
	ctx  context.Context //nolint:containedctx // the command's own
}

//nolint:gochecknoglobals // memory without a meaning
var tasks = sync.Pool{New: func() any { return new(task) }}

// run runs the command and sends its answer.
func (t *task) run() {
	link, id := t.link, t.id
	defer link.running.Done()
	reply, err := t.dispatch()
	*t = task{}
	tasks.Put(t)
	var failure *entities.Error
	if err != nil {
		failure = asError(err)
	}
	link.answer(id, reply, failure)
}

func (t *task) dispatch() (*entities.Reply, error) {
	worker := t.link.server.worker
	cmd, err := worker.Resolve(t.target)
	if err != nil {
		return nil, err
	}
	if cmd.Key != t.key {
		return nil, entities.Errorf(entities.Unavailable, entities.NotApplied,
			"%s/%s is a command on %q where it came from and on %q here: the user functions differ, nothing was applied", t.target.Service, t.target.Method, t.key, cmd.Key)
	}
	t.complete(cmd)
	return worker.Dispatch(t.ctx, cmd, t.hops)
}

// complete adds to a command what its target does not have.
func (r *received) complete(cmd *entities.Command) {
	cmd.ID, cmd.Source, cmd.Principal = r.command.ID, r.command.Source, r.command.Principal
	cmd.Consistency, cmd.Bound, cmd.After = r.command.Consistency, r.command.Bound, r.command.After
	cmd.TraceParent = r.command.TraceParent
}

// runners are goroutines that run commands. The last ones to have become idle are used first: their stacks have grown to
// what a command needs, and are still in the processor's caches.
type runners struct {
	// most is how many may be idle.
	most int
	all  sync.WaitGroup

	mu     sync.Mutex // guards what follows
	idle   []chan *task
	closed bool
}

// run has a task run on a goroutine that is idle, or on a new one.
func (r *runners) run(t *task) {
	r.mu.Lock()
	if n := len(r.idle); n > 0 {
		next := r.idle[n-1]
		r.idle = r.idle[:n-1]
		r.mu.Unlock()
		next <- t
		return
	}
	r.mu.Unlock()
	// It ends when there are enough idle ones, and with close, which waits for it.
	r.all.Go(func() { r.work(t) })
}

func (r *runners) work(t *task) {
	next := make(chan *task, 1)
	for t != nil {
		t.run()
		if !r.rest(next) {
			return
		}
		t = <-next
	}
}

// rest puts a goroutine among the idle ones; false when it is to end.
func (r *runners) rest(next chan *task) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || len(r.idle) >= r.most {
		return false
	}
	r.idle = append(r.idle, next)
	return true
}

// close ends the idle goroutines and waits for all. No task may come any more.
func (r *runners) close() {
	r.mu.Lock()
	r.closed = true
	for _, next := range r.idle {
		close(next)
	}
	r.idle = nil
	r.mu.Unlock()
	r.all.Wait()
}
