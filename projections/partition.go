package projections

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/internal/lifecycle"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/materializer"
)

// partition folds one partition into its datasets. Its goroutine does all of it, and has all fields
// but those that mu guards.
//
//	A1  The records of a dataset are applied once each, in the order of the log.
//	A2  A wait for a position is over when the consumer has reached it, whether or not the last
//	    records were the dataset's. (waited)
//	A3  A dataset whose position row does not belong to its fold, to this version, or to the
//	    history of the image is dropped and built again.
type partition struct {
	engine  *Engine
	replica Replica
	address materializer.Address

	// after is closed when the partition that this one replaces has ended; nil: it replaces none.
	after  <-chan struct{}
	cancel context.CancelFunc
	done   chan struct{}
	// wake has a value when the definitions have changed.
	wake chan struct{}

	store    materializer.Store
	plans    *plans
	datasets map[uint32]*dataset
	// fronts are sorted by position.
	fronts []*front
	// replays are the datasets of which entities are folded again.
	replays []*replay

	mu sync.Mutex
	// shown is what callers see of the datasets; moved is closed when it changes, if a caller waits.
	shown map[uint32]*shown
	moved chan struct{}
	// followers are those of each dataset.
	followers map[uint32]followers
	// failed is why nothing is folded; lastError was at lastErrorAt.
	failed      error
	lastError   error
	lastErrorAt time.Time
}

// storeError is an error of the store of the views, or another one with which no dataset of the
// partition can go on.
type storeError struct{ error }

func (e *storeError) Unwrap() error { return e.error }

// errAgain: the datasets are to be looked at again, because the definitions have changed or the
// partition begins again.
var errAgain = errors.New("the datasets have changed")

// retry are the pauses after errors.
var retry = backoff.Policy{First: time.Second, Max: 30 * time.Second, Jitter: 0.2} //nolint:gochecknoglobals // a constant

// run folds until ctx ends.
func (p *partition) run(ctx context.Context) {
	defer close(p.done)
	if p.after != nil {
		select {
		case <-p.after:
		case <-ctx.Done():
			<-p.after
			return
		}
	}
	for failures := 0; ctx.Err() == nil; {
		worked, err := p.guarded(ctx)
		p.close()
		if worked {
			failures = 0
		}
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.Is(err, errAgain):
		default:
			failures++
			p.stop(err)
			p.pause(ctx, retry.Pause(failures))
		}
	}
}

// guarded is serve. A panic, which is a defect of a fold, stops the datasets of the partition and
// nothing else.
func (p *partition) guarded(ctx context.Context) (worked bool, err error) {
	defer func() {
		if v := recover(); v != nil {
			why := &lifecycle.PanicError{Value: v, Stack: debug.Stack()}
			p.engine.options.Logger.Error("folding a partition has panicked: this is a defect of millrace",
				observe.Partition, p.address.Partition, observe.Error, why, observe.Stack, string(why.Stack))
			err = &storeError{why}
		}
	}()
	return p.serve(ctx)
}

// pause waits, or until the definitions change.
func (p *partition) pause(ctx context.Context, d time.Duration) {
	over, stop := p.engine.options.Clock.After(d)
	defer stop()
	select {
	case <-over:
	case <-p.wake:
	case <-ctx.Done():
	}
}

// serve folds until something has to be done about it. worked: it has applied records.
func (p *partition) serve(ctx context.Context) (worked bool, err error) {
	p.plans = p.engine.plans.Load()
	if err := p.load(); err != nil {
		return false, err
	}
	p.resumed()
	for ctx.Err() == nil {
		var moved <-chan struct{} // a feed that is watched costs its owner a lock for each batch
		if len(p.fronts) > 0 {
			moved = p.replica.Feed().Moved()
		}
		if p.engine.plans.Load() != p.plans {
			return worked, cmp.Or(p.save(), errAgain)
		}
		did, err := p.turn(ctx)
		if err != nil {
			return worked, err
		}
		if did {
			worked = true
			continue
		}
		p.await(ctx, moved)
	}
	return worked, p.save()
}

// await waits until there may be something to do.
func (p *partition) await(ctx context.Context, moved <-chan struct{}) {
	over, stop := p.nextRetry()
	defer stop()
	select {
	case <-moved:
	case <-over:
	case <-p.wake:
	case <-ctx.Done():
	}
}

