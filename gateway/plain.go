package gateway

import (
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/gateway/httprule"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/internal/observe"
)

// plainCall is one plain HTTP request.
type plainCall struct {
	server *Server
	g      *generation
	w      http.ResponseWriter
	// method and header are the request's.
	method string
	header http.Header
	// body is the request's, bounded, and as it was before the caller compressed it.
	body    io.Reader
	bounded boundedBody
	// sse: the caller wants a stream as server-sent events.
	sse bool

	// rule is what the request matched; nil on the generated path.
	rule *httprule.Rule
	// problem is the error to answer instead of a reply; status, if not 0, replaces its HTTP
	// status.
	problem *entities.Error
	status  int
	// ran is true once the function was called.
	ran bool
	// streamed is true once the response is written as a stream; then nothing else may write it.
	streamed bool
}

// fail records the first problem of a call.
func (c *plainCall) fail(e *entities.Error, status int) {
	if c.problem == nil {
		c.problem, c.status = e, status
	}
}

// servePlain answers a plain HTTP request.
func (s *Server) servePlain(g *generation, w http.ResponseWriter, r *http.Request) {
	c := &plainCall{server: s, g: g, w: w, method: r.Method, header: r.Header, sse: acceptsEvents(r.Header)}
	ctx, cancel, problem := withDeadline(r.Context(), r.Header)
	if problem != nil {
		writePlainError(w, problem)
		return
	}
	defer cancel()
	if ctx != r.Context() {
		r = r.WithContext(ctx)
	}
	defer c.recover(r)
	if status, problem := c.prepareBody(r); problem != nil {
		writeHTTPError(w, status, problem)
		return
	}
	if m := g.catalog.Method(r.URL.Path); m != nil {
		c.serveGenerated(m, r)
	} else {
		g.rest.serve(c, r)
	}
	if c.problem != nil && !c.streamed {
		writeHTTPError(w, c.status, c.problem)
	}
}

// recover answers a request whose handling panicked. A panic of net/http goes on.
func (c *plainCall) recover(r *http.Request) {
	cause := recover()
	if cause == nil {
		return
	}
	if cause == http.ErrAbortHandler || mutation.On(mutation.Panics) { //nolint:errorlint // it is passed as it is
		panic(cause)
	}
	c.server.opts.Log.ErrorContext(r.Context(), "panic while an HTTP request was served",
		observe.Command, r.Method+" "+r.URL.Path, observe.Error, cause, "stack", string(debug.Stack()))
	if c.streamed {
		panic(http.ErrAbortHandler)
	}
	outcome := entities.NotApplied
	if c.ran {
		outcome = entities.Unknown
	}
	writePlainError(c.w, entities.Errorf(entities.Internal, outcome,
		"%s %s: the gateway failed: see its log", r.Method, r.URL.Path))
}

// serveGenerated answers POST /<package.Service>/<Method>.
func (c *plainCall) serveGenerated(m *discovery.Method, r *http.Request) {
	if r.Method != http.MethodPost {
		c.w.Header().Set("Allow", http.MethodPost)
		c.fail(wrongMethod(r.Method, r.URL.Path, http.MethodPost), http.StatusMethodNotAllowed)
		return
	}
	if contentType := c.header.Get("Content-Type"); !isJSON(contentType) {
		c.fail(wrongContentType(contentType), http.StatusUnsupportedMediaType)
		return
	}
	data, ok := c.readBody()
	if !ok {
		return
	}
	payload, problem := c.g.json.fromJSON(m, data)
	if problem != nil {
		c.fail(problem, 0)
		return
	}
	if reply := c.run(r.Context(), m, payload); reply != nil {
		c.writeReply(m, reply)
	}
}

