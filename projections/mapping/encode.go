package mapping

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// errType: a value of an expression whose type is known only when it runs does not fit.
var errType = errors.New("the value does not fit the field")

func wrongType(f *field, v ref.Val) error {
	return fmt.Errorf("%w: it is %s, and the field is %s", errType, v.Type().TypeName(), f.kindName())
}

func (f *field) kindName() string {
	if f.message != nil {
		return string(f.message.name)
	}
	return f.kind.String()
}

// appendValue appends a field with a value of an expression.
func (d *Folder) appendValue(out []byte, f *field, v ref.Val) ([]byte, error) {
	switch {
	case f.key != nil:
		return d.appendMap(out, f, v)
	case f.isList:
		return d.appendList(out, f, v)
	case f.message != nil:
		return d.appendMessage(out, f, v)
	default:
		c := classOf(f.kind)
		value, err := scalarOf(f, c, v)
		if err != nil {
			return out, err
		}
		return f.appendScalar(out, c, &value)
	}
}

// scalarOf takes a value as one of a class. Numbers of JSON, which are doubles, are taken as whole
// ones where they are.
func scalarOf(f *field, c class, v ref.Val) (scalar, error) {
	switch x := v.(type) {
	case types.Bool:
		if c == boolClass {
			return scalar{bits: OfBool(bool(x)).bits}, nil
		}
	case types.String:
		if c == stringClass {
			return scalar{text: []byte(x)}, nil
		}
	case types.Bytes:
		if c == bytesClass {
			return scalar{text: x}, nil
		}
	case types.Int:
		switch {
		case c == intClass, c == uintClass && x >= 0:
			return scalar{bits: uint64(x)}, nil //nolint:gosec // bit by bit
		case c == doubleClass:
			return scalar{bits: math.Float64bits(float64(x))}, nil
		}
	case types.Uint:
		switch {
		case c == uintClass, c == intClass && x <= math.MaxInt64:
			return scalar{bits: uint64(x)}, nil
		case c == doubleClass:
			return scalar{bits: math.Float64bits(float64(x))}, nil
		}
	case types.Double:
		switch n := float64(x); {
		case c == doubleClass:
			return scalar{bits: math.Float64bits(n)}, nil
		case c == intClass && n == math.Trunc(n) && n >= -1<<63 && n < 1<<63:
			return scalar{bits: uint64(int64(n))}, nil //nolint:gosec // bit by bit
		case c == uintClass && n == math.Trunc(n) && n >= 0 && n < 1<<64:
			return scalar{bits: uint64(n)}, nil
		}
	}
	return scalar{}, wrongType(f, v)
}

// single is the field of one item of a list.
func (f *field) single() *field {
	item := *f
	item.isList, item.presence = false, true
	return &item
}

func (d *Folder) appendList(out []byte, f *field, v ref.Val) ([]byte, error) {
	list, ok := v.(traits.Lister)
	if !ok {
		return out, wrongType(f, v)
	}
	begin := len(out)
	if f.isPacked {
		out = protowire.AppendTag(out, f.number, protowire.BytesType)
	}
	start, item := len(out), f.single()
	for it := list.Iterator(); it.HasNext() == types.True; {
		var err error
		if !f.isPacked {
			if out, err = d.appendValue(out, item, it.Next()); err != nil {
				return out, err
			}
			continue
		}
		c := classOf(f.kind)
		value, err := scalarOf(f, c, it.Next())
		if err == nil {
			value.bits, err = f.bits(c, value.bits)
		}
		if err != nil {
			return out, err
		}
		out = appendNumber(out, f.kind, value.bits)
	}
	switch {
	case !f.isPacked:
		return out, nil
	case len(out) == start:
		return out[:begin], nil
	default:
		return prefixed(out, start), nil
	}
}

func (d *Folder) appendMap(out []byte, f *field, v ref.Val) ([]byte, error) {
	m, ok := v.(traits.Mapper)
	if !ok {
		return out, wrongType(f, v)
	}
	w := &d.rewriter
	base, begin := len(w.pairs), len(out)
	c := classOf(f.key.kind)
	for _, k := range sortedKeys(m) {
		p := pair{from: len(out)}
		key, err := scalarOf(f.key, c, k)
		if err != nil {
			return out, err
		}
		if p.text = key.text; c != stringClass {
			p.order = orderOf(f.key.kind, key.bits)
		}
		out = protowire.AppendTag(out, f.number, protowire.BytesType)
		start := len(out)
		if out, err = f.key.appendScalar(out, c, &key); err != nil {
			return out, err
		}
		if out, err = d.appendValue(out, f.value, m.Get(k)); err != nil {
			return out, err
		}
		out = prefixed(out, start)
		p.to = len(out)
		w.pairs = append(w.pairs, p)
	}
	out = w.sortPairs(out, begin, base)
	w.pairs = w.pairs[:base]
	return out, nil
}