// turn takes each front on by one batch. One that others come to by pieces of the memory waits for
// them, so that they become one.
func (p *partition) turn(ctx context.Context) (worked bool, err error) {
	for i, f := range slices.Clone(p.fronts) {
		if i > 0 && p.comesTo(p.fronts[0], f) {
			break
		}
		if p.waits(f) {
			continue
		}
		did, err := p.step(ctx, f)
		_, ofStore := errors.AsType[*storeError](err)
		switch {
		case ofStore || errors.Is(err, errAgain):
			return worked, err
		case err != nil:
			p.unread(f, err)
		case did:
			p.succeeded(f)
		}
		worked = worked || did
	}
	p.join()
	for _, f := range p.fronts {
		did, err := p.backfill(ctx, f)
		if err != nil {
			return worked, err
		}
		worked = worked || did
	}
	did, err := p.replay(ctx)
	return worked || did, err
}

// comesTo reports whether the hindmost front reaches another one without reading the log.
func (p *partition) comesTo(hindmost, f *front) bool {
	return f != hindmost && !p.waits(hindmost) && hindmost.at().Next < f.at().Next && !hindmost.consumer.Behind()
}

// load opens the store, and begins with each dataset where its position row says.
func (p *partition) load() error {
	before := p.datasets
	p.datasets = map[uint32]*dataset{}
	if len(p.plans.byDataset) == 0 && p.store == nil {
		p.showAll()
		return nil
	}
	store, err := p.engine.options.Store()
	if err != nil {
		return &storeError{err}
	}
	p.store = store
	stored, err := p.dropOthers()
	if err != nil {
		return &storeError{err}
	}
	for _, number := range slices.Sorted(maps.Keys(p.plans.byDataset)) {
		plan := p.plans.byDataset[number]
		if plan.err != nil {
			continue
		}
		d, err := p.open(plan, slices.Contains(stored, number))
		if err != nil {
			return &storeError{err}
		}
		// What was compared with the image once goes on to be returned while it is read again.
		was := before[number]
		d.joined = was != nil && was.joined && was.plan.hash == plan.hash
		p.datasets[number] = d
		if d.position.stopped || plan.paused {
			continue
		}
		p.place(d)
		if err := p.beginReplay(d); err != nil {
			return &storeError{err}
		}
	}
	p.showAll()
	return nil
}

// place adds a dataset to the front at its position.
func (p *partition) place(d *dataset) {
	for _, f := range p.fronts {
		if at := f.at(); samePlace(&at, &d.position.meta) && f.joined == d.joined {
			f.datasets = append(f.datasets, d)
			f.again(p)
			return
		}
	}
	p.fronts = append(p.fronts, p.newFront(d))
}

// dropOthers drops the datasets that are not defined, and returns the numbers of the others that
// the store has.
func (p *partition) dropOthers() (numbers []uint32, err error) {
	lower, upper := PartitionRange(p.address)
	rows := p.store.Iterator(lower, upper)
	var others []Dataset
	for found := rows.First(); found; {
		d := Dataset{Address: p.address, Number: numberOf(rows.Key())}
		if _, defined := p.plans.byDataset[d.Number]; defined {
			numbers = append(numbers, d.Number)
		} else {
			others = append(others, d)
		}
		_, next := d.Range()
		found = next != nil && rows.SeekGE(next)
	}
	if err := rows.Close(); err != nil {
		return nil, err
	}
	for _, d := range others {
		if err := p.drop(d); err != nil {
			return nil, err
		}
	}
	return numbers, nil
}

func (p *partition) drop(d Dataset) error {
	p.engine.options.Logger.Info("rows of a dataset are dropped", observe.Partition, d.Partition,
		observe.Projection, d.Number)
	return p.store.DropRange(d.Range())
}

// open returns a dataset as the store has it, or without rows. stored: the store has something of
// it.
func (p *partition) open(plan *plan, stored bool) (*dataset, error) {
	d := newDataset(Dataset{Address: p.address, Number: plan.dataset}, plan, p.store)
	if stored {
		why, err := d.read()
		if err != nil {
			return nil, err
		}
		if why == "" && d.position.stopped && d.skips(d.position.failed.Offset) {
			why = "they stopped at a record that is left out now"
		}
		if why == "" {
			if err := p.reconcile(d); err != nil {
				return nil, err
			}
			return d, p.reconcileChanges(d)
		}
		p.engine.options.Logger.Warn("rows of a dataset are built again", observe.Partition, d.Partition,
			observe.Projection, plan.String(), observe.Cause, why)
		if err := p.drop(d.Dataset); err != nil {
			return nil, err
		}
	}
	d.position = d.fresh()
	return d, nil
}

