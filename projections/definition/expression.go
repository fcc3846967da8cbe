package definition

import (
	"math"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	// Library is the version of the functions that expressions have. It is part of the fold hash.
	Library = "v1"
	// MaxCost is the largest estimated cost of an expression, in units of the CEL library.
	MaxCost = 10_000
	// MaxExpressionBytes is the longest expression.
	MaxExpressionBytes = 4 << 10
	// assumedSize is how many items a list or a map is taken to have, and characters a text.
	assumedSize = 100
	// maxExpressionNodes and maxExpressionDepth bound the tree of an expression, macros expanded.
	maxExpressionNodes = 4_000
	maxExpressionDepth = 48
)

// Expression is a compiled and checked CEL expression.
type Expression struct {
	// Text is the expression as it stands in the file, Canonical the same without taste: two
	// expressions with the same Canonical form mean the same.
	Text, Canonical string
	Type            *cel.Type
	// AST is checked; Env makes a program of it.
	AST *cel.Ast
	Env *cel.Env
	// Cost is the estimate with lists and texts of assumedSize. Bounded: the cost is below MaxCost
	// whatever the sizes are, so no run needs to be watched.
	Cost    uint64
	Bounded bool
}

// String returns the canonical form.
func (e *Expression) String() string {
	if e == nil {
		return ""
	}
	return e.Canonical
}

// language is the base of all environments with one container.
type language struct {
	base     *cel.Env
	registry *types.Registry
}

// language returns the environment for expressions whose names are looked for in a package.
func (s *Scope) language(pkg string) (*language, error) {
	if l := s.languages[pkg]; l != nil {
		return l, nil
	}
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, err
	}
	s.Schema.files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		err = registry.RegisterDescriptor(file)
		return err == nil
	})
	if err != nil {
		return nil, err
	}
	base, err := cel.NewEnv(
		cel.CustomTypeAdapter(registry), cel.CustomTypeProvider(registry), cel.Container(pkg),
		ext.Strings(ext.StringsVersion(4), ext.StringsLocale("en_US")), ext.Math(ext.MathVersion(2)), functions(),
		cel.DefaultUTCTimeZone(true), cel.EnableMacroCallTracking(),
		cel.ParserExpressionSizeLimit(MaxExpressionBytes), cel.ParserRecursionLimit(maxExpressionDepth),
		cel.ParserErrorRecoveryLimit(4), cel.ExpressionNodeLimit(maxExpressionNodes),
		cel.ExpressionNestingDepthLimit(maxExpressionDepth*4), cel.RegexProgramSizeLimit(1_000),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals()),
	)
	if err != nil {
		return nil, err
	}
	if s.languages == nil {
		s.languages = map[string]*language{}
	}
	s.languages[pkg] = &language{base: base, registry: registry}
	return s.languages[pkg], nil
}

// Variable is a name that an expression knows.
type Variable struct {
	// Name may be qualified: entity.id.
	Name string
	Type *cel.Type
	// Message is the descriptor of a message, nil for other types.
	Message protoreflect.MessageDescriptor
}

// messageVariable declares a message, or a value of any type when there is no descriptor.
func messageVariable(name string, m protoreflect.MessageDescriptor) Variable {
	if m == nil {
		return Variable{Name: name, Type: cel.DynType}
	}
	return Variable{Name: name, Type: messageType(m), Message: m}
}

// Environment is what the expressions of one place know.
type Environment struct {
	env       *cel.Env
	variables []Variable
	// maxItems says how long lists are, by the full names of their fields.
	maxItems map[string]int
}

// Environment makes an environment with variables; names are looked for in a package.
func (s *Scope) Environment(pkg string, maxItems map[string]int, variables ...Variable) (*Environment, error) {
	l, err := s.language(pkg)
	if err != nil {
		return nil, err
	}
	options := make([]cel.EnvOption, len(variables))
	for i, v := range variables {
		options[i] = cel.Variable(v.Name, v.Type)
	}
	env, err := l.base.Extend(options...)
	if err != nil {
		return nil, err
	}
	return &Environment{env: env, variables: variables, maxItems: maxItems}, nil
}

// names returns the variables for a fix.
func (e *Environment) names() []string {
	var names []string
	for _, v := range e.variables {
		names = append(names, v.Name)
	}
	return names
}

