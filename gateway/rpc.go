package gateway

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
)

// Beginnings of content types.
const (
	contentTypeGRPCWeb       = "application/grpc-web"
	contentTypeGRPCWebText   = "application/grpc-web-text"
	contentTypeConnectStream = "application/connect"
	contentTypeConnectProto  = "application/proto"
	contentTypeJSON          = "application/json"
)

// rpcForm is how a call looks on the wire.
type rpcForm int

const (
	// formPlain is a request of none of the other forms.
	formPlain rpcForm = iota
	// formGRPC is native gRPC on a connection of net/http.
	formGRPC
	formWeb
	// formWebText is gRPC-Web in base64.
	formWebText
	// formConnect is Connect with one message in each direction, formConnectGet the same in a URL,
	// formConnectStream Connect with enveloped messages.
	formConnect
	formConnectGet
	formConnectStream
)

func (f rpcForm) isConnect() bool { return f >= formConnect }

// formOf tells the form of a request. A path is a method's where isMethod says so. A Connect
// request without a version is recognized by its binary content type; with JSON it is plain.
func formOf(r *http.Request, isMethod func(path string) bool) rpcForm {
	media, _ := mediaType(r.Header.Get("Content-Type"))
	base, _, _ := strings.Cut(media, "+")
	switch {
	case base == contentTypeGRPCWebText:
		return formWebText
	case base == contentTypeGRPCWeb:
		return formWeb
	case base == contentTypeGRPC:
		return formGRPC
	case base == contentTypeConnectStream:
		return formConnectStream
	case r.Method == http.MethodGet:
		if isConnectGet(r) && isMethod(r.URL.Path) {
			return formConnectGet
		}
	case r.Header.Get(headerConnectVersion) != "", media == contentTypeConnectProto:
		return formConnect
	}
	return formPlain
}

// mediaType returns a content type in lower case and without parameters, and its charset.
func mediaType(text string) (media, charset string) {
	if text == contentTypeJSON || text == "" { // of most requests
		return text, ""
	}
	media, params, err := mime.ParseMediaType(text)
	if err != nil { // a bad parameter spoils only the parameters
		media, _, _ = strings.Cut(text, ";")
		return strings.ToLower(strings.TrimSpace(media)), ""
	}
	return media, strings.ToLower(params["charset"])
}

// rpcFront serves gRPC-Web, Connect, and gRPC on connections of net/http. It passes calls on to a
// gRPC server with protobuf messages that are not compressed, and writes what the server says in
// the caller's form.
type rpcFront struct {
	server http.Handler
	// method returns the method of a path, nil if the server has none.
	method func(path string) *discovery.Method
	// unknown is the error for a path without a method.
	unknown func(path string) *entities.Error
	json    *jsonCodec
	// limit bounds one request message in bytes of protobuf, textLimit in bytes of JSON.
	limit, textLimit int
	bodyTimeout      time.Duration
}

func (f *rpcFront) isMethod(path string) bool { return f.method(path) != nil }

// newRPCFront returns the front of a generation.
func (s *Server) newRPCFront(g *generation) *rpcFront {
	own := runtimeMethods(g.inner)
	return &rpcFront{
		server: g.inner,
		method: func(path string) *discovery.Method {
			if m := g.catalog.Method(path); m != nil {
				return m
			}
			return own(path)
		},
		unknown:     func(path string) *entities.Error { return s.unknown(unknownMethod(path)) },
		json:        g.json,
		limit:       s.opts.MaxRequest,
		textLimit:   jsonBytes(s.opts.MaxRequest),
		bodyTimeout: s.opts.BodyTimeout,
	}
}

// runtimeMethods looks up the methods of a server whose types are compiled in.
func runtimeMethods(server *grpc.Server) func(path string) *discovery.Method {
	services := server.GetServiceInfo()
	return func(path string) *discovery.Method {
		service, name, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
		if _, served := services[service]; !served {
			return nil
		}
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service + "." + name))
		m, isMethod := d.(protoreflect.MethodDescriptor)
		if err != nil || !isMethod {
			return nil
		}
		return &discovery.Method{
			Name: name, FullName: path, Descriptor: m, Input: m.Input(), Output: m.Output(),
			ClientStreams: m.IsStreamingClient(), ServerStreams: m.IsStreamingServer(),
		}
	}
}

