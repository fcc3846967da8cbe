package query

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/projections/definition"
	"github.com/millrace-io/millrace/projections/mapping"
)

// plan is what a call reads.
type plan struct {
	// index is its name, number its number; table is ByKey or ByIndex.
	index   string
	table   Table
	number  uint16
	reverse bool
	span    span
	// entity is the only one that can have rows; onePartition is set then.
	entity       string
	onePartition bool
	// bounds and residual are for explain.
	bounds   string
	residual []string
	row      protoreflect.MessageDescriptor
}

// tableID names what tuples are of, in a page token.
func (p *plan) tableID() uint32 {
	if p.table == ByKey {
		return 0
	}
	return uint32(p.number) + 1
}

// planList finds the index and the span for a list or a count.
func (c *call) planList() error {
	m, r := c.method, c.request
	of, err := m.order(r.orderBy)
	if err != nil {
		return err
	}
	filter, err := filterOf(m.p.definition, m.query, r.filter)
	if err != nil {
		return invalid("%s: %w", m.name, err)
	}
	pl := of
	if len(filter) > 0 {
		if pl, err = m.serve(of, filter, r.filter); err != nil {
			return err
		}
	}
	known, err := c.comparisons(filter)
	if err != nil {
		return err
	}
	return c.bind(pl, filter, known)
}

// order finds the plan for an order_by: one of the query's orders, the first for none.
func (m *method) order(text string) (*definition.Plan, error) {
	plans := m.query.Plans
	if strings.TrimSpace(text) == "" {
		return plans[0], nil
	}
	wanted := normalOrder(text)
	var allowed []string
	for _, pl := range plans {
		var names []string
		for _, o := range pl.Order {
			names = append(names, o.String())
		}
		if own := strings.Join(names, ", "); own == wanted {
			return pl, nil
		} else if own != "" {
			allowed = append(allowed, fmt.Sprintf("%q", own))
		}
	}
	if allowed == nil {
		return nil, invalid("%s: order_by %q is not served: the query has one order, leave order_by out", m.name, clip(text))
	}
	return nil, invalid("%s: order_by %q is not served: use %s", m.name, wanted, strings.Join(allowed, " or "))
}

// normalOrder writes an order_by as a definition has it.
func normalOrder(text string) string {
	parts := strings.Split(text, ",")
	for i, part := range parts {
		words := strings.Fields(part)
		if len(words) == 2 && words[1] == "asc" {
			words = words[:1]
		}
		parts[i] = strings.Join(words, " ")
	}
	return strings.Join(parts, ", ")
}

// serve finds the plan with a filter.
func (m *method) serve(of *definition.Plan, filter []conjunct, text string) (*definition.Plan, error) {
	var more []definition.Condition
	rest := false
	for _, part := range filter {
		if part.condition != nil {
			more = append(more, *part.condition)
		} else {
			rest = true
		}
	}
	pl, index := m.p.definition.Serve(m.query, of, more, rest)
	if pl == nil {
		fix := "compare a field of an index with ="
		if index != "" {
			fix = "add the index " + index + " to projection " + m.p.definition.Head().Name
		}
		return nil, refused(codes.FailedPrecondition,
			"%s: the filter %q would examine all rows one by one: %s, or set allowScan: true for the query %s",
			m.name, clipText(text), fix, m.query.Name)
	}
	return pl, nil
}

func clipText(text string) string {
	const most = 100
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}

