package mapping

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

const (
	// MaxIndexed is how many bytes of a text an index has; of a longer one it has so many, and a
	// hash.
	MaxIndexed = 512
	// MaxKey is how many bytes the tuple of a key may have.
	MaxKey = 1024
)

var (
	// ErrTuple: bytes are not a tuple of the shape.
	ErrTuple = errors.New("tuple is damaged")
	// ErrKeyTooLong: a key is above MaxKey.
	ErrKeyTooLong = errors.New("key is too long")
)

// Shape says which fields tuples have. No tuple is the beginning of another one of its shape, and
// tuples that begin with the same values begin with the same bytes.
type Shape []Field

// What a text ends with, and how a zero byte in it is written. The order of the numbers makes a
// text sort before those that it begins, and those before texts that are cut.
const (
	escape  = 0x00
	textEnd = 0x01 // behind an escape: the end
	textCut = 0x02 // behind an escape: the rest is a hash
	zero    = 0xff // behind an escape: a zero byte
)

// The presence byte of an optional field.
const (
	absent  = 0
	present = 1
)

const (
	signBit32 = 1 << 31
	signBit64 = 1 << 63
	hashSize  = 8
)

// Append appends the encoding of the values of the shape's first fields: of all of them for a
// tuple, of fewer for what all tuples with these values begin with.
func (s Shape) Append(buf []byte, values ...Value) []byte {
	for i := range values {
		buf = s[i].append(buf, &values[i])
	}
	return buf
}

// CheckKey returns ErrKeyTooLong for the tuple of a key that is above MaxKey.
func CheckKey(tuple []byte) error {
	if len(tuple) > MaxKey {
		return fmt.Errorf("%w: it has %d bytes, and the limit is %d", ErrKeyTooLong, len(tuple), MaxKey)
	}
	return nil
}

func (f Field) append(buf []byte, v *Value) []byte {
	start := len(buf)
	switch {
	case !f.Optional:
		buf = f.appendValue(buf, v)
	case v.isPresent:
		buf = f.appendValue(append(buf, present), v)
	default:
		buf = append(buf, absent)
	}
	return f.ordered(buf, start)
}

// ordered inverts what was appended from start on, if the field is descending.
func (f Field) ordered(buf []byte, start int) []byte {
	if f.Desc {
		for i := range buf[start:] {
			buf[start+i] = ^buf[start+i]
		}
	}
	return buf
}

// appendValue appends a value in ascending order, without presence.
func (f Field) appendValue(buf []byte, v *Value) []byte {
	switch f.Kind {
	case Bool:
		return append(buf, byte(v.bits)) //nolint:gosec // 0 or 1
	case Int32:
		return binary.BigEndian.AppendUint32(buf, uint32(v.bits)^signBit32) //nolint:gosec // it is one
	case Int64:
		return binary.BigEndian.AppendUint64(buf, v.bits^signBit64)
	case Uint32:
		return binary.BigEndian.AppendUint32(buf, uint32(v.bits)) //nolint:gosec // it is one
	case Uint64:
		return binary.BigEndian.AppendUint64(buf, v.bits)
	case Float:
		return binary.BigEndian.AppendUint32(buf, order32(float32(v.Float())))
	case Double:
		return binary.BigEndian.AppendUint64(buf, order64(v.Float()))
	case Time:
		buf = binary.BigEndian.AppendUint64(buf, v.bits^signBit64)
		return binary.BigEndian.AppendUint32(buf, uint32(v.nanos)^signBit32) //nolint:gosec // bit by bit
	default:
		return f.appendText(buf, v)
	}
}

func (f Field) appendText(buf []byte, v *Value) []byte {
	switch {
	case v.isCut:
		buf = append(appendEscaped(buf, v.text), escape, textCut)
		return binary.BigEndian.AppendUint64(buf, v.bits)
	case f.Cut && len(v.text) > MaxIndexed:
		buf = append(appendEscaped(buf, v.text[:MaxIndexed]), escape, textCut)
		hash := sha256.Sum256(v.text)
		return append(buf, hash[:hashSize]...)
	default:
		return append(appendEscaped(buf, v.text), escape, textEnd)
	}
}

func appendEscaped(buf, text []byte) []byte {
	for {
		at := bytes.IndexByte(text, 0)
		if at < 0 {
			return append(buf, text...)
		}
		buf = append(append(buf, text[:at]...), escape, zero)
		text = text[at+1:]
	}
}

// order64 returns a number that sorts as the double does: both zeros are one, and so is every NaN,
// which is above all numbers.
func order64(x float64) uint64 {
	switch {
	case x != x: //nolint:gocritic // NaN
		return ^uint64(0)
	case x == 0:
		return signBit64
	}
	bits := math.Float64bits(x)
	if bits&signBit64 != 0 {
		return ^bits
	}
	return bits | signBit64
}

func order32(x float32) uint32 {
	switch {
	case x != x: //nolint:gocritic // NaN
		return ^uint32(0)
	case x == 0:
		return signBit32
	}
	bits := math.Float32bits(x)
	if bits&signBit32 != 0 {
		return ^bits
	}
	return bits | signBit32
}

