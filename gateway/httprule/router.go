package httprule

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Router finds the rule of a request. After the last Add it is immutable, and may be used by many
// goroutines at once.
type Router struct {
	root      node
	typeOf    func(protoreflect.MessageDescriptor) protoreflect.MessageType
	unmarshal protojson.UnmarshalOptions
	marshal   protojson.MarshalOptions
}

// NewRouter returns a router without rules. typeOf chooses the types of requests, and must be that
// of the replies to print, such as dynamicpb.NewMessageType. The options are those of bodies and
// replies.
func NewRouter(typeOf func(protoreflect.MessageDescriptor) protoreflect.MessageType,
	unmarshal protojson.UnmarshalOptions, marshal protojson.MarshalOptions,
) *Router {
	return &Router{typeOf: typeOf, unmarshal: unmarshal, marshal: marshal}
}

// node is a place in the trie of all templates, reached by segments. Variables are not in it: a
// template is the segments that it matches, and a rule knows which of them its variables capture.
// So /a/{x} and /a/{y} are one place.
type node struct {
	literals map[string]*node
	star     *node
	// here are the rules whose template ends at this place, deep those that go on with **. Each has
	// verb and HTTP method of its own.
	here, deep []*Rule
}

// Add adds the rules of a method, if it has any. The error says which rule cannot be served, and
// why: it is not valid for the method, or another rule has the same method and path.
func (r *Router) Add(m protoreflect.MethodDescriptor) error {
	for _, declared := range rulesOf(m) {
		rule, err := r.compile(m, declared)
		if err != nil {
			return err
		}
		if err := r.root.add(rule, rule.template.segments); err != nil {
			return err
		}
	}
	return nil
}

// add puts a rule where its template ends. ** ends a template, and so has no node of its own: it
// may match no segment at all.
func (n *node) add(rule *Rule, segments []segment) error {
	for _, s := range segments {
		switch s.kind {
		case literal:
			if n.literals == nil {
				n.literals = map[string]*node{}
			}
			if n.literals[s.text] == nil {
				n.literals[s.text] = &node{}
			}
			n = n.literals[s.text]
		case star:
			if n.star == nil {
				n.star = &node{}
			}
			n = n.star
		case deep:
			return claim(&n.deep, rule)
		}
	}
	return claim(&n.here, rule)
}

// claim puts a rule at a place, unless another one has it.
func claim(place *[]*Rule, rule *Rule) error {
	for _, other := range *place {
		if other.httpMethod == rule.httpMethod && other.template.verb == rule.template.verb {
			return fmt.Errorf("two rules serve the same requests: %s and %s", other, rule)
		}
	}
	*place = append(*place, rule)
	return nil
}

// Match is a rule and the path that it matched.
type Match struct {
	*Rule
	path     string   // without the verb, still encoded
	segments []string // decoded
}

// Match returns the rule that serves a request. path is as the client has sent it, still encoded.
// If there is none, allowed are the HTTP methods that are served at this path: none if the path is
// unknown. The error is an *Error about the path.
func (r *Router) Match(method, path string) (m Match, allowed []string, err error) {
	segments, err := split(path)
	if err != nil || segments == nil {
		return Match{}, nil, err
	}
	// First as if the colon began a verb, in which case the last segment is what is before it. The
	// colon belongs to the segment only if no rule has this verb here, whatever its HTTP method: a
	// request with another method gets the methods of the verb.
	if rest, verb, found := splitVerb(path); found {
		verb, err := url.PathUnescape(verb)
		if err != nil {
			return Match{}, nil, &Error{Place: Path, Problem: err.Error()}
		}
		whole := segments[len(segments)-1]
		segments[len(segments)-1], err = url.PathUnescape(rest[strings.LastIndexByte(rest, '/')+1:])
		if err != nil {
			return Match{}, nil, &Error{Place: Path, Problem: err.Error()}
		}
		if rule := r.root.find(segments, verb, method); rule != nil {
			return Match{Rule: rule, path: rest, segments: segments}, nil, nil
		}
		if allowed := r.allowed(segments, verb); allowed != nil {
			return Match{}, allowed, nil
		}
		segments[len(segments)-1] = whole
	}
	if rule := r.root.find(segments, "", method); rule != nil {
		return Match{Rule: rule, path: path, segments: segments}, nil, nil
	}
	return Match{}, r.allowed(segments, ""), nil
}

