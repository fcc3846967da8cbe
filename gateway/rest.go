package gateway

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"connectrpc.com/vanguard"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
)

// restRouter serves the google.api.http rules of a catalog. A transcoder finds the rule and builds
// the message; the router first removes what the transcoder should not see.
type restRouter struct {
	transcoder *vanguard.Transcoder
	rules      []restRule
	// verbs are the custom verbs of all rules, the part of a path after its last colon.
	verbs map[string]bool
}

// restRule is what the router knows of one rule.
type restRule struct {
	method    string // "*" is any
	path      *regexp.Regexp
	variables []string
	wholeBody bool
}

func (s *Server) newRESTRouter(g *generation, types *typeResolver) (*restRouter, error) {
	router := &restRouter{verbs: map[string]bool{}}
	var services []*vanguard.Service
	for _, service := range g.catalog.Services() {
		for _, m := range service.Methods {
			router.add(m)
		}
		services = append(services, vanguard.NewServiceWithSchema(unaryService{service.Descriptor},
			http.HandlerFunc(serveRule)))
	}
	var err error
	router.transcoder, err = vanguard.NewTranscoder(services,
		vanguard.WithDefaultServiceOptions(
			vanguard.WithTargetProtocols(vanguard.ProtocolConnect),
			vanguard.WithTargetCodecs(vanguard.CodecProto),
			vanguard.WithNoTargetCompression(),
			vanguard.WithMaxGetURLBytes(1), // messages come in the body, never in a URL
			vanguard.WithTypeResolver(types),
		),
		vanguard.WithCodec(func(r vanguard.TypeResolver) vanguard.Codec { return protoCodec{vanguard.NewProtoCodec(r)} }),
		vanguard.WithCodec(func(vanguard.TypeResolver) vanguard.Codec { return g.json }),
	)
	return router, err
}

// add adds a method's rules.
func (router *restRouter) add(m *discovery.Method) {
	options, _ := m.Descriptor.Options().(*descriptorpb.MethodOptions)
	rule, _ := proto.GetExtension(options, annotations.E_Http).(*annotations.HttpRule)
	if rule == nil {
		return
	}
	for _, rule := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
		method, template := methodAndPath(rule)
		pattern, variables := templatePattern(template)
		router.rules = append(router.rules, restRule{
			method: method, path: pattern, variables: variables, wholeBody: rule.GetBody() == "*",
		})
		if _, verb := cutVerb(template); verb != "" {
			router.verbs[verb] = true
		}
	}
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

// cutVerb splits a path or template at the last colon of its last segment. Colons inside a
// template's braces do not occur.
func cutVerb(path string) (rest, verb string) {
	slash, colon := strings.LastIndexByte(path, '/'), strings.LastIndexByte(path, ':')
	if colon <= slash {
		return path, ""
	}
	return path[:colon], path[colon+1:]
}

// templatePart is a variable, a wildcard, or a run of anything else.
var templatePart = regexp.MustCompile(`\{([^}=]+)(?:=([^}]*))?\}|\*\*|\*|[^{*]+`)

// templatePattern is a path template as a regular expression over escaped paths, with the variables
// that it sets.
func templatePattern(template string) (*regexp.Regexp, []string) {
	var variables []string
	var expand func(string) string
	expand = func(t string) string {
		return templatePart.ReplaceAllStringFunc(t, func(part string) string {
			switch match := templatePart.FindStringSubmatch(part); {
			case part == "**":
				return ".*"
			case part == "*":
				return "[^/]*"
			case match[1] != "":
				variables = append(variables, match[1])
				if match[2] == "" {
					return "[^/]*"
				}
				return expand(match[2])
			default:
				return regexp.QuoteMeta(part)
			}
		})
	}
	return regexp.MustCompile("^" + expand(template) + "$"), variables
}

// serve answers a request by the rule that it matches, or with not found.
func (router *restRouter) serve(c *plainCall, r *http.Request) {
	c.rule = &ruleWriter{ResponseWriter: c.w, call: c}
	router.transcoder.ServeHTTP(c.rule, router.normalize(r))
	if c.rule.status != 0 {
		c.failTranscoding(r, c.rule)
	}
}

// normalize gives the transcoder the escaped path, since it splits before it unescapes, and removes
// query parameters that are not allowed.
func (router *restRouter) normalize(r *http.Request) *http.Request {
	u := *r.URL
	u.RawPath, u.Path = "", router.escapeIDs(r.URL.EscapedPath())
	if u.RawQuery != "" {
		u.RawQuery = router.trimQuery(r.Method, u.Path, u.Query())
	}
	trimmed := r.WithContext(r.Context())
	trimmed.URL = &u
	return trimmed
}

// escapeIDs escapes colons in the last segment, except for one before a custom verb.
func (router *restRouter) escapeIDs(path string) string {
	slash := strings.LastIndexByte(path, '/')
	dir, last := path[:slash+1], path[slash+1:]
	verb := ""
	if colon := strings.LastIndexByte(last, ':'); colon >= 0 && router.verbs[last[colon+1:]] {
		last, verb = last[:colon], last[colon:]
	}
	return dir + strings.ReplaceAll(last, ":", "%3A") + verb
}