// Expression compiles a text that stands in a node at an offset. It is nil, and the report says
// why, when it is not allowed.
func (s *Scope) Expression(at *Node, offset int, text string, env *Environment) (compiled *Expression) {
	if strings.TrimSpace(text) == "" {
		s.Add(at, emptyExpression)
		return nil
	}
	if len(text) > MaxExpressionBytes {
		s.Add(at, expressionTooLong, len(text), MaxExpressionBytes)
		return nil
	}
	defer func() { // a text from outside ends no process
		if p := recover(); p != nil {
			s.Add(at, expressionRefused, "the compiler cannot read it", "write it in another way")
			compiled = nil
		}
	}()
	tree, issues := env.env.Compile(text)
	if issues.Err() != nil {
		s.issues(at, offset, text, env, issues)
		return nil
	}
	if !s.deterministic(at, offset, text, tree) {
		return nil
	}
	e := &Expression{Text: text, Type: tree.OutputType(), AST: tree, Env: env.env}
	var err error
	if e.Canonical, err = cel.AstToString(tree); err != nil {
		s.Add(at, expressionRefused, err.Error(), "write it in another way")
		return nil
	}
	guess, err := env.env.EstimateCost(tree, &sizes{env, assumedSize})
	if err != nil {
		s.Add(at, expressionRefused, err.Error(), "write it in another way")
		return nil
	}
	if e.Cost = guess.Max; e.Cost > MaxCost {
		s.addAtOffset(at, offset, tooExpensive, costText(e.Cost), MaxCost)
		return nil
	}
	// Hints are no bounds: a list that is longer than its maxItems costs more.
	most, err := env.env.EstimateCost(tree, &sizes{&Environment{env: env.env, variables: env.variables}, math.MaxUint32})
	e.Bounded = err == nil && most.Max <= MaxCost
	return e
}

func costText(cost uint64) string {
	if cost > 1e12 {
		return "more than a million million"
	}
	return itoa(int(cost))
}

// addAtOffset reports a problem at a place in the text of a node.
func (s *Scope) addAtOffset(at *Node, offset int, id RuleID, args ...any) {
	line, column := at.position(offset)
	s.add(at, line, column, id, args)
}

// issues reports what CEL found.
func (s *Scope) issues(at *Node, offset int, text string, env *Environment, issues *cel.Issues) {
	for i, issue := range issues.Errors() {
		if i == 3 {
			return // what follows is mostly a consequence
		}
		message := strings.Join(strings.Fields(issue.Message), " ")
		fix := fixOf(message, env)
		s.addAtOffset(at, offset+byteOffset(text, issue.Location.Line(), issue.Location.Column()), expressionRefused,
			shorten(message), fix)
	}
}

// byteOffset turns CEL's line, from 1, and column, from 0, into an offset.
func byteOffset(text string, line, column int) int {
	offset := 0
	for ; line > 1; line-- {
		next := strings.IndexByte(text[offset:], '\n')
		if next < 0 {
			return 0
		}
		offset += next + 1
	}
	for i := range text[offset:] {
		if column == 0 {
			return offset + i
		}
		column--
	}
	return len(text)
}

// shorten cuts what CEL says about long inputs.
func shorten(message string) string {
	message = strings.TrimPrefix(message, "Syntax error: ")
	message, _, _ = strings.Cut(message, " (in container ") // it goes on with a guess; ours is the fix
	runes := []rune(message)
	if len(runes) > 300 {
		return string(runes[:300]) + "…"
	}
	return message
}

// fixOf finds the name that was meant in what CEL says.
func fixOf(message string, env *Environment) string {
	if rest, ok := strings.CutPrefix(message, "undefined field '"); ok {
		name, _, _ := strings.Cut(rest, "'")
		var known []string
		for _, v := range env.variables {
			if v.Message != nil {
				known = append(known, fieldNames(v.Message)...)
			}
		}
		return nearest(name, "fields", known)
	}
	if rest, ok := strings.CutPrefix(message, "undeclared reference to '"); ok {
		name, _, _ := strings.Cut(rest, "'")
		known := env.names()
		if _, isCall := env.env.Functions()[name]; !isCall {
			return nearest(name, "variables here", append(known, functionNames()...))
		}
		return nearest(name, "variables here", known)
	}
	if strings.HasPrefix(message, "found no matching overload") {
		return "convert one side: int(), uint(), double(), string(), timestamp(), duration()"
	}
	if strings.HasPrefix(message, "invalid matches argument") {
		return "write a regular expression of RE2"
	}
	return "see the CEL language definition"
}

// deterministic refuses what could differ from process to process: the order of maps, and zones of
// time whose rules a machine may not have.
func (s *Scope) deterministic(at *Node, offset int, text string, tree *cel.Ast) bool {
	rep, ok := tree.NativeRep(), true
	place := func(e ast.Expr) int {
		where := rep.SourceInfo().GetStartLocation(e.ID())
		return offset + byteOffset(text, where.Line(), where.Column())
	}
	ast.PreOrderVisit(rep.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.ComprehensionKind:
			over := e.AsComprehension().IterRange()
			if kind := rep.GetType(over.ID()).Kind(); kind == types.MapKind {
				s.addAtOffset(at, place(over), mapOrder)
				ok = false
			}
		case ast.CallKind:
			call := e.AsCall()
			if zoned(call) && !fixedZone(call.Args()[0]) {
				s.addAtOffset(at, place(e), zoneRules, call.FunctionName())
				ok = false
			}
		default:
		}
	}))
	return ok
}

