package projections

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/projections/mapping"
)

// This file takes up parked entities again, after the records that parked them are left out. Their
// rows become what they were if the records had been left out from the beginning, so every replica
// has the same rows, whenever it learns of that, and so has a build from an empty store.

// replayBytes bounds the records that one replay holds in memory.
const replayBytes = 32 << 20

// replay reads the journal for the later records of parked entities of a dataset. They are folded
// when it has come to where the dataset is.
type replay struct {
	dataset  *dataset
	consumer *materializer.Consumer
	// from is the offset that parked an entity, by its id: all its sources are parked. ids are the
	// keys in order.
	from map[string]int64
	ids  []string

	entries []materializer.Entry
	bytes   int
}

// skips reports whether a record is left out of the rows.
func (d *dataset) skips(offset int64) bool {
	return d.plan.skips[Skip{Partition: int32(d.Partition), Offset: offset}] && !mutation.On(mutation.Skipped)
}

// flushParked writes why an entity is parked, or deletes that.
func (d *dataset) flushParked(batch materializer.Batch, e *entity) error {
	d.key = d.ParkedKey(d.key[:0], e.id)
	if e.parked == nil {
		return batch.Delete(d.key)
	}
	d.value = e.parked.append(d.value[:0])
	return batch.Put(d.key, d.value)
}

// beginReplay begins to read for the entities of a dataset whose records are left out now.
func (p *partition) beginReplay(d *dataset) error {
	if len(d.plan.skips) == 0 || d.position.parked == 0 {
		return nil
	}
	r := &replay{dataset: d, from: map[string]int64{}}
	lower, upper := d.KindRange(KindParked)
	var failed error
	err := p.store.Scan(lower, upper, func(_, value []byte) bool {
		var one Parked
		if one, failed = parseParked(value); failed == nil && d.skips(one.Offset) {
			_, id, _ := strings.Cut(one.Entity, "/")
			r.from[id] = one.Offset
			r.ids = append(r.ids, id)
		}
		return failed == nil
	})
	if err := errors.Join(err, failed); err != nil || len(r.ids) == 0 {
		return err
	}
	r.consumer = p.replica.Feed().Consume(materializer.Meta{}, typesOf([]*dataset{d}))
	p.replays = append(p.replays, r)
	return nil
}

// replay takes each replay on by one piece. Between two pieces records are folded as ever.
func (p *partition) replay(ctx context.Context) (worked bool, err error) {
	if _, open := p.replica.Feed().Position(); !open {
		return false, nil
	}
	for _, r := range slices.Clone(p.replays) {
		select {
		case p.engine.reading <- struct{}{}:
		case <-ctx.Done():
			return worked, nil
		}
		err := p.replayPiece(ctx, r)
		<-p.engine.reading
		if err != nil {
			return worked, p.unreplayed(ctx, err)
		}
		worked = true
	}
	return worked, nil
}

// unreplayed is what becomes of the partition after an error of a replay, which begins again.
func (p *partition) unreplayed(ctx context.Context, err error) error {
	feed, ended := errors.AsType[*materializer.FeedError](err)
	switch {
	case ctx.Err() != nil:
		return nil //nolint:nilerr // it has ended with ctx
	case ended && feed.Reason == materializer.FeedDiverged:
		return p.startOver(feed)
	case ended:
		p.note(feed)
		return errAgain
	default:
		return err
	}
}

// replayPiece reads a piece or, when the replay has come to where the dataset is, ends it.
func (p *partition) replayPiece(ctx context.Context, r *replay) error {
	if r.consumer.Position().Next < r.dataset.position.meta.Next {
		piece, err := r.consumer.Next(ctx)
		if err != nil {
			return err
		}
		r.collect(&piece)
		if r.bytes <= replayBytes {
			return nil
		}
	}
	r.consumer.Close()
	p.replays = slices.DeleteFunc(p.replays, func(o *replay) bool { return o == r })
	logger := p.engine.options.Logger.With(observe.Partition, p.address.Partition, observe.Projection,
		r.dataset.plan.String())
	if r.bytes > replayBytes {
		err := errors.New("parked entities have too many later records to be folded again beside the others: " +
			"build the projection again with `millrace projection rebuild`")
		p.note(err)
		logger.Error("parked entities stay parked", observe.Error, err)
		return nil
	}
	if err := r.fold(); err != nil {
		return &storeError{err}
	}
	if err := p.commit([]*dataset{r.dataset}); err != nil {
		return err
	}
	if err := r.dataset.forgetChanges(); err != nil {
		return &storeError{err}
	}
	logger.Info("parked entities are folded again", "entities", len(r.ids), "records", len(r.entries))
	p.show([]*dataset{r.dataset}, 0)
	return nil
}

// collect keeps the later records of the entities.
func (r *replay) collect(p *materializer.Piece) {
	for e := range p.Effective {
		_, id, _ := bytes.Cut(e.Key, []byte{'/'})
		if from, parked := r.from[string(id)]; parked && e.Offset > from {
			r.entries = append(r.entries, e.Clone())
			r.bytes += e.Size()
		}
	}
}

// fold folds what was collected up to where the dataset is. What comes after that its front brings.
func (r *replay) fold() error {
	d := r.dataset
	for _, id := range r.ids {
		e, err := d.entity(&mapping.Record{Entity: id})
		if err != nil {
			return err
		}
		e.parked, e.parkedNow = nil, true
		d.position.parked--
		d.position.skipped++
	}
	f := &front{datasets: []*dataset{d}}
	for i := range r.entries {
		e := &r.entries[i]
		if e.Offset >= d.position.meta.Next {
			break
		}
		f.group = append(f.group, e)
		if e.Envelope.Index+1 < e.Envelope.Count {
			continue
		}
		if err := f.foldGroup(&e.Envelope); err != nil {
			return err
		}
		f.group = f.group[:0]
	}
	d.resetWatches()
	return nil
}

// resetWatches begins the log of changes anew, behind the next record: rows have changed at a
// position that watches have passed, so each of them is told to begin with a snapshot.
func (d *dataset) resetWatches() {
	d.changes = d.changes[:0]
	if h := &d.position.history; h.since != 0 {
		h.since, h.marks = d.position.meta.Next+2, nil
		d.forgets = true
	}
}
