package query

import (
	"cmp"
	"encoding/base64"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/millrace-io/millrace/projections/definition"
	"github.com/millrace-io/millrace/projections/mapping"
)

const (
	// maxFilterCost bounds what a filter costs for each row: a comparison of a number is 1.
	maxFilterCost = 1000
	// assumedItems is how many items a list is taken to have, without maxItems in the definition.
	assumedItems = 100
)

// predicate says whether a row is wanted.
type predicate func(row protoreflect.Message) bool

// conjunct is a part of a filter that each row must fulfil.
type conjunct struct {
	text  string
	holds predicate
	// condition is set if an index can serve it, value is its operand then.
	condition *definition.Condition
	value     mapping.Value
}

// filterOf reads the filter of a request.
func filterOf(p *definition.Projection, q *definition.Query, text string) ([]conjunct, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	e, fault := parseFilter(text)
	if fault != nil {
		return nil, fault.in(text)
	}
	c := &filterCheck{projection: p, query: q}
	parts := []*filterExpr{e}
	if e.connective == allOf {
		parts = e.parts
	}
	var all []conjunct
	for _, part := range parts {
		one, fault := c.conjunct(part)
		if fault != nil {
			return nil, fault.in(text)
		}
		all = append(all, one)
	}
	return all, nil
}

// filterCheck gives the names and values of a filter their meaning.
type filterCheck struct {
	projection *definition.Projection
	query      *definition.Query
	cost       int
}

func (c *filterCheck) conjunct(e *filterExpr) (conjunct, *filterError) {
	holds, fault := c.compile(e)
	if fault != nil {
		return conjunct{}, fault
	}
	one := conjunct{text: e.String(), holds: holds}
	if t := e.term; t != nil && t.operator != ":" && t.operator != "!=" && len(t.value.stars) == 0 {
		f := c.field(t.field)
		one.value, _ = literalOf(f, t.value) // compile has read it
		operator := t.operator
		if operator == "=" {
			operator = "=="
		}
		one.condition = &definition.Condition{Field: f, Operator: operator, Operand: strconv.Quote(t.value.text)}
	}
	return one, nil
}

// String writes an expression as a filter.
func (e *filterExpr) String() string {
	switch e.connective {
	case oneTerm:
		t := e.term
		operator, value := " "+t.operator+" ", t.value.text
		if t.operator == ":" {
			operator = t.operator
		}
		if t.value.isQuoted {
			value = strconv.Quote(value)
		}
		return t.field + operator + value
	case notOf:
		return "NOT " + e.parts[0].String()
	default:
		word := " AND "
		if e.connective == anyOf {
			word = " OR "
		}
		texts := make([]string, len(e.parts))
		for i, part := range e.parts {
			texts[i] = part.String()
		}
		return "(" + strings.Join(texts, word) + ")"
	}
}

func (c *filterCheck) compile(e *filterExpr) (predicate, *filterError) {
	if e.connective == oneTerm {
		return c.term(e.term)
	}
	parts := make([]predicate, len(e.parts))
	for i, part := range e.parts {
		var fault *filterError
		if parts[i], fault = c.compile(part); fault != nil {
			return nil, fault
		}
	}
	switch e.connective {
	case notOf:
		return func(row protoreflect.Message) bool { return !parts[0](row) }, nil
	case anyOf:
		return func(row protoreflect.Message) bool {
			return slices.ContainsFunc(parts, func(p predicate) bool { return p(row) })
		}, nil
	default:
		return func(row protoreflect.Message) bool {
			return !slices.ContainsFunc(parts, func(p predicate) bool { return !p(row) })
		}, nil
	}
}

func (c *filterCheck) field(name string) protoreflect.FieldDescriptor {
	i := slices.IndexFunc(c.query.Filterable, func(f protoreflect.FieldDescriptor) bool {
		return string(f.Name()) == name
	})
	if i < 0 {
		return nil
	}
	return c.query.Filterable[i]
}

// named finds the field of a term.
func (c *filterCheck) named(t *filterTerm) (protoreflect.FieldDescriptor, *filterError) {
	name, rest, isPath := strings.Cut(t.field, ".")
	f := c.field(name)
	switch {
	case f == nil && len(c.query.Filterable) == 0:
		return nil, faultf(t.at, "%s cannot be filtered by %q: the query has no filterable fields", c.query.Name, name)
	case f == nil:
		var names []string
		for _, f := range c.query.Filterable {
			names = append(names, string(f.Name()))
		}
		return nil, faultf(t.at, "%s cannot be filtered by %q: use %s", c.query.Name, name, strings.Join(names, ", "))
	case isPath && f.IsList():
		return nil, faultf(t.at, "%s has several values, so that %q has none: use %s:value", name, t.field, name)
	case isPath:
		return nil, faultf(t.at, "%s has no field %q", name, rest)
	}
	return f, nil
}

