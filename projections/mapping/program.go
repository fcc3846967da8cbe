package mapping

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/projections/definition"
)

// Names of variables of expressions.
const (
	eventName = "event"
	stateName = "state"
	rowName   = "row"
)

// sortedFunction puts a map whose type is known only when it is there into the order of its keys.
const sortedFunction = "@sorted"

// scope is what the expressions of one place know, and what is read for them out of the event and
// the row.
type scope struct {
	// message is that of event or state; nil for a dynamic one, or none.
	message protoreflect.MessageDescriptor
	// typ is the type of a dynamic event, "" if there is none.
	typ   string
	event *plan
	row   *plan
	item  string
	// reads are the variables that stand for paths in the expressions: @0, @1.
	reads []read
	// isCondition: a comparison with a field that has presence and is not set is false.
	isCondition bool
}

// read is a path of an expression whose value is taken out of the wire form.
type read struct {
	at    place
	ofRow bool
	// isTest asks whether the field is set: has(). isGuard asks only for what has presence.
	isTest, isGuard bool
}

// program is a compiled expression.
type program struct {
	run cel.Program
	// test is the same without CEL, nil if there is no such form. It has a value for each row.
	test *test
}

// operandPath returns the variable and the names of a path of selects: event.customer.name.
func operandPath(e ast.Expr) (root string, names []string) {
	for e.Kind() == ast.SelectKind {
		s := e.AsSelect()
		names = append(names, s.FieldName())
		e = s.Operand()
	}
	if e.Kind() != ast.IdentKind {
		return "", nil
	}
	slices.Reverse(names)
	return e.AsIdent(), names
}

// planFor returns the plan that reads a variable, nil when it is not one with a message.
func (s *scope) planFor(root string) *plan {
	switch root {
	case eventName, stateName:
		return s.event
	case rowName:
		return s.row
	default:
		return nil
	}
}

// program compiles an expression. Paths to single values become variables of their own, which are
// read from the wire form.
func (s *scope) program(e *definition.Expression) (*program, error) {
	tree := ast.Copy(e.AST.NativeRep())
	var selects, ranges, comparisons []ast.Expr
	isHidden, last := false, int64(0)
	ast.PreOrderVisit(tree.Expr(), ast.NewExprVisitor(func(x ast.Expr) {
		last = max(last, x.ID())
		switch x.Kind() {
		case ast.SelectKind:
			selects = append(selects, x)
		case ast.ComprehensionKind:
			c := x.AsComprehension()
			for _, name := range []string{c.IterVar(), c.IterVar2(), c.AccuVar()} {
				isHidden = isHidden || s.planFor(name) != nil
			}
			if tree.GetType(c.IterRange().ID()).Kind() != types.ListKind {
				ranges = append(ranges, c.IterRange())
			}
		case ast.CallKind:
			if _, isComparison := comparisonOf(x.AsCall().FunctionName()); isComparison {
				comparisons = append(comparisons, x)
			}
		default:
		}
	}))
	factory := ast.NewExprFactory()
	for _, x := range selects {
		if x.Kind() == ast.SelectKind && !isHidden { // not replaced with a longer path
			s.replace(tree, factory, x)
		}
	}
	if s.isCondition {
		for _, x := range slices.Backward(comparisons) {
			last = s.guard(tree, factory, x, last)
		}
	}
	env := e.Env
	for _, x := range slices.Backward(ranges) { // inner ones first: outer ones are copied
		var err error
		if env, err = e.Env.Extend(cel.Function(sortedFunction, cel.Overload(sortedFunction, []*cel.Type{cel.DynType},
			cel.DynType, cel.UnaryBinding(sorted)))); err != nil {
			return nil, fmt.Errorf("function %s: %w", sortedFunction, err)
		}
		last++
		inner := factory.CopyExpr(x)
		renumber(tree, inner, x.ID(), last)
		x.SetKindCase(factory.NewCall(x.ID(), sortedFunction, inner))
		tree.SetReference(x.ID(), ast.NewFunctionReference(sortedFunction))
	}
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	if !e.Bounded {
		options = append(options, cel.CostTracking(costs{}), cel.CostLimit(definition.MaxCost))
	}
	run, err := env.PlanProgram(tree, options...)
	if err != nil {
		return nil, fmt.Errorf("expression %s: %w", e.Text, err)
	}
	p := &program{run: run}
	if s.isCondition {
		p.test = s.test(tree, tree.Expr())
	}
	return p, nil
}