// zoned says whether a call takes a zone of time.
func zoned(call ast.CallExpr) bool {
	switch call.FunctionName() {
	case "getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getHours",
		"getMinutes", "getSeconds", "getMilliseconds":
		return call.IsMemberFunction() && len(call.Args()) == 1
	default:
		return false
	}
}

func fixedZone(e ast.Expr) bool {
	if e.Kind() != ast.LiteralKind {
		return false
	}
	zone, _ := e.AsLiteral().Value().(string)
	return zone == "UTC" || strings.Contains(zone, ":") && !strings.Contains(zone, "/")
}

// sizes tells the cost estimate how long lists, maps and texts are.
type sizes struct {
	env    *Environment
	assume uint64
}

// EstimateSize returns the hint for a list, else what is assumed.
func (z *sizes) EstimateSize(element cost.AstNode) *cost.SizeEstimate {
	switch element.Type().Kind() {
	case types.ListKind, types.MapKind, types.StringKind, types.BytesKind, types.DynKind:
		if hint, ok := z.env.maxItems[z.env.fieldOf(element.Path())]; ok {
			return &cost.SizeEstimate{Max: uint64(hint)} //nolint:gosec // it is positive
		}
		return &cost.SizeEstimate{Max: z.assume}
	default:
		return nil
	}
}

// EstimateCallCost returns the cost of the functions of our library.
func (z *sizes) EstimateCallCost(
	function, _ string, _ *cost.AstNode, args []cost.AstNode,
) *cost.CallEstimate {
	return callCost(z, function, args)
}

// fieldOf returns the full name of the field at the end of a path: event, lines.
func (e *Environment) fieldOf(path []string) string {
	if len(path) < 2 {
		return ""
	}
	var m protoreflect.MessageDescriptor
	for _, v := range e.variables {
		if v.Name == path[0] {
			m = v.Message
		}
	}
	var at protoreflect.FieldDescriptor
	for _, name := range path[1:] {
		if strings.HasPrefix(name, "@") {
			continue
		}
		if m == nil {
			return ""
		}
		if at = field(m, name); at == nil {
			return ""
		}
		m = at.Message()
	}
	if at == nil {
		return ""
	}
	return string(at.FullName())
}

// messageType is the CEL type of a message.
func messageType(m protoreflect.MessageDescriptor) *cel.Type {
	switch m.FullName() {
	case "google.protobuf.Timestamp":
		return cel.TimestampType
	case "google.protobuf.Duration":
		return cel.DurationType
	case "google.protobuf.Any":
		return cel.AnyType
	case "google.protobuf.Struct":
		return cel.MapType(cel.StringType, cel.DynType)
	case "google.protobuf.ListValue":
		return cel.ListType(cel.DynType)
	case "google.protobuf.Value":
		return cel.DynType
	case "google.protobuf.BoolValue":
		return cel.NullableType(cel.BoolType)
	case "google.protobuf.BytesValue":
		return cel.NullableType(cel.BytesType)
	case "google.protobuf.DoubleValue", "google.protobuf.FloatValue":
		return cel.NullableType(cel.DoubleType)
	case "google.protobuf.Int32Value", "google.protobuf.Int64Value":
		return cel.NullableType(cel.IntType)
	case "google.protobuf.StringValue":
		return cel.NullableType(cel.StringType)
	case "google.protobuf.UInt32Value", "google.protobuf.UInt64Value":
		return cel.NullableType(cel.UintType)
	default:
		return cel.ObjectType(string(m.FullName()))
	}
}

// fieldType is the CEL type of a field.
func fieldType(f protoreflect.FieldDescriptor) *cel.Type {
	switch {
	case f.IsMap():
		return cel.MapType(singleType(f.MapKey()), singleType(f.MapValue()))
	case f.IsList():
		return cel.ListType(singleType(f))
	default:
		return singleType(f)
	}
}

func singleType(f protoreflect.FieldDescriptor) *cel.Type {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return cel.BoolType
	case protoreflect.StringKind:
		return cel.StringType
	case protoreflect.BytesKind:
		return cel.BytesType
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return cel.DoubleType
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return messageType(f.Message())
	default:
		if isUnsigned(f) {
			return cel.UintType
		}
		return cel.IntType // integers, and enums by number
	}
}
