package mapping

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Kind is how the values of a field are encoded.
type Kind uint8

// The kinds. The numbers are not durable.
const (
	Bool   Kind = iota + 1
	Int32       // int32, sint32, sfixed32, and enums by their number
	Int64       // int64, sint64, sfixed64
	Uint32      // uint32, fixed32
	Uint64      // uint64, fixed64
	Float
	Double
	Text // string, bytes
	Time // google.protobuf.Timestamp and Duration
)

// Field says how one field of a tuple is encoded.
type Field struct {
	Kind Kind
	// Optional fields may be absent; absent sorts before all values.
	Optional bool
	// Desc sorts the greatest value first, and absent last.
	Desc bool
	// Cut: of a text above MaxIndexed bytes the tuple has the beginning and a hash. So it is in an
	// index, whose rows are verified when they are read. Keys have whole texts.
	Cut bool
}

// Value is one value of a tuple. The zero Value is absent, or the default of a field that is not
// optional. Which constructor is right follows from the field's Kind.
type Value struct {
	isPresent, isCut bool
	nanos            int32
	bits             uint64 // the number, bit by bit; of a cut text the hash
	text             []byte // not owned
}

// OfBool is a value of kind Bool.
func OfBool(b bool) Value {
	v := Value{isPresent: true}
	if b {
		v.bits = 1
	}
	return v
}

// OfInt is a value of kind Int32 or Int64.
func OfInt(n int64) Value { return Value{isPresent: true, bits: uint64(n)} } //nolint:gosec // bit by bit

// OfUint is a value of kind Uint32 or Uint64.
func OfUint(n uint64) Value { return Value{isPresent: true, bits: n} }

// OfFloat is a value of kind Float or Double.
func OfFloat(x float64) Value { return Value{isPresent: true, bits: math.Float64bits(x)} }

// OfText is a value of kind Text. It keeps the slice.
func OfText[T ~string | ~[]byte](text T) Value { return Value{isPresent: true, text: []byte(text)} }

// OfTime is a value of kind Time.
func OfTime(seconds int64, nanos int32) Value {
	return Value{isPresent: true, bits: uint64(seconds), nanos: nanos} //nolint:gosec // bit by bit
}

// IsPresent is false for an absent value.
func (v Value) IsPresent() bool { return v.isPresent }

// IsCut reports that Text is only the beginning of the text: so it is decoded from an index.
func (v Value) IsCut() bool { return v.isCut }

// Bool returns a value of kind Bool.
func (v Value) Bool() bool { return v.bits != 0 }

// Int returns a value of kind Int32 or Int64.
func (v Value) Int() int64 { return int64(v.bits) } //nolint:gosec // bit by bit

// Uint returns a value of kind Uint32 or Uint64.
func (v Value) Uint() uint64 { return v.bits }

// Float returns a value of kind Float or Double.
func (v Value) Float() float64 { return math.Float64frombits(v.bits) }

// Text returns a value of kind Text. It must not be changed.
func (v Value) Text() []byte { return v.text }

// Time returns a value of kind Time.
func (v Value) Time() (seconds int64, nanos int32) { return v.Int(), v.nanos }

// kinds are those of scalar fields.
var kinds = map[protoreflect.Kind]Kind{ //nolint:gochecknoglobals // a table
	protoreflect.BoolKind: Bool, protoreflect.EnumKind: Int32,
	protoreflect.Int32Kind: Int32, protoreflect.Sint32Kind: Int32, protoreflect.Sfixed32Kind: Int32,
	protoreflect.Int64Kind: Int64, protoreflect.Sint64Kind: Int64, protoreflect.Sfixed64Kind: Int64,
	protoreflect.Uint32Kind: Uint32, protoreflect.Fixed32Kind: Uint32,
	protoreflect.Uint64Kind: Uint64, protoreflect.Fixed64Kind: Uint64,
	protoreflect.FloatKind: Float, protoreflect.DoubleKind: Double,
	protoreflect.StringKind: Text, protoreflect.BytesKind: Text,
}

// The messages that a tuple can have.
const (
	timestampName = "google.protobuf.Timestamp"
	durationName  = "google.protobuf.Duration"
)

// FieldOf returns how the values of a message's field are encoded, ascending and whole. The error
// says that such a field cannot be part of a tuple.
func FieldOf(fd protoreflect.FieldDescriptor) (Field, error) {
	f := Field{Kind: kinds[fd.Kind()], Optional: fd.HasPresence()}
	if m := fd.Message(); m != nil && (m.FullName() == timestampName || m.FullName() == durationName) {
		f.Kind = Time
	}
	switch {
	case fd.IsMap() || fd.IsList():
		return Field{}, fmt.Errorf("field %s has several values: a key or an index has one value of each field",
			fd.FullName())
	case f.Kind == 0:
		return Field{}, fmt.Errorf("field %s is a message: a key or an index has scalars, enums, %s and %s", fd.FullName(),
			timestampName, durationName)
	}
	return f, nil
}

// ValueOf returns the value of a message's field, absent if the field has presence and is not set.
// It keeps the bytes of a bytes field.
func ValueOf(m protoreflect.Message, fd protoreflect.FieldDescriptor) Value {
	if fd.HasPresence() && !m.Has(fd) {
		return Value{}
	}
	v := m.Get(fd)
	switch v := v.Interface().(type) {
	case bool:
		return OfBool(v)
	case int32:
		return OfInt(int64(v))
	case int64:
		return OfInt(v)
	case uint32:
		return OfUint(uint64(v))
	case uint64:
		return OfUint(v)
	case float32:
		return OfFloat(float64(v))
	case float64:
		return OfFloat(v)
	case string:
		return OfText(v)
	case []byte:
		return OfText(v)
	case protoreflect.EnumNumber:
		return OfInt(int64(v))
	case protoreflect.Message:
		fields := v.Descriptor().Fields()
		return OfTime(v.Get(fields.ByNumber(1)).Int(), int32(v.Get(fields.ByNumber(2)).Int())) //nolint:gosec // an int32
	default:
		return Value{}
	}
}
