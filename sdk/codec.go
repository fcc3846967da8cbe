package sdk

import (
	"fmt"
	"reflect"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// typeURLPrefix precedes the full name of a message in an Any.
const typeURLPrefix = "type.googleapis.com/"

// marshal encodes to the same bytes each time: replays and repeated answers are compared by their
// bytes.
var marshal = proto.MarshalOptions{Deterministic: true} //nolint:gochecknoglobals // a constant

// nameOf returns the full name of the message that a type URL names.
func nameOf(typeURL string) protoreflect.FullName {
	return protoreflect.FullName(typeURL[strings.LastIndexByte(typeURL, '/')+1:])
}

// encode returns a message in its encoded form.
func encode(m proto.Message) (Payload, error) {
	name := m.ProtoReflect().Descriptor().FullName()
	value, err := marshal.Marshal(m)
	if err != nil {
		return Payload{}, fmt.Errorf("encode %s: %w", name, err)
	}
	return Payload{TypeURL: typeURLPrefix + string(name), Value: value}, nil
}

// isNil reports whether a message is no message: nil, or a nil pointer to a generated type.
func isNil(m proto.Message) bool { return m == nil || !m.ProtoReflect().IsValid() }

// messageInfo describes the message type of a type parameter.
type messageInfo struct {
	goType string
	// typ is nil when the type parameter is not a generated message.
	typ protoreflect.MessageType
}

func (i messageInfo) known() bool { return i.typ != nil }

func (i messageInfo) name() protoreflect.FullName { return i.typ.Descriptor().FullName() }

// infoOf inspects a type parameter once, when a service is built.
func infoOf[M proto.Message]() (info messageInfo) {
	info.goType = reflect.TypeFor[M]().String()
	var zero M
	if any(zero) == nil { // an interface such as proto.Message itself
		return info
	}
	// Message types without a descriptor of their own (dynamicpb) cannot be asked through a nil
	// pointer.
	defer func() {
		if recover() != nil {
			info.typ = nil
		}
	}()
	typ := zero.ProtoReflect().Type()
	_ = typ.Descriptor().FullName()
	info.typ = typ
	return info
}

// codec encodes and decodes messages of one generated type.
type codec[M proto.Message] struct {
	typ protoreflect.MessageType
	url string
}

func newCodec[M proto.Message](info messageInfo) codec[M] {
	return codec[M]{typ: info.typ, url: typeURLPrefix + string(info.name())}
}

func (c codec[M]) decode(value []byte) (M, error) {
	m, ok := c.typ.New().Interface().(M)
	if !ok {
		return m, fmt.Errorf("decode %s: its generated type does not make messages of its own kind", c.url)
	}
	if err := proto.Unmarshal(value, m); err != nil {
		return m, fmt.Errorf("decode %s (%d bytes): %w", c.typ.Descriptor().FullName(), len(value), err)
	}
	return m, nil
}

func (c codec[M]) encode(m M) (Payload, error) {
	value, err := marshal.Marshal(m)
	if err != nil {
		return Payload{}, fmt.Errorf("encode %s: %w", c.typ.Descriptor().FullName(), err)
	}
	return Payload{TypeURL: c.url, Value: value}, nil
}
