package mapping

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// class is what values of fields are compared and converted by: kinds of one class have the same
// values, within their bounds.
type class uint8

const (
	noClass class = iota
	boolClass
	intClass    // as an int64
	uintClass   // as a uint64
	doubleClass // as the bits of a float64
	stringClass
	bytesClass
	timestampClass
	durationClass
)

// classOf returns the class of the values of a kind, noClass for messages.
func classOf(k protoreflect.Kind) class {
	switch kinds[k] {
	case Bool:
		return boolClass
	case Int32, Int64:
		return intClass
	case Uint32, Uint64:
		return uintClass
	case Float, Double:
		return doubleClass
	case Text:
		if k == protoreflect.StringKind {
			return stringClass
		}
		return bytesClass
	default:
		return noClass
	}
}

// fieldClass returns the class of a single field, noClass for other fields.
func fieldClass(fd protoreflect.FieldDescriptor) class {
	switch {
	case fd.IsList() || fd.IsMap():
		return noClass
	case fd.Message() == nil:
		return classOf(fd.Kind())
	case fd.Message().FullName() == timestampName:
		return timestampClass
	case fd.Message().FullName() == durationName:
		return durationClass
	default:
		return noClass
	}
}

// scalar is a value of a class: a number, a text, or a time as seconds and nanoseconds.
type scalar struct {
	bits  uint64
	nanos int32
	text  []byte
}

// cell is what a scan has found at one place.
type cell struct {
	isSet bool
	bits  uint64
	text  []byte // of the message that is scanned
}

// branch is a field that a scan looks for.
type branch struct {
	number protowire.Number
	kind   protoreflect.Kind
	typ    protowire.Type
	// cell gets the value, or that there is a message.
	cell int
	// below is what is looked for in the message.
	below *branches
	// replaces are the cells of the other members of the oneof.
	replaces []int
}

// branches are the fields of one message that a scan looks for.
type branches struct {
	md   protoreflect.MessageDescriptor
	list []branch
	// low has the positions, from 1, of the fields with low numbers.
	low [lowNumbers]uint16
}

// lowNumbers is how many numbers are found at once: those whose tags have one byte, and a few more.
const lowNumbers = 24

func (bs *branches) find(number protowire.Number) *branch {
	if number < lowNumbers {
		if i := bs.low[number]; i > 0 {
			return &bs.list[i-1]
		}
		return nil
	}
	for i := range bs.list {
		if bs.list[i].number == number {
			return &bs.list[i]
		}
	}
	return nil
}

// plan collects the places of a message that one scan looks for.
type plan struct {
	top   *branches
	cells int
}

func newPlan(md protoreflect.MessageDescriptor) *plan { return &plan{top: &branches{md: md}} }

// place is where the value of a path is found.
type place struct {
	fd    protoreflect.FieldDescriptor
	class class
	// leaf is the cell of the value; of a time leaf has the seconds, nanos the nanoseconds.
	leaf, nanos int
	// needs are the cells of what has presence on the way, the value itself too.
	needs []int
}

// field adds a field to what is looked for, and returns its branch.
func (p *plan) field(bs *branches, fd protoreflect.FieldDescriptor) *branch {
	if b := bs.find(fd.Number()); b != nil {
		return b
	}
	bs.list = append(bs.list, branch{number: fd.Number(), kind: fd.Kind(), typ: wireType(fd.Kind()), cell: p.cells})
	p.cells++
	if fd.Number() < lowNumbers {
		bs.low[fd.Number()] = uint16(len(bs.list)) //nolint:gosec // a message has fewer fields
	}
	if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() {
		for i := range o.Fields().Len() {
			p.field(bs, o.Fields().Get(i))
		}
	}
	return bs.find(fd.Number())
}

