package node

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/entities/discovery"
)

// sampleKey is the entity of all samples.
const sampleKey = "42"

// Try returns lines that a new user can paste: a call, a look at the entity, a look at the log.
// program is how this program is called.
func (n *Node) Try(program string) []string {
	catalog := n.host.Catalog()
	if catalog == nil {
		return nil
	}
	first := tryCall(catalog, n.PublicAddress())
	switch ask := asking(program, n.AdminAddress()); {
	case first == nil:
		return []string{ask("status")}
	case first.entity == "":
		return []string{first.line, ask("status")}
	default:
		return []string{first.line, ask("get " + first.entity), ask("log tail --from-start")}
	}
}

// asking returns how a program is called to ask the process with this admin port.
func asking(program, admin string) func(what string) string {
	return func(what string) string {
		if admin != Defaults().Admin {
			what += " --admin " + admin
		}
		return program + " " + what
	}
}

// tryCall is a call of what the user's function serves, nil when there is none to paste.
func tryCall(catalog *discovery.Catalog, public string) *sample {
	services := catalog.User().Services()
	if len(services) == 0 {
		return nil
	}
	s := slices.MinFunc(services, func(a, b *discovery.Service) int { return sampleRank(a) - sampleRank(b) })
	i := slices.IndexFunc(s.Methods, (*discovery.Method).IsUnary)
	if i < 0 {
		return nil
	}
	call := newSample(s.Methods[i], public)
	return &call
}

// sampleRank ranks services by how little a first call of them shows: events are the best to look
// at, and a POST with a path of its own the nicest to type.
func sampleRank(s *discovery.Service) int {
	if !s.Kind.Spec().Served() || len(s.Methods) == 0 {
		return math.MaxInt
	}
	rank := 2 * int(s.Kind) // events first, actions last
	if rule := httpRule(s.Methods[0]); rule == nil || rule.GetPost() == "" {
		rank++
	}
	return rank
}

// httpRule returns a method's google.api.http rule, nil when it has none.
func httpRule(m *discovery.Method) *annotations.HttpRule {
	rule, _ := proto.GetExtension(m.Descriptor.Options(), annotations.E_Http).(*annotations.HttpRule)
	return rule
}

// sample is a call that can be pasted.
type sample struct {
	line string
	// entity is what it is about, as type/id; empty for an action.
	entity string
}

// newSample makes a call of a unary method, with something in every plain field of its request: by
// its own path where it has one, else by its name.
func newSample(m *discovery.Method, address string) sample {
	request := dynamicpb.NewMessage(m.Input)
	for i := range m.Input.Fields().Len() {
		fill(request, m.Input.Fields().Get(i))
	}
	verb, path, inPath := route(httpRule(m), request)
	if path == "" {
		verb, path = http.MethodPost, m.FullName
	}
	s := sample{line: "curl"}
	if verb != http.MethodGet && verb != http.MethodPost {
		s.line += " -X " + verb
	}
	if verb == http.MethodPost || verb == http.MethodPut || verb == http.MethodPatch {
		// Without the header curl says that it sends a form.
		s.line += fmt.Sprintf(" -H 'content-type: application/json' -d '%s'", typedJSON(request, inPath))
	}
	s.line += " http://" + address + path
	if payload, err := proto.Marshal(request); err == nil {
		if cmd, err := m.Command(payload, nil); err == nil && cmd.Type != nil {
			s.entity = cmd.Key.String()
		}
	}
	return s
}

// route fills a rule's path. It returns no path for a rule that a plain line cannot follow: with a
// body that is only part of the request, or with patterns in its path.
func route(rule *annotations.HttpRule, request protoreflect.Message) (verb, path string, inPath []protoreflect.Name) {
	switch p := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		verb, path = http.MethodGet, p.Get
	case *annotations.HttpRule_Post:
		verb, path = http.MethodPost, p.Post
	case *annotations.HttpRule_Put:
		verb, path = http.MethodPut, p.Put
	case *annotations.HttpRule_Patch:
		verb, path = http.MethodPatch, p.Patch
	case *annotations.HttpRule_Delete:
		verb, path = http.MethodDelete, p.Delete
	}
	if strings.ContainsAny(path, "*=") || rule.GetBody() != "*" && rule.GetBody() != "" {
		return "", "", nil
	}
	fields := request.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if variable := "{" + string(f.Name()) + "}"; strings.Contains(path, variable) {
			path = strings.ReplaceAll(path, variable, request.Get(f).String())
			inPath = append(inPath, f.Name())
		}
	}
	if strings.Contains(path, "{") {
		return "", "", nil // a variable inside of a message
	}
	return verb, path, inPath
}

// typedJSON returns the set fields of a message as a person types them: in the order and by the
// names of the proto file, without white space, numbers as numbers. Fields that are in the path
// already are left out.
func typedJSON(m *dynamicpb.Message, inPath []protoreflect.Name) string {
	var parts []string
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		if !m.Has(f) || slices.Contains(inPath, f.Name()) {
			continue
		}
		value := m.Get(f).String()
		if f.Kind() == protoreflect.StringKind {
			value = strconv.Quote(value)
		}
		parts = append(parts, fmt.Sprintf("%q:%s", f.Name(), value))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// sampleText is a word for a field: the first one of most requests is the key.
func sampleText(f protoreflect.FieldDescriptor) string {
	switch {
	case f.Index() == 0:
		return sampleKey
	case strings.HasSuffix(string(f.Name()), "id"):
		return "apple"
	default:
		return "Apple"
	}
}

// fill gives a plain field a value that makes sense in many places.
func fill(m *dynamicpb.Message, f protoreflect.FieldDescriptor) {
	if f.IsList() || f.IsMap() {
		return
	}
	switch f.Kind() { //nolint:exhaustive // the rest has no obvious sample
	case protoreflect.StringKind:
		m.Set(f, protoreflect.ValueOfString(sampleText(f)))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		m.Set(f, protoreflect.ValueOfInt32(2))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		m.Set(f, protoreflect.ValueOfInt64(2))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		m.Set(f, protoreflect.ValueOfUint32(2))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		m.Set(f, protoreflect.ValueOfUint64(2))
	}
}
