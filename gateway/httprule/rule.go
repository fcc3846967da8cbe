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

	input, output protoreflect.MessageType // of Method
	httpMethod    string
	path          string // the template, as written
	template      template
	variables     []variable

	// The body is the whole message (wholeBody), one field (bodyField), or none.
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
		return r.input.Descriptor().FullName()
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

// methodAndPath returns the HTTP method and the template of a rule; empty for one without a
// pattern, which compile refuses.
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
func (r *Router) compile(m protoreflect.MethodDescriptor, declared *annotations.HttpRule) (*Rule, error) {
	method, path := methodAndPath(declared)
	rule := &Rule{
		Method: m, input: r.typeOf(m.Input()), output: r.typeOf(m.Output()), router: r, httpMethod: method, path: path,
	}
	if method == "" {
		return nil, fmt.Errorf("%s: a rule has no HTTP method", m.FullName())
	}
	input, output := rule.input.Descriptor(), rule.output.Descriptor()
	var err error
	if rule.template, err = parseTemplate(path); err != nil {
		return nil, fmt.Errorf("%s: %w", rule, err)
	}
	for _, s := range rule.template.spans {
		fields, err := variableFields(input, s.name)
		if err != nil {
			return nil, fmt.Errorf("%s: variable %q: %w", rule, s.name, err)
		}
		rule.variables = append(rule.variables, variable{span: s, fields: fields})
	}
	if err := checkVariables(rule.variables); err != nil {
		return nil, fmt.Errorf("%s: %w", rule, err)
	}
	if rule.wholeBody = declared.GetBody() == "*"; !rule.wholeBody && declared.GetBody() != "" {
		if rule.bodyField = fieldOf(input, declared.GetBody()); rule.bodyField == nil {
			return nil, fmt.Errorf("%s: body: %s has no field %q", rule, input.FullName(), declared.GetBody())
		}
	}
	if name := declared.GetResponseBody(); name != "" {
		if rule.response = fieldOf(output, name); rule.response == nil {
			return nil, fmt.Errorf("%s: response_body: %s has no field %q", rule, output.FullName(), name)
		}
	}
	if err := rule.checkBody(); err != nil {
		return nil, fmt.Errorf("%s: %w", rule, err)
	}
	return rule, nil
}

// fieldOf finds a field by its name in JSON or in the proto file, as JSON does. The JSON name comes
// first: a message may call one field as another is called in JSON.
func fieldOf(md protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if fd := md.Fields().ByJSONName(name); fd != nil {
		return fd
	}
	return md.Fields().ByTextName(name)
}

// variableFields resolves the field path of a variable. Every field on the way is one message, and
// the last one has a text.
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

// checkVariables refuses variables that could not be set together: of the same field, of a message
// and of a field in it, or of two members of a oneof. Which of them counted would depend on their
// order.
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

// checkBody refuses a field as body that the path sets. A variable inside of it is allowed: the
// body may repeat it, and may not contradict it.
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