// renumber gives the copy of an expression a number of its own, with what is known of the original.
func renumber(tree *ast.AST, x ast.Expr, from, to int64) {
	x.RenumberIDs(func(id int64) int64 {
		if id != from {
			return id
		}
		return to
	})
	if r := tree.ReferenceMap()[from]; r != nil {
		tree.SetReference(to, r)
	}
	tree.SetType(to, tree.GetType(from))
}

// replace turns a path into a variable, if its value can be read from the wire form.
func (s *scope) replace(tree *ast.AST, factory ast.ExprFactory, x ast.Expr) {
	root, names := operandPath(x)
	from := s.planFor(root)
	if from == nil {
		return
	}
	r := read{ofRow: root == rowName, isTest: x.AsSelect().IsTestOnly()}
	for inner := x.AsSelect().Operand(); inner.Kind() == ast.SelectKind; inner = inner.AsSelect().Operand() {
		if inner.AsSelect().IsTestOnly() {
			return
		}
	}
	var ok bool
	if r.at, ok = from.path(names); !ok || hasOtherDefault(r.at.fd) {
		return
	}
	name := "@" + strconv.Itoa(len(s.reads))
	s.reads = append(s.reads, r)
	x.SetKindCase(factory.NewIdent(x.ID(), name))
	tree.SetReference(x.ID(), ast.NewIdentReference(name, nil))
}

// hasOtherDefault says whether a field that is not set has another value than zero: in proto2.
func hasOtherDefault(fd protoreflect.FieldDescriptor) bool {
	return fd.HasDefault() || fd.Enum() != nil && fd.Default().Enum() != 0
}

// costs are what functions of the library cost when they run.
type costs struct{}

// CallCost returns the cost of a call, nil for functions that are not ours.
func (costs) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	factor := uint64(1)
	switch function {
	case "sum", "avg", "min", "max":
	case "sortedKeys", sortedFunction:
		factor = 8
	default:
		return nil
	}
	cost := uint64(1)
	if sizer, ok := args[0].(traits.Sizer); ok {
		if n, ok := sizer.Size().(types.Int); ok {
			cost += factor * uint64(n) //nolint:gosec // not negative
		}
	}
	return &cost
}

// sorted returns a map that is iterated by its sorted keys, and other values as they are.
func sorted(v ref.Val) ref.Val {
	if m, ok := v.(traits.Mapper); ok && !mutation.On(mutation.MapOrder) {
		return sortedMap{m}
	}
	return v
}

type sortedMap struct{ traits.Mapper }

// Iterator iterates the sorted keys.
func (m sortedMap) Iterator() traits.Iterator {
	return types.NewRefValList(types.DefaultTypeAdapter, sortedKeys(m.Mapper)).Iterator()
}

// sortedKeys returns the keys of a map in order; those of several types by the names of the types.
func sortedKeys(m traits.Mapper) []ref.Val {
	var keys []ref.Val
	for it := m.Iterator(); it.HasNext() == types.True; {
		keys = append(keys, it.Next())
	}
	slices.SortFunc(keys, func(a, b ref.Val) int {
		if c := cmp.Compare(a.Type().TypeName(), b.Type().TypeName()); c != 0 {
			return c
		}
		if comparer, ok := a.(traits.Comparer); ok {
			if order, ok := comparer.Compare(b).(types.Int); ok {
				return int(order)
			}
		}
		return 0
	})
	return keys
}

// activation is a Folder as the variables of expressions.
type activation Folder

// Parent returns none.
func (*activation) Parent() cel.Activation { return nil }

