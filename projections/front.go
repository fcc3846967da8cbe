package projections

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/projections/mapping"
)

// The most that one batch has, unless a single piece has more.
const (
	batchRecords = 2_000
	batchBytes   = 4 << 20
)

// idleRecords is how far a position may go on in memory without a row: as much is read again after
// a restart.
const idleRecords = 50_000

// front is the datasets of a partition that stand at one position, and the consumer that takes
// them on from there.
type front struct {
	consumer *materializer.Consumer
	datasets []*dataset
	// joined: what the datasets have is of the image's history.
	joined bool
	// failures are attempts without success since the last one that had it; the next one is at
	// retryAt.
	failures int
	retryAt  time.Time
	// record, size and bytes are about the pieces since the last commit.
	record      mapping.Record
	group       []*materializer.Entry
	size, bytes int
}

// at is the position after the last piece.
func (f *front) at() materializer.Meta { return f.consumer.Position() }

// types are those of all datasets.
func typesOf(datasets []*dataset) materializer.Types {
	var names []string
	for _, d := range datasets {
		for name := range d.plan.sources {
			names = append(names, name)
		}
	}
	return materializer.TypesOf(names...)
}

// newFront returns a dataset at its position.
func (p *partition) newFront(d *dataset) *front {
	f := &front{datasets: []*dataset{d}, joined: d.joined}
	f.consumer = p.replica.Feed().Consume(d.position.meta, typesOf(f.datasets))
	return f
}

// again makes another consumer go on at the position: because the feed of the one before has ended,
// or because the types are others.
func (f *front) again(p *partition) {
	old := f.consumer
	f.consumer = p.replica.Feed().Consume(old.Position(), typesOf(f.datasets))
	old.Close()
}

// unread notes that the log could not be read for a front. The other fronts go on.
func (p *partition) unread(f *front, err error) {
	p.engine.options.Logger.Error("the journal of a partition cannot be read for projections; it is tried again",
		observe.Partition, p.address.Partition, observe.Projection, f.datasets[0].plan.String(), observe.Error, err)
	f.failures++
	f.retryAt = p.engine.options.Clock.Now().Add(retry.Pause(f.failures))
	for _, d := range f.datasets {
		d.failed, d.failedAt = err, p.engine.options.Clock.Now()
	}
	p.show(f.datasets, 0)
}

// succeeded notes that a front has gone on after failures.
func (p *partition) succeeded(f *front) {
	if f.failures > 0 {
		f.failures = 0
		for _, d := range f.datasets {
			d.failed = nil
		}
		p.show(f.datasets, 0)
	}
}

// waits reports whether a front that has failed is to be tried later.
func (p *partition) waits(f *front) bool {
	return f.failures > 0 && p.engine.options.Clock.Now().Before(f.retryAt)
}

// nextRetry returns a channel that has a value when a front that has failed is to be tried again.
func (p *partition) nextRetry() (over <-chan time.Time, stop func()) {
	var first *front
	for _, f := range p.fronts {
		if f.failures > 0 && (first == nil || f.retryAt.Before(first.retryAt)) {
			first = f
		}
	}
	if first == nil {
		return nil, func() {}
	}
	return p.engine.options.Clock.After(first.retryAt.Sub(p.engine.options.Clock.Now()))
}

// step takes a front on by one batch. It reports whether there was anything to do.
func (p *partition) step(ctx context.Context, f *front) (worked bool, err error) {
	if !f.consumer.Joined() {
		if err := f.consumer.Join(ctx); err != nil {
			return true, p.ended(f, err)
		}
	}
	end, open := p.replica.Feed().Position()
	if !open || end <= f.at().Next {
		return p.poll(f, end, open)
	}
	places := p.engine.folding
	if f.consumer.Behind() {
		places = p.engine.reading
	}
	select {
	case places <- struct{}{}:
		defer func() { <-places }()
	case <-ctx.Done():
		return false, nil
	}
	from := f.at()
	var ended error
	for more := true; more; more = f.size < batchRecords && f.bytes < batchBytes && p.inMemory(f) {
		var piece materializer.Piece
		if piece, ended = f.consumer.Next(ctx); ended != nil {
			break
		}
		if err := f.fold(&piece); err != nil {
			return false, &storeError{err}
		}
	}
	if f.at() != from {
		if err := p.advance(f, end, open); err != nil {
			return false, err
		}
	}
	if ctx.Err() != nil {
		return false, nil
	}
	return true, p.ended(f, ended)
}

