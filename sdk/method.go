package sdk

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// shape says which directions of a method stream.
type shape struct{ in, out bool }

func shapeOf(m protoreflect.MethodDescriptor) shape {
	return shape{in: m.IsStreamingClient(), out: m.IsStreamingServer()}
}

// findMethod looks a full method name, /package.Service/Method, up among the services that are
// linked into the program.
func findMethod(fullName string) (protoreflect.MethodDescriptor, error) {
	service, method, found := strings.Cut(strings.TrimPrefix(fullName, "/"), "/")
	if !found || !strings.HasPrefix(fullName, "/") {
		return nil, fmt.Errorf(
			"%q is not a full method name: use the generated constant, as in shopv1.CartService_AddItem_FullMethodName",
			fullName)
	}
	descriptor, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return nil, fmt.Errorf(
			"the program knows no service %s: import the package that protoc-gen-go made of its proto file", service)
	}
	owner, ok := descriptor.(protoreflect.ServiceDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s is not a service", service)
	}
	m := owner.Methods().ByName(protoreflect.Name(method))
	if m == nil {
		return nil, fmt.Errorf("service %s has no method %s: use the generated constant of one that it has",
			service, method)
	}
	return m, nil
}

// constantOf returns the name of the constant that protoc-gen-go-grpc makes for a method.
func constantOf(m protoreflect.MethodDescriptor) string {
	return fmt.Sprintf("%s_%s_FullMethodName", m.Parent().Name(), m.Name())
}

// hasEntityKey reports whether a field of the message is marked as (part of) the entity key.
func hasEntityKey(message protoreflect.MessageDescriptor) bool {
	fields := message.Fields()
	for i := range fields.Len() {
		if isEntityKey(fields.Get(i)) {
			return true
		}
	}
	return false
}

// entityKey returns the id of the entity that a message names, as the worker finds it: the fields
// that are marked, in the order of their declaration, joined by hyphens.
func entityKey(m protoreflect.Message) string {
	var parts []string
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if !isEntityKey(field) {
			continue
		}
		part := m.Get(field).String()
		if field.Kind() == protoreflect.EnumKind {
			if value := field.Enum().Values().ByNumber(m.Get(field).Enum()); value != nil {
				part = string(value.Name())
			}
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "-")
}

func isEntityKey(field protoreflect.FieldDescriptor) bool {
	return marked(field.Options(), cloudstate.E_EntityKey) || marked(field.Options(), cloudstate.E_LegacyEntityKey)
}

func marked(options proto.Message, extension protoreflect.ExtensionType) bool {
	value, ok := proto.GetExtension(options, extension).(bool)
	return ok && value
}

// draft is a service while its options are applied.
type draft struct {
	*Service
	handled map[protoreflect.Name]bool
}

func newDraft(kind Kind, persistenceID string) *draft {
	d := &draft{Service: &Service{kind: kind, persistenceID: persistenceID}, handled: map[protoreflect.Name]bool{}}
	switch {
	case !kind.HasEntities():
	case persistenceID == "":
		d.problem(`the first argument of %s is empty: give the name under which the state is kept, for example "cart"`,
			kind.spec().constructor())
	case strings.Contains(persistenceID, "/"):
		d.problem(
			"the persistence id %q contains a slash, which separates it from the entity id: choose a name without one",
			persistenceID)
	}
	return d
}

// handles notes that an option handles a method, after comparing the handler with the method's
// declaration. It returns the bare name of the method, and "" when there is a problem.
func (d *draft) handles(option, fullName string, want shape, in, out messageInfo, isNil bool) string {
	at := fmt.Sprintf("%s(%q)", option, fullName)
	m, err := findMethod(fullName)
	if err != nil {
		d.problem("%s: %w", at, err)
		return ""
	}
	owner, ok := m.Parent().(protoreflect.ServiceDescriptor)
	if !ok {
		d.problem("%s: not a method of a service", at)
		return ""
	}
	if d.descriptor == nil {
		d.descriptor = owner
	}
	if owner.FullName() != d.descriptor.FullName() {
		d.problem("%s: the other handlers are of %s: give %s an %s of its own", at, d.descriptor.FullName(),
			owner.FullName(), d.kind.spec().constructor())
		return ""
	}
	if d.handled[m.Name()] {
		d.problem("%s: the method has a handler already: remove one", at)
		return ""
	}
	d.handled[m.Name()] = true
	switch {
	case isNil:
		d.problem("%s: the handler is nil: give a function", at)
	case shapeOf(m) != want && d.kind.spec().streams(shapeOf(m)):
		d.problem("%s: the method streams otherwise: handle it with %s", at, d.kind.spec().option(shapeOf(m)))
	case !in.known():
		d.problem("%s: the handler takes %s, which is not a generated message: take *%s", at, in.goType,
			m.Input().Name())
	case !out.known():
		d.problem("%s: the handler returns %s, which is not a generated message: return *%s", at, out.goType,
			m.Output().Name())
	case in.name() != m.Input().FullName():
		d.problem("%s: the handler takes %s, but the method takes %s: change the handler's parameter", at,
			in.name(), m.Input().FullName())
	case out.name() != m.Output().FullName():
		d.problem("%s: the handler returns %s, but the method returns %s: change the handler's result", at,
			out.name(), m.Output().FullName())
	default:
		return string(m.Name())
	}
	return ""
}

// stores notes that messages of a type are stored, so that discovery describes them.
func (d *draft) stores(message messageInfo) {
	d.stored = append(d.stored, message.typ.Descriptor().ParentFile())
}

// finish makes the checks that need all options to have been applied.
func (d *draft) finish() *Service {
	if d.descriptor == nil {
		if len(d.problems) == 0 {
			d.problem("no handlers are given, so the proto service is not known: add one for each of its methods")
		}
		return d.Service
	}
	methods := d.descriptor.Methods()
	for i := range methods.Len() {
		d.finishMethod(methods.Get(i))
	}
	return d.Service
}

func (d *draft) finishMethod(m protoreflect.MethodDescriptor) {
	kind, streams := d.kind.spec(), shapeOf(m)
	if !d.handled[m.Name()] {
		d.problem("method %s has no handler: add %s(%s, …)", m.Name(), kind.option(streams), constantOf(m))
	}
	if !kind.streams(streams) {
		d.problem(
			"method %s streams, which entities of this kind cannot: make it unary, or move it to a service for sdk.Action",
			m.Name())
	}
	if kind.hasEntities() && !hasEntityKey(m.Input()) {
		d.problem(
			"method %s: no field of %s says which entity is meant: mark one with [(cloudstate.entity_key) = true]", m.Name(),
			m.Input().FullName())
	}
}
