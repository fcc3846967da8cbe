package partitions

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/materializer"
)

// This file answers reads from the image of a partition that another worker owns.

const (
	// readPatience is how long a read waits for the image to have what it asks for; then the owner is asked.
	readPatience = 100 * time.Millisecond
	// probeTimeout bounds a question to the owner.
	probeTimeout = 5 * time.Second
)

// probe is what the owner of a followed partition said when it was asked how far it is.
type probe struct {
	// asked is when: the answer covers everything that was committed by then.
	asked time.Time
	next  int64
}

// readStats count the reads that a follower answered, by consistency.
type readStats [entities.AtLeast + 1]atomic.Uint64

// Read answers a relaxed command from the image on this worker. served is false when that cannot be: there is no image, it does not
// have what the command asks for, or the command wants to write.
func (p *Partition) Read(ctx context.Context, cmd *entities.Command) (_ entities.Committed, served bool, _ error) {
	var none entities.Committed
	if p.image.Load() == nil || !p.suffices(ctx, cmd) {
		return none, false, nil
	}
	image := p.image.Load()
	if image == nil {
		return none, false, nil // it was given up meanwhile
	}
	age := p.age(image, cmd.Consistency)
	if p.waiting.Add(1) > int64(p.limits.MaxWaiting) {
		p.waiting.Add(-1)
		return none, true, errPartitionBusy(p.id, p.limits.MaxWaiting)
	}
	defer p.waiting.Add(-1)
	outcome, next, err := p.look(ctx, cmd)
	switch {
	case err != nil:
		return none, true, entities.AsError(err)
	case outcome.Wrote() || outcome.Restart || outcome.Forward != nil:
		return none, false, nil
	}
	p.stats.reads[cmd.Consistency].Add(1)
	p.staleness.answered(p.clock.Now(), cmd, ByFollower, age)
	return entities.Committed{Outcome: outcome, Next: next, FirstEffect: -1, Forward: -1}, true, nil
}

// suffices says whether the image is as fresh as the command asks, now or in a moment.
func (p *Partition) suffices(ctx context.Context, cmd *entities.Command) bool {
	switch cmd.Consistency {
	case entities.Eventual:
		return true
	case entities.AtLeast:
		return p.reaches(ctx, cmd.AfterIn(p.id))
	case entities.Bounded:
		return p.isFresh(cmd.Bound)
	default:
		return false
	}
}

// reaches waits for the image to be folded up to next.
func (p *Partition) reaches(ctx context.Context, next int64) bool {
	if i := p.image.Load(); i != nil && i.next >= next {
		return true
	}
	over, stop := p.clock.After(readPatience)
	defer stop()
	defer p.log.Hurry()()
	for {
		moved := p.moved()
		if i := p.image.Load(); i == nil || i.next >= next {
			return i != nil
		}
		select {
		case <-moved:
		case <-over:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// isFresh says whether the image has all that was committed some moment not longer ago than bound. Only an owner that the log
// confirms knows what that is: one answer of it serves many reads, and the next is asked for in good time.
func (p *Partition) isFresh(bound time.Duration) bool {
	now := p.clock.Now()
	last := p.probe.Load()
	if last == nil || now.Sub(last.asked) > bound/2 {
		p.askOwner()
	}
	image := p.image.Load()
	if mutation.On(mutation.Fresh) {
		return image != nil
	}
	return last != nil && image != nil && now.Sub(last.asked) <= bound && image.next >= last.next
}

// askOwner asks the owner of the partition how far it is, unless it is being asked already.
func (p *Partition) askOwner() {
	position := p.router.OwnerPosition(p.id)
	if position == nil {
		return
	}
	p.ask(&p.probing, func(ctx context.Context) {
		asked := p.clock.Now()
		if next, err := position(ctx); err == nil {
			p.probe.Store(&probe{asked: asked, next: next})
		}
	})
}

// ask asks for something in the background, unless it is being asked for already.
func (p *Partition) ask(asking *atomic.Bool, ask func(context.Context)) {
	if !asking.CompareAndSwap(false, true) {
		return
	}
	p.router.Background(func() { // bounded by probeTimeout
		defer asking.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
		defer cancel()
		ask(ctx)
	})
}

// look runs a command on a session of its own, begun from the image, and returns what the function decided and the position of
// the image. Nobody hears of the session afterwards.
func (p *Partition) look(ctx context.Context, cmd *entities.Command) (*entities.Outcome, int64, error) {
	snapshot := p.store.Snapshot()
	defer snapshot.Close() //nolint:errcheck // only read
	view := materializer.Partition{Rows: snapshot, Address: p.address}
	meta, _, err := view.Meta()
	if err != nil {
		return nil, 0, err
	}
	session, err := p.functions.Open(ctx, cmd.Type.Service, cmd.Key, func(context.Context) (entities.Loaded, error) { return view.Load(cmd.Key) })
	if err != nil {
		return nil, 0, err
	}
	defer p.closeSession(session)
	outcome, err := p.handle(ctx, session, cmd, time.Unix(0, meta.LogTime))
	return outcome, meta.Next, err
}
