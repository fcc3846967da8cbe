package gateway

import (
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/gateway/httprule"
)

// restRouter serves the google.api.http rules of a catalog.
type restRouter struct {
	rules   *httprule.Router
	methods map[protoreflect.FullName]*discovery.Method
}

// newRESTRouter compiles the rules of a catalog. The error names a rule that cannot be served.
func newRESTRouter(catalog *discovery.Catalog, json *jsonCodec) (*restRouter, error) {
	router := &restRouter{
		rules:   httprule.NewRouter(json.typeOf, json.UnmarshalOptions, json.MarshalOptions),
		methods: map[protoreflect.FullName]*discovery.Method{},
	}
	for _, service := range catalog.Services() {
		for _, m := range service.Methods {
			if err := router.rules.Add(m.Descriptor); err != nil {
				return nil, err
			}
			router.methods[m.Descriptor.FullName()] = m
		}
	}
	return router, nil
}

// serve answers a request by the rule that it matches, or with not found.
func (router *restRouter) serve(c *plainCall, r *http.Request) {
	match, allowed, err := router.rules.Match(r.Method, encodedPath(r.URL))
	switch {
	case err != nil:
		c.fail(badRequest(r, err), 0)
	case match.Rule != nil:
		c.serveRule(router.methods[match.Method.FullName()], &match, r)
	case len(allowed) > 0:
		methods := strings.Join(allowed, ", ")
		c.w.Header().Set("Allow", methods)
		c.fail(wrongMethod(r.Method, r.URL.Path, methods), http.StatusMethodNotAllowed)
	default:
		c.fail(c.server.unknown(notFound(r.Method, r.URL.Path)), 0)
	}
}

// encodedPath returns a path as it was sent. EscapedPath is that of the decoded path if the sent
// one has characters that should have been encoded, and then %2F has become a slash.
func encodedPath(u *url.URL) string {
	if u.RawPath != "" {
		return u.RawPath
	}
	return u.EscapedPath()
}

// badRequest is the error for what cannot be bound.
func badRequest(r *http.Request, err error) *entities.Error {
	return invalid("%s %s: %w", r.Method, r.URL.Path, err)
}

// serveRule answers a request by its rule.
func (c *plainCall) serveRule(m *discovery.Method, match *httprule.Match, r *http.Request) {
	c.rule = match.Rule
	data, ok := c.readBody()
	if !ok {
		return
	}
	contentType := c.header.Get("Content-Type")
	if len(data) > 0 && match.TakesJSON() && !isJSON(contentType) {
		c.fail(wrongContentType(contentType), http.StatusUnsupportedMediaType)
		return
	}
	msg, err := match.Bind(r.URL.RawQuery, contentType, data)
	if err != nil {
		c.fail(badRequest(r, err), 0)
		return
	}
	payload, err := appendCanonical(nil, msg.Interface())
	if err != nil {
		c.fail(badRequest(r, err), 0)
		return
	}
	if r.Method == http.MethodHead && m.ServerStreams {
		(&plainStream{call: c, m: m}).end() // a stream may have no end, and its content is not sent
		return
	}
	if reply := c.run(r.Context(), m, payload); reply != nil {
		c.writeReply(m, reply)
	}
}
