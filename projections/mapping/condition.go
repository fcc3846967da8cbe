package mapping

import (
	"bytes"
	"cmp"
	"strconv"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// test is a condition over a row that needs no CEL: fields are compared with literals, or asked
// whether they are there.
type test struct {
	op    testOp
	at    place
	value scalar
	left  *test
	right *test
}

type testOp uint8

const (
	testTrue testOp = iota + 1
	testHas
	testGuard
	testEqual
	testNotEqual
	testLess
	testLessEqual
	testGreater
	testGreaterEqual
	testAnd
	testOr
	testNot
)

// comparisonOf returns the operator of a function.
func comparisonOf(function string) (testOp, bool) {
	switch function {
	case operators.Equals:
		return testEqual, true
	case operators.NotEquals:
		return testNotEqual, true
	case operators.Less:
		return testLess, true
	case operators.LessEquals:
		return testLessEqual, true
	case operators.Greater:
		return testGreater, true
	case operators.GreaterEquals:
		return testGreaterEqual, true
	default:
		return 0, false
	}
}

// mirrored is the operator with its sides exchanged.
func (op testOp) mirrored() testOp {
	switch op {
	case testLess:
		return testGreater
	case testLessEqual:
		return testGreaterEqual
	case testGreater:
		return testLess
	case testGreaterEqual:
		return testLessEqual
	default:
		return op
	}
}

// readOf returns the path that a variable stands for, nil for another expression.
func (s *scope) readOf(x ast.Expr) *read {
	if x.Kind() != ast.IdentKind || !strings.HasPrefix(x.AsIdent(), "@") {
		return nil
	}
	n, err := strconv.Atoi(x.AsIdent()[1:])
	if err != nil || n >= len(s.reads) {
		return nil
	}
	return &s.reads[n]
}

// guard makes a comparison false when a field in it has presence and is not set. It returns the
// last number of an expression that is in use.
func (s *scope) guard(tree *ast.AST, factory ast.ExprFactory, x ast.Expr, last int64) int64 {
	call := x.AsCall()
	for _, side := range call.Args() {
		r := s.readOf(side)
		if r == nil || r.isTest || r.isGuard || len(r.at.needs) == 0 {
			continue
		}
		name := "@" + strconv.Itoa(len(s.reads))
		s.reads = append(s.reads, read{at: r.at, ofRow: r.ofRow, isGuard: true})
		isThere, inner := factory.NewIdent(last+1, name), factory.CopyExpr(x)
		last += 2
		renumber(tree, inner, x.ID(), last)
		tree.SetReference(isThere.ID(), ast.NewIdentReference(name, nil))
		tree.SetType(isThere.ID(), types.BoolType)
		x.SetKindCase(factory.NewCall(x.ID(), operators.LogicalAnd, isThere, inner))
		tree.SetReference(x.ID(), ast.NewFunctionReference("logical_and"))
	}
	return last
}

// test returns the form of an expression without CEL, nil if it has none.
func (s *scope) test(tree *ast.AST, x ast.Expr) *test {
	if r := s.readOf(x); r != nil {
		switch {
		case r.isGuard:
			return &test{op: testGuard, at: r.at}
		case r.isTest:
			return &test{op: testHas, at: r.at}
		case r.at.class == boolClass:
			return &test{op: testTrue, at: r.at}
		}
		return nil
	}
	if x.Kind() != ast.CallKind {
		return nil
	}
	call := x.AsCall()
	var op testOp
	switch call.FunctionName() {
	case operators.LogicalAnd:
		op = testAnd
	case operators.LogicalOr:
		op = testOr
	case operators.LogicalNot:
		op = testNot
	default:
		return s.comparison(tree, call)
	}
	t := &test{op: op, left: s.test(tree, call.Args()[0])}
	if t.left == nil {
		return nil
	}
	if op != testNot {
		if t.right = s.test(tree, call.Args()[1]); t.right == nil {
			return nil
		}
	}
	return t
}

// comparison compares a field with a literal of its class.
func (s *scope) comparison(tree *ast.AST, call ast.CallExpr) *test {
	op, ok := comparisonOf(call.FunctionName())
	if !ok {
		return nil
	}
	r, literal := s.readOf(call.Args()[0]), literalValue(tree, call.Args()[1])
	if r == nil {
		r, literal, op = s.readOf(call.Args()[1]), literalValue(tree, call.Args()[0]), op.mirrored()
	}
	if r == nil || r.isTest || r.isGuard || literal == nil {
		return nil
	}
	t := &test{op: op, at: r.at}
	switch v := literal.(type) {
	case types.Bool:
		t.value.bits, ok = OfBool(bool(v)).bits, r.at.class == boolClass
	case types.Int:
		t.value.bits, ok = uint64(v), r.at.class == intClass //nolint:gosec // bit by bit
	case types.Uint:
		t.value.bits, ok = uint64(v), r.at.class == uintClass
	case types.String:
		t.value.text, ok = []byte(v), r.at.class == stringClass
	case types.Bytes:
		t.value.text, ok = v, r.at.class == bytesClass
	default: // a comparison with NaN is an error of CEL
		return nil
	}
	if !ok {
		return nil
	}
	return t
}

// literalValue returns the value of a literal or of the name of an enum's value, nil for others.
func literalValue(tree *ast.AST, x ast.Expr) ref.Val {
	if x.Kind() == ast.LiteralKind {
		return x.AsLiteral()
	}
	if r := tree.ReferenceMap()[x.ID()]; r != nil {
		return r.Value
	}
	return nil
}

// holds runs the condition on what a scan of the row has found.
func (t *test) holds(cells []cell) bool {
	switch t.op {
	case testAnd:
		return t.left.holds(cells) && t.right.holds(cells)
	case testOr:
		return t.left.holds(cells) || t.right.holds(cells)
	case testNot:
		return !t.left.holds(cells)
	default:
	}
	v, isThere := t.at.value(cells)
	switch t.op {
	case testGuard:
		return isThere
	case testHas:
		return t.at.isSet(v, isThere)
	case testTrue:
		return v.bits != 0
	default:
	}
	order := t.at.compare(v, t.value)
	switch t.op {
	case testEqual:
		return order == 0
	case testNotEqual:
		return order != 0
	case testLess:
		return order < 0
	case testLessEqual:
		return order <= 0
	case testGreater:
		return order > 0
	default:
		return order >= 0
	}
}

// compare compares two values of the place's class.
func (at *place) compare(a, b scalar) int {
	switch at.class {
	case stringClass, bytesClass:
		return bytes.Compare(a.text, b.text)
	case intClass:
		return cmp.Compare(int64(a.bits), int64(b.bits)) //nolint:gosec // bit by bit
	default:
		return cmp.Compare(a.bits, b.bits)
	}
}

// isSet is has() of CEL: without presence a field is set that is not zero.
func (at *place) isSet(v scalar, isThere bool) bool {
	if at.class == timestampClass || at.class == durationClass || at.fd.HasPresence() {
		return isThere
	}
	return isThere && (v.bits != 0 || len(v.text) > 0)
}
