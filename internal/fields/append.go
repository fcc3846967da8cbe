package fields

import "google.golang.org/protobuf/encoding/protowire"

// AppendUint appends a number that is written as a varint.
func AppendUint(b []byte, number protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), v)
}

// AppendFixed appends a number that is written as 8 bytes.
func AppendFixed(b []byte, number protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendFixed64(protowire.AppendTag(b, number, protowire.Fixed64Type), v)
}

// AppendBool appends true.
func AppendBool(b []byte, number protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return AppendUint(b, number, 1)
}

// AppendString appends a text.
func AppendString(b []byte, number protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), s)
}

// AppendBytes appends bytes, or a message that is encoded already.
func AppendBytes(b []byte, number protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), v)
}

// Begin opens a nested message and reserves two bytes for its length, which is enough for most. End
// closes it.
func Begin(b []byte, number protowire.Number) (opened []byte, at int) {
	b = protowire.AppendTag(b, number, protowire.BytesType)
	return append(b, 0, 0), len(b)
}

// End closes the nested message that Begin opened at an index.
func End(b []byte, at int) []byte {
	n := len(b) - at - 2
	switch width := protowire.SizeVarint(uint64(n)); width { //nolint:gosec // a length
	case 2:
	case 1:
		copy(b[at+1:], b[at+2:])
		b = b[:len(b)-1]
	default:
		var room [8]byte // a length is an int
		b = append(b, room[:width-2]...)
		copy(b[at+width:], b[at+2:at+2+n])
	}
	protowire.AppendVarint(b[:at], uint64(n)) //nolint:gosec // a length
	return b
}
