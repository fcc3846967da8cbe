package routing

import (
	"context"
	"errors"
	"sync"

	"github.com/millrace-io/millrace/entities"
)

// flights lets one attempt at a time bring a forward to its target: later attempts, of the same
// command sent again, get the result of the first one. Entities recognize a forward by its address;
// an action does not, and could answer two attempts differently.
type flights struct {
	mu    sync.Mutex
	under map[entities.SourceID]*flight
}

type flight struct {
	done  chan struct{}
	reply *entities.Reply
	err   error
	// givenUp: the caller that led it left, so that its error does not concern the others.
	givenUp bool
}

// share runs attempt, or waits for the one that is under way for the same record. again: one was
// under way, and its caller left.
func (f *flights) share(
	ctx context.Context, source entities.Source, attempt func(again bool) (*entities.Reply, error),
) (*entities.Reply, error) {
	id := source.ID()
	for again := false; ; again = true {
		f.mu.Lock()
		led := f.under[id]
		if led == nil {
			return f.lead(ctx, id, func() (*entities.Reply, error) { return attempt(again) })
		}
		f.mu.Unlock()
		select {
		case <-led.done:
		case <-ctx.Done():
			reason := entities.Cancelled
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				reason = entities.Deadline
			}
			return nil, entities.Errorf(reason, entities.Unknown,
				"the call ended while its forward was in flight: %w: send it again under the same command id",
				context.Cause(ctx))
		}
		switch {
		case led.givenUp:
		case led.reply == nil:
			return nil, led.err
		default:
			reply := *led.reply
			return &reply, led.err
		}
	}
}

// lead runs attempt for all that come in between. The lock is held, and released.
func (f *flights) lead(
	ctx context.Context, id entities.SourceID, attempt func() (*entities.Reply, error),
) (*entities.Reply, error) {
	led := &flight{done: make(chan struct{}), givenUp: true}
	if f.under == nil {
		f.under = map[entities.SourceID]*flight{}
	}
	f.under[id] = led
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.under, id)
		f.mu.Unlock()
		close(led.done)
	}()
	reply, err := attempt()
	led.err, led.givenUp = err, err != nil && ctx.Err() != nil
	if reply != nil {
		shared := *reply
		led.reply = &shared
	}
	return reply, err
}