// jsonBytes bounds a message in JSON while it is read. What decides is the size of the protobuf
// message, as in the other protocols; a text of it may be six times as long with escapes alone.
func jsonBytes(limit int) int {
	const jsonGrowth, most = 8, 1 << 30
	return max(limit, min(jsonGrowth*limit, most))
}

// serve answers a call. It works on a copy of the request: net/http must find its own body in its
// request, or it would take the rest of the body for the next request.
func (f *rpcFront) serve(form rpcForm, w http.ResponseWriter, r *http.Request) {
	c := &rpcCall{form: form, w: w, header: http.Header{}}
	if form == formGRPC && r.ProtoMajor < 2 { // HTTP/1.1 has no trailers that gRPC could use
		writeHTTPError(w, http.StatusHTTPVersionNotSupported,
			invalid("gRPC needs HTTP/2: call by HTTP/2, by %s+proto, or by Connect", contentTypeGRPCWeb))
		return
	}
	if allowed := form.httpMethod(); r.Method != allowed {
		w.Header().Set("Allow", allowed)
		c.refuse(http.StatusMethodNotAllowed, wrongMethod(r.Method, r.URL.Path, allowed))
		return
	}
	status, problem := f.accept(c, r)
	if problem != nil {
		c.refuse(status, problem.ForCommand(httpCommandID(r.Header)))
		return
	}
	call, problem := f.request(c, r)
	if problem != nil {
		c.refuse(0, problem.ForCommand(httpCommandID(r.Header)))
		return
	}
	if form == formGRPC {
		f.server.ServeHTTP(w, call)
		return
	}
	f.server.ServeHTTP(c, call)
	c.end()
}

func (f rpcForm) httpMethod() string {
	if f == formConnectGet {
		return http.MethodGet
	}
	return http.MethodPost
}

// accept reads what the headers say of the call. After a problem, status is the HTTP status for a
// form that has one of its own, 0 that of the table.
func (f *rpcFront) accept(c *rpcCall, r *http.Request) (status int, problem *entities.Error) {
	media, charset := mediaType(r.Header.Get("Content-Type"))
	c.contentType = media
	var subtype string
	switch c.form {
	case formConnectGet:
		subtype = r.URL.Query().Get("encoding")
		c.contentType = "application/" + subtype
	case formConnect:
		subtype = strings.TrimPrefix(media, "application/")
	default:
		_, subtype, _ = strings.Cut(media, "+")
		if c.form != formConnectStream {
			subtype = cmp.Or(subtype, subtypeProto)
		}
	}
	if c.form.isConnect() {
		if problem := checkConnectVersion(r); problem != nil {
			return 0, problem
		}
	}
	m := f.method(r.URL.Path)
	if m == nil {
		return http.StatusNotFound, f.unknown(r.URL.Path)
	}
	c.method = m
	switch {
	case subtype == subtypeJSON && c.form == formGRPC: // the server reads and writes it
	case subtype == subtypeJSON && (charset == "" || charset == "utf-8" || !c.form.isConnect()):
		c.json = f.json
	case subtype == subtypeProto:
	default:
		if c.form == formConnectGet {
			return http.StatusUnsupportedMediaType,
				invalid("parameter encoding is %q: use %s or %s", subtype, subtypeProto, subtypeJSON)
		}
		c.w.Header().Set("Accept-Post", c.acceptPost())
		return http.StatusUnsupportedMediaType, invalid("content type %q is not served for %s: use %s",
			cmp.Or(r.Header.Get("Content-Type"), c.contentType), r.URL.Path, c.acceptPost())
	}
	if status, problem := c.checkKind(r); problem != nil {
		return status, problem
	}
	return 0, nil
}

