package httprule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/millrace-io/millrace/internal/mutation"
)

// maxDepth bounds the nesting of a query parameter.
const maxDepth = 64

// Bind makes the request message. query is the part of the URL after its question mark, still
// encoded. contentType matters only if the body is a google.api.HttpBody. The error is an *Error.
func (m *Match) Bind(query, contentType string, body []byte) (protoreflect.Message, error) {
	b := binding{Match: m, msg: m.input.New()}
	if err := b.bindBody(contentType, body); err != nil {
		return nil, err
	}
	for i := range m.variables {
		if err := b.bindVariable(&m.variables[i]); err != nil {
			return nil, err
		}
	}
	if query != "" {
		if err := b.bindQuery(query); err != nil {
			return nil, err
		}
	}
	return b.msg, nil
}

// binding is one request message while it is made.
type binding struct {
	*Match
	msg protoreflect.Message
	// given has the parameters that were set, by their path in the proto file, with the names that the
	// query has for them.
	given map[string]string
}

// blank is the white space of JSON.
const blank = " \t\r\n"

// bindBody sets what the body says.
func (b *binding) bindBody(contentType string, body []byte) error {
	switch text := bytes.Trim(body, blank); {
	case !b.HasBody():
		if !isNothing(text) {
			return &Error{Place: Body, Problem: "this request has no body: send its fields in the query, or leave it out"}
		}
		return nil
	case b.wholeBody && b.bodyMessage() == httpBody:
		setHTTPBody(b.msg, contentType, body)
		return nil
	case b.wholeBody && len(text) == 0:
		return nil
	case b.wholeBody:
		if err := b.router.unmarshal.Unmarshal(body, b.msg.Interface()); err != nil {
			return &Error{Place: Body, Problem: badJSON + Problem(err)}
		}
		return nil
	case b.bodyMessage() == httpBody:
		if len(body) > 0 || contentType != "" {
			setHTTPBody(b.msg.Mutable(b.bodyField).Message(), contentType, body)
		}
		return nil
	case len(text) == 0:
		return nil
	default:
		return b.bindBodyField(body)
	}
}

// isNothing reports whether a trimmed body is empty or {}.
func isNothing(text []byte) bool {
	if len(text) == 0 {
		return true
	}
	return text[0] == '{' && text[len(text)-1] == '}' && len(text) > 1 &&
		len(bytes.Trim(text[1:len(text)-1], blank)) == 0
}

func setHTTPBody(m protoreflect.Message, contentType string, body []byte) {
	fields := m.Descriptor().Fields()
	m.Set(fields.ByName("content_type"), protoreflect.ValueOfString(strings.ToValidUTF8(contentType, "\uFFFD")))
	m.Set(fields.ByName("data"), protoreflect.ValueOfBytes(body))
}

// bindBodyField sets the field that is the body.
func (b *binding) bindBodyField(body []byte) error {
	fd := b.bodyField
	fault := func(problem string) error { return &Error{Place: Body, Field: string(fd.Name()), Problem: problem} }
	// null leaves a field as it is: only a Value and a list of the enum NullValue have null as value.
	if isMessage(fd) && !bytes.Equal(bytes.Trim(body, blank), []byte("null")) {
		v := b.msg.NewField(fd)
		if err := b.router.unmarshal.Unmarshal(body, v.Message().Interface()); err != nil {
			return fault(badJSON + Problem(err))
		}
		b.msg.Set(fd, v)
		return nil
	}
	if !json.Valid(body) && !mutation.On(mutation.OneDocument) {
		return fault("it is not valid JSON")
	}
	object := slices.Concat([]byte(`{"`+fd.JSONName()+`":`), body, []byte{'}'})
	if err := b.router.unmarshal.Unmarshal(object, b.msg.Interface()); err != nil {
		return fault(badJSON + position.ReplaceAllString(Problem(err), ""))
	}
	return nil
}

// badJSON begins what protojson says of a body.
const badJSON = "it is not valid JSON for this method: "

// position is where protojson found a problem. In a body that was put into an object, it is wrong.
var position = regexp.MustCompile(`\(line \d+:\d+\): `)

// Problem returns the text of an error of protojson without its prefix, which varies at random.
func Problem(err error) string {
	return strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto: ")
}