// inMemory reports whether the next piece is there without a wait.
func (p *partition) inMemory(f *front) bool {
	end, open := p.replica.Feed().Position()
	return open && end > f.at().Next && !f.consumer.Behind()
}

// poll learns whether the feed has ended, while there is nothing to read.
func (p *partition) poll(f *front, end int64, open bool) (worked bool, err error) {
	piece, err := f.consumer.Next(p.engine.never)
	if feed, is := errors.AsType[*materializer.FeedError](err); is {
		return true, p.ended(f, feed)
	}
	if err == nil { // it has come meanwhile
		if err := f.fold(&piece); err != nil {
			return false, &storeError{err}
		}
	} else if p.engine.never.Err() == nil || !errors.Is(err, context.Canceled) {
		return false, err
	}
	return err == nil, p.advance(f, end, open)
}

// ended goes on after what a consumer returned instead of a piece.
func (p *partition) ended(f *front, err error) error {
	feed, is := errors.AsType[*materializer.FeedError](err)
	switch {
	case len(f.datasets) == 0:
		return nil // all have stopped, and the consumer has ended
	case !is:
		return err
	case feed.Reason == materializer.FeedDiverged:
		return p.startOver(feed)
	default:
		p.note(feed)
		f.joined = f.joined && feed.Reason != materializer.FeedHalted
		f.again(p)
		return nil
	}
}

// advance commits what the pieces have changed, and the position. end is where the image was before
// the pieces were taken.
func (p *partition) advance(f *front, end int64, open bool) error {
	at := f.at()
	f.joined = f.joined || f.consumer.Joined()
	write := false
	for _, d := range f.datasets {
		d.joined = f.joined
		if !d.position.stopped {
			d.position.meta = at
			if d.changed() || !mutation.On(mutation.Waited) {
				d.applied = at.Next
			}
		}
		if !d.position.built && open && at.Next >= end && !d.position.stopped {
			d.position.built, d.dirty = true, true
		}
		d.keepChanges()
		write = write || d.dirty || d.changed() || d.position.meta.Next-d.stored.Next >= idleRecords
	}
	records := f.size
	f.size, f.bytes = 0, 0
	if !write {
		p.show(f.datasets, records)
		return nil
	}
	if err := p.commit(f.datasets); err != nil {
		return err
	}
	p.show(f.datasets, records)
	p.setAside(f)
	return nil
}

// commit writes what has changed of datasets in one batch.
func (p *partition) commit(datasets []*dataset) error {
	batch := p.store.NewBatch()
	defer batch.Close() //nolint:errcheck // nothing to lose
	for _, d := range datasets {
		if err := d.flush(batch); err != nil {
			return &storeError{err}
		}
	}
	if mutation.On(mutation.Position) {
		if err := batch.Commit(); err != nil {
			return &storeError{err}
		}
	}
	for _, d := range datasets {
		if err := d.flushPosition(batch); err != nil {
			return &storeError{err}
		}
	}
	if err := batch.Commit(); err != nil {
		return &storeError{err}
	}
	for _, d := range datasets {
		d.committed()
		if err := d.forgetChanges(); err != nil {
			return &storeError{err}
		}
	}
	return nil
}

// setAside takes datasets out of a front that are not folded any more.
func (p *partition) setAside(f *front) {
	n := len(f.datasets)
	f.datasets = slices.DeleteFunc(f.datasets, func(d *dataset) bool { return d.position.stopped })
	if len(f.datasets) == n {
		return
	}
	if len(f.datasets) > 0 {
		f.again(p)
		return
	}
	p.leave(f)
}

// leave ends a front that has no datasets.
func (p *partition) leave(f *front) {
	f.consumer.Close()
	p.fronts = slices.DeleteFunc(p.fronts, func(o *front) bool { return o == f })
}

// join makes one front of those that stand at the same position.
func (p *partition) join() {
	slices.SortStableFunc(p.fronts, func(a, b *front) int { return cmp.Compare(a.at().Next, b.at().Next) })
	for i := 0; i+1 < len(p.fronts); {
		a, b := p.fronts[i], p.fronts[i+1]
		if at, other := a.at(), b.at(); !samePlace(&at, &other) || a.joined != b.joined {
			i++
			continue
		}
		a.datasets = append(a.datasets, b.datasets...)
		a.again(p)
		p.leave(b)
	}
}

func samePlace(a, b *materializer.Meta) bool {
	return a.Next == b.Next && a.Owner == b.Owner && a.Ordinal == b.Ordinal && a.TopicID == b.TopicID &&
		a.Floor == b.Floor && a.Start == b.Start
}