// run runs the call. It returns the reply to write: nil after a problem, or if the replies were
// streamed.
func (c *plainCall) run(ctx context.Context, m *discovery.Method, payload []byte) *entities.Reply {
	if limit := c.server.opts.MaxRequest; len(payload) > limit {
		c.fail(tooLarge(limit), 0)
		return nil
	}
	c.ran = true
	env := httpEnvelope(c.header, c.server.opts.App, m)
	if !m.IsUnary() {
		return c.runStream(ctx, m, payload, &env)
	}
	reply, failure := c.server.serve(ctx, m, payload, &env)
	if failure == nil && reply.NoPayload {
		failure = noPayload(m)
	}
	if failure != nil {
		c.fail(failure, 0)
		return nil
	}
	return reply
}

// writeReply writes a whole response.
func (c *plainCall) writeReply(m *discovery.Method, reply *entities.Reply) {
	body, contentType, problem := c.encode(m, reply)
	if problem != nil {
		c.fail(problem, 0)
		return
	}
	header := c.w.Header()
	setReplyHeaders(header, reply)
	c.keepSession(m, reply)
	if header["Content-Type"] = typeJSON; contentType != contentTypeJSON {
		header["Content-Type"] = []string{contentType}
	}
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	_, _ = c.w.Write(body) // the caller may have left
}

// typeJSON is the content type of most responses.
//
//nolint:gochecknoglobals // a constant
var typeJSON = []string{contentTypeJSON}

// prepareBody bounds the request's body in size and time, and decompresses it.
func (c *plainCall) prepareBody(r *http.Request) (int, *entities.Error) {
	limit := jsonBytes(c.server.opts.MaxRequest)
	if r.ContentLength > int64(limit) {
		return 0, tooLarge(limit)
	}
	c.bounded = boundedBody{Reader: timeBody(c.w, r, c.server.opts.BodyTimeout), left: limit}
	c.body = &c.bounded
	encoding := strings.Join(r.Header.Values("Content-Encoding"), ", ")
	switch strings.ToLower(encoding) {
	case "", "identity":
	case "gzip", "x-gzip":
		c.body = &boundedBody{Reader: &lazyGzip{packed: c.body}, left: limit}
	default:
		c.w.Header().Set("Accept-Encoding", "gzip")
		return http.StatusUnsupportedMediaType, invalid("content encoding %q is not served: use gzip, or none", encoding)
	}
	return 0, nil
}

// readBody reads the whole request. It returns false after recording a problem.
func (c *plainCall) readBody() ([]byte, bool) {
	data, err := io.ReadAll(c.body)
	switch {
	case err == nil:
		return data, true
	case errors.Is(err, errTooLarge):
		c.fail(tooLarge(jsonBytes(c.server.opts.MaxRequest)), 0)
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.fail(invalid("the request's body did not arrive within %s: send it faster, or in smaller requests",
			c.server.opts.BodyTimeout),
			http.StatusRequestTimeout)
	default:
		c.fail(invalid("the request's body cannot be read: %w", err), 0)
	}
	return nil, false
}

// timedBody is a body that must arrive by a deadline.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
}

// timeBody sets the time in which a request's body must arrive.
func timeBody(w http.ResponseWriter, r *http.Request, limit time.Duration) io.ReadCloser {
	if r.Body == http.NoBody {
		return r.Body
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(limit)) // network deadlines are on the wall clock
	return &timedBody{ReadCloser: r.Body, control: control}
}

// Read implements io.Reader. After the end there is no deadline: net/http then reads only to notice
// that the caller left. After an error the deadline stays, because net/http reads the rest of the
// body before it answers.
func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

var errTooLarge = errors.New("the request is too large")

func tooLarge(limit int) *entities.Error {
	return entities.Errorf(entities.TooLarge, entities.NotApplied,
		"the request is larger than %d bytes: send less at once, or raise max-request", limit)
}

// boundedBody fails with errTooLarge after so many bytes.
type boundedBody struct {
	io.Reader
	left int
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p[:min(len(p), b.left+1)])
	if b.left -= n; b.left < 0 {
		b.left = 0
		return 0, errTooLarge
	}
	return n, err
}