// acceptPost lists the content types of a form.
func (c *rpcCall) acceptPost() string {
	base := map[rpcForm]string{
		formGRPC: contentTypeGRPC + "+", formWeb: contentTypeGRPCWeb + "+", formWebText: contentTypeGRPCWebText + "+",
		formConnectStream: contentTypeConnectStream + "+",
	}[c.form]
	base = cmp.Or(base, "application/")
	return base + subtypeProto + ", " + base + subtypeJSON
}

// request makes the request for the gRPC server: with protobuf messages that are not compressed.
func (f *rpcFront) request(c *rpcCall, r *http.Request) (*http.Request, *entities.Error) {
	header, problem := grpcHeader(r.Header, c.form)
	if problem != nil {
		return nil, problem
	}
	if c.form == formGRPC {
		header["Content-Type"] = []string{c.contentType} // the reply is in the same encoding
	}
	body := &requestBody{ReadCloser: r.Body}
	messages, problem := f.reader(c, r, body)
	if problem != nil {
		return nil, problem
	}
	ctx := context.WithValue(r.Context(), rpcCallKey{}, c)
	if c.method.ClientStreams {
		flow := &inflow{
			body: &messageStream{messageReader: messages, closer: body}, request: body,
			control: http.NewResponseController(c.w), room: f.limit + 2*grpcEnvelopeBytes, changed: make(chan struct{}, 1),
		}
		return asGRPC(context.WithValue(ctx, inflowKey{}, flow), r, header, flow), nil
	}
	payload, problem := messages.only()
	if problem != nil {
		return nil, problem
	}
	return asGRPC(ctx, r, header, io.NopCloser(bytes.NewReader(appendFrame(nil, 0, payload)))), nil
}

type rpcCallKey struct{}

// asGRPC is a call as a gRPC server takes it from net/http.
func asGRPC(ctx context.Context, r *http.Request, header http.Header, body io.ReadCloser) *http.Request {
	call := r.WithContext(ctx)
	call.Method, call.Proto, call.ProtoMajor, call.ProtoMinor = http.MethodPost, "HTTP/2.0", 2, 0
	call.Header, call.Body, call.ContentLength = header, body, -1
	return call
}

// grpcHeader returns the headers of a call for the gRPC server. It refuses what the server would
// refuse in a form that is not the caller's.
func grpcHeader(from http.Header, form rpcForm) (http.Header, *entities.Error) {
	timeout, problem := grpcTimeout(from, form)
	if problem != nil {
		return nil, problem
	}
	header := make(http.Header, len(from)+2)
	for name, values := range from {
		switch name {
		case "Connection", "Content-Length", "Content-Encoding", "Accept-Encoding",
			"Grpc-Timeout", "Grpc-Encoding", "Grpc-Accept-Encoding":
		default:
			if values, problem = binaryValues(name, values); problem != nil {
				return nil, problem
			}
			header[name] = values
		}
	}
	header["Content-Type"], header["Te"] = []string{contentTypeGRPC}, []string{"trailers"}
	if timeout != "" {
		header["Grpc-Timeout"] = []string{timeout}
	}
	return header, nil
}

// binaryValues checks the values of a header. Intermediaries, and browsers, join several values
// with commas; binary ones are split again.
func binaryValues(name string, values []string) ([]string, *entities.Error) {
	if !strings.HasSuffix(name, "-Bin") {
		return values, nil
	}
	var split []string
	for _, joined := range values {
		for value := range strings.SplitSeq(joined, ",") {
			value = strings.TrimRight(strings.TrimSpace(value), "=")
			if _, err := base64.RawStdEncoding.DecodeString(value); err != nil {
				return nil, invalid("header %s is %q: the value of a binary header must be base64", strings.ToLower(name), value)
			}
			split = append(split, value)
		}
	}
	return split, nil
}

// maxTimeoutDigits are the digits that a timeout may have, in gRPC and in Connect.
const maxTimeoutDigits, maxConnectTimeoutDigits = 8, 10