// read reads the position row. It returns why the rows cannot be used.
func (d *dataset) read() (why string, err error) {
	value, err := d.store.Get(d.PositionKey(nil))
	if err != nil {
		return "", err
	}
	if value == nil {
		return "they have no position", nil
	}
	position, damage := parsePosition(value)
	switch {
	case damage != nil:
		return damage.Error(), nil //nolint:nilerr // it is built again
	case position.version != KeyVersion:
		return "their keys are of another version", nil
	case position.hash != d.plan.hash:
		return "they are of another fold", nil
	case position.meta.FoldVersion != materializer.FoldVersion:
		return "the journal is folded in another way", nil
	}
	d.position, d.stored, d.applied = position, position.meta, position.meta.Next
	return "", nil
}

// reconcile drops indexes and aggregates that no view has, and begins those that are new. What is
// dropped is dropped after the position row has forgotten it, and what is begun has no rows.
func (p *partition) reconcile(d *dataset) error {
	had := len(d.position.parts)
	d.position.parts = slices.DeleteFunc(d.position.parts, func(have progress) bool {
		return d.plan.part(have.kind, have.number) == nil
	})
	if len(d.position.parts) != had {
		if err := p.commit([]*dataset{d}); err != nil {
			return err
		}
	}
	if err := p.dropParts(d); err != nil {
		return err
	}
	had = len(d.position.parts)
	for i := range d.plan.parts {
		want := &d.plan.parts[i]
		if d.position.part(want.kind, want.number) == nil {
			d.position.parts = append(d.position.parts, progress{
				kind: want.kind, number: want.number, complete: d.position.rows == 0,
			})
		}
	}
	if len(d.position.parts) == had {
		return nil
	}
	return p.commit([]*dataset{d})
}

// reconcileChanges drops the log of changes if no view asks for one: after the position row has
// forgotten it, because records from here on have no entries.
func (p *partition) reconcileChanges(d *dataset) error {
	if d.plan.resume > 0 {
		return nil
	}
	if d.position.since != 0 {
		d.position.history = history{}
		if err := p.commit([]*dataset{d}); err != nil {
			return err
		}
	}
	return p.dropChanges(d)
}

// dropParts drops the rows of indexes and aggregates that the position row does not have.
func (p *partition) dropParts(d *dataset) error {
	for _, kind := range []Kind{KindAggregate, KindIndex} {
		lower, upper := d.KindRange(kind)
		var others []uint16
		rows := p.store.Iterator(lower, upper)
		for found := rows.First(); found; {
			key, err := ParseKey(rows.Key())
			if err != nil {
				return errors.Join(fmt.Errorf("%w: %w", materializer.ErrCorrupt, err), rows.Close())
			}
			if d.position.part(kind, key.Piece) == nil {
				others = append(others, key.Piece)
			}
			_, next := d.partRange(kind, key.Piece)
			found = rows.SeekGE(next)
		}
		if err := rows.Close(); err != nil {
			return err
		}
		for _, number := range others {
			if err := p.store.DropRange(d.partRange(kind, number)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d Dataset) partRange(kind Kind, number uint16) (lower, upper []byte) {
	if kind == KindIndex {
		return d.IndexRange(number)
	}
	return d.AggregateRange(number)
}

// startOver drops all datasets of the partition: they were not made of the log of the image.
func (p *partition) startOver(why error) error {
	p.engine.options.Logger.Warn("the rows of a partition are built again", observe.Partition, p.address.Partition,
		observe.Cause, why)
	p.note(why)
	p.datasets = nil
	if err := p.store.DropRange(PartitionRange(p.address)); err != nil {
		return &storeError{err}
	}
	return errAgain
}

// save writes the positions that are further than those in the store.
func (p *partition) save() error {
	var behind []*dataset
	for _, f := range p.fronts {
		for _, d := range f.datasets {
			if d.position.meta != d.stored {
				behind = append(behind, d)
			}
		}
	}
	if len(behind) == 0 {
		return nil
	}
	return p.commit(behind)
}

// close ends the consumers.
func (p *partition) close() {
	for _, f := range p.fronts {
		f.consumer.Close()
	}
	for _, r := range p.replays {
		r.consumer.Close()
	}
	p.fronts, p.replays = nil, nil
}
