package discovery

import (
	"errors"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxDepth bounds the nesting of messages, as most protobuf libraries do: what is deeper would
// break the function's stream.
const maxDepth = 100

var (
	errTooDeep = errors.New("messages are nested more than 100 deep")
	errUTF8    = errors.New("a string is not valid UTF-8")
	errNumber  = errors.New("a field number is out of range")
)

// shape is what has to be known of a message type to tell whether bytes decode as one, without
// decoding them. It is as strict as the decoders of the functions' languages are: what passes here
// and does not decode there would break the session of an entity, with all commands behind it.
type shape struct {
	fields map[protowire.Number]fieldShape
}

// fieldShape describes a field whose values need a look inside. Fields of a plain number are not
// listed.
type fieldShape struct {
	wire protowire.Type
	// child is the type of a message or group.
	child *shape
	// isText marks strings that must be UTF-8.
	isText bool
	// packed is set for repeated numbers, which may come in one run of values of the wire type
	// item.
	packed bool
	item   protowire.Type
}

// shapes holds the shape of every message type seen so far, so that recursion ends.
type shapes map[protoreflect.FullName]*shape

func (known shapes) of(md protoreflect.MessageDescriptor) *shape {
	if s := known[md.FullName()]; s != nil {
		return s
	}
	s := &shape{fields: map[protowire.Number]fieldShape{}}
	known[md.FullName()] = s // before its fields: a message may contain itself
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		f := fieldShape{wire: wireType(fd.Kind())}
		switch {
		case fd.Message() != nil:
			f.child = known.of(fd.Message())
		case fd.Kind() == protoreflect.StringKind && enforcesUTF8(fd):
			f.isText = true
		case fd.IsList() && f.wire != protowire.BytesType:
			f.packed, f.item, f.wire = true, f.wire, protowire.BytesType
		default:
			continue
		}
		s.fields[fd.Number()] = f
	}
	return s
}

// check says why bytes would not decode; nil when they would.
func (s *shape) check(b []byte, depth int) error {
	if depth > maxDepth {
		return errTooDeep
	}
	for len(b) > 0 {
		number, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if number > protowire.MaxValidNumber {
			return errNumber
		}
		b = b[n:]
		n = protowire.ConsumeFieldValue(number, wire, b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		// A value of another wire type than declared is an unknown field.
		if f, listed := s.fields[number]; listed && f.wire == wire {
			if err := f.check(number, b[:n], depth); err != nil {
				return err
			}
		}
		b = b[n:]
	}
	return nil
}

// check looks into one value that is whole on its own level.
func (f *fieldShape) check(number protowire.Number, value []byte, depth int) error {
	if f.wire == protowire.StartGroupType {
		content, _ := protowire.ConsumeGroup(number, value)
		return f.child.check(content, depth+1)
	}
	content, _ := protowire.ConsumeBytes(value)
	switch {
	case f.child != nil:
		return f.child.check(content, depth+1)
	case f.isText && !utf8.Valid(content):
		return errUTF8
	case f.packed:
		return checkPacked(f.item, content)
	default:
		return nil
	}
}

// checkPacked reads a run of numbers to its end. A number of zero bytes is not one.
func checkPacked(item protowire.Type, run []byte) error {
	for len(run) > 0 {
		n := protowire.ConsumeFieldValue(1, item, run)
		if n < 0 {
			return protowire.ParseError(n)
		}
		run = run[n:]
	}
	return nil
}

// enforcesUTF8 reports whether decoding refuses other text. Descriptors tell so for editions;
// before, only proto3 did.
func enforcesUTF8(fd protoreflect.FieldDescriptor) bool {
	if fd.Syntax() == protoreflect.Editions {
		if f, ok := fd.(interface{ EnforceUTF8() bool }); ok {
			return f.EnforceUTF8()
		}
	}
	return fd.Syntax() == protoreflect.Proto3
}

// wireType is how the values of a kind are written on the wire.
func wireType(kind protoreflect.Kind) protowire.Type {
	switch kind {
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		return protowire.Fixed32Type
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return protowire.Fixed64Type
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return protowire.BytesType
	case protoreflect.GroupKind:
		return protowire.StartGroupType
	default:
		return protowire.VarintType
	}
}
