package fields

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Reader reads a message field by field.
type Reader struct {
	// Number is that of the present field; 0 if the field is neither a number nor bytes.
	Number protowire.Number
	// N is the field's value if it is a number, B if it is not. B is part of the message.
	N uint64
	B []byte
	// Err is why Next ended before the end of the message.
	Err error

	rest      []byte
	malformed error
}

// Of returns a reader of a message. Err wraps malformed.
func Of(message []byte, malformed error) Reader { return Reader{rest: message, malformed: malformed} }

// Next reads the next field; it returns false at the end, or if the bytes are malformed.
func (r *Reader) Next() bool {
	if len(r.rest) == 0 || r.Err != nil {
		return false
	}
	number, form, size := protowire.ConsumeTag(r.rest)
	if size < 0 {
		r.Err = fmt.Errorf("%w: %w", r.malformed, protowire.ParseError(size))
		return false
	}
	r.Number, r.N, r.B = number, 0, nil
	value := r.rest[size:]
	switch form {
	case protowire.VarintType:
		r.N, size = protowire.ConsumeVarint(value)
	case protowire.Fixed64Type:
		r.N, size = protowire.ConsumeFixed64(value)
	case protowire.BytesType:
		r.B, size = protowire.ConsumeBytes(value)
	default:
		r.Number = 0
		size = protowire.ConsumeFieldValue(number, form, value)
	}
	if size < 0 {
		r.Err = fmt.Errorf("%w: field %d: %w", r.malformed, number, protowire.ParseError(size))
		return false
	}
	r.rest = value[size:]
	return true
}
