package discovery

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// wholeMessage is the body of a rule that takes the whole input from the request's JSON.
const wholeMessage = "*"

// checkHTTP checks the method's google.api.http rule and its additional bindings.
func checkHTTP(m *Method, wrong *problems) {
	options, ok := m.Descriptor.Options().(*descriptorpb.MethodOptions)
	if !ok || !proto.HasExtension(options, annotations.E_Http) {
		return
	}
	rule, _ := proto.GetExtension(options, annotations.E_Http).(*annotations.HttpRule)
	check := func(rule *annotations.HttpRule) {
		if err := checkRule(m, rule); err != nil {
			wrong.addf("method %s has a bad google.api.http rule: %s", m.FullName, err)
		}
	}
	check(rule)
	for _, binding := range rule.GetAdditionalBindings() {
		if len(binding.GetAdditionalBindings()) > 0 {
			wrong.addf(
				"method %s has a bad google.api.http rule: an additional binding has additional bindings itself: put them side by side", m.FullName)
		}
		check(binding)
	}
}

// checkRule checks one rule against the messages of its method. Package gateway/httprule
// compiles the same rules; a rule that it refuses would stop a gateway, so it is refused here,
// at the function.
func checkRule(m *Method, rule *annotations.HttpRule) error {
	if s := rule.GetSelector(); s != "" && s != string(m.Descriptor.FullName()) {
		return fmt.Errorf("its selector %q is not the name of the method: leave it out", s)
	}
	path, err := rulePath(rule)
	if err != nil {
		return err
	}
	variables, err := parseTemplate(path)
	if err != nil {
		return fmt.Errorf("path %q: %w", path, err)
	}
	for _, v := range variables {
		if err := checkVariable(m.Input, v); err != nil {
			return fmt.Errorf("path %q: %w", path, err)
		}
	}
	if body := rule.GetBody(); body != "" && body != wholeMessage &&
		m.Input.Fields().ByName(protoreflect.Name(body)) == nil {
		return fmt.Errorf("its body %q is not a field of %s", body, m.Input.FullName())
	}
	if body := rule.GetResponseBody(); body != "" && m.Output.Fields().ByName(protoreflect.Name(body)) == nil {
		return fmt.Errorf("its response_body %q is not a field of %s", body, m.Output.FullName())
	}
	return nil
}

// rulePath returns the path template of a rule, whatever its HTTP method.
func rulePath(rule *annotations.HttpRule) (string, error) {
	switch pattern := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return pattern.Get, nil
	case *annotations.HttpRule_Put:
		return pattern.Put, nil
	case *annotations.HttpRule_Post:
		return pattern.Post, nil
	case *annotations.HttpRule_Delete:
		return pattern.Delete, nil
	case *annotations.HttpRule_Patch:
		return pattern.Patch, nil
	case *annotations.HttpRule_Custom:
		if pattern.Custom.GetKind() == "" {
			return "", errors.New("its custom pattern has no kind: name the HTTP method, or * for any")
		}
		return pattern.Custom.GetPath(), nil
	default:
		return "", errors.New("it has no pattern: set get, put, post, delete, patch or custom")
	}
}

// checkVariable resolves a field path; what it ends at must have a text form.
func checkVariable(md protoreflect.MessageDescriptor, path string) error {
	names := strings.Split(path, ".")
	for i, name := range names {
		fd := md.Fields().ByName(protoreflect.Name(name))
		switch {
		case fd == nil:
			return fmt.Errorf("its variable %s is not a field of %s", path, md.FullName())
		case fd.Cardinality() == protoreflect.Repeated:
			return fmt.Errorf("its variable %s is a repeated field", path)
		case i < len(names)-1 && fd.Message() == nil:
			return fmt.Errorf("its variable %s goes through %s, which is not a message", path, fd.FullName())
		case i == len(names)-1 && fd.Message() != nil:
			return fmt.Errorf("its variable %s is a message", path)
		}
		md = fd.Message()
	}
	return nil
}

// template reads a path template:
//
//	Template = "/" Segments [ ":" LITERAL ]
//	Segments = Segment { "/" Segment }
//	Segment  = "*" | "**" | LITERAL | "{" FieldPath [ "=" Segments ] "}"
type template struct {
	rest      string
	variables []string
	// any is set once ** was read: it takes the rest of the path and must be last.
	any bool
}

// parseTemplate returns the field paths of the variables in a template.
func parseTemplate(path string) ([]string, error) {
	if !strings.HasPrefix(path, "/") {
		return nil, errors.New("it does not begin with a slash")
	}
	t := &template{rest: path[1:]}
	if err := t.segments(false); err != nil {
		return nil, err
	}
	if verb, ok := strings.CutPrefix(t.rest, ":"); ok {
		if t.rest = verb; t.literal() == "" {
			return nil, errors.New("its verb after the colon is empty")
		}
	}
	if t.rest != "" {
		return nil, fmt.Errorf("unexpected %q", t.rest)
	}
	return t.variables, nil
}

// segments reads segments up to what is none. A variable cannot contain another one.
func (t *template) segments(inVariable bool) error {
	for {
		if t.any {
			return errors.New("** is not its last segment")
		}
		if err := t.segment(inVariable); err != nil {
			return err
		}
		rest, more := strings.CutPrefix(t.rest, "/")
		if !more {
			return nil
		}
		t.rest = rest
	}
}

func (t *template) segment(inVariable bool) error {
	switch {
	case strings.HasPrefix(t.rest, "**"):
		t.rest, t.any = t.rest[2:], true
	case strings.HasPrefix(t.rest, "*"):
		t.rest = t.rest[1:]
	case strings.HasPrefix(t.rest, "{"):
		if inVariable {
			return errors.New("a variable has a variable inside")
		}
		t.rest = t.rest[1:]
		return t.variable()
	default:
		if t.literal() == "" {
			return errors.New("it has an empty segment")
		}
	}
	return nil
}

// variable reads a variable after its opening brace. Without a pattern it takes one segment.
func (t *template) variable() error {
	end := strings.IndexAny(t.rest, "=}")
	if end < 0 {
		return errors.New("a variable is not closed with }")
	}
	name := t.rest[:end]
	for part := range strings.SplitSeq(name, ".") {
		if !protoreflect.Name(part).IsValid() {
			return fmt.Errorf("%q does not name a field", name)
		}
	}
	t.variables = append(t.variables, name)
	t.rest = t.rest[end:]
	if pattern, ok := strings.CutPrefix(t.rest, "="); ok {
		t.rest = pattern
		if err := t.segments(true); err != nil {
			return err
		}
	}
	rest, closed := strings.CutPrefix(t.rest, "}")
	if !closed {
		return errors.New("a variable is not closed with }")
	}
	t.rest = rest
	return nil
}

// literal takes text up to the next character with a meaning.
func (t *template) literal() string {
	end := strings.IndexAny(t.rest, "/:{}*=")
	if end < 0 {
		end = len(t.rest)
	}
	taken := t.rest[:end]
	t.rest = t.rest[end:]
	return taken
}
