package projections

import (
	"bytes"
	"errors"
	"time"

	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/projections/mapping"
)

// errRestored: a repair has written a snapshot instead of events that the log has lost.
var errRestored = errors.New("the log has lost events of the entity, of which a repair has kept the snapshot: the source needs a clause `snapshot`")

// kindOf returns what a record is for a fold; ok is false for one that changes no entity, and for a
// snapshot whose events the fold has seen.
func kindOf(env *record.Envelope) (kind mapping.RecordKind, ok bool) {
	switch env.Kind {
	case record.Event:
		return mapping.OfEvent, true
	case record.Snapshot:
		return mapping.OfSnapshot, env.Restores > 0
	case record.State:
		return mapping.OfState, true
	case record.Delete:
		return mapping.OfDeleted, true
	default:
		return 0, false
	}
}

// fold folds the records of a piece into the datasets.
func (f *front) fold(p *materializer.Piece) error {
	for e := range p.Effective {
		f.size++
		f.bytes += len(e.Value)
		f.group = append(f.group, e)
		if e.Envelope.Index+1 < e.Envelope.Count {
			continue // all records of a group have the key of one entity, and a piece has whole groups
		}
		if err := f.foldGroup(&e.Envelope); err != nil {
			return err
		}
		f.group = f.group[:0]
	}
	return nil
}

// foldGroup folds the records of a command. Only the last one has its name.
func (f *front) foldGroup(last *record.Envelope) error {
	for _, e := range f.group {
		kind, ok := kindOf(&e.Envelope)
		if !ok {
			continue
		}
		typ, id, found := bytes.Cut(e.Key, []byte{'/'})
		if !found {
			continue
		}
		env, r := &e.Envelope, &f.record
		*r = mapping.Record{
			Kind: kind, Type: env.TypeURL, Value: e.Value, Entity: string(id), Meta: metaOf(env, last),
		}
		first := kind == mapping.OfEvent && env.Sequence == 1 && env.Restores == 0
		for _, d := range f.datasets {
			source, named := d.plan.sources[string(typ)]
			if !named || d.position.stopped {
				continue
			}
			r.Source, r.First = source, first && len(d.plan.sources) == 1
			if err := d.take(r, string(typ), e.Offset); err != nil {
				return err
			}
		}
	}
	return nil
}

// metaOf returns what `meta` is for a record of a group.
func metaOf(env, last *record.Envelope) mapping.Meta {
	return mapping.Meta{
		Seconds:       env.LogTime / int64(time.Second),
		Nanos:         int32(env.LogTime % int64(time.Second)),
		Sequence:      int64(env.Sequence), //nolint:gosec // counted from 1
		Principal:     last.Principal,
		CommandID:     last.CommandID,
		CorrelationID: last.CorrelationID,
	}
}

// take folds a record of one of the dataset's sources.
func (d *dataset) take(r *mapping.Record, entityType string, offset int64) error {
	if r.Kind != mapping.OfSnapshot || d.plan.projection.Sources[r.Source].Snapshot != nil {
		return d.apply(r, entityType, offset)
	}
	if d.skips(offset) {
		return d.apply(r, entityType, offset)
	}
	e, err := d.entity(r)
	if err == nil && e.parked == nil {
		d.fail(e, failure{Offset: offset, Entity: entityType + "/" + r.Entity, Text: errRestored.Error()})
	}
	return err
}