// term compiles a comparison.
func (c *filterCheck) term(t *filterTerm) (predicate, *filterError) {
	f, fault := c.named(t)
	if fault != nil {
		return nil, fault
	}
	items := 1
	if f.IsList() {
		if items = c.projection.MaxItems[string(f.FullName())]; items == 0 {
			items = assumedItems
		}
	}
	if c.cost += items * (1 + len(t.value.text)/10); c.cost > maxFilterCost {
		return nil, faultf(t.at, "the filter costs more than %d units for each row: use fewer conditions on fields with several values",
			maxFilterCost)
	}
	isStar := t.value.text == "*" && len(t.value.stars) == 1 && !t.value.isQuoted
	switch {
	case t.operator == ":" && isStar:
		return present(f, t)
	case t.operator == ":" && !f.IsList():
		return nil, faultf(t.at, "%s has one value: use %s = value", f.Name(), f.Name())
	case f.IsList() && t.operator != ":":
		return nil, faultf(t.at, "%s has several values: use %s:value for one of them", f.Name(), f.Name())
	case len(t.value.stars) > 0 && f.Kind() == protoreflect.StringKind:
		return pattern(f, t)
	}
	value, fault := literalOf(f, t.value)
	if fault != nil {
		return nil, fault
	}
	kind := kindOf(f)
	if f.IsList() {
		return func(row protoreflect.Message) bool {
			list := row.Get(f).List()
			for i := range list.Len() {
				if order, ok := compare(kind, elementOf(list.Get(i)), value); ok && order == 0 {
					return true
				}
			}
			return false
		}, nil
	}
	return compared(f, kind, t.operator, value), nil
}

// compared compares the value of a row's field. With a field that is absent it is false.
func compared(f protoreflect.FieldDescriptor, kind mapping.Kind, operator string, value mapping.Value) predicate {
	return func(row protoreflect.Message) bool {
		v := mapping.ValueOf(row, f)
		if f.HasPresence() && !v.IsPresent() {
			return false
		}
		order, ok := compare(kind, v, value)
		switch operator {
		case "=":
			return ok && order == 0
		case "!=":
			return !ok || order != 0
		case "<":
			return ok && order < 0
		case "<=":
			return ok && order <= 0
		case ">":
			return ok && order > 0
		default:
			return ok && order >= 0
		}
	}
}

// compare compares two values of one kind; ok is false for NaN.
func compare(kind mapping.Kind, a, b mapping.Value) (order int, ok bool) {
	switch kind {
	case mapping.Bool:
		if a.Bool() == b.Bool() {
			return 0, true
		}
		if b.Bool() {
			return -1, true
		}
		return 1, true
	case mapping.Int32, mapping.Int64:
		return cmp.Compare(a.Int(), b.Int()), true
	case mapping.Uint32, mapping.Uint64:
		return cmp.Compare(a.Uint(), b.Uint()), true
	case mapping.Float, mapping.Double:
		return cmp.Compare(a.Float(), b.Float()), !math.IsNaN(a.Float()) && !math.IsNaN(b.Float())
	case mapping.Time:
		aSeconds, aNanos := a.Time()
		bSeconds, bNanos := b.Time()
		return cmp.Or(cmp.Compare(aSeconds, bSeconds), cmp.Compare(aNanos, bNanos)), true
	default:
		return strings.Compare(string(a.Text()), string(b.Text())), true
	}
}

// elementOf returns an item of a list as a value.
func elementOf(v protoreflect.Value) mapping.Value {
	switch v := v.Interface().(type) {
	case bool:
		return mapping.OfBool(v)
	case int32:
		return mapping.OfInt(int64(v))
	case int64:
		return mapping.OfInt(v)
	case uint32:
		return mapping.OfUint(uint64(v))
	case uint64:
		return mapping.OfUint(v)
	case float32:
		return mapping.OfFloat(float64(v))
	case float64:
		return mapping.OfFloat(v)
	case string:
		return mapping.OfText(v)
	case []byte:
		return mapping.OfText(v)
	case protoreflect.EnumNumber:
		return mapping.OfInt(int64(v))
	case protoreflect.Message:
		fields := v.Descriptor().Fields()
		return mapping.OfTime(v.Get(fields.ByNumber(1)).Int(), int32(v.Get(fields.ByNumber(2)).Int())) //nolint:gosec // an int32
	default:
		return mapping.Value{}
	}
}

// present is the condition field:*.
func present(f protoreflect.FieldDescriptor, t *filterTerm) (predicate, *filterError) {
	if !f.IsList() && !f.HasPresence() {
		return nil, faultf(t.at, "%s is always there: compare it with a value", f.Name())
	}
	return func(row protoreflect.Message) bool { return row.Has(f) }, nil
}

// pattern is an equality with a * at the beginning or at the end of the text.
func pattern(f protoreflect.FieldDescriptor, t *filterTerm) (predicate, *filterError) {
	text, at := t.value.text, t.value.stars[0]
	match := strings.HasPrefix
	switch {
	case t.operator != "=" && t.operator != "!=":
		return nil, faultf(t.value.at, `* stands with = and != only: write \* for the character`)
	case len(text) == 1:
		return nil, faultf(t.value.at, "* alone is each text: leave the condition out, or use %s:*", f.Name())
	case len(t.value.stars) > 1 || at > 0 && at < len(text)-1:
		return nil, faultf(t.value.at, `* stands once, at the beginning or at the end of a text: write \* for the character`)
	case at == 0:
		match, text = strings.HasSuffix, text[1:]
	default:
		text = text[:at]
	}
	wanted := t.operator == "="
	return func(row protoreflect.Message) bool {
		return (!f.HasPresence() || row.Has(f)) && match(row.Get(f).String(), text) == wanted
	}, nil
}

