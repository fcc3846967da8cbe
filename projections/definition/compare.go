package definition

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Change is a difference of two generated APIs.
type Change struct {
	// Text says it in words.
	Text string
	// Breaking: callers of the one before could not go on.
	Breaking bool
}

// CompareAPI returns what another version of a generated file has otherwise, in a fixed order.
func CompareAPI(before, after *descriptorpb.FileDescriptorProto) []Change {
	c := &apiComparison{}
	c.messages("", before.GetMessageType(), after.GetMessageType())
	c.enums("", before.GetEnumType(), after.GetEnumType())
	for _, s := range before.GetService() {
		c.methods(s, named(after.GetService(), s.GetName()))
	}
	for _, s := range after.GetService() {
		if named(before.GetService(), s.GetName()) == nil {
			c.note(false, "the service %s is new", s.GetName())
		}
	}
	return c.changes
}

type apiComparison struct{ changes []Change }

func (c *apiComparison) note(breaking bool, format string, args ...any) {
	c.changes = append(c.changes, Change{Text: fmt.Sprintf(format, args...), Breaking: breaking})
}

// named returns the part with a name, the zero value when there is none.
func named[T interface {
	comparable
	GetName() string
}](list []T, name string) (none T) {
	for _, x := range list {
		if x.GetName() == name {
			return x
		}
	}
	return none
}

func (c *apiComparison) messages(within string, before, after []*descriptorpb.DescriptorProto) {
	for _, m := range before {
		name := within + m.GetName()
		now := named(after, m.GetName())
		if now == nil {
			c.note(true, "the message %s is gone", name)
			continue
		}
		c.fields(name, m, now)
		c.messages(name+".", m.GetNestedType(), now.GetNestedType())
		c.enums(name+".", m.GetEnumType(), now.GetEnumType())
	}
	for _, m := range after {
		if named(before, m.GetName()) == nil {
			c.note(false, "the message %s is new", within+m.GetName())
		}
	}
}

func (c *apiComparison) fields(message string, before, after *descriptorpb.DescriptorProto) {
	for _, f := range before.GetField() {
		name := message + "." + f.GetName()
		now := named(after.GetField(), f.GetName())
		switch {
		case now == nil:
			c.note(true, "the field %s is gone", name)
		case now.GetNumber() != f.GetNumber():
			c.note(true, "the field %s had the number %d and has %d", name, f.GetNumber(), now.GetNumber())
		case fieldForm(before, f) != fieldForm(after, now):
			c.note(true, "the field %s was %s and is %s", name, fieldForm(before, f), fieldForm(after, now))
		}
	}
	for _, f := range after.GetField() {
		if named(before.GetField(), f.GetName()) == nil {
			c.note(false, "the field %s.%s is new", message, f.GetName())
		}
	}
}

// fieldForm is the type of a field, with what else a caller's code depends on.
func fieldForm(m *descriptorpb.DescriptorProto, f *descriptorpb.FieldDescriptorProto) string {
	form := strings.TrimPrefix(f.GetTypeName(), ".")
	if form == "" {
		form = strings.ToLower(strings.TrimPrefix(f.GetType().String(), "TYPE_"))
	}
	switch {
	case f.GetLabel() == descriptorpb.FieldDescriptorProto_LABEL_REPEATED:
		return "repeated " + form
	case f.GetProto3Optional():
		return "optional " + form
	case f.OneofIndex != nil:
		return form + " in " + m.GetOneofDecl()[f.GetOneofIndex()].GetName()
	default:
		return form
	}
}

func (c *apiComparison) enums(within string, before, after []*descriptorpb.EnumDescriptorProto) {
	for _, e := range before {
		name := within + e.GetName()
		now := named(after, e.GetName())
		if now == nil {
			c.note(true, "the enum %s is gone", name)
			continue
		}
		for _, v := range e.GetValue() {
			other := named(now.GetValue(), v.GetName())
			switch {
			case other == nil:
				c.note(true, "the value %s of %s is gone", v.GetName(), name)
			case other.GetNumber() != v.GetNumber():
				c.note(true, "the value %s of %s had the number %d and has %d", v.GetName(), name, v.GetNumber(), other.GetNumber())
			}
		}
		for _, v := range now.GetValue() {
			if named(e.GetValue(), v.GetName()) == nil {
				c.note(false, "the value %s of %s is new", v.GetName(), name)
			}
		}
	}
	for _, e := range after {
		if named(before, e.GetName()) == nil {
			c.note(false, "the enum %s is new", within+e.GetName())
		}
	}
}

func (c *apiComparison) methods(before, after *descriptorpb.ServiceDescriptorProto) {
	if after == nil {
		c.note(true, "the service %s is gone", before.GetName())
		return
	}
	for _, m := range before.GetMethod() {
		now := named(after.GetMethod(), m.GetName())
		switch {
		case now == nil:
			c.note(true, "the method %s is gone", m.GetName())
		case now.GetInputType() != m.GetInputType() || now.GetOutputType() != m.GetOutputType() ||
			now.GetServerStreaming() != m.GetServerStreaming():
			c.note(true, "the method %s was %s and is %s", m.GetName(), methodForm(m), methodForm(now))
		case pathOf(now) != pathOf(m):
			c.note(true, "the method %s was at %s and is at %s", m.GetName(), pathOf(m), pathOf(now))
		}
	}
	for _, m := range after.GetMethod() {
		if named(before.GetMethod(), m.GetName()) == nil {
			c.note(false, "the method %s is new", m.GetName())
		}
	}
}

func methodForm(m *descriptorpb.MethodDescriptorProto) string {
	short := func(name string) string { _, bare := cutLast(name); return bare }
	stream := ""
	if m.GetServerStreaming() {
		stream = "stream "
	}
	return "(" + short(m.GetInputType()) + ") returns (" + stream + short(m.GetOutputType()) + ")"
}

func pathOf(m *descriptorpb.MethodDescriptorProto) string {
	rule, _ := proto.GetExtension(m.GetOptions(), annotations.E_Http).(*annotations.HttpRule)
	return rule.GetGet()
}

// checkAPI refuses a generated API that callers of the applied one cannot use.
func (p *Projection) checkAPI(s *Scope, before *Projection) {
	if s.BreakAPI {
		return
	}
	for _, change := range CompareAPI(before.api, p.api) {
		if change.Breaking {
			s.Add(p.root, apiBroken, before.head.Version, change.Text)
		}
	}
}

// sortedNames returns the keys of a map in order.
func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
