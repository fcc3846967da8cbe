package mapping

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// wireType is how a value of a kind is written; -1 for groups, which no row has.
func wireType(k protoreflect.Kind) protowire.Type {
	switch k {
	case protoreflect.BoolKind, protoreflect.EnumKind, protoreflect.Int32Kind, protoreflect.Sint32Kind,
		protoreflect.Uint32Kind, protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Uint64Kind:
		return protowire.VarintType
	case protoreflect.Sfixed32Kind, protoreflect.Fixed32Kind, protoreflect.FloatKind:
		return protowire.Fixed32Type
	case protoreflect.Sfixed64Kind, protoreflect.Fixed64Kind, protoreflect.DoubleKind:
		return protowire.Fixed64Type
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return protowire.BytesType
	default:
		return -1
	}
}

// consumeNumber reads a number: signed ones as an int64, floats by their own bits.
func consumeNumber(b []byte, k protoreflect.Kind) (bits uint64, n int) {
	switch wireType(k) {
	case protowire.VarintType:
		if len(b) > 0 && b[0] < 0x80 {
			bits, n = uint64(b[0]), 1
		} else {
			bits, n = protowire.ConsumeVarint(b)
		}
	case protowire.Fixed32Type:
		v, size := protowire.ConsumeFixed32(b)
		bits, n = uint64(v), size
	default:
		bits, n = protowire.ConsumeFixed64(b)
	}
	return normal(k, bits), n
}

// normal makes a number of what the wire has. Every NaN is one: machines make different ones.
func normal(k protoreflect.Kind, raw uint64) uint64 {
	switch k {
	case protoreflect.BoolKind:
		if raw != 0 {
			return 1
		}
		return 0
	case protoreflect.Int32Kind, protoreflect.EnumKind, protoreflect.Sfixed32Kind:
		return uint64(int64(int32(raw))) //nolint:gosec // as protobuf does
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return uint64(uint32(raw)) //nolint:gosec // as protobuf does
	case protoreflect.Sint32Kind:
		return uint64(int64(int32(protowire.DecodeZigZag(raw & math.MaxUint32)))) //nolint:gosec // as protobuf does
	case protoreflect.Sint64Kind:
		return uint64(protowire.DecodeZigZag(raw)) //nolint:gosec // bit by bit
	case protoreflect.FloatKind:
		bits := uint32(raw)                          //nolint:gosec // it is one
		if x := math.Float32frombits(bits); x != x { //nolint:gocritic // NaN
			bits = math.Float32bits(float32(math.NaN()))
		}
		return uint64(bits)
	case protoreflect.DoubleKind:
		if x := math.Float64frombits(raw); x != x { //nolint:gocritic // NaN
			return math.Float64bits(math.NaN())
		}
		return raw
	default:
		return raw
	}
}

// appendNumber writes a number as consumeNumber reads it.
func appendNumber(out []byte, k protoreflect.Kind, bits uint64) []byte {
	switch k {
	case protoreflect.Sint32Kind, protoreflect.Sint64Kind:
		return protowire.AppendVarint(out, protowire.EncodeZigZag(int64(bits))) //nolint:gosec // bit by bit
	case protoreflect.Sfixed32Kind, protoreflect.Fixed32Kind, protoreflect.FloatKind:
		return protowire.AppendFixed32(out, uint32(bits)) //nolint:gosec // it is one
	case protoreflect.Sfixed64Kind, protoreflect.Fixed64Kind, protoreflect.DoubleKind:
		return protowire.AppendFixed64(out, bits)
	default:
		return protowire.AppendVarint(out, bits)
	}
}
