package partitions

import (
	"context"
	"sync"
)

// tasks are the goroutines that a loop has started for a partition.
type tasks struct {
	// started end by themselves or with the loop's context, and the loop waits for them. The function
	// runs in calls; the loop waits for them as long as an orderly release may take.
	started, calls sync.WaitGroup
	// oneReader has room for the goroutine that reads the log. stopReading ends the present one.
	oneReader   chan struct{}
	stopReading context.CancelFunc
}

func newTasks() tasks { return tasks{oneReader: make(chan struct{}, 1), stopReading: func() {}} }

// start starts a goroutine that the loop waits for at its end.
func (t *tasks) start(f func()) { t.started.Go(f) }

// call starts a goroutine in which the function runs, which may hang.
func (t *tasks) call(f func()) { t.calls.Go(f) }

// read starts a goroutine that reads the log. The present one is stopped, and waited for.
func (t *tasks) read(ctx context.Context, f func(context.Context)) {
	t.stopReading()
	reading, stop := context.WithCancel(ctx)
	t.stopReading = stop
	t.start(func() {
		t.oneReader <- struct{}{}
		defer func() { <-t.oneReader }()
		f(reading)
	})
}

func (t *tasks) wait() { t.started.Wait() }

func (t *tasks) waitCalls() { t.calls.Wait() }
