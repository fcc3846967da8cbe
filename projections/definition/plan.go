package definition

import (
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Condition is a conjunct of `where` that an index can serve: a field of the row compared with
// something that does not depend on the row.
type Condition struct {
	Field protoreflect.FieldDescriptor
	// Operator is one of == < <= > >=, with the field on the left.
	Operator string
	// Operand is the other side in canonical form.
	Operand string
}

// String writes it as an expression.
func (c Condition) String() string {
	return "row." + string(c.Field.Name()) + " " + c.Operator + " " + c.Operand
}

// Plan is how one order of a query is served.
type Plan struct {
	// Order is what the caller asks for; empty for the order of the index behind the prefix.
	Order []Order
	// Index serves it; nil is the key, by which the rows themselves lie. Reverse: read backwards.
	Index   *Index
	Reverse bool
	// Prefix are equalities for the first fields of the index, in its order. Range are the bounds of
	// the field behind them, at most one on each side.
	Prefix []Condition
	Range  []Condition
	// Residual are conjuncts in canonical form that are evaluated on each row.
	Residual []string
	// OnePartition: the entity id is fixed, so one partition has all rows.
	OnePartition bool
}

// IndexName is the name of the index, key for the key.
func (pl *Plan) IndexName() string {
	if pl.Index == nil {
		return "key"
	}
	return pl.Index.Name
}

// String says what is read, for explain and for tests.
func (pl *Plan) String() string {
	var b strings.Builder
	b.WriteString(pl.IndexName())
	if pl.Reverse {
		b.WriteString(" backwards")
	}
	write := func(what string, texts []string) {
		if len(texts) > 0 {
			b.WriteString("; " + what + " " + strings.Join(texts, " && "))
		}
	}
	write("prefix", conditionTexts(pl.Prefix))
	write("range", conditionTexts(pl.Range))
	write("residual", pl.Residual)
	if len(pl.Order) > 0 {
		b.WriteString("; order " + orderText(pl.Order))
	}
	if pl.OnePartition {
		b.WriteString("; one partition")
	}
	return b.String()
}

func conditionTexts(conditions []Condition) []string {
	texts := make([]string, len(conditions))
	for i, c := range conditions {
		texts[i] = c.String()
	}
	return texts
}

// terms are the conjuncts of a where.
type terms struct {
	equal    []Condition
	bounds   []Condition
	residual []string
	// all are all of them in canonical form.
	all []string
}

// conjuncts splits an expression at &&.
func conjuncts(e *Expression) []ast.Expr {
	if e == nil {
		return nil
	}
	var list []ast.Expr
	var split func(ast.Expr)
	split = func(x ast.Expr) {
		if x.Kind() == ast.CallKind && x.AsCall().FunctionName() == operators.LogicalAnd {
			for _, arg := range x.AsCall().Args() {
				split(arg)
			}
			return
		}
		list = append(list, x)
	}
	split(e.AST.NativeRep().Expr())
	return list
}

func exprText(e *Expression, x ast.Expr) string {
	text, err := cel.ExprToString(x, e.AST.NativeRep().SourceInfo())
	if err != nil {
		return e.Canonical // a part of what could be written
	}
	return text
}

// analyse finds what an index can serve.
func (p *Projection) analyse(e *Expression) *terms {
	t := &terms{}
	for _, x := range conjuncts(e) {
		text := exprText(e, x)
		c, ok := p.conditionOf(e, x)
		if ok {
			text = c.String()
		}
		t.all = append(t.all, text)
		switch {
		case !ok:
			t.residual = append(t.residual, text)
		case c.Operator == "==" && !slices.ContainsFunc(t.equal, func(o Condition) bool { return o.Field == c.Field }):
			t.equal = append(t.equal, c)
		case c.Operator == "==":
			t.residual = append(t.residual, text)
		default:
			t.bounds = append(t.bounds, c)
		}
	}
	return t
}

// conditionOf reads a comparison of a field of the row.
func (p *Projection) conditionOf(e *Expression, x ast.Expr) (Condition, bool) {
	if x.Kind() == ast.SelectKind { // row.open is row.open == true
		if f := p.selected(x); f != nil && f.Kind() == protoreflect.BoolKind {
			return Condition{Field: f, Operator: "==", Operand: "true"}, true
		}
		return Condition{}, false
	}
	if x.Kind() != ast.CallKind || len(x.AsCall().Args()) < 1 {
		return Condition{}, false
	}
	call := x.AsCall()
	if call.FunctionName() == operators.LogicalNot {
		if f := p.selected(call.Args()[0]); f != nil && f.Kind() == protoreflect.BoolKind {
			return Condition{Field: f, Operator: "==", Operand: "false"}, true
		}
		return Condition{}, false
	}
	operator, mirrored := comparison(call.FunctionName())
	if operator == "" {
		return Condition{}, false
	}
	left, right := call.Args()[0], call.Args()[1]
	f, other := p.selected(left), right
	if f == nil {
		f, other, operator = p.selected(right), left, mirrored
	}
	if f == nil || !isSortable(f) || readsRow(other) {
		return Condition{}, false
	}
	return Condition{Field: f, Operator: operator, Operand: exprText(e, other)}, true
}

// comparison returns an operator, and the same with sides exchanged.
func comparison(function string) (operator, mirrored string) {
	switch function {
	case operators.Equals:
		return "==", "=="
	case operators.Less:
		return "<", ">"
	case operators.LessEquals:
		return "<=", ">="
	case operators.Greater:
		return ">", "<"
	case operators.GreaterEquals:
		return ">=", "<="
	default:
		return "", ""
	}
}

// selected returns the field of `row.field`, nil for another expression.
func (p *Projection) selected(x ast.Expr) protoreflect.FieldDescriptor {
	if x.Kind() != ast.SelectKind || x.AsSelect().IsTestOnly() {
		return nil
	}
	of := x.AsSelect().Operand()
	if of.Kind() != ast.IdentKind || of.AsIdent() != "row" {
		return nil
	}
	return field(p.Row, x.AsSelect().FieldName())
}

func readsRow(x ast.Expr) bool {
	found := false
	ast.PreOrderVisit(x, ast.NewExprVisitor(func(e ast.Expr) {
		found = found || e.Kind() == ast.IdentKind && e.AsIdent() == "row"
	}))
	return found
}

// rowFieldsOf lists the fields of the row that an expression reads, `row` itself as all of them.
func rowFieldsOf(e *Expression) []string {
	var names []string
	ast.PreOrderVisit(e.AST.NativeRep().Expr(), ast.NewExprVisitor(func(x ast.Expr) {
		if x.Kind() != ast.SelectKind {
			return
		}
		if of := x.AsSelect().Operand(); of.Kind() == ast.IdentKind && of.AsIdent() == "row" {
			names = append(names, x.AsSelect().FieldName())
		}
	}))
	slices.Sort(names)
	return slices.Compact(names)
}

// order returns the fields of an index with the key behind them; of nil, the key's.
func (p *Projection) order(x *Index) []Order {
	var orders []Order
	if x != nil {
		orders = slices.Clone(x.Fields)
	}
	for _, f := range p.Key {
		if !slices.ContainsFunc(orders, func(o Order) bool { return o.Field == f }) {
			orders = append(orders, Order{Field: f})
		}
	}
	return orders
}

// plan finds the index for an order, nil when none serves it. Of several, the one is taken that has
// the most equalities in its prefix, then a range, then the rows, then the first.
func (p *Projection) plan(t *terms, order []Order, only *Index, byName bool) *Plan {
	candidates := append([]*Index{nil}, p.Indexes...)
	if byName {
		candidates = []*Index{only}
	}
	var best *Plan
	for _, x := range candidates {
		if pl := p.tryIndex(t, order, x); pl != nil && (best == nil || better(pl, best)) {
			best = pl
		}
	}
	return best
}

func better(a, b *Plan) bool {
	if len(a.Prefix) != len(b.Prefix) {
		return len(a.Prefix) > len(b.Prefix)
	}
	if (len(a.Range) > 0) != (len(b.Range) > 0) {
		return len(a.Range) > 0
	}
	if a.partial() != b.partial() {
		return a.partial()
	}
	return a.Index != nil && a.Index.IncludeAll && b.Index != nil && !b.Index.IncludeAll
}

// partial says whether the index leaves rows out that the query does not want either.
func (pl *Plan) partial() bool { return pl.Index != nil && pl.Index.Where != nil }

// tryIndex makes the plan of an order with one index, nil when it does not serve it.
func (p *Projection) tryIndex(t *terms, order []Order, x *Index) *Plan {
	pl := &Plan{Order: order, Index: x}
	if x != nil {
		for _, term := range x.Terms {
			if !slices.Contains(t.all, term) {
				return nil // it has not all rows of the query
			}
		}
	}
	fields := p.order(x)
	for len(pl.Prefix) < len(fields) {
		i := slices.IndexFunc(t.equal, func(c Condition) bool { return c.Field == fields[len(pl.Prefix)].Field })
		if i < 0 {
			break
		}
		pl.Prefix = append(pl.Prefix, t.equal[i])
	}
	rest := fields[len(pl.Prefix):]
	if !pl.ordered(t, rest) {
		return nil
	}
	pl.residue(t, rest)
	pl.OnePartition = slices.ContainsFunc(t.equal, func(c Condition) bool { return c.Field == p.Key[0] })
	return pl
}

// ordered says whether what stands behind the prefix is the order that is asked for, or its
// reverse.
func (pl *Plan) ordered(t *terms, rest []Order) bool {
	at := 0
	for _, o := range pl.Order {
		fixed := slices.ContainsFunc(t.equal, func(c Condition) bool { return c.Field == o.Field })
		if fixed && (at >= len(rest) || rest[at].Field != o.Field) {
			continue // one value: no order
		}
		if at >= len(rest) || rest[at].Field != o.Field {
			return false
		}
		reverse := rest[at].Desc != o.Desc
		if at > 0 && reverse != pl.Reverse {
			return false
		}
		pl.Reverse = reverse
		at++
	}
	return true
}

// residue divides what the prefix does not cover into a range and what is evaluated on rows.
func (pl *Plan) residue(t *terms, rest []Order) {
	covered := conditionTexts(pl.Prefix)
	if pl.Index != nil {
		covered = append(covered, pl.Index.Terms...)
	}
	for _, c := range t.equal {
		if !slices.Contains(covered, c.String()) {
			pl.Residual = append(pl.Residual, c.String())
		}
	}
	for _, c := range t.bounds {
		lower := c.Operator[0] == '>'
		taken := slices.ContainsFunc(pl.Range, func(o Condition) bool { return (o.Operator[0] == '>') == lower })
		switch {
		case slices.Contains(covered, c.String()):
		case len(rest) > 0 && rest[0].Field == c.Field && !taken:
			pl.Range = append(pl.Range, c)
		default:
			pl.Residual = append(pl.Residual, c.String())
		}
	}
	for _, text := range t.residual {
		if !slices.Contains(covered, text) {
			pl.Residual = append(pl.Residual, text)
		}
	}
}

// wanted returns the index that would serve an order: the equalities, the order, else the range.
func (p *Projection) wanted(t *terms, order []Order) string {
	var fields []Order
	add := func(o Order) {
		if !slices.ContainsFunc(fields, func(x Order) bool { return x.Field == o.Field }) {
			fields = append(fields, o)
		}
	}
	for _, c := range t.equal {
		add(Order{Field: c.Field})
	}
	if len(order) == 0 {
		for _, c := range t.bounds {
			add(Order{Field: c.Field})
			break
		}
	}
	for _, o := range order {
		add(o)
	}
	if len(fields) == 0 {
		return ""
	}
	names := make([]string, len(fields))
	for i, o := range fields {
		names[i] = string(o.Field.Name())
	}
	return "{name: by_" + strings.Join(names, "_") + ", fields: [" + orderText(fields) + "]}"
}