// grpcTimeout returns the caller's deadline as gRPC writes it, "" for none.
func grpcTimeout(header http.Header, form rpcForm) (string, *entities.Error) {
	if form.isConnect() {
		text := header.Get(headerConnectTimeout)
		if text == "" {
			return "", nil
		}
		if !isNumber(text, maxConnectTimeoutDigits) {
			return "", invalid("%s is %q: it must be a number of milliseconds with at most %d digits",
				strings.ToLower(headerConnectTimeout), text, maxConnectTimeoutDigits)
		}
		if len(text) <= maxTimeoutDigits {
			return text + "m", nil
		}
		return text[:len(text)-3] + "S", nil // a thousandth of it, in seconds
	}
	text := header.Get("Grpc-Timeout")
	if text == "" || form == formPlain {
		return "", nil
	}
	if !isNumber(text[:len(text)-1], maxTimeoutDigits) || !strings.Contains("HMSmun", text[len(text)-1:]) {
		return "", invalid("grpc-timeout is %q: it must be a number of at most %d digits and a unit: H, M, S, m, u or n",
			text, maxTimeoutDigits)
	}
	return text, nil
}

// timeoutOf returns a timeout that grpcTimeout has checked.
func timeoutOf(text string) time.Duration {
	last := len(text) - 1
	n, _ := strconv.ParseInt(text[:last], 10, 64) // at most maxTimeoutDigits digits
	unit := map[byte]time.Duration{
		'H': time.Hour, 'M': time.Minute, 'S': time.Second,
		'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
	}[text[last]]
	return time.Duration(min(n, math.MaxInt64/int64(unit))) * unit
}

func isNumber(text string, digits int) bool {
	return text != "" && len(text) <= digits &&
		strings.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' }) < 0
}

// rpcCall is one call in progress. It is the response writer of the gRPC server that runs the call,
// and writes messages and status in the caller's form.
type rpcCall struct {
	form rpcForm
	w    http.ResponseWriter
	// contentType is that of the request, without parameters, and of the reply.
	contentType string
	// method is nil until it is known.
	method *discovery.Method
	// json is nil if messages are protobuf.
	json *jsonCodec

	// header is what the server writes to: first headers, and, after the first message or flush,
	// trailers. lead has the headers then.
	header, lead http.Header
	frames       frameSplitter
	// reply is the message of a response that has only one.
	reply []byte
	// streams: the response has begun.
	begun bool
	// problem is why a reply cannot be printed.
	problem *entities.Error
}

// Header returns what the server says.
func (c *rpcCall) Header() http.Header { return c.header }

// WriteHeader begins a stream whose headers are known before its first message.
func (c *rpcCall) WriteHeader(int) {
	c.leadEnds()
	if c.form != formConnect && c.form != formConnectGet {
		c.begin()
		c.flush()
	}
}

// Flush ends the headers; messages are sent when they are complete.
func (c *rpcCall) Flush() { c.leadEnds() }

// Write takes a part of the server's frames.
func (c *rpcCall) Write(p []byte) (int, error) {
	c.leadEnds()
	c.frames.write(p, c.message)
	return len(p), nil
}

// leadEnds keeps the headers; what the server writes from now on are trailers.
func (c *rpcCall) leadEnds() {
	if c.lead == nil {
		c.lead, c.header = c.header, http.Header{}
	}
}

// message writes one message of the server.
func (c *rpcCall) message(payload []byte) {
	if c.problem != nil {
		return
	}
	if c.json != nil {
		if payload, c.problem = c.json.toJSON(c.method, payload); c.problem != nil {
			return
		}
	}
	if c.form == formConnect || c.form == formConnectGet {
		c.reply = append([]byte{}, payload...)
		return
	}
	c.begin()
	c.writeFrame(0, payload)
	if c.method.ServerStreams {
		c.flush()
	}
}

