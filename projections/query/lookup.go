package query

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/millrace-io/millrace/projections/definition"
	"github.com/millrace-io/millrace/projections/mapping"
)

// lookup fills fields of rows from the rows of another projection.
type lookup struct {
	projection string
	// target is nil, and problem says why, if the other projection cannot be asked.
	target  *projection
	problem string
	by      protowire.Number
	// fields are pairs: of this row, and of the other one.
	fields []lookupField
}

type lookupField struct{ own, from protowire.Number }

// newLookups finds the targets of a projection's lookups among those that are promoted.
func newLookups(p *definition.Projection, promoted map[string]*projection) (all []*lookup) {
	for _, l := range p.Lookups {
		one := &lookup{projection: l.Projection, target: promoted[l.Projection], by: l.By.Number()}
		for _, f := range l.Fields {
			one.fields = append(one.fields, lookupField{own: f.Field.Number()})
		}
		all = append(all, one)
		switch {
		case one.target == nil:
			one.problem = "it is not promoted yet"
			continue
		case one.target.problem != nil:
			one.target, one.problem = nil, "this version of millrace cannot serve it"
			continue
		}
		for i, f := range l.Fields {
			from := one.target.definition.Row.Fields().ByName(protoreflect.Name(f.From))
			if from == nil {
				one.target, one.problem = nil, "the promoted version has no field "+f.From
				break
			}
			one.fields[i].from = from.Number()
		}
	}
	return all
}

// lookUp fills the fields of rows that a mask wants.
func (c *call) lookUp(ctx context.Context, rows [][]byte) error {
	for _, l := range c.method.p.lookups {
		if c.request.mask != nil && !slices.ContainsFunc(l.fields, func(f lookupField) bool {
			return slices.Contains(c.request.mask, f.own)
		}) {
			continue
		}
		if l.target == nil {
			return unavailable("%s: fields are looked up in the projection %s, and %s", c.method.name, l.projection, l.problem)
		}
		found, err := c.targets(ctx, l, rows)
		if err != nil {
			return err
		}
		for i, row := range rows {
			key, err := textOf(row, l.by)
			if err != nil {
				return err
			}
			if rows[i], err = l.fill(row, found[key]); err != nil {
				return err
			}
		}
	}
	return nil
}

// targets returns the rows of the other projection that rows name, by key.
func (c *call) targets(ctx context.Context, l *lookup, rows [][]byte) (map[string][]byte, error) {
	found := map[string][]byte{}
	byPartition := map[int32][]string{}
	var partitions []int32
	for _, row := range rows {
		key, err := textOf(row, l.by)
		if err != nil {
			return nil, err
		}
		if _, known := found[key]; key == "" || known {
			continue
		}
		found[key] = nil
		partition := c.service.o.Executor.PartitionOf(key)
		if byPartition[partition] == nil {
			partitions = append(partitions, partition)
		}
		byPartition[partition] = append(byPartition[partition], key)
	}
	var all sync.WaitGroup
	var mu sync.Mutex // guards found, failed, and what c includes
	var failed error
	for _, partition := range partitions {
		all.Go(func() {
			for _, key := range byPartition[partition] {
				row, at, stale, err := c.target(ctx, l.target, partition, key)
				mu.Lock()
				if err == nil {
					found[key] = row
					c.include(reading{partition, at})
					c.stale = c.stale || stale
				} else {
					failed = err
				}
				isOver := failed != nil
				mu.Unlock()
				if isOver {
					return
				}
			}
		})
	}
	all.Wait()
	return found, failed
}

// target reads one row of the other projection, nil if it is not there.
func (c *call) target(ctx context.Context, p *projection, partition int32, key string) (
	row []byte, at At, stale bool, err error,
) {
	lower := p.key.shape.Append(nil, mapping.OfText(key))
	rows, stale, err := c.openOne(ctx, &Scan{
		Dataset: p.view.Dataset, Partition: partition, Table: ByKey, Lower: lower, Upper: mapping.Successor(lower), Limit: 1,
	})
	if err != nil {
		return nil, At{}, false, err
	}
	defer rows.Close()
	entry, err := rows.Next(ctx)
	if err != nil || entry == nil {
		return nil, rows.At(), stale, err
	}
	return slices.Clone(entry.Row), rows.At(), stale || entry.Stale, nil
}

// fill returns a row with the fields of another one, which may be nil.
func (l *lookup) fill(row, from []byte) ([]byte, error) {
	filled := make([]byte, 0, len(row)+len(from))
	err := eachField(row, func(number protowire.Number, _ protowire.Type, _, whole []byte) {
		if !slices.ContainsFunc(l.fields, func(f lookupField) bool { return f.own == number }) {
			filled = append(filled, whole...)
		}
	})
	if err != nil {
		return nil, err
	}
	for _, f := range l.fields {
		err := eachField(from, func(number protowire.Number, kind protowire.Type, value, _ []byte) {
			if number == f.from {
				filled = append(protowire.AppendTag(filled, f.own, kind), value...)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return filled, nil
}

// eachField goes over the fields of a message: value is a field without its tag, whole with it.
func eachField(message []byte, each func(number protowire.Number, kind protowire.Type, value, whole []byte)) error {
	for len(message) > 0 {
		number, kind, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return damaged(tag)
		}
		value := protowire.ConsumeFieldValue(number, kind, message[tag:])
		if value < 0 {
			return damaged(value)
		}
		each(number, kind, message[tag:tag+value], message[:tag+value])
		message = message[tag+value:]
	}
	return nil
}

func damaged(code int) error { return fmt.Errorf("a row is damaged: %w", protowire.ParseError(code)) }

// textOf returns a text of a row.
func textOf(row []byte, of protowire.Number) (text string, err error) {
	err = eachField(row, func(number protowire.Number, kind protowire.Type, value, _ []byte) {
		if number == of && kind == protowire.BytesType {
			b, _ := protowire.ConsumeBytes(value)
			text = string(b)
		}
	})
	return text, err
}