// kindOf returns the kind of a field, or of the items of a list.
func kindOf(f protoreflect.FieldDescriptor) mapping.Kind {
	if !f.IsList() {
		field, _ := mapping.FieldOf(f) // it was checked with the definition
		return field.Kind
	}
	switch f.Kind() {
	case protoreflect.BoolKind:
		return mapping.Bool
	case protoreflect.StringKind, protoreflect.BytesKind:
		return mapping.Text
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return mapping.Double
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return mapping.Uint32
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return mapping.Uint64
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return mapping.Time
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return mapping.Int64
	default:
		return mapping.Int32
	}
}

var (
	wholeText    = regexp.MustCompile(`^-?[0-9]+$`)
	numberText   = regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)
	durationText = regexp.MustCompile(`^(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?s$`)
)

// literalOf reads a value of a field's type.
func literalOf(f protoreflect.FieldDescriptor, l literal) (mapping.Value, *filterError) {
	none := mapping.Value{}
	text := l.text
	wrong := func(want string) (mapping.Value, *filterError) {
		return none, faultf(l.at, "%q is not a value of %s: %s", clip(text), f.Name(), want)
	}
	if text == "null" && !l.isQuoted {
		if f.HasPresence() || f.IsList() {
			return none, faultf(l.at, "null is not a value: use NOT %s:* for rows without the field", f.Name())
		}
		return none, faultf(l.at, "null is not a value, and %s is always there", f.Name())
	}
	kind := kindOf(f)
	switch {
	case f.Kind() == protoreflect.EnumKind:
		return enumValue(f, l)
	case f.Kind() == protoreflect.BytesKind:
		decoded, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return wrong("write base64")
		}
		return mapping.OfText(decoded), nil
	case kind == mapping.Text:
		return mapping.OfText(text), nil
	case kind == mapping.Time && f.Message().Name() == "Timestamp":
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return wrong("write a time of RFC 3339, as in 2026-01-31T12:00:00Z")
		}
		return mapping.OfTime(at.Unix(), int32(at.Nanosecond())), nil //nolint:gosec // below 1e9
	case kind == mapping.Time:
		seconds, nanos, ok := durationOf(text)
		if !ok {
			return wrong("write seconds, as in 1.5s")
		}
		return mapping.OfTime(seconds, nanos), nil
	case l.isQuoted:
		return wrong("write it without quotes")
	case kind == mapping.Bool:
		if text != "true" && text != "false" {
			return wrong("write true or false")
		}
		return mapping.OfBool(text == "true"), nil
	case kind == mapping.Float || kind == mapping.Double:
		x, err := strconv.ParseFloat(text, 64)
		if err != nil || !numberText.MatchString(text) {
			return wrong("write a number, as in 1.5")
		}
		return mapping.OfFloat(x), nil
	default:
		return wholeValue(f, kind, text, wrong)
	}
}

func wholeValue(
	f protoreflect.FieldDescriptor, kind mapping.Kind, text string, wrong func(string) (mapping.Value, *filterError),
) (mapping.Value, *filterError) {
	if !wholeText.MatchString(text) {
		return wrong("write a whole number")
	}
	bits := 64
	if kind == mapping.Int32 || kind == mapping.Uint32 {
		bits = 32
	}
	if kind == mapping.Uint32 || kind == mapping.Uint64 {
		n, err := strconv.ParseUint(text, 10, bits)
		if err != nil {
			return wrong("it does not fit into " + f.Kind().String())
		}
		return mapping.OfUint(n), nil
	}
	n, err := strconv.ParseInt(text, 10, bits)
	if err != nil {
		return wrong("it does not fit into " + f.Kind().String())
	}
	return mapping.OfInt(n), nil
}

func enumValue(f protoreflect.FieldDescriptor, l literal) (mapping.Value, *filterError) {
	values := f.Enum().Values()
	if v := values.ByName(protoreflect.Name(l.text)); v != nil {
		return mapping.OfInt(int64(v.Number())), nil
	}
	var names []string
	for i := range values.Len() {
		names = append(names, string(values.Get(i).Name()))
	}
	return mapping.Value{}, faultf(l.at, "%q is not a value of %s: use one of %s", clip(l.text), f.Name(),
		strings.Join(names, ", "))
}

// durationOf reads seconds with a fraction.
func durationOf(text string) (seconds int64, nanos int32, ok bool) {
	m := durationText.FindStringSubmatch(text)
	if m == nil {
		return 0, 0, false
	}
	seconds, _ = strconv.ParseInt(m[2], 10, 64)
	fraction, _ := strconv.ParseInt((m[3] + "000000000")[:9], 10, 32)
	nanos = int32(fraction)
	if m[1] == "-" {
		return -seconds, -nanos, true
	}
	return seconds, nanos, true
}
