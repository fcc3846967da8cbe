package materializer

import (
	"fmt"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
)

// value is the kind of value entities: the newest value follows the head.
type value struct{}

func (value) records() (events, others []record.Kind) {
	return nil, []record.Kind{record.State, record.Delete}
}

func (value) changes(buf []Change, at Position, out *entities.Outcome) ([]Change, Position) {
	switch out.StateAction {
	case entities.StateUpdated:
		buf = append(buf, Change{Kind: record.State, Payload: out.State})
	case entities.StateDeleted:
		buf = append(buf, Change{Kind: record.Delete})
	case entities.StateKept:
	}
	return buf, at
}

func (value) fold(f *Fold, _ Rows, _ []byte, e *Entry) (deleted, content bool, err error) {
	f.counts.Events++
	return e.Envelope.Kind == record.Delete, e.Envelope.Kind == record.State, nil
}

func (value) load(_ Partition, key entities.Key, _ []byte, head *Head, content []byte) (entities.Loaded, error) {
	if head.Deleted {
		return entities.Loaded{}, nil
	}
	_, payload, err := parseContent(content)
	if err != nil {
		return entities.Loaded{}, fmt.Errorf("%s: %w", key, err)
	}
	return entities.Loaded{State: &payload}, nil
}

func (value) restore(r *Restoration, key entities.Key, _ []byte, head, _ *Head, content []byte) error {
	env := record.Envelope{Kind: record.Delete, Restores: record.Unsigned(head.Offset)}
	var state []byte
	if !head.Deleted {
		_, payload, err := parseContent(content)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		env.Kind, env.TypeURL, state = record.State, payload.TypeURL, payload.Value
	}
	if r.put([]byte(key.String()), state, env) {
		r.counts.Values++
	}
	return nil
}

func (value) note(loaded *entities.Loaded) string {
	if loaded.State == nil {
		return "the value was deleted"
	}
	return "the value as last stored"
}