// path adds a path of names to what is looked for. ok is false if it does not end at a single
// value, or goes through something else than messages of the user.
func (p *plan) path(names []string) (at place, ok bool) {
	bs := p.top
	for i, name := range names {
		fd := bs.md.Fields().ByName(protoreflect.Name(name))
		if fd == nil {
			return place{}, false
		}
		at.fd, at.class = fd, fieldClass(fd)
		isLast := i == len(names)-1
		isStep := fd.Message() != nil && !fd.IsList() && !fd.IsMap() && !isGoogles(fd.Message())
		if isLast && at.class == noClass || !isLast && !isStep || fd.Kind() == protoreflect.GroupKind {
			return place{}, false
		}
		b := p.field(bs, fd)
		at.leaf = b.cell
		if fd.HasPresence() {
			at.needs = append(at.needs, b.cell)
		}
		if fd.Message() == nil {
			continue
		}
		if b.below == nil {
			b.below = &branches{md: fd.Message()}
		}
		bs = b.below
	}
	if at.class == timestampClass || at.class == durationClass {
		fields := bs.md.Fields()
		at.leaf = p.field(bs, fields.ByNumber(1)).cell
		at.nanos = p.field(bs, fields.ByNumber(2)).cell
	}
	return at, true
}

// finish notes which cells a member of a oneof empties. It is called when all paths are there.
func (p *plan) finish() { p.top.finish() }

func (bs *branches) finish() {
	for i := range bs.list {
		b := &bs.list[i]
		o := bs.md.Fields().ByNumber(b.number).ContainingOneof()
		if o != nil && !o.IsSynthetic() {
			for j := range bs.list {
				if other := &bs.list[j]; j != i && o.Fields().ByNumber(other.number) != nil {
					b.replaces = other.cellsBelow(b.replaces)
				}
			}
		}
		if b.below != nil {
			b.below.finish()
		}
	}
}

func (b *branch) cellsBelow(cells []int) []int {
	cells = append(cells, b.cell)
	if b.below != nil {
		for i := range b.below.list {
			cells = b.below.list[i].cellsBelow(cells)
		}
	}
	return cells
}

func isGoogles(m protoreflect.MessageDescriptor) bool {
	return strings.HasPrefix(string(m.FullName()), "google.protobuf.")
}

// empty makes cells for a scan.
func (p *plan) empty(cells []cell) []cell {
	if cap(cells) < p.cells {
		return make([]cell, p.cells)
	}
	cells = cells[:p.cells]
	clear(cells)
	return cells
}

// scan reads a message once and notes what the branches look for.
func (bs *branches) scan(cells []cell, b []byte) error {
	for len(b) > 0 {
		var number protowire.Number
		var t protowire.Type
		n := 1
		if tag := b[0]; tag < 0x80 && tag >= 1<<3 {
			number, t = protowire.Number(tag>>3), protowire.Type(tag&7)
		} else if number, t, n = protowire.ConsumeTag(b); n < 0 {
			return errWire
		}
		b = b[n:]
		at := bs.find(number)
		if at != nil && at.typ != t {
			at = nil // an unknown field
		}
		switch t {
		case protowire.VarintType:
			raw, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return errWire
			}
			if at != nil {
				at.note(cells).bits = normal(at.kind, raw)
			}
			b = b[n:]
		case protowire.BytesType:
			value, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return errWire
			}
			if at != nil {
				at.note(cells).text = value
				if at.below != nil {
					if err := at.below.scan(cells, value); err != nil {
						return err
					}
				}
			}
			b = b[n:]
		default:
			if n = protowire.ConsumeFieldValue(number, t, b); n < 0 {
				return errWire
			}
			if at != nil {
				at.note(cells).bits, _ = consumeNumber(b, at.kind)
			}
			b = b[n:]
		}
	}
	return nil
}

// note returns the cell for a value, and empties those that it replaces.
func (b *branch) note(cells []cell) *cell {
	for _, i := range b.replaces {
		cells[i] = cell{}
	}
	c := &cells[b.cell]
	c.isSet = true
	return c
}

