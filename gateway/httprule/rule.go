package httprule

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// anyMethod is the custom kind that stands for every HTTP method.
const anyMethod = "*"

// httpBody is the message whose content is a body as it is, of any content type.
const httpBody protoreflect.FullName = "google.api.HttpBody"

// Rule is one compiled rule: a method's own one or one of its additional bindings.
type Rule struct {
	// Method is the method that the rule calls.
	Method protoreflect.MethodDescriptor

	httpMethod string
	path       string // the template, as written
	template   template
	variables  []variable

	wholeBody bool
	bodyField protoreflect.FieldDescriptor // nil if the body is whole or none
	response  protoreflect.FieldDescriptor // nil: the reply is printed whole
	router    *Router
}

// variable is a variable of the path with the fields that lead to its value.
type variable struct {
	span
	fields []protoreflect.FieldDescriptor
}

// String names a rule for its author.
func (r *Rule) String() string {
	return fmt.Sprintf("%s %s (%s)", r.httpMethod, r.path, r.Method.FullName())
}

// HasBody reports whether a request may have a body, TakesJSON whether that is JSON.
func (r *Rule) HasBody() bool { return r.wholeBody || r.bodyField != nil }

// TakesJSON reports whether the body of a request is JSON: not if there is none, or if it is a
// google.api.HttpBody.
func (r *Rule) TakesJSON() bool { return r.HasBody() && r.bodyMessage() != httpBody }

// bodyMessage is the name of the message that is the body; "" if that is no message.
func (r *Rule) bodyMessage() protoreflect.FullName {
	switch {
	case r.wholeBody:
		return r.Method.Input().FullName()
	case r.bodyField != nil && isMessage(r.bodyField):
		return r.bodyField.Message().FullName()
	default:
		return ""
	}
}

// isMessage reports whether a field is one message.
func isMessage(fd protoreflect.FieldDescriptor) bool {
	return fd.Message() != nil && !fd.IsList() && !fd.IsMap()
}

// rulesOf returns the rules of a method.
func rulesOf(m protoreflect.MethodDescriptor) []*annotations.HttpRule {
	options, _ := m.Options().(*descriptorpb.MethodOptions)
	rule, _ := proto.GetExtension(options, annotations.E_Http).(*annotations.HttpRule)
	if rule == nil {
		return nil
	}
	return append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...)
}

func methodAndPath(rule *annotations.HttpRule) (method, path string) {
	switch pattern := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return http.MethodGet, pattern.Get
	case *annotations.HttpRule_Put:
		return http.MethodPut, pattern.Put
	case *annotations.HttpRule_Post:
		return http.MethodPost, pattern.Post
	case *annotations.HttpRule_Delete:
		return http.MethodDelete, pattern.Delete
	case *annotations.HttpRule_Patch:
		return http.MethodPatch, pattern.Patch
	case *annotations.HttpRule_Custom:
		return pattern.Custom.GetKind(), pattern.Custom.GetPath()
	default:
		return "", ""
	}
}

// compile checks a rule against its method. Its errors are sentences for the rule's author.
func compile(m protoreflect.MethodDescriptor, rule *annotations.HttpRule) (*Rule, error) {
	method, path := methodAndPath(rule)
	r := &Rule{Method: m, httpMethod: method, path: path}
	if method == "" {
		return nil, fmt.Errorf("%s: a rule has no HTTP method", m.FullName())
	}
	var err error
	if r.template, err = parseTemplate(path); err != nil {
		return nil, fmt.Errorf("%s: %w", r, err)
	}
	for _, s := range r.template.spans {
		fields, err := variableFields(m.Input(), s.name)
		if err != nil {
			return nil, fmt.Errorf("%s: variable %q: %w", r, s.name, err)
		}
		r.variables = append(r.variables, variable{span: s, fields: fields})
	}
	if err := checkVariables(r.variables); err != nil {
		return nil, fmt.Errorf("%s: %w", r, err)
	}
	if r.wholeBody = rule.GetBody() == "*"; !r.wholeBody && rule.GetBody() != "" {
		if r.bodyField = fieldOf(m.Input(), rule.GetBody()); r.bodyField == nil {
			return nil, fmt.Errorf("%s: body: %s has no field %q", r, m.Input().FullName(), rule.GetBody())
		}
	}
	if name := rule.GetResponseBody(); name != "" {
		if r.response = fieldOf(m.Output(), name); r.response == nil {
			return nil, fmt.Errorf("%s: response_body: %s has no field %q", r, m.Output().FullName(), name)
		}
	}
	if err := r.checkBody(); err != nil {
		return nil, fmt.Errorf("%s: %w", r, err)
	}
	return r, nil
}

// fieldOf finds a field by its name in JSON or in the proto file, as JSON does.
func fieldOf(md protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if fd := md.Fields().ByJSONName(name); fd != nil {
		return fd
	}
	return md.Fields().ByTextName(name)
}

// variableFields resolves the field path of a variable.
func variableFields(md protoreflect.MessageDescriptor, path string) ([]protoreflect.FieldDescriptor, error) {
	var fields []protoreflect.FieldDescriptor
	names := strings.Split(path, ".")
	for i, name := range names {
		fd := fieldOf(md, name)
		switch {
		case fd == nil:
			return nil, fmt.Errorf("%s has no field %q", md.FullName(), name)
		case fd.IsList(), fd.IsMap():
			return nil, fmt.Errorf("%s is repeated, and a path has one value", fd.FullName())
		}
		fields = append(fields, fd)
		switch last := i == len(names)-1; {
		case last && fd.Message() != nil && !hasText(fd.Message()):
			return nil, fmt.Errorf("%s is a message, which no path can hold", fd.FullName())
		case !last && (fd.Message() == nil || hasOwnJSON(fd.Message())):
			return nil, fmt.Errorf("%s has no fields to set", fd.FullName())
		case !last:
			md = fd.Message()
		}
	}
	return fields, nil
}

// checkVariables refuses variables that could not be set together.
func checkVariables(variables []variable) error {
	for i, a := range variables {
		for _, b := range variables[:i] {
			shared := 0
			for shared < min(len(a.fields), len(b.fields)) && a.fields[shared] == b.fields[shared] {
				shared++
			}
			if shared == min(len(a.fields), len(b.fields)) {
				return fmt.Errorf("the variables %q and %q set the same field", b.name, a.name)
			}
			x, y := a.fields[shared].ContainingOneof(), b.fields[shared].ContainingOneof()
			if x != nil && x == y {
				return fmt.Errorf("the variables %q and %q are members of the oneof %q", b.name, a.name, x.Name())
			}
		}
	}
	return nil
}

// checkBody refuses a field as body that the path sets.
func (r *Rule) checkBody() error {
	if r.bodyField == nil {
		return nil
	}
	if slices.ContainsFunc(r.variables, func(v variable) bool {
		return len(v.fields) == 1 && v.fields[0] == r.bodyField
	}) {
		return fmt.Errorf("the field %q is in the path and is the body", r.bodyField.Name())
	}
	return nil
}