// begin writes the headers of a response that is a stream of frames.
func (c *rpcCall) begin() {
	if c.begun {
		return
	}
	c.begun = true
	c.writeLead()
	c.w.Header().Set("Content-Type", c.contentType)
	c.w.WriteHeader(http.StatusOK)
}

// writeLead copies the headers of the server, without those of its transport.
func (c *rpcCall) writeLead() {
	for name, values := range c.lead {
		switch name {
		case "Content-Type", "Trailer", "Grpc-Encoding", "Date":
		default:
			for _, value := range values {
				c.w.Header().Add(name, value)
			}
		}
	}
}

func (c *rpcCall) writeFrame(flags byte, payload []byte) {
	frame := appendFrame(make([]byte, 0, grpcEnvelopeBytes+len(payload)), flags, payload)
	if c.form == formWebText {
		frame = base64.StdEncoding.AppendEncode(nil, frame)
	}
	_, _ = c.w.Write(frame) // the caller may have left
}

func (c *rpcCall) flush() { _ = http.NewResponseController(c.w).Flush() }

// ending is how a call ended: its status and trailers, whose names are in lower case.
type ending struct {
	status  *status.Status
	trailer map[string][]string
}

func endingOf(e *entities.Error) ending {
	return ending{status: statusOf(e).Proto(), trailer: map[string][]string{headerOutcome: {e.Outcome.String()}}}
}

func (e ending) failed() bool { return codes.Code(e.status.GetCode()) != codes.OK } //nolint:gosec // a code of gRPC

// ending reads what the server says in its trailers.
func (c *rpcCall) ending() ending {
	if c.problem != nil {
		return endingOf(c.problem)
	}
	code, err := strconv.ParseInt(c.header.Get("Grpc-Status"), 10, 32)
	if err != nil { // a server that was stopped writes nothing
		return endingOf(unavailable("this process is ending: call another one"))
	}
	e := ending{status: &status.Status{Code: int32(code)}, trailer: map[string][]string{}}
	details, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(c.header.Get("Grpc-Status-Details-Bin"), "="))
	if err != nil || proto.Unmarshal(details, e.status) != nil || len(details) == 0 {
		e.status = &status.Status{Message: unescape(c.header.Get("Grpc-Message"))}
	}
	e.status.Code = int32(code)
	for name, values := range c.header {
		if name, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			e.trailer[strings.ToLower(name)] = values
		}
	}
	if e.failed() && e.trailer[headerOutcome] == nil {
		e.trailer[headerOutcome] = []string{outcomeOf(codes.Code(code)).String()} //nolint:gosec // a code of gRPC
	}
	return e
}

// unescape decodes grpc-message.
func unescape(text string) string {
	if plain, err := url.PathUnescape(text); err == nil {
		return plain
	}
	return text
}

// end completes the response.
func (c *rpcCall) end() {
	c.leadEnds()
	c.close(0, c.ending())
}

// refuse answers a call that never ran. httpStatus counts where the form has one of its own; 0
// means that of the table.
func (c *rpcCall) refuse(httpStatus int, e *entities.Error) {
	c.leadEnds()
	c.close(httpStatus, endingOf(e))
}

func (c *rpcCall) close(httpStatus int, e ending) {
	switch c.form {
	case formConnect, formConnectGet:
		c.closeConnect(httpStatus, e)
	case formConnectStream:
		c.closeConnectStream(httpStatus, e)
	case formGRPC:
		c.closeGRPC(e)
	default:
		c.closeWeb(e)
	}
}

// problemOfBody is the error for a body that cannot be read.
func problemOfBody(err error, timeout time.Duration) *entities.Error {
	_, tooLong := errors.AsType[*http.MaxBytesError](err)
	switch {
	case tooLong:
		return entities.Errorf(entities.TooLarge, entities.NotApplied, "the request is too large: %w", err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return invalid("the request's body did not arrive within %s: send it faster, or in smaller requests", timeout)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return invalid("the request's body ends in the middle of a message")
	default:
		return invalid("the request's body cannot be read: %w", err)
	}
}
