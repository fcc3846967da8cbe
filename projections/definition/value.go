package definition

import (
	"math"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Value is what a field is set to.
type Value struct {
	// Field is the field of the row.
	Field protoreflect.FieldDescriptor
	// Clear: the field is cleared (null). Otherwise one of the others is there.
	Clear bool
	// Literal is a plain value of the field's kind: a time is a Timestamp's or Duration's seconds and
	// nanoseconds, see Seconds and Nanos.
	Literal protoreflect.Value
	Seconds int64
	Nanos   int32
	// Expression is one ${ } without text around it. Parts are texts and expressions that are joined
	// to a text.
	Expression *Expression
	Parts      []Part

	node *Node
}

// Part is a piece of a text: an expression when there is one, else a literal.
type Part struct {
	Literal    string
	Expression *Expression
}

// String returns the canonical form.
func (v *Value) String() string {
	switch {
	case v.Clear:
		return "null"
	case v.Expression != nil:
		return "${" + v.Expression.Canonical + "}"
	case v.Parts != nil:
		var b strings.Builder
		for _, p := range v.Parts {
			if p.Expression != nil {
				b.WriteString("${" + p.Expression.Canonical + "}")
			} else {
				b.WriteString(strconv.Quote(p.Literal))
			}
		}
		return b.String()
	case v.Field.Message() != nil:
		return strconv.FormatInt(v.Seconds, 10) + "s" + strconv.Itoa(int(v.Nanos)) + "ns"
	default:
		return strconv.Quote(v.Literal.String())
	}
}

// Value reads what a field is set to: a literal of its type, or text with ${ }. It is nil, and the
// report says why, when it does not fit.
func (s *Scope) Value(n *Node, f protoreflect.FieldDescriptor, env *Environment) *Value {
	v := &Value{Field: f, node: n}
	if n.IsNull() {
		v.Clear = true
		return v
	}
	if n.Shape != ScalarShape {
		s.Add(n, literalOfMessage, typeName(f), n.is())
		return nil
	}
	pieces, problem := split(n.Text)
	if problem >= 0 {
		s.addAtOffset(n, problem, notClosed)
		return nil
	}
	if len(pieces) == 1 && pieces[0].expression {
		v.Expression = s.Expression(n, pieces[0].offset, pieces[0].text, env)
		if v.Expression == nil || !s.assignable(n, pieces[0].offset, f, v.Expression) {
			return nil
		}
		return v
	}
	for _, p := range pieces {
		if p.expression {
			return s.joined(n, v, pieces, env)
		}
	}
	text := ""
	if len(pieces) == 1 {
		text = pieces[0].text
	}
	if !s.literal(n, v, text) {
		return nil
	}
	return v
}

// joined makes a text of literals and expressions.
func (s *Scope) joined(n *Node, v *Value, pieces []piece, env *Environment) *Value {
	if v.Field.Kind() != protoreflect.StringKind || v.Field.IsList() || v.Field.IsMap() {
		s.Add(n, textAround, v.Field.Name(), typeName(v.Field))
		return nil
	}
	ok := true
	for _, p := range pieces {
		if !p.expression {
			v.Parts = append(v.Parts, Part{Literal: p.text})
			continue
		}
		e := s.Expression(n, p.offset, p.text, env)
		if e == nil {
			ok = false
			continue
		}
		switch e.Type.Kind() {
		case types.StringKind, types.IntKind, types.UintKind, types.BoolKind, types.DynKind:
			v.Parts = append(v.Parts, Part{Expression: e})
		default:
			s.addAtOffset(n, p.offset, notJoinable, e.Type.String())
			ok = false
		}
	}
	if !ok {
		return nil
	}
	return v
}

// assignable compares the type of an expression with that of a field.
func (s *Scope) assignable(n *Node, offset int, f protoreflect.FieldDescriptor, e *Expression) bool {
	if fieldType(f).IsAssignableType(e.Type) || e.Type.Kind() == types.DynKind {
		return true
	}
	s.addAtOffset(n, offset, wrongType, f.Name(), typeName(f), e.Type.String(), conversion(f, e.Type))
	return false
}

// conversion names the function that helps.
func conversion(f protoreflect.FieldDescriptor, from *cel.Type) string {
	if f.IsList() || f.IsMap() {
		return "give it a value of that type"
	}
	switch singleType(f).Kind() {
	case types.IntKind, types.UintKind, types.DoubleKind, types.StringKind, types.BytesKind:
		simple := from.Kind() == types.IntKind || from.Kind() == types.UintKind || from.Kind() == types.DoubleKind ||
			from.Kind() == types.StringKind || from.Kind() == types.BoolKind
		if simple && f.Kind() != protoreflect.EnumKind {
			return "convert it with " + singleType(f).String() + "()"
		}
	case types.TimestampKind, types.DurationKind:
		if from.Kind() == types.StringKind || from.Kind() == types.IntKind {
			return "convert it with " + map[types.Kind]string{
				types.TimestampKind: "timestamp()", types.DurationKind: "duration()",
			}[singleType(f).Kind()]
		}
	default:
	}
	return "give it a value of that type"
}

// literal reads a plain value by the type of the field.
func (s *Scope) literal(n *Node, v *Value, text string) bool {
	f := v.Field
	wrong := func(form string) bool {
		s.Add(n, wrongLiteral, n.is(), f.Name(), typeName(f), form)
		return false
	}
	if f.IsList() || f.IsMap() {
		s.Add(n, literalOfMessage, typeName(f), n.is())
		return false
	}
	switch f.Kind() {
	case protoreflect.StringKind:
		if !n.Quoted && (numberText.MatchString(text) || boolText.MatchString(text)) {
			return wrong("put it in quotes: '" + short(text) + "'")
		}
		v.Literal = protoreflect.ValueOfString(text)
	case protoreflect.BoolKind:
		if n.Quoted || text != "true" && text != "false" {
			return wrong("write true or false")
		}
		v.Literal = protoreflect.ValueOfBool(text == "true")
	case protoreflect.EnumKind:
		value := f.Enum().Values().ByName(protoreflect.Name(text))
		if value == nil {
			var names []string
			for i := range f.Enum().Values().Len() {
				names = append(names, string(f.Enum().Values().Get(i).Name()))
			}
			return wrong(nearest(text, "its values", names))
		}
		v.Literal = protoreflect.ValueOfEnum(value.Number())
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return s.timeLiteral(n, v, text, wrong)
	case protoreflect.BytesKind:
		return wrong("write ${b'…'}")
	default:
		return s.numberLiteral(n, v, text, wrong)
	}
	return true
}

func (s *Scope) numberLiteral(n *Node, v *Value, text string, wrong func(string) bool) bool {
	if n.Quoted {
		return wrong("write it without quotes")
	}
	f := v.Field
	switch kind := singleType(f).Kind(); {
	case kind == types.DoubleKind:
		bits := 64
		if f.Kind() == protoreflect.FloatKind {
			bits = 32
		}
		x, err := strconv.ParseFloat(text, bits)
		if err != nil || !numberText.MatchString(text) || math.IsInf(x, 0) {
			return wrong("write a number such as 1.5")
		}
		v.Literal = protoreflect.ValueOfFloat64(x)
		if bits == 32 {
			v.Literal = protoreflect.ValueOfFloat32(float32(x))
		}
	case !integerText.MatchString(text):
		return wrong("write a whole number")
	case kind == types.UintKind:
		x, err := strconv.ParseUint(strings.TrimPrefix(text, "+"), 10, bitsOf(f))
		if err != nil {
			return wrong("the number is too large or negative")
		}
		v.Literal = protoreflect.ValueOfUint64(x)
		if bitsOf(f) == 32 {
			v.Literal = protoreflect.ValueOfUint32(uint32(x)) //nolint:gosec // parsed with 32 bits
		}
	default:
		x, err := strconv.ParseInt(text, 10, bitsOf(f))
		if err != nil {
			return wrong("the number is too large")
		}
		v.Literal = protoreflect.ValueOfInt64(x)
		if bitsOf(f) == 32 {
			v.Literal = protoreflect.ValueOfInt32(int32(x)) //nolint:gosec // parsed with 32 bits
		}
	}
	return true
}

func bitsOf(f protoreflect.FieldDescriptor) int {
	switch f.Kind() {
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind, protoreflect.Uint32Kind,
		protoreflect.Fixed32Kind:
		return 32
	default:
		return 64
	}
}

func (s *Scope) timeLiteral(n *Node, v *Value, text string, wrong func(string) bool) bool {
	switch v.Field.Message().FullName() {
	case "google.protobuf.Timestamp":
		t, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || t.Year() < 1 || t.Year() > 9999 {
			return wrong("write a time such as 2026-11-30T12:00:00Z")
		}
		v.Seconds, v.Nanos = t.Unix(), int32(t.Nanosecond()) //nolint:gosec // below 10^9
	case "google.protobuf.Duration":
		d, ok := parseDuration(text)
		if !ok {
			return wrong("write a duration such as 90s")
		}
		v.Seconds, v.Nanos = int64(d/time.Second), int32(d%time.Second)
	default:
		s.Add(n, literalOfMessage, typeName(v.Field), n.is())
		return false
	}
	return true
}

// piece is a text or an expression of a template.
type piece struct {
	text       string
	offset     int
	expression bool
}

// split finds the expressions in a text. `$${` stands for `${`. The position of a `${` without its
// end is returned, -1 when there is none.
func split(text string) (pieces []piece, problem int) {
	var plain strings.Builder
	start := 0
	flush := func() {
		if plain.Len() > 0 {
			pieces = append(pieces, piece{text: plain.String(), offset: start})
			plain.Reset()
		}
	}
	for i := 0; i < len(text); {
		switch {
		case strings.HasPrefix(text[i:], "$${"):
			plain.WriteString("${")
			i += 3
		case strings.HasPrefix(text[i:], "${"):
			end := closing(text, i+2)
			if end < 0 {
				return nil, i
			}
			flush()
			pieces = append(pieces, piece{text: text[i+2 : end], offset: i + 2, expression: true})
			i = end + 1
			start = i
		default:
			plain.WriteByte(text[i])
			i++
		}
	}
	flush()
	return pieces, -1
}

// closing returns the position of the brace that ends an expression which begins at from, -1 when
// there is none. Braces in texts of CEL do not count.
func closing(text string, from int) int {
	depth := 0
	for i := from; i < len(text); i++ {
		switch c := text[i]; c {
		case '{':
			depth++
		case '}':
			if depth == 0 {
				return i
			}
			depth--
		case '\'', '"':
			raw := i > from && (text[i-1] == 'r' || text[i-1] == 'R')
			if i = literalEnd(text, i, raw); i < 0 {
				return -1
			}
		}
	}
	return -1
}

// literalEnd returns the position of the last quote of a CEL text that begins at from.
func literalEnd(text string, from int, raw bool) int {
	quote := text[from : from+1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(text[from:], triple) {
		quote = triple
	}
	for i := from + len(quote); i < len(text); i++ {
		if text[i] == '\\' && !raw {
			i++
		} else if strings.HasPrefix(text[i:], quote) {
			return i + len(quote) - 1
		}
	}
	return -1
}
