package mapping

import (
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/millrace-io/millrace/projections/definition"
)

// Compile makes a fold of a checked projection.
func Compile(p *definition.Projection) (*Fold, error) {
	ms := messages{}
	f := &Fold{projection: p, rowType: p.Row, entries: newPlan(p.Row)}
	var err error
	keys := newPlan(p.Row)
	if f.key, err = keys.extract(p.Key, Field{}); err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	f.keyShape = f.key.shape
	for _, s := range p.Sources {
		compiled, err := f.source(ms, s)
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", s.Entity.Name, err)
		}
		f.sources = append(f.sources, compiled)
	}
	if f.visible, err = f.condition("visible", p.Visible); err != nil {
		return nil, err
	}
	for _, x := range p.Indexes {
		compiled, err := f.index(x)
		if err != nil {
			return nil, fmt.Errorf("index %s: %w", x.Name, err)
		}
		f.indexes = append(f.indexes, compiled)
	}
	for _, a := range p.Aggregates {
		compiled, err := f.aggregate(a)
		if err != nil {
			return nil, fmt.Errorf("aggregate %s: %w", a.Name, err)
		}
		f.aggregates = append(f.aggregates, compiled)
	}
	keys.finish()
	f.entries.finish()
	return f, nil
}

// extract makes what takes fields out of a row; form says how texts are encoded.
func (p *plan) extract(fields []protoreflect.FieldDescriptor, form Field) (*extract, error) {
	e := &extract{plan: p}
	for _, fd := range fields {
		field, err := FieldOf(fd)
		if err != nil {
			return nil, err
		}
		field.Cut = form.Cut && field.Kind == Text
		at, ok := p.path([]string{string(fd.Name())})
		if !ok {
			return nil, fmt.Errorf("field %s has no single value", fd.FullName())
		}
		e.places, e.shape = append(e.places, at), append(e.shape, field)
	}
	return e, nil
}

