package node

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
)

// tryService makes a call of a stateful service that a newcomer can paste: the first method, with something in every plain
// field of its request. entity is what the call is about.
func tryService(s *discovery.Service, address string) (line, entity string) {
	if (s.Kind != entities.EventSourced && s.Kind != entities.Value) || len(s.Methods) == 0 {
		return "", ""
	}
	m := s.Methods[0]
	fields := m.Input.Fields()
	var parts []string
	for i := range fields.Len() {
		if value := sample(fields.Get(i), i == 0); value != "" {
			parts = append(parts, fmt.Sprintf("%q:%s", fields.Get(i).JSONName(), value))
		}
	}
	line = fmt.Sprintf("curl -H 'content-type: application/json' -d '{%s}' http://%s%s", strings.Join(parts, ","), address, m.FullName)
	return line, s.EntityType.Name + "/42"
}

// sample is a JSON value for a plain field, "" for any other.
func sample(f protoreflect.FieldDescriptor, key bool) string {
	if f.IsList() || f.IsMap() {
		return ""
	}
	switch f.Kind() { //nolint:exhaustive // the rest has no obvious sample
	case protoreflect.StringKind:
		if key {
			return `"42"`
		}
		return `"apple"`
	case protoreflect.BoolKind:
		return "true"
	case protoreflect.Int32Kind, protoreflect.Int64Kind, protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Sint32Kind, protoreflect.Sint64Kind:
		return "1"
	default:
		return ""
	}
}