// Decode appends the values of a tuple to values and returns the bytes that follow on it. Texts
// that have no zero byte and are ascending are part of the tuple's memory. What it accepts is what
// Append makes of the values: the same bytes.
func (s Shape) Decode(values []Value, tuple []byte) (_ []Value, rest []byte, err error) {
	rest = tuple
	for i, f := range s {
		v, size, err := f.decode(rest)
		if err != nil {
			return values, rest, fmt.Errorf("%w: field %d of %x: %w", ErrTuple, i, tuple, err)
		}
		values, rest = append(values, v), rest[size:]
	}
	return values, rest, nil
}

// Prefix returns the part of a tuple that has the first n fields.
func (s Shape) Prefix(tuple []byte, n int) ([]byte, error) {
	_, rest, err := s[:n].Decode(make([]Value, 0, n), tuple)
	return tuple[:len(tuple)-len(rest)], err
}

var (
	errShort    = errors.New("it ends too early")
	errForm     = errors.New("no value has this form")
	errPresence = errors.New("no presence byte")
)

// widths are the sizes of the kinds that have one.
var widths = [...]int{Bool: 1, Int32: 4, Int64: 8, Uint32: 4, Uint64: 8, Float: 4, Double: 8, Time: 12, Text: 0} //nolint:gochecknoglobals // a table

// decode returns the value with which b begins, and its size.
func (f Field) decode(b []byte) (v Value, size int, err error) {
	var mask byte
	if f.Desc {
		mask = 0xff
	}
	if f.Optional {
		if len(b) == 0 {
			return v, 0, errShort
		}
		switch b[0] ^ mask {
		case absent:
			return v, 1, nil
		case present:
			b, size = b[1:], 1
		default:
			return v, 0, errPresence
		}
	}
	v.isPresent = true
	if f.Kind == Text {
		n, err := f.decodeText(&v, b, mask)
		return v, size + n, err
	}
	width := widths[f.Kind]
	if len(b) < width {
		return v, 0, errShort
	}
	var number [12]byte
	for i := range width {
		number[i] = b[i] ^ mask
	}
	return v, size + width, f.decodeNumber(&v, number[:width])
}

func (f Field) decodeNumber(v *Value, b []byte) error {
	switch f.Kind {
	case Bool:
		if v.bits = uint64(b[0]); v.bits > 1 {
			return errForm
		}
	case Int32:
		v.bits = uint64(int64(int32(binary.BigEndian.Uint32(b) ^ signBit32))) //nolint:gosec // bit by bit
	case Int64:
		v.bits = binary.BigEndian.Uint64(b) ^ signBit64
	case Uint32:
		v.bits = uint64(binary.BigEndian.Uint32(b))
	case Uint64:
		v.bits = binary.BigEndian.Uint64(b)
	case Float:
		n := binary.BigEndian.Uint32(b)
		bits := n &^ signBit32
		if n&signBit32 == 0 {
			bits = ^n
		}
		x := math.Float32frombits(bits)
		if order32(x) != n {
			return errForm
		}
		v.bits = math.Float64bits(float64(x))
	case Double:
		n := binary.BigEndian.Uint64(b)
		if v.bits = n &^ signBit64; n&signBit64 == 0 {
			v.bits = ^n
		}
		if order64(v.Float()) != n {
			return errForm
		}
	default: // Time
		v.bits = binary.BigEndian.Uint64(b) ^ signBit64
		v.nanos = int32(binary.BigEndian.Uint32(b[8:]) ^ signBit32) //nolint:gosec // bit by bit
	}
	return nil
}

// decodeText reads a text and what it ends with.
func (f Field) decodeText(v *Value, b []byte, mask byte) (size int, err error) {
	v.text = b[:0:0]
	for size = 0; ; {
		at := bytes.IndexByte(b[size:], escape^mask)
		if at < 0 || size+at+1 == len(b) {
			return 0, errShort
		}
		v.text = joined(v.text, b[size:size+at], mask)
		size += at + 2
		switch b[size-1] ^ mask {
		case textEnd:
			if f.Cut && len(v.text) > MaxIndexed {
				return 0, errForm
			}
			return size, nil
		case zero:
			v.text = append(slices.Clip(v.text), 0)
		case textCut:
			if !f.Cut || len(v.text) != MaxIndexed {
				return 0, errForm
			}
			if len(b) < size+hashSize {
				return 0, errShort
			}
			v.isCut = true
			for _, x := range b[size : size+hashSize] {
				v.bits = v.bits<<8 | uint64(x^mask)
			}
			return size + hashSize, nil
		default:
			return 0, errForm
		}
	}
}

// joined appends a piece of a text, or is that piece if it is the first one and needs no change.
func joined(text, piece []byte, mask byte) []byte {
	if len(text) == 0 && mask == 0 {
		return slices.Clip(piece)
	}
	start := len(text)
	text = append(text, piece...)
	for i := range text[start:] {
		text[start+i] ^= mask
	}
	return text
}