func (f *Fold) condition(name string, e *definition.Expression) (*condition, error) {
	if e == nil {
		return nil, nil //nolint:nilnil // there is none
	}
	c := &condition{name: name, scope: scope{row: f.entries, isCondition: true}}
	var err error
	if c.program, err = c.scope.program(e); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

func (f *Fold) index(x *definition.Index) (*index, error) {
	fields := make([]protoreflect.FieldDescriptor, len(x.Fields))
	for i, o := range x.Fields {
		fields[i] = o.Field
	}
	compiled := &index{}
	var err error
	if compiled.fields, err = f.entries.extract(fields, Field{Cut: true}); err != nil {
		return nil, err
	}
	for i, o := range x.Fields {
		compiled.fields.shape[i].Desc = o.Desc
	}
	compiled.where, err = f.condition("where", x.Where)
	return compiled, err
}

func (f *Fold) aggregate(a *definition.Aggregate) (*aggregate, error) {
	groups, err := f.entries.extract(a.GroupBy, Field{Cut: true})
	if err != nil {
		return nil, err
	}
	fields := make([]protoreflect.FieldDescriptor, len(a.Sums))
	for i, s := range a.Sums {
		fields[i] = s.Field
	}
	sums, err := f.entries.extract(fields, Field{})
	return &aggregate{groups: groups, sums: sums}, err
}

func (f *Fold) source(ms messages, s *definition.ProjectionSource) (*source, error) {
	if s.Handler != "" {
		return nil, fmt.Errorf("apply: handler %s: %w: use events or state", s.Handler, ErrUnsupported)
	}
	compiled := &source{entity: s.Entity.Name, clauses: map[string]*clause{}, ignored: map[string]bool{}}
	for _, name := range s.Ignored {
		compiled.ignored[name] = true
	}
	for _, c := range s.Events {
		made, err := f.clause(ms, s, c, c.Type)
		if err != nil {
			return nil, err
		}
		compiled.clauses[c.Type] = made
	}
	for _, x := range []struct {
		to   **clause
		from *definition.Clause
		name string
	}{
		{&compiled.snapshot, s.Snapshot, "snapshot"},
		{&compiled.state, s.State, "state"},
		{&compiled.deleted, s.Deleted, "deleted"},
	} {
		if x.from == nil {
			continue
		}
		made, err := f.clause(ms, s, x.from, x.name)
		if err != nil {
			return nil, err
		}
		*x.to = made
	}
	return compiled, nil
}

// clause compiles a clause.
func (f *Fold) clause(
	ms messages, s *definition.ProjectionSource, from *definition.Clause, name string,
) (*clause, error) {
	c := &clause{
		name: s.Entity.Name + " " + name, typ: from.Type, action: from.Action, all: from.All,
		scope: scope{message: from.Message, row: newPlan(f.rowType)},
	}
	if from.Message != nil {
		c.scope.event = newPlan(from.Message)
	} else if from != s.Deleted {
		c.scope.typ = from.Type
	}
	var err error
	if from.Gone != nil {
		if c.gone, err = c.scope.program(from.Gone); err != nil {
			return nil, err
		}
	}
	if from.ForEach != nil {
		c.forEach = &forEach{
			maxItems: from.ForEach.MaxItems,
			isWhole:  from == s.Snapshot && from.Action == definition.SetRow && len(f.projection.Sources) == 1,
		}
		if c.forEach.in, err = c.scope.program(from.ForEach.In); err != nil {
			return nil, err
		}
		c.scope.item = from.ForEach.As
	}
	if err := f.setters(ms, c, s, from); err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	if c.scope.event != nil {
		c.scope.event.finish()
	}
	c.scope.row.finish()
	return c, nil
}

// setters compiles what a clause sets.
func (f *Fold) setters(ms messages, c *clause, s *definition.ProjectionSource, from *definition.Clause) error {
	set := map[protoreflect.FieldNumber]bool{}
	add := func(v *definition.Value) error {
		made, err := c.scope.setter(ms, v)
		if err != nil {
			return fmt.Errorf("field %s: %w", v.Field.Name(), err)
		}
		set[v.Field.Number()] = true
		c.hasOneofs = c.hasOneofs || made.to.oneof >= 0
		c.sets = append(c.sets, made)
		return nil
	}
	for _, v := range from.Fields {
		if v.Field == f.projection.Key[0] {
			continue
		}
		if err := add(v); err != nil {
			return err
		}
		if slices.Contains(f.projection.Key, v.Field) && !c.all {
			c.keys = append(c.keys, c.sets[len(c.sets)-1])
		}
	}
	if from == s.Snapshot && from.Action != definition.DeleteRow {
		for _, fd := range others(f.projection, s, from) { // a snapshot is all that there is
			if err := add(&definition.Value{Field: fd, Clear: true}); err != nil {
				return err
			}
		}
	}
	if from.Action == definition.SetRow && !c.all {
		id := ms.field(f.projection.Key[0])
		c.sets = append(c.sets, &setter{to: id, class: stringClass, op: opEntityID, name: id.name})
	}
	if c.hasOneofs {
		c.addSiblings(ms, f.rowType, set)
	}
	slices.SortFunc(c.sets, func(a, b *setter) int { return cmp.Compare(a.to.number, b.to.number) })
	slices.SortFunc(c.keys, func(a, b *setter) int { return cmp.Compare(a.to.number, b.to.number) })
	return nil
}

// addSiblings adds what clears the other members of a oneof when one of them is set.
func (c *clause) addSiblings(ms messages, row protoreflect.MessageDescriptor, set map[protoreflect.FieldNumber]bool) {
	for _, s := range slices.Clone(c.sets) {
		if s.to.oneof < 0 {
			continue
		}
		members := row.Oneofs().Get(s.to.oneof).Fields()
		for i := range members.Len() {
			if fd := members.Get(i); !set[fd.Number()] {
				set[fd.Number()] = true
				c.sets = append(c.sets, &setter{to: ms.field(fd), op: opKeep, name: string(fd.Name())})
			}
		}
	}
}

// others returns the fields that other clauses of a source set.
func others(
	p *definition.Projection, s *definition.ProjectionSource, c *definition.Clause,
) []protoreflect.FieldDescriptor {
	var list []protoreflect.FieldDescriptor
	for _, other := range s.Events {
		for _, v := range other.Fields {
			isOwn := slices.ContainsFunc(c.Fields, func(o *definition.Value) bool { return o.Field == v.Field })
			if !isOwn && !slices.Contains(p.Key, v.Field) && !slices.Contains(list, v.Field) {
				list = append(list, v.Field)
			}
		}
	}
	return list
}
