package mapping

import (
	"fmt"
	"math"
	"strings"

	"cel.dev/cel-go/common/types"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/structpb"
)

// Events that are no messages: JSON, and single values, whose type stands behind the prefix.
const (
	jsonPrefix      = "json.cloudstate.io/"
	primitivePrefix = "p.cloudstate.io/"
)

// dynamicEvent decodes an event without a descriptor to a value of CEL, or to an error of CEL.
func dynamicEvent(typ string, b []byte) any {
	switch {
	case strings.HasPrefix(typ, jsonPrefix):
		value := &structpb.Value{}
		if err := protojson.Unmarshal(payload(b), value); err != nil {
			return types.NewErr("the event %s is not JSON", typ)
		}
		return value
	case strings.HasPrefix(typ, primitivePrefix):
		return primitive(strings.TrimPrefix(typ, primitivePrefix), b)
	default:
		return types.NewErr("the event %s has no descriptor, and is neither JSON nor a single value", typ)
	}
}

// payload returns the bytes of field 1 of a message that has nothing else, and other bytes as they
// are.
func payload(b []byte) []byte {
	const tag = 1<<3 | byte(protowire.BytesType)
	if len(b) > 1 && b[0] == tag {
		if inner, n := protowire.ConsumeBytes(b[1:]); n == len(b)-1 {
			return inner
		}
	}
	return b
}

// primitive decodes field 1, as a message with one field of that type has it.
func primitive(typ string, b []byte) any {
	var bits uint64
	var text []byte
	for len(b) > 0 {
		number, t, n := protowire.ConsumeTag(b)
		if n < 0 {
			return types.WrapErr(errWire)
		}
		b = b[n:]
		from, to, size, err := consume(b, number, t)
		if err != nil {
			return types.WrapErr(err)
		}
		if number == 1 {
			switch value := b[from:to]; t {
			case protowire.BytesType:
				text = value
			case protowire.VarintType:
				bits, _ = protowire.ConsumeVarint(value)
			case protowire.Fixed32Type:
				v, _ := protowire.ConsumeFixed32(value)
				bits = uint64(v)
			case protowire.Fixed64Type:
				bits, _ = protowire.ConsumeFixed64(value)
			case protowire.StartGroupType, protowire.EndGroupType:
			}
		}
		b = b[size:]
	}
	switch typ {
	case "string":
		return types.String(text)
	case "bytes":
		return types.Bytes(text)
	case "bool":
		return types.Bool(bits != 0)
	case "int32":
		return types.Int(int32(bits))
	case "int64":
		return types.Int(bits)
	case "uint32":
		return types.Uint(uint32(bits))
	case "uint64":
		return types.Uint(bits)
	case "float":
		return types.Double(math.Float32frombits(uint32(bits)))
	case "double":
		return types.Double(math.Float64frombits(bits))
	default:
		return types.WrapErr(fmt.Errorf("%s is not the type of a single value", typ))
	}
}
