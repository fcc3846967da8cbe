package definition

import (
	"slices"
	"testing"
)

// TestPlans has a row for each way in which an index serves a query, or does not.
func TestPlans(t *testing.T) {
	const indexes = `indexes:
- {name: by_customer, fields: [customer_id, placed_at desc]}
- {name: by_status, fields: [status, total_cents]}
- {name: with_rows, fields: [status, total_cents], include: all}
- {name: open, fields: [placed_at], where: row.status == Status.OPEN && row.express}
- {name: by_express, fields: [express, small desc, items]}
queries:
  ListOf: `
	for name, c := range map[string]struct {
		query string
		want  []string // plans; the text of the rule when it is refused
	}{
		"all rows lie by key":   {"{}", []string{"key"}},
		"one entity":            {"{params: {id: string}, where: row.order_id == params.id}", []string{"key; prefix row.order_id == params.id; one partition"}},
		"the other way round":   {"{params: {id: string}, where: params.id == row.order_id}", []string{"key; prefix row.order_id == params.id; one partition"}},
		"equality":              {"{where: row.customer_id == 'x'}", []string{`by_customer; prefix row.customer_id == "x"`}},
		"order and its reverse": {"{where: row.customer_id == 'x', orderable: [[placed_at desc], [placed_at]]}", []string{`by_customer; prefix row.customer_id == "x"; order placed_at desc`, `by_customer backwards; prefix row.customer_id == "x"; order placed_at`}},
		"range":                 {"{where: row.customer_id == 'x' && row.placed_at >= timestamp('2026-01-01T00:00:00Z')}", []string{`by_customer; prefix row.customer_id == "x"; range row.placed_at >= timestamp("2026-01-01T00:00:00Z")`}},
		"range of both sides":   {"{params: {a: int64, b: int64}, where: row.status == Status.OPEN && row.total_cents > params.a && params.b >= row.total_cents}", []string{"with_rows; prefix row.status == shop.v1.Status.OPEN; range row.total_cents > params.a && row.total_cents <= params.b"}},
		"residual":              {"{where: row.customer_id == 'x' && row.note != 'y'}", []string{`by_customer; prefix row.customer_id == "x"; residual row.note != "y"`}},
		"equality as residual":  {"{where: row.customer_id == 'x' && row.small == 1}", []string{`by_customer; prefix row.customer_id == "x"; residual row.small == 1`}},
		"the rows are there":    {"{where: row.status == Status.SHIPPED}", []string{"with_rows; prefix row.status == shop.v1.Status.SHIPPED"}},
		"by name":               {"{where: row.status == Status.SHIPPED, index: by_status}", []string{"by_status; prefix row.status == shop.v1.Status.SHIPPED"}},
		"partial index":         {"{where: row.express && Status.OPEN == row.status, orderable: [[placed_at desc]]}", []string{"open backwards; order placed_at desc"}},
		"partial index with a residual": {
			"{where: row.express && row.status == Status.OPEN && row.small > 1, orderable: [[placed_at]], allowScan: true}",
			[]string{"open; residual row.small > 1; order placed_at"},
		},
		"partial index lacks rows": {"{where: row.status == Status.OPEN, orderable: [[placed_at]]}", []string{"P408"}},
		"bool":                     {"{where: '!row.express', orderable: [[small desc, items], [small, items desc]]}", []string{"by_express; prefix row.express == false; order small desc, items", "by_express backwards; prefix row.express == false; order small, items desc"}},
		"mixed directions":         {"{where: row.express, orderable: [[small, items]]}", []string{"P408"}},
		"order by a fixed field":   {"{where: row.express, orderable: [[express, small desc]]}", []string{"by_express; prefix row.express == true; order express, small desc"}},
		"order by a gap":           {"{where: row.express, orderable: [[items]]}", []string{"P408"}},
		"order goes on with the key": {
			"{where: row.status == Status.OPEN, orderable: [[total_cents, order_id]]}",
			[]string{"with_rows; prefix row.status == shop.v1.Status.OPEN; order total_cents, order_id"},
		},
		"range alone":         {"{where: row.placed_at > timestamp('2026-01-01T00:00:00Z')}", []string{"P409"}},
		"range of first":      {"{where: row.order_id > 'x'}", []string{`key; range row.order_id > "x"`}},
		"or":                  {"{where: row.express || row.small == 1}", []string{"P409"}},
		"or, allowed":         {"{where: row.express || row.small == 1, allowScan: true}", []string{"key; residual row.express || row.small == 1"}},
		"field against field": {"{where: row.small == row.small}", []string{"P409"}},
		"same field twice":    {"{where: row.customer_id == 'x' && row.customer_id == 'y'}", []string{`by_customer; prefix row.customer_id == "x"; residual row.customer_id == "y"`}},
		"index has no prefix": {"{where: row.customer_id == 'x', index: by_status}", []string{"P409"}},
		"the key has no order": {
			"{where: row.customer_id == 'x', index: key, orderable: [[placed_at]]}", []string{"P407"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			set := Check([]Source{versionOf("1", indexes+c.query)}, Options{Schema: shopSchema(t)})
			var got []string
			for _, p := range problemsOf(set.Report) {
				got = append(got, string(p.Rule))
			}
			if len(got) == 0 {
				for _, pl := range set.Definitions[0].(*Projection).Queries[0].Plans {
					got = append(got, pl.String())
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("plans\n%q, want\n%q", got, c.want)
			}
		})
	}
}

// TestCountFromAggregate wants the aggregate whose groups are the equalities, and no other.
func TestCountFromAggregate(t *testing.T) {
	const aggregates = `indexes: [{name: i, fields: [status, express]}]
aggregates:
- {name: sums, groupBy: [status], sum: {cents: total_cents}}
- {name: both, groupBy: [express, status], count: orders}
- {name: one, groupBy: [status], count: orders}
queries:
  ListOf: {count: true, where: `
	for where, want := range map[string]string{
		"row.status == Status.OPEN":                                  "one",
		"row.status == Status.OPEN && row.express":                   "both",
		"row.status == Status.OPEN && row.small > 1":                 "",
		"row.status == Status.OPEN && row.express && row.small == 1": "",
	} {
		all := projections(t, Options{}, versionOf("1", aggregates+where+"}"))
		got := ""
		if a := all["orders"].Queries[0].CountFrom; a != nil {
			got = a.Name
		}
		if got != want {
			t.Errorf("%s is counted from %q, want %q", where, got, want)
		}
	}
}