// wrapped are the messages that CEL has values for: what stands in their field 1.
var wrapped = map[protoreflect.FullName]protoreflect.Kind{ //nolint:gochecknoglobals // a table
	"google.protobuf.BoolValue": protoreflect.BoolKind, "google.protobuf.BytesValue": protoreflect.BytesKind,
	"google.protobuf.DoubleValue": protoreflect.DoubleKind, "google.protobuf.FloatValue": protoreflect.FloatKind,
	"google.protobuf.Int32Value": protoreflect.Int32Kind, "google.protobuf.Int64Value": protoreflect.Int64Kind,
	"google.protobuf.StringValue": protoreflect.StringKind, "google.protobuf.UInt32Value": protoreflect.Uint32Kind,
	"google.protobuf.UInt64Value": protoreflect.Uint64Kind,
}

func (d *Folder) appendMessage(out []byte, f *field, v ref.Val) ([]byte, error) {
	switch x := v.(type) {
	case types.Timestamp:
		if f.message.name == timestampName {
			return f.appendTime(out, timestampClass, x.Unix(), int32(x.Nanosecond())) //nolint:gosec // below 10^9
		}
	case types.Duration:
		if f.message.name == durationName {
			return f.appendTime(out, durationClass, int64(x.Duration/1e9), int32(x.Duration%1e9))
		}
	}
	if kind, isWrapped := wrapped[f.message.name]; isWrapped {
		c := classOf(kind)
		value, err := scalarOf(f, c, v)
		if err != nil {
			return out, err
		}
		out = protowire.AppendTag(out, f.number, protowire.BytesType)
		start := len(out)
		inner := field{name: "value", number: 1, kind: kind, oneof: -1}
		out, err = inner.appendScalar(out, c, &value)
		return prefixed(out, start), err
	}
	m, err := messageOf(f, v)
	if err != nil {
		return out, err
	}
	start := len(d.message)
	defer func() { d.message = d.message[:start] }()
	marshal := proto.MarshalOptions{Deterministic: true, AllowPartial: true}
	if d.message, err = marshal.MarshalAppend(d.message, m); err != nil {
		return out, fmt.Errorf("the value cannot be encoded: %w", err)
	}
	return d.rewriter.nested(out, f, d.message[start:], 0)
}

// messageOf returns a value of an expression as the message of a field.
func messageOf(f *field, v ref.Val) (proto.Message, error) {
	var native any
	var err error
	switch f.message.name {
	case "google.protobuf.Value", "google.protobuf.Struct", "google.protobuf.ListValue":
		if native, err = v.ConvertToNative(reflect.TypeFor[*structpb.Value]()); err != nil {
			return nil, fmt.Errorf("%w: %w", errType, err)
		}
		value, _ := native.(*structpb.Value)
		switch f.message.name {
		case "google.protobuf.Struct":
			if s := value.GetStructValue(); s != nil {
				return s, nil
			}
			return nil, wrongType(f, v)
		case "google.protobuf.ListValue":
			if l := value.GetListValue(); l != nil {
				return l, nil
			}
			return nil, wrongType(f, v)
		}
		return value, nil
	case "google.protobuf.Any":
		return anyOf(f, v)
	}
	m, ok := v.Value().(proto.Message)
	if !ok || cmp.Compare(m.ProtoReflect().Descriptor().FullName(), f.message.name) != 0 {
		return nil, wrongType(f, v)
	}
	return m, nil
}

// anyOf packs a message, deterministically.
func anyOf(f *field, v ref.Val) (proto.Message, error) {
	m, ok := v.Value().(proto.Message)
	if !ok {
		return nil, wrongType(f, v)
	}
	packed := &anypb.Any{}
	if err := anypb.MarshalFrom(packed, m, proto.MarshalOptions{Deterministic: true, AllowPartial: true}); err != nil {
		return nil, fmt.Errorf("the value cannot be encoded: %w", err)
	}
	return packed, nil
}
