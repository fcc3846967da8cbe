package definition

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// capturedFolder is put before the paths of a function's files. The CEL library takes a file
// that is linked into the program for one of the same path that it is given, whatever that one
// says; no file that is linked has a path like this.
const capturedFolder = "millrace-captured/"

// Schema is what functions serve, as far as definitions can name it: messages, enums, services and
// entity types. It is not changed once it is made.
type Schema struct {
	files    *protoregistry.Files
	entities []EntityType
	messages []string
	services []string
	// routes are the methods of GET requests by the patterns of their paths.
	routes map[string]string
	// sent are the files as they were given, without those of Google that the program has.
	sent []*descriptorpb.FileDescriptorProto
}

// EntityType is a type of entities that can be a source.
type EntityType struct {
	// Name is the persistence id.
	Name string
	// Events: its history is events and snapshots. Otherwise it is values that replace each other.
	Events bool
	// Service is the full name of its service: names without a package are looked for beside it.
	Service string
}

// NewSchema makes a schema of a complete set of files, each after those that it imports, as
// discovery.Catalog.FileDescriptorSet and protoc --include_imports return it.
func NewSchema(set *descriptorpb.FileDescriptorSet, entities []EntityType) (*Schema, error) {
	s := &Schema{files: new(protoregistry.Files), routes: map[string]string{}, entities: slices.Clone(entities)}
	slices.SortFunc(s.entities, func(a, b EntityType) int { return strings.Compare(a.Name, b.Name) })
	for _, sent := range set.GetFile() {
		if wellKnown(sent.GetName()) != nil {
			continue
		}
		file, err := protodesc.NewFile(captured(sent), s)
		if err == nil {
			err = s.files.RegisterFile(file)
		}
		if err != nil {
			return nil, fmt.Errorf("the descriptors of %s cannot be used: %w", sent.GetName(), err)
		}
		s.note(file)
		s.sent = append(s.sent, sent)
	}
	slices.Sort(s.messages)
	slices.Sort(s.services)
	return s, nil
}

// wellKnownFiles are Google's files that CEL has values of its own for: they are those of the
// program.
func wellKnownFiles() []protoreflect.FileDescriptor {
	return []protoreflect.FileDescriptor{
		anypb.File_google_protobuf_any_proto, durationpb.File_google_protobuf_duration_proto,
		emptypb.File_google_protobuf_empty_proto, fieldmaskpb.File_google_protobuf_field_mask_proto,
		structpb.File_google_protobuf_struct_proto, timestamppb.File_google_protobuf_timestamp_proto,
		wrapperspb.File_google_protobuf_wrappers_proto, descriptorpb.File_google_protobuf_descriptor_proto,
	}
}

// wellKnown returns the one with a path, nil for another file.
func wellKnown(path string) protoreflect.FileDescriptor {
	for _, file := range wellKnownFiles() {
		if file.Path() == path {
			return file
		}
	}
	return nil
}

// captured returns a copy of a file under a path of its own.
func captured(sent *descriptorpb.FileDescriptorProto) *descriptorpb.FileDescriptorProto {
	file := proto.CloneOf(sent)
	file.Name = proto.String(capturedFolder + sent.GetName())
	for i, path := range file.GetDependency() {
		if wellKnown(path) == nil {
			file.Dependency[i] = capturedFolder + path
		}
	}
	return file
}

// FindFileByPath returns a file of the schema or one of Google's; it makes a Schema a resolver.
func (s *Schema) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if file := wellKnown(path); file != nil {
		return file, nil
	}
	return s.files.FindFileByPath(path) //nolint:wrapcheck // the resolver's own error
}

// FindDescriptorByName returns what has a full name: of the functions' files, or of Google's.
func (s *Schema) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if found, err := s.files.FindDescriptorByName(name); err == nil {
		return found, nil
	}
	return findWellKnown(name)
}

// findWellKnown returns a message or an enum of Google's files.
func findWellKnown(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if name.Parent() == "google.protobuf" {
		for _, file := range wellKnownFiles() {
			if found := topLevel(file, name.Name()); found != nil {
				return found, nil
			}
		}
	}
	return nil, protoregistry.NotFound
}

// topLevel returns a message or an enum of a file, nil when it has none of the name.
func topLevel(file protoreflect.FileDescriptor, name protoreflect.Name) protoreflect.Descriptor {
	if found := file.Messages().ByName(name); found != nil {
		return found
	}
	if found := file.Enums().ByName(name); found != nil {
		return found
	}
	return nil
}

// Files returns the descriptors that expressions are checked against. Their paths are not those of
// the functions.
func (s *Schema) Files() *protoregistry.Files { return s.files }