// bindVariable sets what the path says. The body may have said the same, and nothing else.
func (b *binding) bindVariable(v *variable) error {
	m, last := b.msg, len(v.fields)-1
	for i, fd := range v.fields {
		if other := otherMember(m, fd); other != nil {
			return &Error{Place: Body, Field: string(other.Name()), Problem: fmt.Sprintf(
				"the path sets %q, which is in the same oneof", v.name)}
		}
		if i < last {
			m = m.Mutable(fd).Message()
		}
	}
	fd := v.fields[last]
	said, had := m.Get(fd), m.Has(fd)
	if err := setText(m, fd, b.text(v.span)); err != nil {
		return &Error{Place: Path, Field: v.name, Problem: err.Error()}
	}
	if had && !said.Equal(m.Get(fd)) {
		return &Error{Place: Body, Field: v.name, Problem: "the path has another value: leave it out of the body"}
	}
	return nil
}

// otherMember returns the member of a field's oneof that is set instead of it, if any.
func otherMember(m protoreflect.Message, fd protoreflect.FieldDescriptor) protoreflect.FieldDescriptor {
	od := fd.ContainingOneof()
	if od == nil {
		return nil
	}
	if set := m.WhichOneof(od); set != fd && !mutation.On(mutation.Members) {
		return set
	}
	return nil
}

// bindQuery sets what the query says.
func (b *binding) bindQuery(query string) error {
	b.given = map[string]string{}
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		if strings.Contains(pair, ";") && !mutation.On(mutation.Semicolons) {
			return &Error{Place: Query, Problem: shown(pair) + ": put & between parameters, and write %3B for ;"}
		}
		key, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(key)
		if err != nil {
			return &Error{Place: Query, Field: key, Problem: err.Error()}
		}
		text, err := url.QueryUnescape(value)
		if err == nil {
			err = b.bindParameter(name, text)
		}
		if err != nil {
			return &Error{Place: Query, Field: name, Problem: err.Error()}
		}
	}
	return nil
}

// bindParameter sets what one parameter says. The error is a reason for the caller.
func (b *binding) bindParameter(name, text string) error {
	if b.wholeBody {
		return errors.New("this request takes no parameters: send its fields in the body")
	}
	fields, err := parameterFields(b.msg.Descriptor(), name)
	if err != nil {
		return err
	}
	if fields[0] == b.bodyField {
		return errors.New("the body is this field")
	}
	for i := range b.variables {
		if slices.Equal(b.variables[i].fields, fields) {
			return errors.New("the path sets it")
		}
	}
	m, last := b.msg, len(fields)-1
	for i, fd := range fields {
		if other := otherMember(m, fd); other != nil {
			return fmt.Errorf("%q is set, and is in the same oneof", other.Name())
		}
		if i < last {
			m = m.Mutable(fd).Message()
		}
	}
	fd := fields[last]
	path := pathOf(fields)
	before, again := b.given[path]
	switch {
	case mutation.On(mutation.GivenTwice):
	case again && !fd.IsList():
		return errors.New("it is given twice")
	case again && before != name:
		return fmt.Errorf("it is also given as %s: use one name", shown(before))
	}
	b.given[path] = name
	return setText(m, fd, text)
}

// pathOf is the name of a parameter in the proto file.
func pathOf(fields []protoreflect.FieldDescriptor) string {
	if len(fields) == 1 {
		return string(fields[0].Name())
	}
	names := make([]string, len(fields))
	for i, fd := range fields {
		names[i] = string(fd.Name())
	}
	return strings.Join(names, ".")
}

// parameterFields resolves the name of a parameter.
func parameterFields(md protoreflect.MessageDescriptor, name string) ([]protoreflect.FieldDescriptor, error) {
	var fields []protoreflect.FieldDescriptor
	for part := range strings.SplitSeq(name, ".") {
		if md == nil {
			return nil, fmt.Errorf("%q has no fields", fields[len(fields)-1].Name())
		}
		fd := fieldOf(md, part)
		if fd == nil {
			return nil, fmt.Errorf("%s has no field %s", md.FullName(), shown(part))
		}
		if len(fields) == maxDepth {
			return nil, fmt.Errorf("it is nested in more than %d fields", maxDepth)
		}
		fields = append(fields, fd)
		md = nil
		if isMessage(fd) && !hasOwnJSON(fd.Message()) {
			md = fd.Message()
		}
	}
	if fields[len(fields)-1].IsMap() {
		return nil, errors.New("it is a map, which no parameter can set")
	}
	return fields, nil
}