// value returns the value of a place. isThere is false when something on the way, or the value
// itself, has presence and is not set; the value is the default then.
func (at *place) value(cells []cell) (v scalar, isThere bool) {
	isThere = true
	for _, i := range at.needs {
		isThere = isThere && cells[i].isSet
	}
	c := &cells[at.leaf]
	switch at.class {
	case stringClass, bytesClass:
		v.text = c.text
	case doubleClass:
		v.bits = c.bits
		if at.fd.Kind() == protoreflect.FloatKind {
			v.bits = math.Float64bits(float64(math.Float32frombits(uint32(c.bits)))) //nolint:gosec // the bits of a float32
		}
	case timestampClass, durationClass:
		v.bits, v.nanos = c.bits, int32(cells[at.nanos].bits) //nolint:gosec // an int32
	default:
		v.bits = c.bits
	}
	return v, isThere
}

var (
	errTime     = errors.New("the time is not between the years 1 and 9999")
	errDuration = errors.New("the duration is above 292 years")
)

// checkTime returns a time with nanoseconds from 0 to 999 999 999.
func checkTime(seconds int64, nanos int32) (int64, int32, error) {
	t := time.Unix(seconds, int64(nanos)).UTC()
	if year := t.Year(); year < 1 || year > 9999 || seconds > 1<<40 || seconds < -1<<40 {
		return 0, 0, errTime
	}
	return t.Unix(), int32(t.Nanosecond()), nil //nolint:gosec // below 10^9
}

// checkDuration returns a duration whose parts have one sign.
func checkDuration(seconds int64, nanos int32) (int64, int32, error) {
	const most = int64(math.MaxInt64/time.Second) - 3
	if seconds > most || seconds < -most {
		return 0, 0, errDuration
	}
	d := time.Duration(seconds)*time.Second + time.Duration(nanos)
	return int64(d / time.Second), int32(d % time.Second), nil
}

// appendScalar appends a single field with a value of its class. It checks what a row may have.
func (f *field) appendScalar(out []byte, c class, v *scalar) ([]byte, error) {
	switch c {
	case stringClass, bytesClass:
		return f.appendText(out, v.text)
	case timestampClass, durationClass:
		return f.appendTime(out, c, int64(v.bits), v.nanos) //nolint:gosec // bit by bit
	default:
		bits, err := f.bits(c, v.bits)
		if err != nil {
			return out, err
		}
		return f.appendBits(out, bits), nil
	}
}

// bits turns a number of a class into one of the field's kind.
func (f *field) bits(c class, bits uint64) (uint64, error) {
	switch c {
	case intClass:
		if n := int64(bits); kinds[f.kind] == Int32 && int64(int32(n)) != n { //nolint:gosec // compared
			return 0, fmt.Errorf("%d does not fit %s", n, f.kind)
		}
	case uintClass:
		if kinds[f.kind] == Uint32 && bits > math.MaxUint32 {
			return 0, fmt.Errorf("%d does not fit %s", bits, f.kind)
		}
	case doubleClass:
		x := math.Float64frombits(bits)
		if x != x { //nolint:gocritic // NaN; machines make different ones
			x = math.NaN()
		}
		if f.kind == protoreflect.FloatKind {
			return uint64(math.Float32bits(float32(x))), nil
		}
		return math.Float64bits(x), nil
	default:
	}
	return bits, nil
}

// appendTime appends a Timestamp or Duration.
func (f *field) appendTime(out []byte, c class, seconds int64, nanos int32) ([]byte, error) {
	check := checkTime
	if c == durationClass {
		check = checkDuration
	}
	seconds, nanos, err := check(seconds, nanos)
	if err != nil {
		return out, err
	}
	out = protowire.AppendTag(out, f.number, protowire.BytesType)
	start := len(out)
	if seconds != 0 {
		out = protowire.AppendVarint(append(out, 1<<3), uint64(seconds)) //nolint:gosec // bit by bit
	}
	if nanos != 0 {
		out = protowire.AppendVarint(append(out, 2<<3), uint64(int64(nanos))) //nolint:gosec // bit by bit
	}
	return prefixed(out, start), nil
}