// lazyGzip begins to decompress with the first Read, so that a body that never comes blocks only
// its reader.
type lazyGzip struct {
	packed   io.Reader
	unpacked *gzip.Reader
}

// Read implements io.Reader.
func (l *lazyGzip) Read(p []byte) (int, error) {
	if l.unpacked == nil {
		var err error
		if l.unpacked, err = gzip.NewReader(l.packed); err != nil {
			return 0, err
		}
	}
	return l.unpacked.Read(p)
}

// withDeadline applies the deadlines in the headers of a plain request.
func withDeadline(ctx context.Context, header http.Header) (context.Context, context.CancelFunc, *entities.Error) {
	text, problem := grpcTimeout(header, formConnect)
	if problem != nil {
		return nil, nil, problem
	}
	ctx, cancel, problem := withServerTimeout(ctx, header[canonicalNames[atServerTimeout]])
	if problem != nil || text == "" {
		return ctx, cancel, problem
	}
	ctx, cancelSooner := context.WithTimeout(ctx, timeoutOf(text))
	return ctx, func() { cancelSooner(); cancel() }, nil
}

// isJSON reports whether a content type is JSON, which is also the default.
func isJSON(contentType string) bool {
	if contentType == "" || contentType == contentTypeJSON {
		return true
	}
	media, params, err := mime.ParseMediaType(contentType)
	return err == nil && media == contentTypeJSON &&
		(params["charset"] == "" || strings.EqualFold(params["charset"], "utf-8"))
}

// acceptsEvents reports whether a caller wants server-sent events.
func acceptsEvents(header http.Header) bool {
	for _, value := range header["Accept"] {
		for wanted := range strings.SplitSeq(value, ",") {
			media, params, err := mime.ParseMediaType(wanted)
			if err != nil || media != contentTypeEvents {
				continue
			}
			quality, err := strconv.ParseFloat(cmp.Or(params["q"], "1"), 64)
			return err == nil && quality > 0
		}
	}
	return false
}

func wrongContentType(contentType string) *entities.Error {
	return invalid("content type %q is not served here: send content-type: %s", contentType, contentTypeJSON)
}

func wrongMethod(method, path, allowed string) *entities.Error {
	return entities.Errorf(entities.UnknownMethod, entities.NotApplied, "%s %s is not served: use %s", method, path,
		allowed)
}

// writePlainError writes an error according to the table.
func writePlainError(w http.ResponseWriter, e *entities.Error) { writeHTTPError(w, 0, e) }

// writeHTTPError is the last step of a plain HTTP call that did not succeed. httpStatus 0 means
// that of the table.
func writeHTTPError(w http.ResponseWriter, httpStatus int, e *entities.Error) {
	v := verdictOf(e)
	if httpStatus == 0 {
		httpStatus = v.http
	}
	body, contentType := append(errorBody(e), '\n'), contentTypeJSON
	if v.bare {
		body, contentType = []byte(e.Message), "text/plain; charset=utf-8"
	}
	header := w.Header()
	for _, name := range []string{"Content-Encoding", "Trailer"} { // a transcoder may have set them
		header.Del(name)
	}
	header.Set("Content-Type", contentType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set(headerOutcome, e.Outcome.String())
	if e.RetryAfter > 0 {
		header.Set("Retry-After", strconv.FormatInt(retryAfterSeconds(e.RetryAfter), 10))
	}
	w.WriteHeader(httpStatus)
	_, _ = w.Write(body) // the caller may have left
}

// errorBody returns an error as google.rpc.Status in JSON.
func errorBody(e *entities.Error) []byte {
	encoded, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(statusOf(e).Proto())
	if err != nil { // the message is not UTF-8
		return fmt.Appendf(nil, `{"code":%d,"message":"","details":[]}`, verdictOf(e).code)
	}
	return httprule.Compact(encoded)
}