// ResolveName returns the value of a variable.
func (a *activation) ResolveName(name string) (any, bool) {
	d := (*Folder)(a)
	if name[0] == '@' {
		n, err := strconv.Atoi(name[1:])
		if err != nil || n >= len(d.scope.reads) {
			return nil, false
		}
		return d.read(&d.scope.reads[n]), true
	}
	switch name {
	case eventName, stateName:
		return d.eventValue(), true
	case rowName:
		return d.rowValue(), true
	case "entity.id":
		return types.String(d.record.Entity), true
	case "entity.type":
		return types.String(d.source.entity), true
	case "meta.time":
		return types.Timestamp{Time: time.Unix(d.record.Meta.Seconds, int64(d.record.Meta.Nanos)).UTC()}, true
	case "meta.sequence":
		return types.Int(d.record.Meta.Sequence), true
	case "meta.principal":
		return types.String(d.record.Meta.Principal), true
	case "meta.command_id":
		return types.String(d.record.Meta.CommandID), true
	case "meta.correlation_id":
		return types.String(d.record.Meta.CorrelationID), true
	}
	if name == d.scope.item && name != "" {
		return d.item, true
	}
	return nil, false
}

// read returns the value of a path. Errors are values in CEL.
func (d *Folder) read(r *read) ref.Val {
	cells := d.eventCells
	switch {
	case d.scope.isCondition:
		cells = d.seenCells
	case r.ofRow:
		if err := d.scanRow(); err != nil {
			return types.WrapErr(err)
		}
		cells = d.rowCells
	}
	v, isThere := r.at.value(cells)
	switch {
	case r.isGuard:
		return types.Bool(isThere)
	case r.isTest:
		return types.Bool(r.at.isSet(v, isThere))
	}
	switch r.at.class {
	case boolClass:
		return types.Bool(v.bits != 0)
	case intClass:
		return types.Int(v.bits) //nolint:gosec // bit by bit
	case uintClass:
		return types.Uint(v.bits)
	case doubleClass:
		return types.Double(OfUint(v.bits).Float())
	case stringClass:
		if !utf8.Valid(v.text) {
			return types.WrapErr(fmt.Errorf("field %s: %w", r.at.fd.Name(), errUTF8))
		}
		return types.String(v.text)
	case bytesClass:
		return types.Bytes(slices.Clone(v.text))
	case timestampClass:
		return types.Timestamp{Time: time.Unix(int64(v.bits), int64(v.nanos)).UTC()} //nolint:gosec // bit by bit
	default:
		seconds, nanos, err := checkDuration(int64(v.bits), v.nanos) //nolint:gosec // bit by bit
		if err != nil {
			return types.WrapErr(err)
		}
		return types.Duration{Duration: time.Duration(seconds)*time.Second + time.Duration(nanos)}
	}
}

// eval runs an expression on what the folder has.
func (d *Folder) eval(p *program) (ref.Val, error) {
	v, _, err := p.run.Eval((*activation)(d))
	if err != nil {
		return nil, fmt.Errorf("%s", strings.TrimSpace(err.Error()))
	}
	return v, nil
}

// evalBool runs a condition.
func (d *Folder) evalBool(p *program) (bool, error) {
	v, err := d.eval(p)
	if err != nil {
		return false, err
	}
	b, ok := v.(types.Bool)
	if !ok {
		return false, fmt.Errorf("the condition is %s and not true or false", v.Type().TypeName())
	}
	return bool(b), nil
}

// eventValue decodes the event, once.
func (d *Folder) eventValue() any {
	if d.eventMessage == nil {
		if d.scope.message == nil {
			d.eventMessage = dynamicEvent(d.scope.typ, d.record.Value)
		} else {
			d.eventMessage = decoded(d.scope.message, d.record.Value)
		}
	}
	return d.eventMessage
}

// rowValue decodes the row, once.
func (d *Folder) rowValue() any {
	if d.rowMessage == nil {
		d.rowMessage = decoded(d.fold.rowType, d.row)
	}
	return d.rowMessage
}

// decoded returns a message, or an error as a value of CEL.
func decoded(md protoreflect.MessageDescriptor, b []byte) any {
	m := dynamicpb.NewMessage(md)
	if err := (proto.UnmarshalOptions{DiscardUnknown: true, AllowPartial: true}).Unmarshal(b, m); err != nil {
		return types.WrapErr(fmt.Errorf("%s cannot be decoded: %w", md.FullName(), err))
	}
	return m
}
