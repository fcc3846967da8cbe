package query

import (
	"math"
	"time"

	"github.com/millrace-io/millrace/projections/mapping"
)

// fitted is the comparison of a field with a value, in the field's own kind.
type fitted struct {
	operator string
	value    mapping.Value
	// never: it is false for each row. always: it is true for each row that has the field.
	never, always bool
	// inexact: the kind has no such value, so that rows must be looked at.
	inexact bool
}

// fit turns an operand, as CEL has it, into a value of the field's kind. A number that the kind
// cannot have becomes the nearest bound.
func fit(kind mapping.Kind, operator string, operand any) fitted {
	f := fitted{operator: operator}
	switch v := operand.(type) {
	case bool:
		if kind == mapping.Bool {
			f.value = mapping.OfBool(v)
			return f
		}
	case string:
		if kind == mapping.Text {
			f.value = mapping.OfText(v)
			return f
		}
	case []byte:
		if kind == mapping.Text {
			f.value = mapping.OfText(v)
			return f
		}
	case time.Time:
		if kind == mapping.Time {
			f.value = mapping.OfTime(v.Unix(), int32(v.Nanosecond())) //nolint:gosec // below 1e9
			return f
		}
	case time.Duration:
		if kind == mapping.Time {
			f.value = mapping.OfTime(int64(v/time.Second), int32(v%time.Second))
			return f
		}
	case int64, uint64, float64:
		switch kind {
		case mapping.Int32, mapping.Int64, mapping.Uint32, mapping.Uint64:
			return f.whole(kind, v)
		case mapping.Float, mapping.Double:
			return f.float(kind, v)
		default:
		}
	default:
	}
	// Values of other types are equal to none, and CEL says of each row what else is wrong.
	f.never, f.always, f.inexact = operator == "==", operator != "==", true
	return f
}

// whole fits a number into a kind of whole numbers.
func (f fitted) whole(kind mapping.Kind, operand any) fitted {
	if x, isFloat := operand.(float64); isFloat {
		switch {
		case math.IsNaN(x):
			f.never = true
			return f
		case x >= math.MaxUint64:
			return f.beyond(true)
		case x < math.MinInt64:
			return f.beyond(false)
		}
		rounded := math.Floor(x)
		if rounded != x {
			switch f.operator { // x > 1.5 is x > 1, x < 1.5 is x < 2
			case "==":
				f.never = true
				return f
			case "<", ">=":
				rounded = math.Ceil(x)
			}
		}
		if operand = int64(rounded); rounded >= math.MaxInt64 {
			operand = uint64(rounded)
		}
	}
	var low int64
	var high uint64
	switch kind {
	case mapping.Int32:
		low, high = math.MinInt32, math.MaxInt32
	case mapping.Int64:
		low, high = math.MinInt64, math.MaxInt64
	case mapping.Uint32:
		high = math.MaxUint32
	default:
		high = math.MaxUint64
	}
	switch n := operand.(type) {
	case int64:
		if n < low {
			return f.beyond(false)
		}
		if n > 0 && uint64(n) > high {
			return f.beyond(true)
		}
		f.value = mapping.OfInt(n)
	case uint64:
		if n > high {
			return f.beyond(true)
		}
		f.value = mapping.OfUint(n)
	}
	return f
}

// beyond is a comparison with a number above, or below, all that the kind has.
func (f fitted) beyond(above bool) fitted {
	smaller := f.operator[0] == '<'
	f.always = f.operator != "==" && smaller == above
	f.never = !f.always
	return f
}

// float fits a number into a kind of floating point numbers.
func (f fitted) float(kind mapping.Kind, operand any) fitted {
	var x float64
	switch n := operand.(type) {
	case int64:
		x = float64(n)
		f.inexact = x >= math.MaxInt64 || int64(x) != n
	case uint64:
		x = float64(n)
		f.inexact = x >= math.MaxUint64 || uint64(x) != n
	case float64:
		x = n
	}
	if math.IsNaN(x) {
		f.never = true
		return f
	}
	if kind == mapping.Float {
		single := float64(float32(x))
		f.inexact = f.inexact || single != x
		x = single
	}
	f.value = mapping.OfFloat(x)
	if f.inexact {
		switch f.operator {
		case "<":
			f.operator = "<="
		case ">":
			f.operator = ">="
		}
	}
	return f
}
