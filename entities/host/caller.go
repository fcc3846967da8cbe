package host

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/millrace-io/millrace/entities"
)

// This file is about callers whose time ends while a function of this process works for them.

// maxForsaken bounds the actions that still run although their callers have left.
const maxForsaken = 4096

// gaveUp reports whether an error with which a function ended is that of its context: the function
// stopped because the caller's deadline passed, or because no caller waits any more. That is no
// crash.
func gaveUp(ctx context.Context, err error) bool {
	ended := ctx.Err()
	return ended != nil && (errors.Is(err, ended) || errors.Is(err, context.Cause(ctx)))
}

// callerLeft is the error of a call whose caller's context ended while the function worked; what
// says what became of it.
func callerLeft(ctx context.Context, outcome entities.OutcomeClass, what string) *entities.Error {
	e := callerGone(ctx)
	e.Outcome, e.Message = outcome, e.Message+" while the function worked: "+what
	return e
}

// errActionLeft is the error of an action's caller that left: the action may have done anything.
func errActionLeft(ctx context.Context) *entities.Error {
	return callerLeft(ctx, entities.Unknown, "it is not known what the action did")
}

// forsaken counts the calls that run although their callers have left.
type forsaken struct{ running atomic.Int64 }

// attend runs a call on a goroutine of its own, and returns early, with false, when the caller's
// context ends. Then the call goes on until it returns by itself: nothing can stop it.
func attend[T any](ctx context.Context, f *forsaken, run func() T) (result T, stayed bool) {
	over := make(chan T, 1)
	var apart atomic.Bool // the caller has left, or the call has returned
	leave := func() (late bool) { return !apart.CompareAndSwap(false, true) }
	go func() { // ends with the call; those that are left alone are counted, and bounded by full
		over <- run()
		if leave() {
			f.running.Add(-1)
		}
	}()
	select {
	case result = <-over:
		return result, true
	case <-ctx.Done():
	}
	f.running.Add(1)
	if leave() {
		f.running.Add(-1)
		return <-over, true
	}
	return result, false
}

// full returns the error of an action for which there is no room, nil if there is.
func (f *forsaken) full(method string) *entities.Error {
	if f.running.Load() < maxForsaken {
		return nil
	}
	return entities.Overload("%s: too many actions, %d, still run although the deadlines of their callers have passed",
		method, maxForsaken)
}

// gate lets a function use its caller's side of a stream until the caller has left.
type gate struct {
	mu   sync.Mutex
	left bool
}

// pass runs use, or returns the context's error if the caller has left.
func (g *gate) pass(ctx context.Context, use func() error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left {
		return context.Cause(ctx)
	}
	return use()
}

// close waits for what passes, and lets nothing else through.
func (g *gate) close() {
	g.mu.Lock()
	g.left = true
	g.mu.Unlock()
}
