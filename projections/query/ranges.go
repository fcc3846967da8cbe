package query

import (
	"fmt"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/millrace-io/millrace/projections/definition"
	"github.com/millrace-io/millrace/projections/mapping"
)

// table is what the tuples of an index, or of the key, have.
type table struct {
	shape  mapping.Shape
	fields []protoreflect.FieldDescriptor
}

// tableOf returns the table of an index, with the key behind its fields; nil is the key.
func tableOf(p *definition.Projection, x *definition.Index) (*table, error) {
	t := &table{}
	if x != nil {
		for _, o := range x.Fields {
			if err := t.add(o.Field, o.Desc, true); err != nil {
				return nil, fmt.Errorf("index %s: %w", x.Name, err)
			}
		}
	}
	for _, f := range p.Key {
		if err := t.add(f, false, false); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// groupsOf returns the table of an aggregate.
func groupsOf(a *definition.Aggregate) (*table, error) {
	t := &table{}
	for _, f := range a.GroupBy {
		if err := t.add(f, false, true); err != nil {
			return nil, fmt.Errorf("aggregate %s: %w", a.Name, err)
		}
	}
	return t, nil
}

func (t *table) add(fd protoreflect.FieldDescriptor, desc, cut bool) error {
	f, err := mapping.FieldOf(fd)
	if err != nil {
		return err
	}
	f.Desc, f.Cut = desc, cut && f.Kind == mapping.Text
	t.shape, t.fields = append(t.shape, f), append(t.fields, fd)
	return nil
}

// comparison is a condition of a plan, with the value of this request.
type comparison struct {
	field protoreflect.FieldDescriptor
	fitted

	// holds says whether it is true for a row.
	holds func(row protoreflect.Message) (bool, error)
}

// span is what is read of a table.
type span struct {
	lower, upper []byte
	// none: no row can fulfil the conditions.
	none bool
	// checks are the conditions that the bounds do not decide.
	checks []func(row protoreflect.Message) (bool, error)
}

// spanOf returns the bounds of the tuples that begin with the equalities and are within the bounds
// of the field behind them.
func (t *table) spanOf(equal, bounds []comparison) (s span) {
	var values []mapping.Value
	for _, f := range t.fields {
		c := find(equal, f)
		if c == nil {
			break
		}
		s.none = s.none || c.never
		values = append(values, c.value)
	}
	var from, to *mapping.Bound
	for i := range bounds {
		c := &bounds[i]
		s.none = s.none || c.never
		b := &mapping.Bound{Value: c.value, Exclusive: len(c.operator) == 1}
		switch {
		case c.always:
			s.checks = append(s.checks, c.holds) // the field must be there
		case c.operator[0] == '>':
			from = b
		default:
			to = b
		}
	}
	if s.none {
		return span{none: true}
	}
	var r mapping.Range
	var ok bool
	if from == nil && to == nil {
		r, ok = t.shape.Equal(nil, values...)
	} else {
		r, ok = t.shape.Between(nil, values, from, to)
	}
	if !ok {
		return span{none: true}
	}
	for _, list := range [][]comparison{equal, bounds} {
		for i := range list {
			if r.Verify || list[i].inexact {
				s.checks = append(s.checks, list[i].holds)
			}
		}
	}
	s.lower, s.upper = r.Lower, r.Upper
	return s
}

func find(list []comparison, f protoreflect.FieldDescriptor) *comparison {
	for i := range list {
		if list[i].field == f {
			return &list[i]
		}
	}
	return nil
}

// after takes away what was read up to a tuple.
func (s *span) after(tuple []byte, reverse bool) {
	if reverse {
		s.upper = tuple
	} else {
		s.lower = append(append([]byte(nil), tuple...), 0)
	}
}
