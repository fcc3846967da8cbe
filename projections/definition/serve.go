package definition

import "slices"

// Conjunct is a part of a query's where that each row must fulfil.
type Conjunct struct {
	// Text is its canonical form, as it stands in plans.
	Text string
	// Condition is set if an index can serve it.
	Condition *Condition
}

// Conjuncts returns the parts of a query's where.
func (p *Projection) Conjuncts(q *Query) []Conjunct {
	var all []Conjunct
	for _, x := range conjuncts(q.Where) {
		if c, ok := p.conditionOf(q.Where, x); ok {
			all = append(all, Conjunct{Text: c.String(), Condition: &c})
		} else {
			all = append(all, Conjunct{Text: exprText(q.Where, x)})
		}
	}
	return all
}

// Serve returns the plan of a query in the order of one of its plans, for rows that must fulfil
// more conditions: those of a caller's filter. rest: the filter has parts that no index can serve.
// The plan is nil if rows would be examined one by one, which the query does not allow; index is
// the one that would help, empty if none would.
func (p *Projection) Serve(q *Query, of *Plan, more []Condition, rest bool) (pl *Plan, index string) {
	t := p.analyse(q.Where)
	for _, c := range more {
		text := c.String()
		t.all = append(t.all, text)
		switch {
		case c.Operator != "==":
			t.bounds = append(t.bounds, c)
		case slices.ContainsFunc(t.equal, func(o Condition) bool { return o.Field == c.Field }):
			t.residual = append(t.residual, text)
		default:
			t.equal = append(t.equal, c)
		}
	}
	pl = p.plan(t, of.Order, q.only, q.byName)
	if pl == nil {
		pl = of
		rest = rest || len(more) > 0
	}
	if len(pl.Prefix) > 0 || q.AllowScan || len(pl.Residual) == 0 && !rest {
		return pl, ""
	}
	if len(t.equal)+len(t.bounds) == 0 {
		return nil, ""
	}
	return nil, p.wanted(t, of.Order)
}