// comparisons gives the conditions of where and filter the values of this request, by their texts.
func (c *call) comparisons(filter []conjunct) (map[string]comparison, error) {
	all := map[string]comparison{}
	for _, part := range filter {
		if part.condition == nil {
			continue
		}
		one := comparison{field: part.condition.Field, fitted: fitted{operator: part.condition.Operator, value: part.value}}
		if kind := kindOf(one.field); kind == mapping.Float {
			one.fitted = fit(kind, one.operator, part.value.Float())
		}
		one.holds = func(row protoreflect.Message) (bool, error) { return part.holds(row), nil }
		all[part.condition.String()] = one
	}
	for _, part := range c.method.p.queries[c.method.query].conjuncts {
		if part.Condition == nil {
			continue
		}
		operand, err := part.operand.Value(c.request.params)
		if err != nil {
			return nil, invalid("%s: %w", c.method.name, err)
		}
		kind := kindOf(part.Condition.Field)
		all[part.Text] = comparison{
			field: part.Condition.Field, fitted: fit(kind, part.Condition.Operator, operand), holds: c.conjunct(part),
		}
	}
	return all, nil
}

// conjunct evaluates a part of the where.
func (c *call) conjunct(part compiledConjunct) func(protoreflect.Message) (bool, error) {
	return func(row protoreflect.Message) (bool, error) { return part.holds.Holds(row, c.request.params) }
}

// bind makes the plan of this call: the span, and what is evaluated on each row.
func (c *call) bind(pl *definition.Plan, filter []conjunct, known map[string]comparison) error {
	p := c.method.p
	c.plan = plan{index: pl.IndexName(), reverse: pl.Reverse, row: p.definition.Row}
	tuples := p.key
	if pl.Index != nil {
		at := slices.Index(p.definition.Indexes, pl.Index)
		c.plan.table, c.plan.number = ByIndex, p.view.Indexes[at]
		var err error
		if tuples, err = tableOf(p.definition, pl.Index); err != nil {
			return err
		}
	}
	var equal, bounds []comparison
	var texts []string
	for _, condition := range pl.Prefix {
		equal, texts = append(equal, known[condition.String()]), append(texts, condition.String())
	}
	for _, condition := range pl.Range {
		bounds, texts = append(bounds, known[condition.String()]), append(texts, condition.String())
	}
	c.plan.bounds = strings.Join(texts, " && ")
	c.plan.span = tuples.spanOf(equal, bounds)
	for _, part := range p.queries[c.method.query].conjuncts {
		if slices.Contains(texts, part.Text) {
			continue // the bounds decide
		}
		// The condition of a partial index may be true for a field that is absent.
		if slices.Contains(pl.Residual, part.Text) || part.holds.IsGuarded() {
			c.check(part.Text, c.conjunct(part))
		}
	}
	for _, part := range filter {
		if part.condition == nil || !slices.Contains(texts, part.condition.String()) {
			c.check(part.text, func(row protoreflect.Message) (bool, error) { return part.holds(row), nil })
		}
	}
	for _, one := range known {
		if one.operator == "==" && one.never {
			c.plan.span = span{none: true}
		}
	}
	if pl.OnePartition {
		c.onePartition(known)
	}
	return nil
}

func (c *call) check(text string, holds func(protoreflect.Message) (bool, error)) {
	c.plan.residual = append(c.plan.residual, text)
	c.plan.span.checks = append(c.plan.span.checks, holds)
}

// onePartition finds the entity id that an equality fixes.
func (c *call) onePartition(known map[string]comparison) {
	for _, one := range known {
		if one.field == c.method.p.definition.Key[0] && one.operator == "==" && !one.never {
			c.plan.entity, c.plan.onePartition = string(one.value.Text()), true
			return
		}
	}
}

// wanted evaluates what the bounds do not decide.
func (p *plan) wanted(encoded []byte) (bool, error) {
	if len(p.span.checks) == 0 {
		return true, nil
	}
	row := dynamicpb.NewMessage(p.row)
	if err := unmarshalRow(encoded, row); err != nil {
		return false, err
	}
	for _, check := range p.span.checks {
		if ok, err := check(row); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

// partitions are those that can have rows.
func (c *call) partitions() []int32 {
	if c.plan.onePartition {
		return []int32{c.service.o.Executor.PartitionOf(c.plan.entity)}
	}
	all := make([]int32, c.service.o.Executor.Partitions())
	for i := range all {
		all[i] = int32(i)
	}
	return all
}
