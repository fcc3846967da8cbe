package definition

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/descriptorpb"
)

// ProtoSource writes a generated file as the source of a proto file.
func ProtoSource(file *descriptorpb.FileDescriptorProto) string {
	w := &printer{pkg: "." + file.GetPackage() + "."}
	w.line("syntax = %q;\n", file.GetSyntax())
	w.line("package %s;\n", file.GetPackage())
	for _, path := range file.GetDependency() {
		w.line("import %q;", path)
	}
	for _, s := range file.GetService() {
		w.line("\nservice %s {", s.GetName())
		for _, m := range s.GetMethod() {
			stream := ""
			if m.GetServerStreaming() {
				stream = "stream "
			}
			w.line("  rpc %s(%s) returns (%s%s) {", m.GetName(), w.name(m.GetInputType()), stream, w.name(m.GetOutputType()))
			w.line("    option idempotency_level = %s;", m.GetOptions().GetIdempotencyLevel())
			w.line("    option (google.api.http) = {get: %q};", pathOf(m))
			w.line("  }")
		}
		w.line("}")
	}
	for _, m := range file.GetMessageType() {
		w.line("")
		w.message(m, "")
	}
	for _, e := range file.GetEnumType() {
		w.line("")
		w.enum(e, "")
	}
	return w.text.String()
}

type printer struct {
	text strings.Builder
	// pkg is the package between dots: names in it are written without it.
	pkg string
}

func (w *printer) line(format string, args ...any) { fmt.Fprintf(&w.text, format+"\n", args...) }

func (w *printer) name(full string) string {
	return strings.TrimPrefix(strings.TrimPrefix(full, w.pkg), ".")
}

func (w *printer) message(m *descriptorpb.DescriptorProto, indent string) {
	w.line("%smessage %s {", indent, m.GetName())
	inside := indent + "  "
	for _, e := range m.GetEnumType() {
		w.enum(e, inside)
	}
	var open string
	for _, f := range m.GetField() {
		oneof := ""
		if f.OneofIndex != nil && !f.GetProto3Optional() {
			oneof = m.GetOneofDecl()[f.GetOneofIndex()].GetName()
		}
		if open != "" && oneof != open {
			w.line("%s}", inside)
		}
		if oneof != "" && oneof != open {
			w.line("%soneof %s {", inside, oneof)
		}
		open = oneof
		lead := inside
		if oneof != "" {
			lead += "  "
		}
		w.line("%s%s %s = %d;", lead, w.form(m, f), f.GetName(), f.GetNumber())
	}
	if open != "" {
		w.line("%s}", inside)
	}
	w.line("%s}", indent)
}

// form is the type of a field with its label.
func (w *printer) form(m *descriptorpb.DescriptorProto, f *descriptorpb.FieldDescriptorProto) string {
	kind := w.name(f.GetTypeName())
	if kind == "" {
		kind = strings.ToLower(strings.TrimPrefix(f.GetType().String(), "TYPE_"))
	}
	switch {
	case f.GetLabel() == descriptorpb.FieldDescriptorProto_LABEL_REPEATED:
		_, bare := cutLast(kind)
		i := slices.IndexFunc(m.GetNestedType(), func(n *descriptorpb.DescriptorProto) bool {
			return n.GetOptions().GetMapEntry() && n.GetName() == bare
		})
		if i >= 0 {
			entry := m.GetNestedType()[i]
			return "map<" + w.form(entry, entry.GetField()[0]) + ", " + w.form(entry, entry.GetField()[1]) + ">"
		}
		return "repeated " + kind
	case f.GetProto3Optional():
		return "optional " + kind
	default:
		return kind
	}
}

func (w *printer) enum(e *descriptorpb.EnumDescriptorProto, indent string) {
	w.line("%senum %s {", indent, e.GetName())
	if e.GetOptions().GetAllowAlias() {
		w.line("%s  option allow_alias = true;", indent)
	}
	for _, v := range e.GetValue() {
		w.line("%s  %s = %d;", indent, v.GetName(), v.GetNumber())
	}
	w.line("%s}", indent)
}
