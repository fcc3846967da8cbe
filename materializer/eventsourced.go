package materializer

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/plural"
)

// eventSourced is the kind of event-sourced entities: a snapshot, and the events after it.
type eventSourced struct{}

func (eventSourced) records() (events, others []record.Kind) {
	return []record.Kind{record.Event}, []record.Kind{record.Snapshot}
}

func (eventSourced) changes(buf []Change, at Position, out *entities.Outcome) ([]Change, Position) {
	for i := range out.Events {
		at.Sequence++
		buf = append(buf, Change{Kind: record.Event, Sequence: at.Sequence, Payload: out.Events[i]})
	}
	if out.Snapshot != nil && len(out.Events) > 0 {
		buf = append(buf, Change{
			Kind: record.Snapshot, Sequence: at.Sequence, PreviousSnapshot: at.Snapshot,
			Payload: *out.Snapshot,
		})
		at.Snapshot = at.Sequence
	}
	return buf, at
}

func (eventSourced) fold(f *Fold, rows Rows, prefix []byte, e *Entry) (deleted, content bool, err error) {
	env := &e.Envelope
	f.value = appendContent(f.value[:0], env.Sequence, entities.Payload{TypeURL: env.TypeURL, Value: e.Value})
	if env.Kind == record.Event {
		f.counts.Events++
		return false, false, rows.Put(appendTail(prefix, env.Sequence), f.value)
	}
	if err := rows.Put(entityRow(prefix, entityState), f.value); err != nil {
		return false, false, err
	}
	for seq := env.PreviousSnapshot + 1; seq <= env.Sequence; seq++ {
		if err := rows.Delete(appendTail(prefix, seq)); err != nil {
			return false, false, err
		}
	}
	return false, false, nil
}

func (eventSourced) load(p Partition, key entities.Key, prefix []byte, head *Head, _ []byte) (entities.Loaded, error) {
	loaded := entities.Loaded{Sequence: head.Sequence}
	b, err := p.Rows.Get(entityRow(prefix, entityState))
	if err != nil {
		return entities.Loaded{}, err
	}
	if b != nil {
		sequence, payload, err := parseContent(b)
		if err != nil {
			return entities.Loaded{}, fmt.Errorf("%s: %w", key, err)
		}
		loaded.State, loaded.StateSequence = &payload, sequence
	}
	if covered, last := loaded.StateSequence, head.Sequence; last > covered {
		loaded.Events = func(yield func(entities.Event) error) error {
			return p.events(key, prefix, covered, last, yield)
		}
	}
	return loaded, nil
}

// events yields the tail rows after covered, and insists on every one of them up to last.
func (p Partition) events(key entities.Key, prefix []byte, covered, last uint64,
	yield func(entities.Event) error,
) error {
	want := covered + 1
	lower, upper := appendTail(append([]byte(nil), prefix...), want), appendTail(append([]byte(nil), prefix...), last+1)
	var stopped error
	err := p.Rows.Scan(lower, upper, func(_, value []byte) bool {
		sequence, payload, err := parseContent(value)
		switch {
		case err != nil:
			stopped = fmt.Errorf("%s: event %d: %w", key, want, err)
		case sequence != want:
			stopped = fmt.Errorf("%s: %w: event %d is missing, found %d", key, ErrCorrupt, want, sequence)
		default:
			want++
			stopped = yield(entities.Event{Sequence: sequence, Payload: payload})
		}
		return stopped == nil
	})
	if err == nil {
		err = stopped
	}
	if err == nil && want != last+1 {
		err = fmt.Errorf("%s: %w: event %d of %d is missing", key, ErrCorrupt, want, last)
	}
	return err
}

// restore writes the events that the log does not have: one by one, those before the snapshot by
// the snapshot.
func (eventSourced) restore(r *Restoration, entity entities.Key, prefix []byte, head, before *Head, _ []byte) error {
	prefix = bytes.Clone(prefix)
	imageSnapshot, snapshot, err := r.snapshot(r.image, prefix)
	if err != nil {
		return fmt.Errorf("%s: %w", entity, err)
	}
	baseSnapshot, _, err := r.snapshot(r.base, prefix)
	if err != nil {
		return fmt.Errorf("%s: %w", entity, err)
	}
	restores := record.Unsigned(head.Offset)
	next := before.Sequence
	switch {
	case imageSnapshot < baseSnapshot, imageSnapshot > baseSnapshot && imageSnapshot <= before.Sequence:
		return fmt.Errorf("%w: of %s the log has %s and a snapshot of %d, the store has one of %d",
			ErrNotAhead, entity, plural.Of(before.Sequence, "event"), baseSnapshot, imageSnapshot)
	case imageSnapshot > baseSnapshot:
		if !r.put([]byte(entity.String()), snapshot.Value, record.Envelope{
			Kind: record.Snapshot, Sequence: imageSnapshot, PreviousSnapshot: baseSnapshot, TypeURL: snapshot.TypeURL,
			Restores: restores,
		}) {
			return nil
		}
		r.counts.Behind += int64(imageSnapshot - before.Sequence) //nolint:gosec // checked above
		next = imageSnapshot
	case next > imageSnapshot:
		if err := r.checkEvent(entity, prefix, next); err != nil {
			return err
		}
	}
	if r.full || next == head.Sequence {
		return nil
	}
	err = r.image.events(entity, prefix, next, head.Sequence, func(e entities.Event) error {
		if r.put([]byte(entity.String()), e.Payload.Value,
			record.Envelope{Kind: record.Event, Sequence: e.Sequence, TypeURL: e.Payload.TypeURL, Restores: restores}) {
			r.counts.Events++
		}
		if r.full {
			return errFull
		}
		return nil
	})
	if errors.Is(err, errFull) {
		return nil
	}
	return err
}

// errFull ends the reading of an entity whose further events are for the next page.
var errFull = errors.New("the page is full")

// checkEvent reports whether log and image have the same event.
func (r *Restoration) checkEvent(entity entities.Key, prefix []byte, sequence uint64) error {
	key := appendTail(bytes.Clone(prefix), sequence)
	image, err := r.image.Rows.Get(key)
	if err != nil {
		return err
	}
	base, err := counterpart(r.base, key)
	if err == nil && !bytes.Equal(image, base) {
		return fmt.Errorf("%w: event %d of %s differs from the one in the log", ErrNotAhead, sequence, entity)
	}
	return err
}

func (r *Restoration) snapshot(p Partition, prefix []byte) (uint64, entities.Payload, error) {
	b, err := counterpart(p, append(bytes.Clone(prefix), entityState))
	if err != nil || b == nil {
		return 0, entities.Payload{}, err
	}
	return parseContent(b)
}

func (eventSourced) note(loaded *entities.Loaded) string {
	if loaded.State == nil {
		return "all events (no snapshot yet)"
	}
	return "last snapshot plus later events"
}
