package discovery

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// keySeparator joins the parts of a key with several fields. Parts are not escaped, as in the
// protocol.
const keySeparator = '-'

// keyPartsInline is the number of key fields up to which a scan needs no memory of its own.
const keyPartsInline = 4

// keyFields finds the id of an entity in the encoded input of a method. The id must be the same on
// every worker and gateway, in every version: it decides which partition owns the entity.
type keyFields struct {
	// fields are in the order of their declaration, which is the order of the parts.
	fields   []keyField
	maxBytes int
}

// keyField is one field marked with (cloudstate.entity_key).
type keyField struct {
	number protowire.Number
	wire   protowire.Type
	kind   protoreflect.Kind
	name   string
	// unset is the part for a message without the field.
	unset protoreflect.Value
	enum  protoreflect.EnumDescriptor
}

// keyPart is what a scan found for one field.
type keyPart struct {
	found bool
	// bits is the value of a number, text that of a string.
	bits uint64
	text []byte
}

// newKeyFields finds the fields that are marked in the input of a method of a stateful service.
func newKeyFields(m *Method, maxBytes int, wrong *problems) keyFields {
	k := keyFields{maxBytes: maxBytes}
	marked := 0
	for i := range m.Input.Fields().Len() {
		fd := m.Input.Fields().Get(i)
		if !isKey(fd) {
			continue
		}
		marked++
		if f, ok := newKeyField(m, fd, wrong); ok {
			k.fields = append(k.fields, f)
		}
	}
	if marked == 0 {
		wrong.addf(
			"method %s takes %s, which has no entity key: mark the field that names the entity with [(cloudstate.entity_key) = true]",
			m.FullName, m.Input.FullName())
	}
	return k
}

// isKey reports whether a field is marked, by the option or by the one of earlier versions of the
// protocol, which has another number.
func isKey(fd protoreflect.FieldDescriptor) bool {
	options, ok := fd.Options().(*descriptorpb.FieldOptions)
	if !ok {
		return false
	}
	for _, x := range []protoreflect.ExtensionType{cloudstate.E_EntityKey, cloudstate.E_LegacyEntityKey} {
		if marked, ok := proto.GetExtension(options, x).(bool); ok && marked {
			return true
		}
	}
	return false
}

// newKeyField reads one marked field. Fields whose value has no text that is the same in all
// languages are refused, and so are fields that may be there several times.
func newKeyField(m *Method, fd protoreflect.FieldDescriptor, wrong *problems) (keyField, bool) {
	if fd.IsList() || fd.IsMap() || (fd.ContainingOneof() != nil && !fd.ContainingOneof().IsSynthetic()) {
		wrong.addf("method %s has its entity key in %s, which is repeated or in a oneof: use a single field",
			m.FullName, fd.FullName())
		return keyField{}, false
	}
	f := keyField{
		number: fd.Number(),
		wire:   wireType(fd.Kind()),
		kind:   fd.Kind(),
		name:   string(fd.Name()),
		unset:  fd.Default(),
		enum:   fd.Enum(),
	}
	switch fd.Kind() {
	case protoreflect.BytesKind, protoreflect.MessageKind, protoreflect.GroupKind, protoreflect.FloatKind,
		protoreflect.DoubleKind:
		wrong.addf(
			"method %s has its entity key in %s, a %s field: use a string, an integer, a bool or an enum", m.FullName,
			fd.FullName(), fd.Kind())
		return keyField{}, false
	default:
		return f, true
	}
}

// id returns the entity id in an encoded message. The message need not be valid in its depth, only
// on its top level.
func (k *keyFields) id(m *Method, payload []byte) (string, *entities.Error) {
	var inline [keyPartsInline]keyPart
	parts := inline[:]
	if len(k.fields) > len(inline) {
		parts = make([]keyPart, len(k.fields))
	}
	parts = parts[:len(k.fields)]
	if err := k.scan(payload, parts); err != nil {
		return "", malformed(m, err)
	}
	return k.join(m, parts)
}

// scan notes the last occurrence of every key field, as decoding would.
func (k *keyFields) scan(payload []byte, parts []keyPart) error {
	for len(payload) > 0 {
		number, wire, n := protowire.ConsumeTag(payload)
		if n < 0 {
			return protowire.ParseError(n)
		}
		payload = payload[n:]
		n = protowire.ConsumeFieldValue(number, wire, payload)
		if n < 0 {
			return protowire.ParseError(n)
		}
		for i := range k.fields {
			if f := &k.fields[i]; f.number == number && f.wire == wire {
				parts[i] = readKeyPart(wire, payload[:n])
			}
		}
		payload = payload[n:]
	}
	return nil
}