func (s *Schema) note(file protoreflect.FileDescriptor) {
	for i := range file.Messages().Len() {
		s.messages = append(s.messages, string(file.Messages().Get(i).FullName()))
	}
	for i := range file.Services().Len() {
		service := file.Services().Get(i)
		s.services = append(s.services, string(service.FullName()))
		for j := range service.Methods().Len() {
			s.noteRoutes(service.Methods().Get(j))
		}
	}
}

func (s *Schema) noteRoutes(m protoreflect.MethodDescriptor) {
	options, ok := m.Options().(*descriptorpb.MethodOptions)
	if !ok || !proto.HasExtension(options, annotations.E_Http) {
		return
	}
	rule, _ := proto.GetExtension(options, annotations.E_Http).(*annotations.HttpRule)
	for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
		if path := r.GetGet(); path != "" {
			s.routes[routePattern(path)] = string(m.FullName())
		}
	}
}

// entity returns an entity type, nil when there is none.
func (s *Schema) entity(name string) *EntityType {
	for i := range s.entities {
		if s.entities[i].Name == name {
			return &s.entities[i]
		}
	}
	return nil
}

func (s *Schema) entityNames() []string {
	names := make([]string, len(s.entities))
	for i, e := range s.entities {
		names[i] = e.Name
	}
	return names
}

// resolve returns what a name means in a package, as in a proto file: there, then in the packages
// around it. It is nil when there is nothing.
func (s *Schema) resolve(name, pkg string) protoreflect.Descriptor {
	for {
		full := protoreflect.FullName(name)
		if pkg != "" {
			full = protoreflect.FullName(pkg + "." + name)
		}
		if full.IsValid() {
			if found, err := s.FindDescriptorByName(full); err == nil {
				return found
			}
		}
		if pkg == "" {
			return nil
		}
		pkg = string(protoreflect.FullName(pkg).Parent())
	}
}

// message resolves the name of a message; nil when it is not one.
func (s *Schema) message(name, pkg string) protoreflect.MessageDescriptor {
	found, _ := s.resolve(name, pkg).(protoreflect.MessageDescriptor)
	return found
}

// messagesNear returns names for a fix: bare ones for messages of the package.
func (s *Schema) messagesNear(name, pkg string) []string {
	if strings.Contains(name, ".") || pkg == "" {
		return s.messages
	}
	var near []string
	for _, full := range s.messages {
		if bare, ok := strings.CutPrefix(full, pkg+"."); ok && !strings.Contains(bare, ".") {
			near = append(near, bare)
		}
	}
	return near
}

// packageOf returns the package of a full name.
func packageOf(service string) string { return string(protoreflect.FullName(service).Parent()) }

// fieldNames returns the fields of a message.
func fieldNames(m protoreflect.MessageDescriptor) []string {
	names := make([]string, m.Fields().Len())
	for i := range names {
		names[i] = string(m.Fields().Get(i).Name())
	}
	return names
}

// field returns a field by its name in the proto file, nil when there is none.
func field(m protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	return m.Fields().ByName(protoreflect.Name(name))
}

// typeName says what a field holds, as a proto file writes it.
func typeName(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return "map<" + typeName(f.MapKey()) + ", " + typeName(f.MapValue()) + ">"
	case f.IsList():
		return "repeated " + kindName(f)
	default:
		return kindName(f)
	}
}

func kindName(f protoreflect.FieldDescriptor) string {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return string(f.Message().FullName())
	case protoreflect.EnumKind:
		return string(f.Enum().FullName())
	default:
		return f.Kind().String()
	}
}

// isSortable says whether a field can stand in an index: tuples have an order for it.
func isSortable(f protoreflect.FieldDescriptor) bool {
	if f.IsList() || f.IsMap() {
		return false
	}
	if f.Kind() == protoreflect.MessageKind {
		name := f.Message().FullName()
		return name == "google.protobuf.Timestamp" || name == "google.protobuf.Duration"
	}
	return f.Kind() != protoreflect.GroupKind
}

// isInteger says whether a field is a number that can be added without rounding.
func isInteger(f protoreflect.FieldDescriptor) bool {
	if f.IsList() || f.IsMap() {
		return false
	}
	switch f.Kind() {
	case protoreflect.Int32Kind, protoreflect.Int64Kind, protoreflect.Sint32Kind, protoreflect.Sint64Kind,
		protoreflect.Sfixed32Kind, protoreflect.Sfixed64Kind:
		return true
	default:
		return isUnsigned(f)
	}
}

func isUnsigned(f protoreflect.FieldDescriptor) bool {
	switch f.Kind() {
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		return true
	default:
		return false
	}
}
