package multiplex

import "sync"

// Task is something to run.
type Task interface{ Run() }

// Runners are goroutines that run tasks. The most recently idle ones are used first: their stacks
// have grown to what a command needs, and are still in the processor's caches.
type Runners struct {
	// Most is how many may be idle.
	Most int

	all sync.WaitGroup

	mu     sync.Mutex // guards what follows
	idle   []chan Task
	closed bool
}

// Run runs a task on an idle goroutine, or on a new one. Close does not wait for a task that comes
// after it.
func (r *Runners) Run(t Task) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.idle); n > 0 {
		next := r.idle[n-1]
		r.idle = r.idle[:n-1]
		next <- t // has room
		return
	}
	if r.closed {
		go t.Run() // ends with its task
		return
	}
	// It ends when there are enough idle ones, and with Close, which waits for it.
	r.all.Go(func() { r.work(t) })
}

// Go runs a function for which Close waits.
func (r *Runners) Go(f func()) { r.all.Go(f) }

func (r *Runners) work(t Task) {
	next := make(chan Task, 1)
	for t != nil {
		t.Run()
		if !r.rest(next) {
			return
		}
		t = <-next
	}
}

// rest adds a goroutine to the idle ones; it returns false if the goroutine should end.
func (r *Runners) rest(next chan Task) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || len(r.idle) >= r.Most {
		return false
	}
	r.idle = append(r.idle, next)
	return true
}

// Close ends the idle goroutines and waits for all.
func (r *Runners) Close() {
	r.mu.Lock()
	r.closed = true
	for _, next := range r.idle {
		close(next)
	}
	r.idle = nil
	r.mu.Unlock()
	r.all.Wait()
}
