package gateway

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/entities"
)

// cors answers what browsers ask about pages of other origins (the CORS protocol of the Fetch
// standard). A page of an allowed origin may send any header, and read every header of a response.
type cors struct {
	origins     []originPattern
	credentials bool
	maxAge      time.Duration
}

// corsMethods are the methods that a page may use.
const corsMethods = "GET, HEAD, POST, PUT, PATCH, DELETE"

// newCORS returns nil where pages of no other origin may call. Patterns that are wrong are left
// out: CORSProblem reports them.
func newCORS(s Settings) *cors {
	c := &cors{credentials: s.CORSCredentials, maxAge: s.CORSMaxAge}
	for _, text := range s.CORSOrigins {
		if p, err := parseOrigin(text); err == nil {
			c.origins = append(c.origins, p)
		}
	}
	if len(c.origins) == 0 {
		return nil
	}
	return c
}

// CORSProblem returns why the origins of the settings are wrong; "" if they are not.
func (s Settings) CORSProblem() string {
	for _, text := range s.CORSOrigins {
		p, err := parseOrigin(text)
		switch {
		case err != nil:
			return err.Error()
		case p.all && s.CORSCredentials:
			return "* cannot be together with cors-credentials: any page could then act for its visitors; list the origins"
		}
	}
	return ""
}

// originPattern is one allowed origin, or a kind of them.
type originPattern struct {
	all, localhost bool
	// scheme, host and port are those of an origin. With below, host stands for every name below
	// it. Port is * for any.
	scheme, host, port string
	below              bool
}

// parseOrigin reads an item of cors-origins. An origin is a scheme and a host alone: one with a
// path, or with a slash at its end, would never match, and is refused.
func parseOrigin(text string) (originPattern, error) {
	switch text {
	case "*":
		return originPattern{all: true}, nil
	case "localhost":
		return originPattern{localhost: true}, nil
	}
	plain, anyPort := strings.CutSuffix(text, ":*")
	u, err := url.Parse(plain)
	if err != nil || u.Scheme == "" || u.Host == "" || u.String() != u.Scheme+"://"+u.Host ||
		anyPort && u.Port() != "" {
		return originPattern{}, badOrigin(text)
	}
	p := originPattern{scheme: strings.ToLower(u.Scheme), port: portOf(u)}
	p.host, p.below = strings.CutPrefix(strings.ToLower(u.Hostname()), "*")
	if anyPort {
		p.port = "*"
	}
	if strings.Contains(p.host, "*") || p.below && !strings.HasPrefix(p.host, ".") {
		return originPattern{}, badOrigin(text)
	}
	return p, nil
}

func badOrigin(text string) error {
	return fmt.Errorf(
		"%q is not an origin: write https://app.example.com, https://*.example.com, http://host:* for any port, localhost, or *",
		text)
}

// portOf returns the port of an origin, empty for that of its scheme, which browsers leave out.
func portOf(u *url.URL) string {
	switch port := u.Port(); {
	case port == "80" && strings.EqualFold(u.Scheme, "http"), port == "443" && strings.EqualFold(u.Scheme, "https"):
		return ""
	default:
		return port
	}
}

// matches compares names and schemes without case, as browsers do. *.example.com has no
// example.com: a policy must not grow by a wildcard.
func (p *originPattern) matches(u *url.URL) bool {
	host := strings.ToLower(u.Hostname())
	switch {
	case p.all:
		return true
	case p.localhost:
		return host == "localhost" || strings.HasSuffix(host, ".localhost") || host == "127.0.0.1" || host == "::1"
	case p.below && (!strings.HasSuffix(host, p.host) || host == p.host):
		return false
	case !p.below && host != p.host:
		return false
	}
	return p.scheme == strings.ToLower(u.Scheme) && (p.port == "*" || p.port == portOf(u))
}

// allows reports whether pages of an origin may call. The origin of a page without one is "null".
func (c *cors) allows(origin string) bool {
	if c == nil {
		return false
	}
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	isOrigin := u.Scheme != "" && u.Host != ""
	return slices.ContainsFunc(c.origins, func(p originPattern) bool { return p.all || isOrigin && p.matches(u) })
}

// enter says in the response what a page may do. It returns the response writer to use, nil if the
// request was a question of the browser and has been answered.
func (c *cors) enter(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
	origin := r.Header.Get("Origin")
	isPreflight := r.Method == http.MethodOptions && origin != "" && r.Header.Get("Access-Control-Request-Method") != ""
	header := w.Header()
	if c != nil { // also where the origin is not allowed, or a cache would answer others with it
		header["Vary"] = varyOrigin
	}
	allowed := origin != "" && c.allows(origin)
	if allowed {
		header.Set("Access-Control-Allow-Origin", origin)
		if c.credentials {
			header.Set("Access-Control-Allow-Credentials", "true")
		}
	}
	switch {
	case isPreflight && allowed:
		c.allowPreflight(header, r.Header)
		w.WriteHeader(http.StatusNoContent)
		return nil
	case isPreflight:
		writePlainError(w, wrongOrigin(origin))
		return nil
	case allowed:
		return &corsWriter{ResponseWriter: w}
	}
	return w
}

// varyOrigin says to caches that the answer depends on the origin.
//
//nolint:gochecknoglobals // a constant
var varyOrigin = []string{"Origin"}

func wrongOrigin(origin string) *entities.Error {
	return &entities.Error{
		Reason: entities.FunctionRefused, Code: uint32(codes.PermissionDenied), Outcome: entities.NotApplied,
		Message: fmt.Sprintf("pages of the origin %q may not call: add it to cors-origins", origin),
	}
}

// allowPreflight allows the method and the headers that a page wants to send.
func (c *cors) allowPreflight(header, asked http.Header) {
	header.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
	header.Set("Access-Control-Allow-Methods", corsMethods)
	if names := strings.Join(asked.Values("Access-Control-Request-Headers"), ", "); names != "" {
		header.Set("Access-Control-Allow-Headers", names)
	}
	header.Set("Access-Control-Max-Age", strconv.Itoa(int(c.maxAge/time.Second)))
}

// corsWriter lets a page of another origin read the headers of a response. Which there are is known
// only when the response begins, and * would not count for a page that sends credentials.
type corsWriter struct {
	http.ResponseWriter
	begun bool
}

// Unwrap is for http.ResponseController.
func (w *corsWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush implements http.Flusher, which grpc-go asks for.
func (w *corsWriter) Flush() {
	w.begin()
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// WriteHeader implements http.ResponseWriter.
func (w *corsWriter) WriteHeader(status int) {
	if status >= http.StatusOK {
		w.begin()
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *corsWriter) Write(p []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(p)
}

// begin exposes the headers. What every page may read does not hurt in the list.
func (w *corsWriter) begin() {
	if w.begun {
		return
	}
	w.begun = true
	var names []string
	for _, name := range slices.Sorted(maps.Keys(w.Header())) {
		if !strings.HasPrefix(name, corsPrefix) && !strings.HasPrefix(name, http.TrailerPrefix) && name != "Vary" && name != "Trailer" {
			names = append(names, strings.ToLower(name))
		}
	}
	if len(names) > 0 {
		w.Header().Set("Access-Control-Expose-Headers", strings.Join(names, ", "))
	}
}

// corsPrefix begins the headers of the policy, which a function must not set.
const corsPrefix = "Access-Control-"
