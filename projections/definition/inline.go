package definition

import (
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

var (
	fieldText    = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)
	httpText     = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+|/\{[a-z][a-z0-9_]*\})+(:[A-Za-z0-9]+)?$`)
	pathVariable = regexp.MustCompile(`\{([a-z0-9_]+)\}`)
	camelText    = regexp.MustCompile(`^[A-Z][A-Za-z0-9]{0,63}$`)
)

var inlineFieldObject = &Object{Name: "a field", Fields: []Field{ //nolint:gochecknoglobals // a constant table
	{Name: "type", Type: "a type", Help: "int64, string, timestamp, shop.v1.Status, repeated string, optional int64", Required: true},
	{Name: "number", Type: "a whole number", Help: "the field's number; its place in the list when not given"},
}}

// scalarTypes are the types of fields by name, with two short names of our own.
func scalarTypes() []string {
	return []string{
		"bool", "bytes", "double", "duration", "fixed32", "fixed64", "float", "int32", "int64", "sfixed32", "sfixed64",
		"sint32", "sint64", "string", "timestamp", "uint32", "uint64",
	}
}

// fields adds fields that stand in the file to a message. It returns whether all could be read.
func (s *Scope) fields(
	n *Node, message *descriptorpb.DescriptorProto, file *descriptorpb.FileDescriptorProto, pkg string, last int,
) bool {
	ok := true
	used, inJSON := map[int32]string{}, map[string]string{}
	for i, e := range s.Entries(n, "fields", maxFields) {
		if !fieldText.MatchString(e.Key.Text) {
			s.Add(e.Key, notAFieldName, short(e.Key.Text))
			ok = false
			continue
		}
		f := &descriptorpb.FieldDescriptorProto{Name: proto.String(e.Key.Text), Number: proto.Int32(int32(i + 1))}
		typeNode := e.Value
		if e.Value.Shape == MappingShape {
			if !s.Object(e.Value, inlineFieldObject) {
				continue
			}
			typeNode = e.Value.Get("type")
			f.Number = proto.Int32(int32(s.Int(e.Value.Get("number"), 1, last, i+1))) //nolint:gosec // at most 2^29
		}
		if typeNode == nil || !s.inlineType(typeNode, f, message, file, pkg) {
			ok = false
			continue
		}
		switch other := used[f.GetNumber()]; {
		case other != "":
			s.Add(e.Value, numberTwice, f.GetNumber(), other)
			ok = false
			continue
		case f.GetNumber() >= 19000 && f.GetNumber() <= 19999:
			s.Add(e.Value, numberReserved, f.GetNumber())
			ok = false
			continue
		}
		if other := inJSON[jsonName(f.GetName())]; other != "" {
			s.Add(e.Key, rowNotPossible, other+" and "+f.GetName()+" have one name in JSON")
			ok = false
			continue
		}
		used[f.GetNumber()], inJSON[jsonName(f.GetName())] = f.GetName(), f.GetName()
		message.Field = append(message.Field, f)
	}
	if n.Shape == MappingShape && len(n.Entries) == 0 {
		s.Add(n, noFields)
		return false
	}
	return ok && n.Shape == MappingShape
}

// inlineType reads the type of a field.
func (s *Scope) inlineType(
	n *Node, f *descriptorpb.FieldDescriptorProto, message *descriptorpb.DescriptorProto,
	file *descriptorpb.FileDescriptorProto, pkg string,
) bool {
	text := s.Text(n)
	if text == "" {
		return false
	}
	f.Label = descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()
	if rest, found := strings.CutPrefix(text, "repeated "); found {
		f.Label, text = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum(), rest
	} else if rest, found := strings.CutPrefix(text, "optional "); found {
		f.Proto3Optional, text = proto.Bool(true), rest
		f.OneofIndex = proto.Int32(int32(len(message.GetOneofDecl()))) //nolint:gosec // at most maxFields
		message.OneofDecl = append(message.OneofDecl,
			&descriptorpb.OneofDescriptorProto{Name: proto.String("_" + f.GetName())})
	}
	text = strings.TrimSpace(text)
	if number, found := descriptorpb.FieldDescriptorProto_Type_value["TYPE_"+strings.ToUpper(text)]; found &&
		text == strings.ToLower(text) && text != "group" && text != "message" && text != "enum" {
		f.Type = descriptorpb.FieldDescriptorProto_Type(number).Enum()
		return true
	}
	switch text {
	case "timestamp":
		text = "google.protobuf.Timestamp"
	case "duration":
		text = "google.protobuf.Duration"
	}
	found := s.Schema.resolve(text, pkg)
	switch found.(type) {
	case protoreflect.MessageDescriptor:
		f.Type = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum()
	case protoreflect.EnumDescriptor:
		f.Type = descriptorpb.FieldDescriptorProto_TYPE_ENUM.Enum()
	default:
		s.Add(n, unknownType, short(text), nearest(text, "types", append(scalarTypes(), s.Schema.messagesNear(text, pkg)...)))
		return false
	}
	f.TypeName = proto.String("." + string(found.FullName()))
	if path := found.ParentFile().Path(); !slices.Contains(file.GetDependency(), path) {
		file.Dependency = append(file.Dependency, path)
	}
	return true
}

// register makes a message of fields that stand in the file, and makes it known to the expressions
// of a package. It is nil, and the report says why, when the fields make no message.
func (s *Scope) register(n *Node, pkg string, file *descriptorpb.FileDescriptorProto) protoreflect.MessageDescriptor {
	made, err := protodesc.NewFile(file, s.Schema)
	if err != nil {
		s.Add(n, rowNotPossible, err.Error())
		return nil
	}
	l, err := s.language(pkg)
	if err == nil {
		err = l.registry.RegisterDescriptor(made)
	}
	if err != nil {
		s.Add(n, rowNotPossible, err.Error())
		return nil
	}
	return made.Messages().Get(0)
}
