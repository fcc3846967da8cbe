package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/millrace-io/millrace/internal/clock"
)

// ErrStopped is the cause that tasks see when the group was stopped without one.
var ErrStopped = errors.New("stopped on request")

// State is the state of a task.
type State string

// The states of a task.
const (
	Running State = "running"
	Done    State = "done"    // returned nil before the group was stopped
	Stopped State = "stopped" // ended because the group was stopped
	Failed  State = "failed"  // returned an error or panicked
)

// Status is the status of one task.
type Status struct {
	Name  string
	State State
	// Err is the error of a failed task; nil otherwise.
	Err error
	// Since is when the task entered its state.
	Since time.Time
}

// PanicError is the error of a task that panicked.
type PanicError struct {
	Value any
	// Stack is the goroutine's stack at the panic.
	Stack []byte
}

// Error returns the panic's value; the stack is in Stack.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the panic's value when that is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Group is a set of tasks that end together. Make it with New.
type Group struct {
	ctx    context.Context //nolint:containedctx // the tasks' lifetime, which is what a group is
	cancel context.CancelCauseFunc
	clock  clock.Clock

	mu       sync.Mutex
	idle     sync.Cond // running fell to zero
	running  int
	tasks    []*Status // in the order of Start
	stopped  bool      // Stop was called; its cause is in ctx
	asked    bool      // that Stop had no cause
	failures []error   // of tasks, in the order in which they happened
}

// New returns an empty group. When ctx ends, so do the tasks.
func New(ctx context.Context, clk clock.Clock) *Group {
	g := &Group{clock: clk}
	g.idle.L = &g.mu
	g.ctx, g.cancel = context.WithCancelCause(ctx)
	return g
}

// Start runs task on a goroutine of its own. The task must return soon after its context ends; what
// it returns then counts as a failure unless it is nil, the context's error or its cause. After a
// stop the task does not run at all and is listed as stopped.
func (g *Group) Start(name string, task func(context.Context) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	status := &Status{Name: name, State: Running, Since: g.clock.Now()}
	g.tasks = append(g.tasks, status)
	if g.ctx.Err() != nil {
		status.State = Stopped
		return
	}
	g.running++
	// Stop (or the parent context) stops it, Wait waits for it.
	go func() {
		err := errors.New("the goroutine was ended by runtime.Goexit")
		defer func() { g.ended(status, err) }()
		pprof.Do(g.ctx, pprof.Labels("task", name), func(ctx context.Context) {
			err = trap(ctx, task)
		})
	}()
}

// Stop ends all tasks; those that ask context.Cause see the cause, or ErrStopped when it is nil. It
// does not wait. Only the first call counts.
func (g *Group) Stop(cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stop(cause)
}

// Stopping returns a channel that is closed when the group is stopped.
func (g *Group) Stopping() <-chan struct{} { return g.ctx.Done() }

// Wait returns when no task is running any more. The error is nil after Stop(nil) or when every
// task was done; otherwise it is the cause of the stop, which names the task if one failed, joined
// with failures of tasks that were stopping.
func (g *Group) Wait() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.running > 0 {
		g.idle.Wait()
	}
	return errors.Join(append(g.stopCause(), g.failures...)...)
}

// Status lists the tasks in the order in which they were started.
func (g *Group) Status() []Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]Status, len(g.tasks))
	for i, task := range g.tasks {
		list[i] = *task
	}
	return list
}

func (g *Group) stop(cause error) {
	if g.stopped || g.ctx.Err() != nil {
		return
	}
	g.stopped, g.asked = true, cause == nil
	if cause == nil {
		cause = ErrStopped
	}
	g.cancel(cause)
}

// ended records the end of a task, and stops the group if it is the first that failed.
func (g *Group) ended(status *Status, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	status.Since = g.clock.Now()
	switch stopping := g.ctx.Err() != nil; {
	case stopping && (err == nil || errors.Is(err, g.ctx.Err()) || errors.Is(err, context.Cause(g.ctx))):
		status.State = Stopped
	case err == nil:
		status.State = Done
	default:
		status.State, status.Err = Failed, err
		failure := fmt.Errorf("task %s: %w", status.Name, err)
		g.failures = append(g.failures, failure)
		g.stop(failure)
	}
	g.running--
	if g.running == 0 {
		g.idle.Broadcast()
	}
}

// stopCause returns what Wait must report besides the tasks' failures: a cause given to Stop, or
// that of the parent.
func (g *Group) stopCause() []error {
	cause := context.Cause(g.ctx)
	switch {
	case cause == nil || g.asked || errors.Is(cause, context.Canceled):
		return nil
	case len(g.failures) > 0 && cause == g.failures[0]: //nolint:errorlint // the same value, not the same kind
		return nil
	}
	return []error{cause}
}

// trap runs the task and turns a panic into an error with the stack.
func trap(ctx context.Context, task func(context.Context) error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &PanicError{Value: value, Stack: debug.Stack()}
		}
	}()
	return task(ctx)
}