// readKeyPart reads one valid value.
func readKeyPart(wire protowire.Type, value []byte) keyPart {
	part := keyPart{found: true}
	switch wire {
	case protowire.VarintType:
		part.bits, _ = protowire.ConsumeVarint(value)
	case protowire.Fixed32Type:
		bits, _ := protowire.ConsumeFixed32(value)
		part.bits = uint64(bits)
	case protowire.Fixed64Type:
		part.bits, _ = protowire.ConsumeFixed64(value)
	default:
		part.text, _ = protowire.ConsumeBytes(value)
	}
	return part
}

// join prints the parts, checks them and puts them together. At least one part must say something,
// or all callers that forget the field would share an entity.
func (k *keyFields) join(m *Method, parts []keyPart) (string, *entities.Error) {
	var inline [64]byte
	id := inline[:0]
	empty := true
	for i := range parts {
		if i > 0 {
			id = append(id, keySeparator)
		}
		before := len(id)
		f, part := &k.fields[i], parts[i]
		if f.kind == protoreflect.StringKind && part.found {
			if !utf8.Valid(part.text) {
				return "", entities.Errorf(entities.InvalidCommand, entities.NotApplied,
					"%s: the entity key %s of %s is not valid UTF-8", m.FullName, f.name, m.Input.FullName())
			}
			if len(part.text) > k.maxBytes {
				return "", k.tooLong(m, len(part.text))
			}
		}
		id = f.append(id, part)
		empty = empty && len(id) == before
	}
	if empty {
		return "", entities.Errorf(entities.InvalidCommand, entities.NotApplied,
			"%s: the entity key %s of %s is empty: set it", m.FullName, k.names(), m.Input.FullName())
	}
	if len(id) > k.maxBytes {
		return "", k.tooLong(m, len(id))
	}
	return string(id), nil
}

// append prints one part as the protocol's reference does.
func (f *keyField) append(id []byte, part keyPart) []byte {
	if !part.found {
		part = f.unsetPart()
	}
	switch f.kind {
	case protoreflect.StringKind:
		return append(id, part.text...)
	case protoreflect.BoolKind:
		return strconv.AppendBool(id, part.bits != 0)
	case protoreflect.EnumKind:
		number := protoreflect.EnumNumber(int32(part.bits)) //nolint:gosec // the wire has it sign-extended
		if v := f.enum.Values().ByNumber(number); v != nil {
			return append(id, v.Name()...)
		}
		return strconv.AppendInt(id, int64(number), 10)
	case protoreflect.Int32Kind, protoreflect.Sfixed32Kind:
		return strconv.AppendInt(id, int64(int32(part.bits)), 10) //nolint:gosec // the wire has it sign-extended
	case protoreflect.Int64Kind, protoreflect.Sfixed64Kind:
		return strconv.AppendInt(id, int64(part.bits), 10) //nolint:gosec // the same 64 bits
	case protoreflect.Sint32Kind:
		return strconv.AppendInt(id, int64(int32(protowire.DecodeZigZag(part.bits&0xffffffff))), 10) //nolint:gosec // 32 bits
	case protoreflect.Sint64Kind:
		return strconv.AppendInt(id, protowire.DecodeZigZag(part.bits), 10)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return strconv.AppendUint(id, uint64(uint32(part.bits)), 10) //nolint:gosec // 32 bits
	default:
		return strconv.AppendUint(id, part.bits, 10)
	}
}

// unsetPart is the default of the field in the form in which the wire would have it.
func (f *keyField) unsetPart() keyPart {
	part := keyPart{found: true}
	switch f.kind {
	case protoreflect.StringKind:
		part.text = []byte(f.unset.String())
	case protoreflect.BoolKind:
		if f.unset.Bool() {
			part.bits = 1
		}
	case protoreflect.EnumKind:
		part.bits = uint64(f.unset.Enum()) //nolint:gosec // sign-extended as on the wire
	case protoreflect.Int32Kind, protoreflect.Sfixed32Kind, protoreflect.Int64Kind, protoreflect.Sfixed64Kind:
		part.bits = uint64(f.unset.Int()) //nolint:gosec // the same 64 bits
	case protoreflect.Sint32Kind, protoreflect.Sint64Kind:
		part.bits = protowire.EncodeZigZag(f.unset.Int())
	default:
		part.bits = f.unset.Uint()
	}
	return part
}

// names lists the key fields for an error.
func (k *keyFields) names() string {
	names := make([]string, len(k.fields))
	for i := range k.fields {
		names[i] = k.fields[i].name
	}
	return strings.Join(names, ", ")
}

// tooLong names the limit: keys are in every record of an entity and in every row.
func (k *keyFields) tooLong(m *Method, size int) *entities.Error {
	return entities.Errorf(entities.TooLarge, entities.NotApplied,
		"%s: the entity key %s of %s has %d bytes, and the limit is %d: use a shorter one", m.FullName, k.names(),
		m.Input.FullName(), size, k.maxBytes)
}
