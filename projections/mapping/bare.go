package mapping

import (
	"fmt"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/millrace-io/millrace/projections/definition"
)

// Bare is the program of a condition of a definition that is evaluated outside of a fold: of the
// `where` of a query, of `visible`, or of a part of one. It is safe for concurrent use.
type Bare struct {
	text    string
	program cel.Program
	// isGuarded: it compares a field of the row that may be absent.
	isGuarded bool
}

// CompileBare compiles a part of an expression, which is in canonical form. A comparison with a
// field of the row that is absent is false.
func CompileBare(e *definition.Expression, text string, row protoreflect.MessageDescriptor) (*Bare, error) {
	parsed, issues := e.Env.Parse(text)
	if issues.Err() != nil {
		return nil, fmt.Errorf("%s: %w", text, issues.Err())
	}
	isGuarded := guard(parsed.NativeRep().Expr(), row)
	tree, issues := e.Env.Check(parsed)
	if issues.Err() != nil {
		return nil, fmt.Errorf("%s: %w", text, issues.Err())
	}
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	if !e.Bounded {
		options = append(options, cel.CostLimit(definition.MaxCost))
	}
	program, err := e.Env.Program(tree, options...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", text, err)
	}
	return &Bare{text: text, program: program, isGuarded: isGuarded}, nil
}

// guard turns comparisons with fields that may be absent into has(row.field) && comparison. It
// returns whether there are any. Comparisons with null ask for absence themselves.
func guard(root ast.Expr, row protoreflect.MessageDescriptor) (found bool) {
	var comparisons []ast.Expr
	last := int64(0)
	ast.PostOrderVisit(root, ast.NewExprVisitor(func(x ast.Expr) {
		last = max(last, x.ID())
		if x.Kind() == ast.CallKind && isComparison(x.AsCall().FunctionName()) {
			comparisons = append(comparisons, x)
		}
	}))
	factory := ast.NewExprFactory()
	next := func() int64 {
		last++
		return last
	}
	for _, x := range comparisons {
		call := x.AsCall()
		if slices.ContainsFunc(call.Args(), func(side ast.Expr) bool {
			return side.Kind() == ast.LiteralKind && side.AsLiteral() == types.NullValue
		}) {
			continue
		}
		guarded := factory.NewCall(next(), call.FunctionName(), call.Args()...)
		isGuarded := false
		for _, side := range call.Args() {
			root, names := operandPath(side)
			if root != rowName || len(names) != 1 || side.AsSelect().IsTestOnly() {
				continue
			}
			if f := row.Fields().ByName(protoreflect.Name(names[0])); f == nil || !f.HasPresence() {
				continue
			}
			is := factory.NewPresenceTest(next(), factory.NewIdent(next(), rowName), names[0])
			guarded, isGuarded = factory.NewCall(next(), operators.LogicalAnd, is, guarded), true
		}
		if isGuarded {
			x.SetKindCase(guarded)
		}
		found = found || isGuarded
	}
	return found
}

func isComparison(function string) bool {
	switch function {
	case operators.Equals, operators.NotEquals, operators.Less, operators.LessEquals, operators.Greater,
		operators.GreaterEquals:
		return true
	default:
		return false
	}
}

// IsGuarded reports whether it compares a field of the row that may be absent.
func (b *Bare) IsGuarded() bool { return b.isGuarded }

// String returns the text.
func (b *Bare) String() string { return b.text }

// Holds evaluates a condition over a row and parameters; either may be nil.
func (b *Bare) Holds(row, params protoreflect.Message) (bool, error) {
	value, err := b.eval(row, params)
	if err != nil {
		return false, err
	}
	holds, ok := value.Value().(bool)
	if !ok {
		return false, fmt.Errorf("%s is a value of type %s, and not true or false", b.text, value.Type().TypeName())
	}
	return holds, nil
}

// Value evaluates an expression over parameters. It is a bool, int64, uint64, float64, string,
// []byte, time.Time or time.Duration; of another type it is nil.
func (b *Bare) Value(params protoreflect.Message) (any, error) {
	value, err := b.eval(nil, params)
	if err != nil {
		return nil, err
	}
	switch value.Type() {
	case types.BoolType, types.IntType, types.UintType, types.DoubleType, types.StringType, types.BytesType,
		types.TimestampType, types.DurationType:
		return value.Value(), nil
	default:
		return nil, nil //nolint:nilnil // a comparison with it is false
	}
}

func (b *Bare) eval(row, params protoreflect.Message) (ref.Val, error) {
	variables := map[string]any{}
	if row != nil {
		variables["row"] = row.Interface()
	}
	if params != nil {
		variables["params"] = params.Interface()
	}
	value, _, err := b.program.Eval(variables)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.text, err)
	}
	return value, nil
}
