package materializer

import (
	"fmt"
	"strconv"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
)

// Tally is a kind of this package's tests: a number as the sum of its events, each of which is a
// decimal number in a record of a kind of its own. It needs nothing outside of this file.
const (
	Tally entities.Kind = 200
	Added record.Kind   = 200
)

func init() { //nolint:gochecknoinits // a kind is registered before anything uses the table
	entities.Register(Tally, &entities.KindSpec{Name: "tally", Protocol: "test.Tally", HasEntities: true, Owned: true})
	entityKinds[Tally] = tally{}
	byRecord = recordTable()
}

type tally struct{}

func (tally) records() (events, others []record.Kind) { return []record.Kind{Added}, nil }

func (tally) changes(buf []Change, at Position, out *entities.Outcome) ([]Change, Position) {
	for _, e := range out.Events {
		at.Sequence++
		buf = append(buf, Change{Kind: Added, Sequence: at.Sequence, Payload: e})
	}
	return buf, at
}

func (tally) fold(f *Fold, rows Rows, prefix []byte, e *Entry) (deleted, content bool, err error) {
	f.counts.Events++
	f.value = appendContent(f.value[:0], e.Envelope.Sequence,
		entities.Payload{TypeURL: e.Envelope.TypeURL, Value: e.Value})
	return false, false, rows.Put(appendTail(prefix, e.Envelope.Sequence), f.value)
}

func (tally) load(p Partition, key entities.Key, prefix []byte, head *Head, _ []byte) (entities.Loaded, error) {
	sum := 0
	err := p.events(key, prefix, 0, head.Sequence, func(e entities.Event) error {
		n, err := strconv.Atoi(string(e.Payload.Value))
		sum += n
		return err
	})
	state := entities.Payload{TypeURL: "t/sum", Value: []byte(strconv.Itoa(sum))}
	return entities.Loaded{Sequence: head.Sequence, State: &state, StateSequence: head.Sequence}, err
}

func (tally) restore(r *Restoration, key entities.Key, prefix []byte, head, before *Head, _ []byte) error {
	return r.image.events(key, prefix, before.Sequence, head.Sequence, func(e entities.Event) error {
		r.put([]byte(key.String()), e.Payload.Value, record.Envelope{
			Kind: Added, Sequence: e.Sequence, TypeURL: e.Payload.TypeURL, Restores: record.Unsigned(head.Offset),
		})
		return nil
	})
}

func (tally) note(loaded *entities.Loaded) string {
	return fmt.Sprintf("the sum of %d numbers", loaded.StateSequence)
}