// split returns the decoded segments of a path; nil if there can be no match.
func split(path string) ([]string, error) {
	path, found := strings.CutPrefix(path, "/")
	if !found {
		return nil, nil
	}
	if path == "" {
		return []string{}, nil
	}
	segments := strings.Split(path, "/")
	// All segments are decoded before an empty one ends it: a bad escape is the client's mistake in
	// any path.
	empty := false
	for i, s := range segments {
		empty = empty || s == ""
		decoded, err := url.PathUnescape(s)
		if err != nil {
			return nil, &Error{Place: Path, Problem: err.Error()}
		}
		segments[i] = decoded
	}
	if empty {
		return nil, nil
	}
	return segments, nil
}

// splitVerb splits an encoded path at the last colon of its last segment. What is before the colon
// may not be empty.
func splitVerb(path string) (rest, verb string, found bool) {
	slash, colon := strings.LastIndexByte(path, '/'), strings.LastIndexByte(path, ':')
	if colon <= slash+1 || colon == len(path)-1 {
		return path, "", false
	}
	return path[:colon], path[colon+1:], true
}

// find returns the first rule, in the order of precedence, that serves a method. Each node is
// visited at most once.
func (n *node) find(segments []string, verb, method string) *Rule {
	if len(segments) == 0 {
		if rule := pick(n.here, verb, method); rule != nil {
			return rule
		}
		return pick(n.deep, verb, method)
	}
	if child := n.literals[segments[0]]; child != nil {
		if rule := child.find(segments[1:], verb, method); rule != nil {
			return rule
		}
	}
	if n.star != nil {
		if rule := n.star.find(segments[1:], verb, method); rule != nil {
			return rule
		}
	}
	return pick(n.deep, verb, method)
}

// pick returns the rule of a method among those of one place: its own, before the GET rule for
// HEAD, before one of any method.
func pick(rules []*Rule, verb, method string) *Rule {
	var get, other *Rule
	for _, rule := range rules {
		switch {
		case rule.template.verb != verb:
		case rule.httpMethod == method:
			return rule
		case rule.httpMethod == anyMethod:
			other = rule
		case rule.httpMethod == http.MethodGet && method == http.MethodHead:
			get = rule
		}
	}
	if get != nil {
		return get
	}
	return other
}

// allowed returns the methods of all rules that match, sorted; nil if none does. Rules of any place
// that matches count, also of those that another one comes before.
func (r *Router) allowed(segments []string, verb string) []string {
	methods := map[string]bool{}
	collect := func(rules []*Rule) {
		for _, rule := range rules {
			if rule.template.verb == verb {
				methods[rule.httpMethod] = true
			}
		}
	}
	var visit func(n *node, segments []string)
	visit = func(n *node, segments []string) {
		collect(n.deep)
		if len(segments) == 0 {
			collect(n.here)
			return
		}
		if child := n.literals[segments[0]]; child != nil {
			visit(child, segments[1:])
		}
		if n.star != nil {
			visit(n.star, segments[1:])
		}
	}
	visit(&r.root, segments)
	if methods[http.MethodGet] {
		methods[http.MethodHead] = true
	}
	return slices.Sorted(maps.Keys(methods))
}

// text returns what a variable captured. Of several segments it is cut out of the path as it was
// sent, because decoded segments do not tell a slash between them from an encoded one within.
func (m *Match) text(v span) string {
	if !v.multi() {
		return m.segments[v.first]
	}
	rest := m.path
	for range v.first + 1 { // up to and with the slash before the first segment
		_, rest, _ = strings.Cut(rest, "/")
	}
	if !v.open {
		end := 0
		for range v.end - v.first {
			if next := strings.IndexByte(rest[end:], '/'); next >= 0 {
				end += next + 1
			} else {
				end = len(rest) + 1
			}
		}
		rest = rest[:end-1]
	}
	return unescapeButSlashes(rest)
}

// unescapeButSlashes decodes a text whose escapes are valid, and leaves %2F and %2f as they are.
func unescapeButSlashes(text string) string {
	if !strings.Contains(text, "%") {
		return text
	}
	decoded := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '%' || strings.EqualFold(text[i:i+3], "%2F") {
			decoded = append(decoded, text[i])
			continue
		}
		decoded = append(decoded, unhex(text[i+1])<<4|unhex(text[i+2]))
		i += 2
	}
	return string(decoded)
}

// unhex is the value of a hexadecimal digit, which was checked when the path was split.
func unhex(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	default:
		return c - '0'
	}
}
