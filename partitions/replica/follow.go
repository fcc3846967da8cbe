package replica

import (
	"context"
	"errors"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/materializer"
)

// followPause is the pause after a partition could not be followed.
var followPause = backoff.Policy{First: 100 * time.Millisecond, Max: 5 * time.Second, Jitter: 0.5} //nolint:gochecknoglobals // a constant

// Follow keeps the image of a partition that another worker owns current, until ctx ends. It calls
// failed with every error, and tries again after a pause; failed must not block.
func (r *Replica) Follow(ctx context.Context, failed func(error)) {
	defer func() {
		r.position.Store(nil)
		r.o.Feed.End(materializer.FeedMoved, errNotFollowed)
	}()
	for attempt := 1; ; attempt++ {
		err := r.keepCurrent(ctx, func() { attempt = 0 })
		if ctx.Err() != nil {
			return
		}
		failed(err)
		again, stop := r.o.Clock.After(followPause.PauseBy(attempt, r.o.Random()))
		select {
		case <-again:
		case <-ctx.Done():
			stop()
			return
		}
	}
}

var errNotFollowed = errors.New("this worker does not follow the partition any more")

// feedReason is why following has ended, for the consumers of the feed.
func feedReason(ctx context.Context, err error) materializer.FeedReason {
	switch {
	case ctx.Err() != nil:
		return materializer.FeedMoved
	case materializer.Halts(err):
		return materializer.FeedHalted
	default:
		return materializer.FeedFailed
	}
}

// keepCurrent reads the log into the store until an error. What it has read is in the store when
// ctx ends.
func (r *Replica) keepCurrent(ctx context.Context, progressed func()) (err error) {
	at := r.o.Clock.Now() // toEnd reads up to the end as it is from here on
	end, err := r.toEnd(ctx)
	if err != nil {
		return err
	}
	tap := r.o.Feed.Open(r.reading.fold, materializer.Following)
	defer func() { tap.End(feedReason(ctx, err), err) }()
	for warm := false; ; {
		now := &Position{Next: r.reading.follower.Position(), End: max(end, r.reading.follower.End())}
		if now.Next >= now.End {
			at = r.o.Clock.Now()
		}
		now.At = at
		r.position.Store(now)
		tap.Publish()
		if !warm && now.Lag() <= broker.Warm {
			warm = true
			r.o.Warmed()
		}
		progressed()
		r.reading.following, err = r.reading.follower.Follow(ctx)
		if errors.Is(err, materializer.ErrLost) {
			tap.End(feedReason(ctx, err), err)
			if end, err = r.toEnd(ctx); err == nil { // a repair has accepted it
				tap = r.o.Feed.Open(r.reading.fold, materializer.Following)
			}
		}
		if err != nil {
			return err
		}
	}
}