// trimQuery removes parameters that would overwrite a variable of the path or a field of a
// whole-message body: a proxy that checks paths must be able to rely on them.
func (router *restRouter) trimQuery(method, path string, query url.Values) string {
	for _, rule := range router.rules {
		if (rule.method != "*" && rule.method != method) || !rule.path.MatchString(path) {
			continue
		}
		if rule.wholeBody {
			return ""
		}
		for name := range query {
			if slices.ContainsFunc(rule.variables, func(v string) bool { return sameField(name, v) }) {
				query.Del(name)
			}
		}
	}
	return query.Encode()
}

// sameField compares field paths, each of which may be spelled as in the proto or as in JSON.
func sameField(a, b string) bool {
	plain := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "_", "")) }
	return plain(a) == plain(b)
}

// serveRule is the handler that a transcoder calls with the message of a request. It answers with a
// message, which the transcoder prints according to the rule; it writes streams itself.
func serveRule(w http.ResponseWriter, r *http.Request) {
	c, _ := r.Context().Value(plainCallKey{}).(*plainCall)
	m := c.g.catalog.Method(r.URL.Path)
	payload, ok := c.readBody(r)
	if !ok || c.rule.status != 0 {
		return // in the second case the transcoder has reported a bad message
	}
	reply := c.run(r.Context(), m, payload)
	switch {
	case reply == nil:
		return
	case !m.IsUnary():
		c.writeReply(m, reply)
		c.streamed = c.problem == nil
	default:
		setReplyHeaders(w.Header(), reply)
		w.Header().Set("Content-Type", contentTypeConnectProto)
		_, _ = w.Write(reply.Payload.Value) // the transcoder reports problems with it
	}
}

// maxErrorBytes bounds how much of a transcoder's error is kept.
const maxErrorBytes = 16 << 10

// ruleWriter is the response writer of a transcoder. It keeps errors, which are written in another
// form, and drops output after a problem or during a stream of the gateway.
type ruleWriter struct {
	http.ResponseWriter
	call *plainCall
	// status and text are those of an error; status 0: none.
	status int
	text   bytes.Buffer
}

func (w *ruleWriter) silent() bool { return w.call.problem != nil || w.call.streamed }

// WriteHeader implements http.ResponseWriter.
func (w *ruleWriter) WriteHeader(status int) {
	switch {
	case w.silent():
	case status >= http.StatusBadRequest:
		w.status = status
	default:
		w.ResponseWriter.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (w *ruleWriter) Write(p []byte) (int, error) {
	switch {
	case w.silent():
		return len(p), nil
	case w.status != 0:
		w.text.Write(p[:min(len(p), maxErrorBytes-w.text.Len())])
		return len(p), nil
	default:
		return w.ResponseWriter.Write(p)
	}
}

// Flush implements http.Flusher.
func (w *ruleWriter) Flush() {
	if w.status == 0 && !w.silent() {
		_ = http.NewResponseController(w.ResponseWriter).Flush()
	}
}

// failTranscoding converts a transcoder's error to one of the table.
func (c *plainCall) failTranscoding(r *http.Request, w *ruleWriter) {
	method, path := r.Method, r.URL.Path
	switch w.status {
	case http.StatusNotFound:
		c.fail(c.server.unknown(notFound(method, path)), 0)
	case http.StatusMethodNotAllowed:
		c.fail(wrongMethod(method, path, c.w.Header().Get("Allow")), w.status)
	case http.StatusUnsupportedMediaType:
		c.fail(wrongContentType(c.header.Get("Content-Type")), w.status)
	default:
		var failure struct {
			Code    codes.Code
			Message string
		}
		if err := json.Unmarshal(w.text.Bytes(), &failure); err != nil {
			failure.Message = strings.TrimSpace(w.text.String())
		}
		c.fail(c.blame(method, path, failure.Code, failure.Message), 0)
	}
}

// blame returns the error for a failed transcoding. Before the call ran, the request is invalid;
// after it, the function's reply could not be printed.
func (c *plainCall) blame(method, path string, code codes.Code, message string) *entities.Error {
	if c.ran {
		return entities.Errorf(entities.FunctionFailed, entities.Unknown,
			"%s %s: the function's reply cannot be printed: %s", method, path, message)
	}
	if code == codes.ResourceExhausted {
		return tooLarge(c.server.opts.MaxRequest)
	}
	return invalid("%s %s: %s", method, path, message)
}

// unaryService makes all methods of a service look unary. A transcoder refuses streams over plain
// HTTP; for a unary method it finds the rule and builds the message, and serveRule does the rest.
type unaryService struct {
	protoreflect.ServiceDescriptor
}

// Methods implements protoreflect.ServiceDescriptor.
func (s unaryService) Methods() protoreflect.MethodDescriptors {
	return unaryMethods{s.ServiceDescriptor.Methods()}
}

type unaryMethods struct {
	protoreflect.MethodDescriptors
}

// Get implements protoreflect.MethodDescriptors.
func (m unaryMethods) Get(i int) protoreflect.MethodDescriptor {
	return unaryMethod{m.MethodDescriptors.Get(i)}
}

type unaryMethod struct {
	protoreflect.MethodDescriptor
}

// IsStreamingClient implements protoreflect.MethodDescriptor.
func (unaryMethod) IsStreamingClient() bool { return false }

// IsStreamingServer implements protoreflect.MethodDescriptor.
func (unaryMethod) IsStreamingServer() bool { return false }
