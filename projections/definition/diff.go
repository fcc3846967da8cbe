package definition

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Differences says in words what an applied version of the projection has otherwise, and what that
// costs. It is empty when both mean the same.
func (p *Projection) Differences(applied Definition) []string {
	before, ok := applied.(*Projection)
	if !ok {
		return []string{"the applied definition is of another kind"}
	}
	var d difference
	d.fold(before, p)
	compare(&d, "index", before.indexTexts(), p.indexTexts(), "it is built from the rows, and the version waits for that")
	compare(&d, "aggregate", before.aggregateTexts(), p.aggregateTexts(), "it is built from the rows, and the version waits for that")
	compare(&d, "lookup", before.lookupTexts(), p.lookupTexts(), "")
	compare(&d, "query", before.queryTexts(), p.queryTexts(), "")
	d.value("consistency", before.consistencyText(), p.consistencyText())
	d.value("rollout", before.rolloutText(), p.rolloutText())
	if before.api != nil && p.api != nil {
		for _, change := range CompareAPI(before.api, p.api) {
			if change.Breaking {
				d.note("API: %s: callers of version %d could not go on", change.Text, before.head.Version)
			} else {
				d.note("API: %s", change.Text)
			}
		}
	}
	return d.lines
}

type difference struct{ lines []string }

func (d *difference) note(format string, args ...any) {
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

func (d *difference) value(what, before, after string) {
	if before != after {
		d.note("%s was %s and is %s", what, before, after)
	}
}

// fold says why the rows are others.
func (d *difference) fold(before, after *Projection) {
	if before.FoldHash() == after.FoldHash() {
		return
	}
	d.note("the rows are built again, beside those of version %d, because:", before.head.Version)
	d.value("- the row", string(before.Row.FullName()), string(after.Row.FullName()))
	d.value("- the key", namesOf(before.Key), namesOf(after.Key))
	d.value("- visible", orNone(before.Visible), orNone(after.Visible))
	d.value("- onError", before.OnError, after.OnError)
	d.value("- strict", boolWord(before.Strict), boolWord(after.Strict))
	d.value("- the package of names", before.pkg, after.pkg)
	compare(d, "- source", before.sourceTexts(), after.sourceTexts(), "")
	was, is := before.messageTexts(), after.messageTexts()
	compare(d, "- field", was, is, "")
}

func orNone(e *Expression) string {
	if e == nil {
		return "nothing"
	}
	return e.Canonical
}

func namesOf(fields []protoreflect.FieldDescriptor) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = string(f.Name())
	}
	return strings.Join(names, ", ")
}

// compare notes what is new, gone and changed of things with names.
func compare(d *difference, what string, before, after map[string]string, cost string) {
	if cost != "" {
		cost = ": " + cost
	}
	for _, name := range sortedNames(before) {
		now, there := after[name]
		switch {
		case !there:
			d.note("%s %s is gone", what, name)
		case now != before[name]:
			d.note("%s %s was %s and is %s%s", what, name, before[name], now, cost)
		}
	}
	for _, name := range sortedNames(after) {
		if _, there := before[name]; !there {
			d.note("%s %s is new%s", what, name, cost)
		}
	}
}

func (p *Projection) sourceTexts() map[string]string {
	texts := map[string]string{}
	for _, src := range p.Sources {
		name := src.Entity.Name
		if src.Handler != "" {
			texts[name] = "handler " + src.Handler
			continue
		}
		texts[name] = "clauses"
		for _, c := range src.Events {
			texts[name+" "+c.Type] = strings.TrimPrefix(c.String(), c.Type+" ")
		}
		for _, ignored := range src.Ignored {
			texts[name+" "+ignored] = "ignored"
		}
		for _, c := range []struct {
			name   string
			clause *Clause
		}{{"snapshot", src.Snapshot}, {"state", src.State}, {"deleted", src.Deleted}} {
			if c.clause != nil {
				texts[name+" "+c.name] = c.clause.String()
			}
		}
	}
	return texts
}

func (p *Projection) messageTexts() map[string]string {
	texts := map[string]string{}
	for _, line := range p.foldLines() {
		if rest, ok := strings.CutPrefix(line, "field "); ok {
			name, form, _ := strings.Cut(rest, " ")
			texts[name] = form
		} else if rest, ok := strings.CutPrefix(line, "enum "); ok {
			name, form, _ := strings.Cut(rest, " ")
			texts[name] = form
		}
	}
	return texts
}

func (p *Projection) indexTexts() map[string]string {
	texts := map[string]string{}
	for _, x := range p.Indexes {
		texts[x.Name] = x.String()
	}
	return texts
}

// String is the canonical form of an index.
func (x *Index) String() string {
	text := "(" + orderText(x.Fields) + ")"
	if x.IncludeAll {
		text += " with the rows"
	}
	if x.Where != nil {
		text += " where " + x.Where.Canonical
	}
	return text
}

func (p *Projection) aggregateTexts() map[string]string {
	texts := map[string]string{}
	for _, a := range p.Aggregates {
		texts[a.Name] = a.String()
	}
	return texts
}

// String is the canonical form of an aggregate.
func (a *Aggregate) String() string {
	parts := []string{"by " + namesOf(a.GroupBy)}
	if a.Count != "" {
		parts = append(parts, "count "+a.Count)
	}
	for _, s := range a.Sums {
		parts = append(parts, "sum "+s.Name+" of "+string(s.Field.Name()))
	}
	return strings.Join(parts, " ")
}

func (p *Projection) lookupTexts() map[string]string {
	texts := map[string]string{}
	for _, l := range p.Lookups {
		for _, f := range l.Fields {
			texts[string(f.Field.Name())] = f.From + " of " + l.Projection + " by " + string(l.By.Name())
		}
	}
	return texts
}

func (p *Projection) queryTexts() map[string]string {
	texts := map[string]string{}
	for _, q := range p.Queries {
		texts[q.Name] = q.String()
	}
	return texts
}

// String is the canonical form of a query, without its plan.
func (q *Query) String() string {
	if q.Aggregate != nil {
		return "the aggregate " + q.Aggregate.Name + q.access()
	}
	text := "all rows"
	if q.Where != nil {
		text = "rows where " + q.Where.Canonical
	}
	if len(q.Filterable) > 0 {
		text += ", filter by " + namesOf(q.Filterable)
	}
	var orders []string
	for _, pl := range q.Plans {
		orders = append(orders, pl.IndexName()+" ("+orderText(pl.Order)+")")
	}
	text += ", from " + strings.Join(slices.Compact(orders), ", ")
	text += fmt.Sprintf(", pages of %d to %d", q.DefaultPage, q.MaxPage)
	if q.Watch > 0 {
		text += ", resume " + q.Watch.String()
	}
	return text + q.access()
}

func (q *Query) access() string {
	if q.Allow == nil {
		return ""
	}
	return ", allowed if " + q.Allow.Canonical
}

func (p *Projection) consistencyText() string {
	c := p.Consistency
	return fmt.Sprintf("%s of %s, stale after %s", c.Default, strings.Join(c.Allow, " "), c.MaxStaleness)
}

func (p *Projection) rolloutText() string {
	r := p.Rollout
	return fmt.Sprintf("build %s, promote %s, sample %g, maxDiff %d, keep %s", r.Build, r.Promote, r.Sample, r.MaxDiff,
		r.KeepPrevious)
}
