package partitions

import (
	"context"
	"errors"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/materializer"
)

// image is how far a worker has folded a partition that another one owns.
type image struct {
	// next is the offset behind what is folded, end that of the log as last heard.
	next, end int64
	// at is when next was end the last time, as far as was heard by then.
	at time.Time
}

func (p *Partition) setImage(i *image) {
	p.image.Store(i)
	p.imageMu.Lock()
	defer p.imageMu.Unlock()
	if p.imageMoved != nil {
		close(p.imageMoved)
		p.imageMoved = nil
	}
}

// moved returns what is closed when the image has changed.
func (p *Partition) moved() <-chan struct{} {
	p.imageMu.Lock()
	defer p.imageMu.Unlock()
	if p.imageMoved == nil {
		p.imageMoved = make(chan struct{})
	}
	return p.imageMoved
}

// followPause is the pause after a partition could not be followed.
var followPause = backoff.Policy{First: 100 * time.Millisecond, Max: 5 * time.Second, Jitter: 0.5} //nolint:gochecknoglobals // a constant

// followLog keeps the image of a partition that another worker owns fresh, until ctx ends.
func (p *Partition) followLog(ctx context.Context) {
	p.oneReader <- struct{}{}
	defer func() { <-p.oneReader }()
	defer p.setImage(nil)
	for attempt := 1; ; attempt++ {
		err := p.followOn(ctx, func() { attempt = 0 })
		if ctx.Err() != nil {
			return
		}
		p.post(input{kind: inFollowFailed, fail: err})
		again, stop := p.clock.After(followPause.PauseBy(attempt, p.random()))
		select {
		case <-again:
		case <-ctx.Done():
			stop()
			return
		}
	}
}

// followOn reads the log into the store for as long as that works. What it has read is in the store when ctx ends.
func (p *Partition) followOn(ctx context.Context, progressed func()) error {
	at := p.clock.Now() // recover reads up to the end as it is from here on
	end, err := p.recover(ctx)
	if err != nil {
		return err
	}
	r := p.reading
	for warm := false; ; {
		now := &image{next: r.follower.Position(), end: max(end, r.follower.End())}
		if now.next >= now.end {
			at = p.clock.Now()
		}
		now.at = at
		p.setImage(now)
		if !warm && now.end-now.next <= broker.Warm {
			warm = true
			p.warmed()
		}
		progressed()
		r.following, err = r.follower.Follow(ctx)
		if errors.Is(err, materializer.ErrLost) {
			end, err = p.recover(ctx) // a repair may have accepted it
			r = p.reading
		}
		if err != nil {
			return err
		}
	}
}
